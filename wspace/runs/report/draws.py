"""Sections of a run's report on its drawn networks: which are accurate and new at once, and whether they collapsed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wspace.runs.report.figures import TITLES, splits_of
from wspace.runs.report.methods import Methods
from wspace.runs.report.section import Figure, Form, Row, Section, Table, percent
from wspace.support.methods import OURS

COLLAPSED = 0.5
"""Root mean square of drawn tokens over that of real ones, below which draws at full temperature have collapsed."""

SIZE, ALONE, WORTH = "RMS of drawn to real tokens", "predictor alone (%)", "drawn minus that (points)"


LARGER = 1.5
"""The same ratio, above which the report says what it may come from."""


def sections_on_draws(report: Mapping[str, Any], methods: Methods, figures: Sequence[Figure] = ()) -> list[Section]:
    """Those that a report has something for; `figures` go with the first."""
    made = [_accurate_and_new(report, methods, figures), _drawing(report)]
    return [section for section in made if section is not None]


def _accurate_and_new(report: Mapping[str, Any], methods: Methods, figures: Sequence[Figure]) -> Section | None:
    measured = report.get("accurate_and_new")
    if not measured:  # no accuracy was, or it is older than this
        return None
    rows, share = measured["rows"], f"{100 * measured['share']:g} %"
    tables, none = list[Table](), list[str]()
    for split in splits_of(rows):
        of_split = [row for row in rows if row["split"] == split]
        if not any(row["mean"] for row in of_split):
            none.append(_title(split))
            continue
        cells = {
            method: {_beyond(row): row for row in of_split if row["method"] == method}
            for method in sorted({row["method"] for row in of_split}, key=methods.place)
        }
        columns: dict[str, Form] = {_beyond(row): "percent" for row in of_split}
        least = percent_of(measured["share"] * measured["of_zoo"][split])
        title = f"accurate and new (%), {_title(split)}: at least {least} %, and so many times its own distance from the zoo"
        tables.append(Table(title, columns, [Row(name, of, own=name == OURS) for name, of in cells.items()]))
    says = [
        f"Accurate is a network with at least {share} of the accuracy that the zoo's own have on the task, or the oracle on "
        "tasks that the zoo has none for. New is one that is farther from the zoo than so many times its own distance: the "
        "median of that of its networks to their nearest other one. Distances are up to the recipe's symmetry, if it has one."
    ]
    if none:
        says.append(f"No network of any method is both on {' or '.join(none)}.")
    return Section("accurate-and-new", "Accurate and new", says, {}, tables, figures)


def _drawing(report: Mapping[str, Any]) -> Section | None:
    draws = report.get("draws")
    if draws is None:  # older than this
        return None
    cells: dict[str, dict[str, Any]] = {}
    for row in draws["rms"]:
        cells.setdefault(row["split"], {})[SIZE] = row
    for row in draws["drawing"]:
        cells.setdefault(row["split"], {})[ALONE] = row["alone"]
        cells[row["split"]][WORTH] = row
    forms: dict[str, Form] = {SIZE: "number", ALONE: "percent", WORTH: "points"}
    columns: dict[str, Form] = {name: form for name, form in forms.items() if any(name in of for of in cells.values())}
    rows = [Row(_title(split), cells[split]) for split in splits_of([{"split": split} for split in cells])]
    table = Table("of what is generated", columns, rows)
    return Section("draws", "What drawing does", said_of_draws(report, every=True), {}, [table] if columns else [])


def said_of_draws(report: Mapping[str, Any], every: bool = False) -> list[str]:
    """Sentences: what went wrong with the draws, if anything; `every`: and what there is to know of them otherwise."""
    draws = report.get("draws")
    if draws is None:
        return []
    says, temperature = list[str](), draws["temperature"]
    for row in draws["rms"]:
        if temperature >= 1 and row["ci_high"] < COLLAPSED:
            says.append(
                f"The draws have collapsed on {_title(row['split'])}: the root mean square of their tokens is "
                f"{percent(row, 'number')} of real ones', where 1 is right."
            )
    verdicts = {
        "is worth nothing measurable": lambda row: row["ci_low"] <= 0 <= row["ci_high"],
        "costs accuracy": lambda row: row["ci_high"] < 0,
    }
    for verdict, holds in verdicts.items():
        rows = {row["split"]: row for row in draws["drawing"] if holds(row)}
        if rows:
            parts = [
                f"{_title(split)} {percent(rows[split], 'points')} points, where that reaches "
                f"{percent_of(rows[split]['alone']['mean'])} %"
                for split in splits_of([*rows.values()])
            ]
            says.append(
                f"Drawing, at temperature {temperature:g}, {verdict} beside the predictor alone: {'; '.join(parts)}."
            )
    if not every:
        return says
    if not draws["rms"]:
        says.append("Tokens are codes, whose size means nothing.")
    elif any(row["ci_low"] > LARGER for row in draws["rms"]):
        says.append(
            "Tokens are larger than real ones': what learns from images lies farther from the zoo than the zoo's networks do "
            "from each other, and its novelty says no more than that."
        )
    elif temperature < 1 and all(row["ci_high"] < 1 for row in draws["rms"]):
        says.append(
            f"Networks are drawn at temperature {temperature:g}, so that their tokens are smaller than real ones' by nature."
        )
    if not draws["drawing"]:
        says.append("The generator has no predictor beside what draws, so there is none to set the draws beside.")
    return says


def percent_of(value: float) -> str:
    return f"{100 * value:.1f}"


def _beyond(row: Mapping[str, Any]) -> str:
    return f"beyond {row['beyond']}"


def _title(split: str) -> str:
    return TITLES.get(split, split)
