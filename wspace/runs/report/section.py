"""A section of a run's report: tables, figures and sentences of one study."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from wspace.support.files import disk_errors, read_json, write_bytes, write_json
from wspace.support.names import RUN, USES

Form = Literal["percent", "points", "number"]
"""How a column's values are written: fractions as %, differences of fractions as signed points, or as they are."""


@dataclass(frozen=True)
class Row:
    """A line of a table: one method, and what was measured of it."""

    name: str  # in the first column
    cells: Mapping[str, Mapping[str, float]]  # column -> mean, ci_low, ci_high, n; no cell: not measured
    own: bool = False  # what the study is about, set off from what it is compared with


@dataclass(frozen=True)
class Table:
    """One mean with its interval for each row and column."""

    title: str  # the line above it
    columns: Mapping[str, Form]  # name -> "percent" of a fraction, "points" of a difference of fractions, or "number"
    rows: Sequence[Row]  # in the order in which they are shown


@dataclass(frozen=True)
class Figure:
    """A picture in a section."""

    name: str  # part of its file's name
    caption: str  # a sentence, shown below it
    uri: str = field(repr=False)  # a PNG: "data:image/png;base64,..."


@dataclass(frozen=True)
class Section:
    """A study's result."""

    use: str  # the command that made it; part of a file's name
    title: str  # the heading in the report
    says: Sequence[str]  # what came out, a sentence each, whether it flatters or not
    settings: Mapping[str, Any]  # what the command was run with, as JSON
    tables: Sequence[Table] = ()  # below the sentences, in this order
    figures: Sequence[Figure] = ()  # below the tables

    def as_json(self) -> dict[str, Any]:
        """All but the pictures."""
        tables = [
            {
                "title": table.title,
                "columns": dict(table.columns),
                "rows": [{"name": row.name, "own": row.own, "cells": dict(row.cells)} for row in table.rows],
            }
            for table in self.tables
        ]
        figures = [{"name": figure.name, "caption": figure.caption} for figure in self.figures]
        head = {"use": self.use, "title": self.title, "says": list(self.says), "settings": dict(self.settings)}
        return head | {"tables": tables, "figures": figures}

    def save(self, run: Path) -> Path:
        """Beside the run's artifacts: JSON, and each figure as a PNG. An earlier study of this use is replaced.

        Gives the JSON file. Raises DiskError where it cannot be written.
        """
        folder = run / USES
        with disk_errors(folder):
            folder.mkdir(exist_ok=True)
            for figure in self.figures:
                write_bytes(_picture(folder, self.use, figure.name), base64.b64decode(figure.uri.partition(",")[2]))
            write_json(folder / f"{self.use}.json", {"of": _generator_of(run), **self.as_json()})
        return folder / f"{self.use}.json"

    @classmethod
    def load(cls, file: Path) -> Section:
        """A section that `save` wrote, from its JSON file. Raises FileError."""
        raw = read_json(file)
        tables = [Table(t["title"], t["columns"], [Row(**row) for row in t["rows"]]) for t in raw["tables"]]
        figures = [
            Figure(f["name"], f["caption"], _encoded(_picture(file.parent, raw["use"], f["name"])))
            for f in raw["figures"]
        ]
        return cls(raw["use"], raw["title"], raw["says"], raw["settings"], tables, figures)


def sections(run: Path) -> list[Section]:
    """Of all studies made of a run's generator as it is now, by name; those of an earlier one no longer count."""
    files = sorted((run / USES).glob("*.json"))
    return [Section.load(file) for file in files if read_json(file).get("of") == _generator_of(run)]


def _generator_of(run: Path) -> str:
    """The artifact a study stands on."""
    return read_json(run / RUN)["stages"]["train"]


def percent(cell: Mapping[str, float], form: Form = "percent") -> str:
    """As sentences and tables write it: 81.9 [81.3, 82.6]; of one value, which has no interval, 81.9."""
    if form == "number":
        mean, low, high = (
            f"{v:.0f}" if abs(v) >= 100 else f"{v:.3g}" for v in (cell[k] for k in ("mean", "ci_low", "ci_high"))
        )
    else:
        sign = "+" if form == "points" else ""
        mean, low, high = (
            f"{100 * cell['mean']:{sign}.1f}",
            f"{100 * cell['ci_low']:.1f}",
            f"{100 * cell['ci_high']:.1f}",
        )
    return mean if cell.get("n") == 1 else f"{mean} [{low}, {high}]"


def _picture(folder: Path, use: str, name: str) -> Path:
    return folder / f"{use}-{name}.png"


def _encoded(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode("ascii")
