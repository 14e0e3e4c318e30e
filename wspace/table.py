"""Reports as tables, on the terminal or as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wspace.uses import Section

ORDER = (
    "oracle", "generated", "ridge", "retrieval", "zoo-mean", "base", "universal", "noise", "mismatched", "random",
)  # fmt: skip
"""Methods as a reader wants them: the bound, ours, then opponents from strong to weak by their nature."""

WIDTH = 160  # columns at most, where no terminal says otherwise

Cells = tuple[list[str], list[list[str]]]
"""A head and lines."""


def print_table(report: Mapping[str, Any], markdown: bool = False) -> None:
    """The table of a run: accuracy (%) with intervals for each split, then what else was measured, on unseen tasks."""
    title = f"{report['recipe']}, seed {report['seed']}"
    scores = {(s["method"], s["split"], s["metric"]): s for s in report["scores"]}
    splits = list(dict.fromkeys(split for _, split, _ in scores))
    found = list(dict.fromkeys(method for method, _, _ in scores))
    methods = sorted(found, key=lambda m: ORDER.index(m) if m in ORDER else len(ORDER))
    head = ["method", *(f"{split}: accuracy %" for split in splits)]
    lines = [[m, *(_percent(scores.get((m, split, "accuracy"))) for split in splits)] for m in methods]
    _show((head, lines), markdown, title, _is_generated)
    others = [metric for metric in dict.fromkeys(metric for _, _, metric in scores) if metric != "accuracy"]
    if others:
        about = "unseen-tasks" if "unseen-tasks" in splits else splits[0]
        cells = [[m, *(_number(scores.get((m, about, metric))) for metric in others)] for m in methods]
        _show((["method", *others], [line for line in cells if any(line[1:])]), markdown, f"{about}, other metrics")


def print_study(report: Mapping[str, Any], markdown: bool = False) -> None:
    """The table of a study: a line for each row, over seeds; and the differences of its rows."""
    rows = report["rows"]
    splits = list(dict.fromkeys(row["split"] for row in rows))
    labels = list(dict.fromkeys(row["label"] for row in rows))
    by_place = {(row["label"], row["split"]): row for row in rows}
    head, lines = ["accuracy %"], [[label] for label in labels]
    for split in splits:
        with_paper = any(row["paper"] is not None for row in rows if row["split"] == split)
        head += [split, "paper"] if with_paper else [split]
        for line in lines:
            row = by_place.get((line[0], split))
            line.append(_percent(row))
            if with_paper:
                line.append("" if row is None or row["paper"] is None else f"{row['paper']:.2f}")
    seeds = ", ".join(map(str, report["seeds"]))
    _show((head, lines), markdown, f"{report['study']}: mean over seeds {seeds}")
    pairs = list(dict.fromkeys((row["label"], row["minus"]) for row in report["differences"]))
    differences = {(row["label"], row["minus"], row["split"]): row for row in report["differences"]}
    lines = [[f"{a} - {b}", *(_percent(differences.get((a, b, s)), signed=True) for s in splits)] for a, b in pairs]
    _show((["paired difference, points", *splits], lines), markdown, "")


def print_section(section: Section, markdown: bool = False) -> None:
    """The tables of a study, and what came out in words."""
    from wspace.uses import percent

    for table in section.tables:
        own = {row.name for row in table.rows if row.own}
        lines = [
            [row.name, *(percent(row.cells[c], form) if c in row.cells else "" for c, form in table.columns.items())]
            for row in table.rows
        ]
        _show((["", *table.columns], lines), markdown, table.title, lambda line, own=own: line[0] in own)
    for sentence in section.says:
        print(sentence)


def _show(cells: Cells, markdown: bool, title: str, bold: Callable[[Sequence[str]], bool] | None = None) -> None:
    head, lines = cells
    if markdown:
        print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
        for line in lines:
            shown = [f"**{cell}**" if cell and bold and bold(line) else cell for cell in line]
            print("| " + " | ".join(shown) + " |")
        print()
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left")
    for number, name in enumerate(head):
        table.add_column(name, justify="right" if number else "left")
    for line in lines:
        escaped = [cell.replace("[", "\\[") for cell in line]
        table.add_row(*escaped, style="bold" if bold and bold(line) else None)
    Console(width=None if Console().is_terminal else WIDTH).print(table)


def _is_generated(line: Sequence[str]) -> bool:
    return line[0] == "generated"


def _percent(score: Mapping[str, Any] | None, signed: bool = False) -> str:
    if score is None:
        return ""
    sign = "+" if signed else ""
    return f"{100 * score['mean']:{sign}.1f} [{100 * score['ci_low']:.1f}, {100 * score['ci_high']:.1f}]"


def _number(score: Mapping[str, Any] | None) -> str:
    return "" if score is None else f"{score['mean']:.3g}"
