"""The report of a study as one HTML page: its table, its differences, and accuracy along a number if it is of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wspace.runs.report.figures import TITLES, accuracy_along_numbers
from wspace.runs.report.page import PACKAGE, Line, written
from wspace.runs.report.section import Figure
from wspace.runs.report.table import of_each, of_generators
from wspace.support.methods import OURS
from wspace.support.templates import template


def study_page(report: Mapping[str, Any]) -> str:
    """Of a study's report, as `wspace report --json` prints it."""
    rows, differences = report["rows"], report["differences"]
    confidence, seeds = f"{100 * report['confidence']:g} %", ", ".join(map(str, report["seeds"]))
    alone = len(report["seeds"]) == 1
    parts = [_part("accuracy", "Accuracy", [_table("One seed (%)" if alone else "Mean over seeds (%)", rows, "label")])]
    if "along" in report:
        along = report["along"]
        path = along["path"]
        caption = (
            f"Accuracy on test images against {path}, on a logarithmic axis: mean over seeds, {confidence} interval."
        )
        if None in along["values"].values():
            caption += " A variant without such a number stands apart at the right."
        drawn = accuracy_along_numbers(rows, path, along["values"], along.get("lines"))
        parts.insert(0, _part("along", f"Accuracy along {path}", figures=[Figure("figure", caption, drawn)]))
    if report.get("generators"):  # not of studies made before that was measured
        head, lines = of_generators(report["generators"])
        table = {"title": "Of what is generated", "columns": head, "rows": [_plain(line) for line in lines]}
        parts.append(_part("generators", "Generators", [table]))
    if differences:
        named = [row | {"pair": f"{row['label']} − {row['minus']}"} for row in differences]
        title = "Paired differences over seeds and tasks (percentage points)"
        parts.append(_part("differences", "Differences", [_table(title, named, "pair", signed=True)]))
    over = f"the tasks of seed {seeds}, the only one" if alone else f"seeds {seeds} and the tasks of each"
    note = f"In brackets: {confidence} intervals, by bootstrap over {over}."
    if values := of_each(report.get("each", {}), rows):
        note += f" In names, {values}."
    return template(PACKAGE, "study.html.j2").render(title=report["study"], note=note, studies=parts)


def _part(
    name: str, title: str, tables: Sequence[Mapping[str, Any]] = (), figures: Sequence[Figure] = ()
) -> dict[str, Any]:
    """As `studies.html.j2` shows it."""
    return {"use": name, "title": title, "says": (), "tables": tables, "figures": figures, "settings": ""}


def _plain(line: Sequence[str]) -> Line:
    """A label, and cells without an interval."""
    label, *cells = line
    return Line(label, [(cell, "") if cell else None for cell in cells], False)


def _table(title: str, rows: Sequence[Mapping[str, Any]], name: str, signed: bool = False) -> dict[str, Any]:
    """A line for each `name`, a column for each split, and one for a paper's figures beside it."""
    measured = {(row[name], row["split"]): row for row in rows}
    splits = dict.fromkeys(row["split"] for row in rows)
    printed = {row["split"] for row in rows if row.get("paper") is not None}
    alike = all(row.get("method") == OURS for row in rows)  # then none is set off from the others
    lines = []
    for line in dict.fromkeys(row[name] for row in rows):
        cells: list[tuple[str, str] | None] = []
        for split in splits:
            row = measured.get((line, split))
            cells.append(None if row is None else written(row, "points" if signed else "percent"))
            if split in printed:
                paper = None if row is None else row["paper"]
                cells.append(None if paper is None else (f"{paper:.2f}", ""))
        own = not alike and any(row.get("method") == OURS for row in rows if row[name] == line)
        lines.append(Line(line, cells, own))
    columns = [
        head for split in splits for head in (TITLES.get(split, split), *(["paper"] if split in printed else []))
    ]
    return {"title": title, "columns": columns, "rows": lines}
