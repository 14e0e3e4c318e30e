"""Reports as tables, on the terminal or as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

from wspace.data.splits import AS_READ, PICTURES
from wspace.support import terminal
from wspace.support.methods import OURS

if TYPE_CHECKING:
    from rich.console import Console

    from wspace.runs.report.methods import Methods
    from wspace.runs.report.section import Section

UNLIMITED = 10_000  # columns, where output is no terminal's

Cells = tuple[list[str], list[list[str]]]
"""A head and lines."""


def print_table(report: Mapping[str, Any], table: Methods, markdown: bool = False) -> None:
    """The tables of a run: accuracy (%) with intervals for each split, then what else was measured, on unseen tasks.

    Splits that belong together have a table: the usual ones, those of so many unseen classes, and those of the same tasks with
    pictures, where methods that look at none are left out.
    """
    scores = {(s["method"], s["split"], s["metric"]): s for s in report["scores"]}
    splits = _in_order((split for _, split, _ in scores), AS_READ)
    methods = sorted(dict.fromkeys(method for method, _, _ in scores), key=table.place)
    title, groups = f"{report['recipe']}, seed {report['seed']}", [list(group) for _, group in groupby(splits, _group)]
    for group in groups:
        base, pictured, _ = group[0].rpartition(PICTURES)
        lines = [[m, *(_percent(scores.get((m, split, "accuracy"))) for split in group)] for m in methods]
        if pictured:
            by_words = {m: _percent(scores.get((m, base, "accuracy"))) for m in methods}
            lines = [line for line in lines if {*line[1:]} != {by_words[line[0]]}]
        lines = [line for line in lines if any(line[1:])]
        notes = [f"methods that look at no pictures: as in {base}"] if pictured else []
        notes += [_note(report["scores"], report, "tasks")] if group is groups[-1] else []
        _show((["accuracy %", *group], lines), markdown, title if group is groups[0] else "", "\n".join(notes))
    others = [metric for metric in dict.fromkeys(metric for _, _, metric in scores) if metric != "accuracy"]
    if others:
        about = splits[0]
        cells = [[m, *(_number(scores.get((m, about, metric))) for metric in others)] for m in methods]
        _show(([about, *others], [line for line in cells if any(line[1:])]), markdown)
    _print_draws(report, table, markdown)


def _print_draws(report: Mapping[str, Any], table: Methods, markdown: bool) -> None:
    """How many networks are accurate and new at once, in columns where any is; and what went wrong with what was drawn."""
    from wspace.runs.report.draws import said_of_draws

    measured = report.get("accurate_and_new") or {"rows": []}
    rows = {(row["method"], row["split"], row["beyond"]): row["mean"] for row in measured["rows"]}
    some = dict.fromkeys((split, beyond) for (_, split, beyond), mean in rows.items() if mean)
    columns = [column for split in _in_order((of for of, _ in some), AS_READ) for column in some if column[0] == split]
    if columns:
        methods = sorted(dict.fromkeys(method for method, _, _ in rows), key=table.place)
        lines = [[m, *(f"{100 * rows[m, split, beyond]:.1f}" for split, beyond in columns)] for m in methods]
        note = (
            f"accurate: at least {100 * measured['share']:g} % of the zoo's own accuracy; new: farther from the zoo than so "
            "many times its networks' own distance"
        )
        if left_out := _of_none(rows, some):
            note += f"\nleft out, as no network of any method is accurate and new there: {left_out}"
        _show((["accurate and new, %", *(f"{split}, beyond {n}" for split, n in columns)], lines), markdown, note=note)
    elif rows:
        print(terminal.beside("", "accurate and new: no network of any method"))
    for sentence in said_of_draws(report):
        print(terminal.beside("", sentence))


def _of_none(rows: Iterable[tuple[str, str, float]], some: Container[tuple[str, float]]) -> str:
    """Of rows (method, split, beyond), the columns in which none is: "unseen-tasks beyond 2, 4; seen beyond 4"."""
    beyond: dict[str, list[str]] = {}
    for split, number in dict.fromkeys((split, number) for _, split, number in rows):
        if (split, number) not in some:
            beyond.setdefault(split, []).append(f"{number:g}")
    return "; ".join(f"{split} beyond {', '.join(beyond[split])}" for split in _in_order(beyond, AS_READ))


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
    notes = [of_each(report.get("each", {}), rows), _note(rows, report, "seeds and the tasks of each")]
    note = "\n".join(filter(None, notes))
    _show((head, lines), markdown, f"{report['study']}: mean over seeds {seeds}", note)
    _print_generators(report.get("generators", []), markdown)
    pairs = list(dict.fromkeys((row["label"], row["minus"]) for row in report["differences"]))
    differences = {(row["label"], row["minus"], row["split"]): row for row in report["differences"]}
    lines = [[f"{a} - {b}", *(_percent(differences.get((a, b, s)), signed=True) for s in splits)] for a, b in pairs]
    if lines:
        _show((["paired difference, points", *splits], lines), markdown)


def of_each(each: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> str:
    """What the values are that labels end with: line -> its setting; "" where no label ends with any."""
    if not each or not any(row["label"].endswith(row["variant"]) for row in rows):
        return ""
    lines = {setting: ", ".join(line for line in each if each[line] == setting) for setting in each.values()}
    said = [setting if len(lines) == 1 else f"{setting} ({of})" for setting, of in lines.items()]
    return f"after the last comma: {', '.join(said)}" if said else ""


def _print_generators(rows: Sequence[Mapping[str, Any]], markdown: bool) -> None:
    """Not of studies made before that was measured."""
    if rows:
        head, lines = of_generators(rows)
        _show((["generator", *head], lines), markdown)


def of_generators(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """What each generator of a study costs, and how new its networks are: heads of columns; lines, a label first."""
    scales = {
        "parameters": ("parameters", 1.0, ",.0f"),
        "train_seconds": ("training, s", 1.0, ".0f"),
        "seconds_per_network": ("drawing one, ms", 1000.0, ".3g"),
        "bytes": ("MiB", 2**-20, ".1f"),
    }
    head = [f"novelty on {rows[0]['split']}", *(title for title, _, _ in scales.values())]
    lines = [
        [row["label"], _number(row["novelty"])]
        + ["" if row.get(name) is None else f"{row[name] * scale:{form}}" for name, (_, scale, form) in scales.items()]
        for row in rows
    ]
    return head, lines


def _group(split: str) -> str:
    """What splits of one table have in common: so many classes, or the tasks that pictures come with."""
    if split in AS_READ:
        return ""
    base, pictured, _ = split.rpartition(PICTURES)
    return base if pictured else split.rpartition("-")[2]


def _in_order(names: Iterable[str], order: Sequence[str]) -> list[str]:
    return sorted(dict.fromkeys(names), key=lambda name: order.index(name) if name in order else len(order))


def _note(rows: Sequence[Mapping[str, Any]], report: Mapping[str, Any], over: str) -> str:
    """What the brackets are."""
    counts = {row["split"]: row["n"] for row in rows}
    tasks = ", ".join(f"{counts[split]} {split}" for split in _in_order(counts, AS_READ))
    return f"{100 * report['confidence']:g} % intervals, by bootstrap over {over}: {tasks}" if rows else ""


def print_section(section: Section, markdown: bool = False) -> None:
    """The tables of a study, and what came out in words."""
    from wspace.runs.report.section import percent

    for table in section.tables:
        set_off = {row.name for row in table.rows if row.own}
        lines = [
            [row.name, *(percent(row.cells[c], form) if c in row.cells else "" for c, form in table.columns.items())]
            for row in table.rows
        ]
        _show((["", *table.columns], lines), markdown, table.title, bold=lambda line, names=set_off: line[0] in names)
    for sentence in section.says:
        print(terminal.beside("", sentence))


def _show(
    cells: Cells,
    markdown: bool,
    title: str = "",
    note: str = "",
    bold: Callable[[Sequence[str]], bool] = lambda line: line[0] == OURS,
) -> None:
    head, lines = cells
    if markdown:
        print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
        for line in lines:
            shown = [f"**{cell}**" if cell and bold(line) else cell for cell in line]
            print("| " + " | ".join(shown) + " |")
        print()
        return
    from rich.console import Console

    width = terminal.width() or UNLIMITED
    console = Console(width=width, height=25)  # without a height, rich takes a plain terminal to have 80 columns
    if title:
        console.print(title, style="italic", markup=False, highlight=False)
    parts = _fitting(cells, width)
    if parts is None:
        _print_blocks(cells, width)
    else:
        for part in parts:
            _print_grid(part, [bold(line) for line in lines], console)
    if note:
        console.print(note, markup=False, highlight=False)


def _fitting(cells: Cells, width: int) -> list[Cells] | None:
    """The table as one or several of at most this width, each with the first column; None if not two columns fit."""
    head, lines = cells
    wide = [max(cell_len(cell) for cell in column) + 3 for column in zip(head, *lines, strict=True)]  # with its borders
    parts, room = [[0]], width - 1 - wide[0]
    left = room
    for number, columns in enumerate(wide[1:], start=1):
        if columns > room:
            return None
        if columns > left:
            parts.append([0])
            left = room
        parts[-1].append(number)
        left -= columns
    return [([head[n] for n in part], [[line[n] for n in part] for line in lines]) for part in parts]


def _print_grid(cells: Cells, bold: Sequence[bool], console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for number, name in enumerate(cells[0]):
        table.add_column(Text(name), justify="right" if number else "left", no_wrap=True)
    for line, is_bold in zip(cells[1], bold, strict=True):
        table.add_row(*map(Text, line), style="bold" if is_bold else None)
    console.print(table)


def _print_blocks(cells: Cells, width: int) -> None:
    """A line of the table as a block of lines: its name, and below it each column that has something to say."""
    (corner, *head), lines = cells
    title_width = max(map(cell_len, head)) + 2
    beside = 2 + title_width + max(cell_len(value) for _, *values in lines for value in values) <= width
    if corner:
        print(corner)
    for name, *values in lines:
        print(name)
        for title, value in zip(head, values, strict=True):
            if value:
                print(
                    f"  {title}{' ' * (title_width - cell_len(title))}{value}" if beside else f"  {title}\n    {value}"
                )


def _percent(score: Mapping[str, Any] | None, signed: bool = False) -> str:
    if score is None:
        return ""
    mean, low, high = (round(100 * score[name], 1) + 0.0 for name in ("mean", "ci_low", "ci_high"))  # no "-0.0"
    return f"{mean:{'+' if signed else ''}.1f} [{low:.1f}, {high:.1f}]"


def _number(score: Mapping[str, Any] | None) -> str:
    return "" if score is None else f"{score['mean']:.3g}"
