"""What people write beside weights: NAME.json, NAME.txt, or one CSV for a whole folder."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from wspace.interfaces import Description
from wspace.support.errors import FileError, did_you_mean
from wspace.support.invalid import lowered

COLUMNS = ("file", "text", "classes", "seed", "parent")
"""Of a CSV. `text` may have several lines, a sentence each; `classes` are separated by `;`; other columns are metrics."""


@dataclass(frozen=True)
class _Sidecar:
    """NAME.json."""

    texts: tuple[str, ...] | str = ()
    classes: tuple[str, ...] = ()
    metrics: dict[str, float] | None = None
    seed: int | None = None
    parent: str | None = None


class Sidecars:
    """The descriptions of one folder's networks. docs/zoo-format.md has their form. For importers, to read them by.

    Raises FileError for a CSV that cannot be used, and for two of them.
    """

    def __init__(self, root: Path):
        self._root, self._csv, self._rows = root, None, dict[str, Description]()
        tables = sorted(root.glob("*.csv"))
        if len(tables) > 1:
            raise FileError(
                f"{root}: has {tables[0].name} and {tables[1].name}: keep the one CSV that says what was trained"
            )
        if tables:
            self._csv = tables[0]
            self._rows = _table(self._csv)

    def of(self, path: Path, known: frozenset[str]) -> Description | None:
        """Of the network in this file or folder; None where nothing lies beside it.

        path: in the folder. known: the names under which a CSV may list networks, relative to the folder.
        Raises FileError for what cannot be read, a CSV that lists a stranger, or one that leaves this network out.
        """
        if self._csv is not None:
            name = path.relative_to(self._root).as_posix()
            strangers = [row for row in self._rows if row not in known]
            if strangers:
                hint = did_you_mean(strangers[0], sorted(known)).partition(" Known:")[0]
                raise FileError(f"{self._csv}: lists {strangers[0]!r}, which is not in the folder.{hint}")
            if name not in self._rows:
                raise FileError(f"{self._csv}: does not list {name!r}")
            return self._rows[name]
        beside = path if path.is_dir() else path.with_suffix("")
        written = beside.with_name(f"{beside.name}.json")
        if written.is_file():
            return _json(written)
        plain = beside.with_name(f"{beside.name}.txt")
        return _text(plain) if plain.is_file() else None


def _text(file: Path) -> Description:
    try:
        return Description(texts=_lines(file.read_text(encoding="utf-8")))
    except UnicodeDecodeError as error:
        raise FileError(f"{file}: not text in UTF-8") from error


def _json(file: Path) -> Description:
    try:
        read = TypeAdapter(_Sidecar).validate_json(file.read_bytes(), strict=True)
    except ValidationError as error:
        detail = error.errors()[0]
        where = ".".join(map(str, detail["loc"][:1]))
        raise FileError(f"{file}: {where or 'it'}: {lowered(detail['msg'])}") from error
    texts = _lines(read.texts) if isinstance(read.texts, str) else read.texts
    metrics = read.metrics or {}
    if not all(map(isfinite, metrics.values())):
        raise FileError(f"{file}: metrics: must be finite numbers")
    return Description(texts, read.classes, metrics, read.seed, read.parent)


def _table(file: Path) -> dict[str, Description]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"{file}: not a CSV in UTF-8") from error
    described: dict[str, Description] = {}
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise FileError(f"{file}:{number}: has not as many fields as the first line")
        if "file" not in row:
            raise FileError(f"{file}: has no column 'file'; its columns are {', '.join(row)}")
        name = row["file"].strip()
        if name in described:
            raise FileError(f"{file}:{number}: lists {name!r} a second time")
        described[name] = _row(row, f"{file}:{number}")
    return described


def _row(row: dict[str, Any], where: str) -> Description:
    metrics: dict[str, float] = {}
    for column, value in row.items():
        if column in COLUMNS or not value.strip():
            continue
        try:
            metrics[column] = float(value)
        except ValueError:
            raise FileError(f"{where}: {column} is {value!r}; a column of that name holds a metric, a number") from None
        if not isfinite(metrics[column]):
            raise FileError(f"{where}: {column} is {value!r}; a metric is a finite number")
    seed = (row.get("seed") or "").strip()
    if seed and not seed.isdecimal():
        raise FileError(f"{where}: seed is {seed!r}, not a whole number")
    classes = tuple(" ".join(name.split()) for name in (row.get("classes") or "").split(";") if name.strip())
    if len(classes) == 1 and "," in classes[0]:
        raise FileError(f"{where}: classes is {classes[0]!r}, which is one class: put ; between two")
    parent = (row.get("parent") or "").strip() or None
    return Description(_lines(row.get("text") or ""), classes, metrics, int(seed) if seed else None, parent)


def _lines(text: str) -> tuple[str, ...]:
    return tuple(" ".join(line.split()) for line in text.splitlines() if line.strip())
