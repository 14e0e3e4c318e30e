"""The report as one HTML page that needs nothing else: no script, no network, no file beside it.

Words and numbers are made here; the markup is in `templates`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

from wspace.runs.report.figures import TITLES, splits_of
from wspace.runs.report.methods import Methods
from wspace.runs.report.section import Figure, Form, Section, percent
from wspace.support.methods import MISMATCHED, OURS
from wspace.support.quantities import counted
from wspace.support.templates import template

CAPTIONS = {
    "scores": "Accuracy on test images: mean over tasks, and its {confidence} interval. Lines: the oracle and the "
    "universal head, for reference. Splits have axes of their own, of one scale; an arrow stands for a value beyond one.",
    "differences": "Generated minus each method on the same tasks and images, with {confidence} intervals of the mean "
    "difference. An arrow stands for a value beyond the axis.",
    "tasks": "Every dot is an unseen task. Above the diagonal the generated head does better than the other method.",
    "by_pictures": "Tasks of unseen classes, of which so many pictures are given with each name: mean accuracy over the same "
    "tasks, and its {confidence} interval. Pictures are training images. Dotted: generated from the names alone.",
    "training": "Above: loss. Below: accuracy of generated heads on validation images of held-out tasks; what does "
    "best there is kept. A generator on the dashed line is worth no more than the mean of the zoo.",
    "trajectory": "Accuracy along the denoising steps, on test images of the first unseen tasks: after each step, of the "
    "heads that would result were it the last; mean over tasks, and its {confidence} interval. The dashed line is the "
    "oracle on the same tasks. Temperature scales the noise that a draw starts from; seen from pure noise, a head is the "
    "mean of what the texts leave open, and the steps after make one draw of it.",
    "frontier": "Every dot is a network: its accuracy against its novelty. A line is the best accuracy that a method has "
    "beyond each novelty. Dashed: what counts as accurate; dotted, as far as networks go: 1, 2 and 4 times the zoo's own "
    "distance.",
    "pictures": "Test pictures of one unseen task, evenly over its classes, as its generated head names them.",
}


PACKAGE = "wspace.runs.report"
"""Whose templates these are."""

USES = "<!-- studies made since the run ended -->"
"""Where the page has room for them."""


def with_sections(page: str, sections: Sequence[Section]) -> str:
    """A page of `render`, and what was studied since."""
    studies = template(PACKAGE, "studies.html.j2").render(studies=[_study(section) for section in sections])
    return page.replace(USES, f"{USES}\n{studies}", 1)


def render(
    report: Mapping[str, Any],
    figures: Mapping[str, str],
    recipe_yaml: str,
    versions: Mapping[str, str],
    methods: Methods,
    sections: Sequence[Section] = (),
) -> str:
    """The page. `figures`: data URIs by name (those of CAPTIONS get one); `sections` come after them."""
    confidence = f"{100 * report['confidence']:g} %"
    return template(PACKAGE, "page.html.j2").render(
        title=f"{report['recipe']}, seed {report['seed']}",
        headline=headline(report, methods),
        note=_note(report, confidence),
        scores=_scores(report["scores"], methods),
        figures=[Figure(name, _caption(name, report, confidence), uri) for name, uri in figures.items()],
        studies=[_study(section) for section in sections],
        room_for_studies=USES,
        methods=[(name, methods.what(name)) for name in _in_order(report["scores"], methods)],
        left_out=report.get("left_out", {}),
        collapsed=report["training"]["collapsed"],
        training=_training(report["training"], report.get("chosen", {})),
        seconds=_seconds(report["seconds"], report.get("peak_mib", {})),
        recipe=recipe_yaml,
        versions=list(versions.items()),
    )


class Report(dict[str, Any]):
    """A run's report, as `wspace report --json` prints it. A notebook shows its first sentences and its scores."""

    def __init__(self, content: Mapping[str, Any], methods: Methods):
        super().__init__(content)
        self._methods = methods

    @property
    def headline(self) -> str:
        """The result in words, as its intervals have it."""
        return headline(self, self._methods)

    def _repr_html_(self) -> str:
        return template(PACKAGE, "report.html.j2").render(
            title=f"{self['recipe']}, seed {self['seed']}",
            headline=self.headline,
            note=_note(self, f"{100 * self['confidence']:g} %"),
            scores=_scores(self["scores"], self._methods),
        )


def figures_in(page: str) -> list[Figure]:
    """The figures of a page of `render`."""
    reader = _Figures()
    reader.feed(page)
    return [Figure(name, caption.strip(), uri) for name, uri, caption in reader.seen]


class _Figures(HTMLParser):
    """Reads what the template `figure` of `parts.html.j2` writes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[str]] = []  # name, picture and caption of each
        self.in_caption = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag == "figure":
            self.seen.append([attributes["id"], "", ""])
        elif tag == "img":
            self.seen[-1][1] = attributes["src"]
        self.in_caption = tag == "figcaption"

    def handle_data(self, data: str) -> None:
        if self.in_caption:
            self.seen[-1][2] += data

    def handle_endtag(self, tag: str) -> None:
        self.in_caption = False


def headline(report: Mapping[str, Any], methods: Methods) -> str:
    """The result in words, as its intervals have it."""
    scores = [row for row in report["scores"] if row["metric"] == "accuracy"]
    if not scores:
        return "No accuracy was measured."
    split = splits_of(scores)[0]
    ours = next(row for row in scores if row["split"] == split and row["method"] == OURS)
    rows = _differences(report, split)
    named = [rows[name] for name in methods.headline if name in rows]
    parts = [_compared(row, methods, " points" if row is named[0] else "") for row in named]
    sentence = f"Generated heads reach {_percent(ours['mean'])} % on {TITLES.get(split, split)}"
    sentence += f": {', '.join(parts)}." if parts else "."
    unbeaten = [
        methods.called(name) for name, row in rows.items() if name not in methods.headline and not row["ci_low"] > 0
    ]
    if unbeaten:
        sentence += f" They are not measurably better than {_listed(unbeaten, 'or')}."
    return sentence


def _differences(report: Mapping[str, Any], split: str) -> dict[str, Mapping[str, Any]]:
    return {
        row["method"]: row for row in report["differences"] if row["metric"] == "accuracy" and row["split"] == split
    }


def _compared(row: Mapping[str, Any], methods: Methods, unit: str) -> str:
    mean, low, high = row["mean"], row["ci_low"], row["ci_high"]
    name = methods.called(row["method"])
    if low > 0:
        return f"{_percent(mean)}{unit} [{_percent(low)}, {_percent(high)}] above {name}"
    if high < 0:
        return f"{_percent(-mean)}{unit} [{_percent(-high)}, {_percent(-low)}] below {name}"
    return f"not measurably different from {name} ({_percent(mean)}{unit} [{_percent(low)}, {_percent(high)}])"


def _note(report: Mapping[str, Any], confidence: str) -> str:
    scores = [row for row in report["scores"] if row["metric"] == "accuracy"]
    if not scores:
        return ""
    split = splits_of(scores)[0]
    worth = _differences(report, split).get(MISMATCHED)
    text = ""
    if worth is not None and worth["ci_low"] > 0:
        interval = f"[{_percent(worth['ci_low'])}, {_percent(worth['ci_high'])}]"
        text = (
            f"Given the texts of another task, the same generator loses {_percent(worth['mean'])} points {interval}. "
        )
    tasks = next(row["n"] for row in scores if row["split"] == split)
    return text + (
        f"In brackets: {confidence} intervals, bootstrap over {counted(tasks, 'task')}; differences are paired, on the same "
        "tasks and test images. One seed: the spread over seeds is not in them."
    )


# ---------------------------------------------------------------- what the templates are given


Cell = tuple[str, str] | None
"""A mean and its interval, as they are written; None where nothing was measured."""


@dataclass(frozen=True)
class Line:
    """A row of numbers."""

    name: str
    cells: Sequence[Cell]
    own: bool


def _study(section: Section) -> dict[str, Any]:
    settings = [f"{name} {_setting(value)}" for name, value in section.settings.items()]
    tables = [
        {
            "title": table.title,
            "columns": list(table.columns),
            "rows": [
                Line(row.name, [written(row.cells.get(name), form) for name, form in table.columns.items()], row.own)
                for row in table.rows
            ],
        }
        for table in section.tables
    ]
    return {
        "use": section.use,
        "title": section.title,
        "says": section.says,
        "tables": tables,
        "figures": section.figures,
        "settings": ", ".join(settings),
    }


def _setting(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def written(cell: Mapping[str, float] | None, form: Form) -> Cell:
    """Of a mean and its interval: both, as a page has them; of one value "" for the interval."""
    if cell is None:
        return None
    mean, _, interval = percent(cell, form).replace("-", "−").partition(" ")
    return mean, interval


def _scores(scores: Sequence[Mapping[str, Any]], methods: Methods) -> dict[str, Any]:
    """Accuracy on every split; the other metrics on the first alone, or the table would be wider than any screen."""
    measured = {(row["method"], row["metric"], row["split"]): row for row in scores}
    tasks = {row["split"]: row["n"] for row in scores}
    splits = splits_of(scores)
    shown = {metric: splits if metric == "accuracy" else splits[:1] for metric in _metrics(scores)}
    columns = [(metric, split) for metric, of_metric in shown.items() for split in of_metric]
    return {
        "groups": [
            {"title": f"{metric} (%)" if metric == "accuracy" else metric, "width": len(of_metric)}
            for metric, of_metric in shown.items()
        ],
        "columns": [{"title": TITLES.get(split, split), "tasks": tasks[split]} for _, split in columns],
        "rows": [
            Line(
                method,
                [_score(measured.get((method, metric, split))) for metric, split in columns],
                method == OURS,
            )
            for method in _in_order(scores, methods)
        ],
    }


def _metrics(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    """Accuracy first, whatever the recipe's order."""
    return sorted(dict.fromkeys(row["metric"] for row in scores), key=lambda metric: metric != "accuracy")


def _score(row: Mapping[str, Any] | None) -> Cell:
    if row is None:
        return None
    written = _percent if row["metric"] == "accuracy" else _significant
    return written(row["mean"]), f"[{written(row['ci_low'])}, {written(row['ci_high'])}]"


def _caption(name: str, report: Mapping[str, Any], confidence: str) -> str:
    caption = CAPTIONS.get(name, name).replace("{confidence}", confidence)
    if name == "pictures" and "pictures" in report:
        shown = report["pictures"]
        caption += (
            f" {shown['right']} of the {shown['shown']} are right; of all {counted(shown['images'], 'test image')} of this "
            f"task, {_percent(shown['accuracy'])} %. Its {len(shown['classes'])} classes: {', '.join(shown['classes'])}."
        )
    return caption


def _training(training: Mapping[str, Any], chosen: Mapping[str, Any]) -> list[tuple[str, str]]:
    steps = (
        ", ".join(f"{count:,} ({phase})" for phase, count in training["steps"].items()) or "none: closed forms alone"
    )
    return [
        ("parameters of the generator", f"{training['parameters']:,}"),
        ("steps", steps),
        ("accuracy of generated heads", f"{_percent(training['validation_accuracy'])} %"),
        ("accuracy of the zoo's mean", f"{_percent(training['validation_accuracy_of_zoo_mean'])} %"),
        *((f"chosen: {name.replace('_', ' ')}", f"{value:g}") for name, value in chosen.items()),
    ]


def _seconds(seconds: Mapping[str, float], memory: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Of each stage, time and the most memory; reports of before 0.2 have no memory."""
    lines = [(stage, _duration(value), _mib(memory.get(stage))) for stage, value in seconds.items()]
    return [*lines, ("together", _duration(sum(seconds.values())), _mib(max(memory.values(), default=None)))]


# ---------------------------------------------------------------- words and numbers


def _in_order(scores: Sequence[Mapping[str, Any]], methods: Methods) -> list[str]:
    return sorted(dict.fromkeys(row["method"] for row in scores), key=methods.place)


def _listed(names: Sequence[str], word: str) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"


def _percent(value: float) -> str:
    text = f"{100 * value:.1f}"
    return "0.0" if text == "-0.0" else text.replace("-", "−")


def _significant(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _mib(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} MiB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"
