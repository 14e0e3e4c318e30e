"""The report as one HTML page that needs nothing else: no script, no network, no file beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from wspace.runs.report.figures import TITLES, splits_of
from wspace.runs.report.methods import COMPARED, METHODS, ORDER
from wspace.runs.report.section import Section, Table, percent

CAPTIONS = {
    "scores": "Accuracy on test images: mean over tasks, and its {confidence} interval. Lines: the oracle and the "
    "universal head, for reference.",
    "differences": "Generated minus each method on the same tasks and images, with {confidence} intervals of the mean "
    "difference. An arrow stands for a value beyond the axis.",
    "tasks": "Every dot is an unseen task. Above the diagonal the generated head does better than the other method.",
    "training": "Above: loss. Below: accuracy of generated heads on validation images of held-out tasks; what does "
    "best there is kept. A generator on the dashed line is worth no more than the mean of the zoo.",
    "trajectory": "Accuracy along the denoising steps, on test images of the first unseen tasks: after each step, of the "
    "heads that would result were it the last; mean over tasks, and its {confidence} interval. The dashed line is the "
    "oracle on the same tasks. Temperature scales the noise that a draw starts from; seen from pure noise, a head is the "
    "mean of what the texts leave open, and the steps after make one draw of it.",
    "pictures": "Test pictures of one unseen task, evenly over its classes, as its generated head names them.",
}


USES = "<!-- studies made since the run ended -->"
"""Where the page has room for them."""


def with_sections(page: str, sections: Sequence[Section]) -> str:
    """A page of `render`, and what was studied since."""
    return page.replace(USES, "\n".join([USES, *map(_section, sections)]), 1)


def render(report: Mapping[str, Any], figures: Mapping[str, str], recipe_yaml: str, versions: Mapping[str, str]) -> str:
    """The page. `figures`: data URIs by name (those of CAPTIONS get one)."""
    confidence = f"{100 * report['confidence']:g} %"
    title = f"{report['recipe']}, seed {report['seed']}"
    body = [
        f"<header><p class=kicker>wspace report</p><h1>{escape(title)}</h1>",
        f"<p class=headline>{escape(headline(report))}</p>",
        f"<p class=note>{escape(_note(report, confidence))}</p></header>",
        f"<section><h2>Scores</h2>{_scores(report['scores'])}</section>",
        "<section><h2>Figures</h2>",
        *(_figure(name, uri, _caption(name, report, confidence)) for name, uri in figures.items()),
        "</section>",
        USES,
        f"<section><h2>Methods</h2>{_methods(report['scores'])}</section>",
        f"<section><h2>Training</h2>{_training(report['training'], report.get('chosen', {}))}</section>",
        f"<section><h2>Time</h2>{_seconds(report['seconds'])}</section>",
        "<section><details><summary>Recipe, every default filled in</summary>",
        f"<pre>{escape(recipe_yaml)}</pre></details>",
        f"<details><summary>Versions and machine</summary>{_table((), versions.items())}</details></section>",
    ]
    return PAGE.format(title=escape(title), style=STYLE, body="\n".join(body))


def headline(report: Mapping[str, Any]) -> str:
    """The result in words, as its intervals have it."""
    scores = [row for row in report["scores"] if row["metric"] == "accuracy"]
    if not scores:
        return "No accuracy was measured."
    split = splits_of(scores)[0]
    own = next(row for row in scores if row["split"] == split and row["method"] == "generated")
    rows = _differences(report, split)
    named = [rows[name] for name in COMPARED if name in rows]
    parts = [_compared(row, " points" if row is named[0] else "") for row in named]
    sentence = f"Generated heads reach {_percent(own['mean'])} % on {TITLES.get(split, split)}"
    sentence += f": {', '.join(parts)}." if parts else "."
    unbeaten = [_name(name) for name, row in rows.items() if name not in COMPARED and not row["ci_low"] > 0]
    if unbeaten:
        sentence += f" They are not measurably better than {_listed(unbeaten, 'or')}."
    return sentence


def _differences(report: Mapping[str, Any], split: str) -> dict[str, Mapping[str, Any]]:
    return {
        row["method"]: row for row in report["differences"] if row["metric"] == "accuracy" and row["split"] == split
    }


def _compared(row: Mapping[str, Any], unit: str) -> str:
    mean, low, high = row["mean"], row["ci_low"], row["ci_high"]
    name = _name(row["method"])
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
    worth = _differences(report, split).get("mismatched")
    text = ""
    if worth is not None and worth["ci_low"] > 0:
        interval = f"[{_percent(worth['ci_low'])}, {_percent(worth['ci_high'])}]"
        text = (
            f"Given the texts of another task, the same generator loses {_percent(worth['mean'])} points {interval}. "
        )
    tasks = next(row["n"] for row in scores if row["split"] == split)
    return text + (
        f"In brackets: {confidence} intervals, bootstrap over {tasks} tasks; differences are paired, on the same tasks "
        "and test images. One seed: the spread over seeds is not in them."
    )


# ---------------------------------------------------------------- parts of the page


def _section(section: Section) -> str:
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in section.says)
    settings = ", ".join(f"{name} {_told(value)}" for name, value in section.settings.items())
    parts = [f'<section id="{escape(section.use, quote=True)}"><h2>{escape(section.title)}</h2>{said}']
    parts += map(_table_of, section.tables)
    parts += [_figure(f"{section.use}-{f.name}", f.uri, f.caption) for f in section.figures]
    return "".join([*parts, f"<p class=note>{escape(settings)}</p></section>"])


def _told(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _table_of(table: Table) -> str:
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in ("", *table.columns))
    lines = []
    for row in table.rows:
        cells = "".join(_use_cell(row.cells.get(name), form) for name, form in table.columns.items())
        own = " class=own" if row.own else ""
        lines.append(f"<tr{own}><th scope=row>{escape(row.name)}</th>{cells}</tr>")
    rows = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<h3>{escape(table.title)}</h3><div class="scroll numbers"><table>{rows}</table></div>'


def _use_cell(cell: Mapping[str, float] | None, form: Any) -> str:
    if cell is None:
        return "<td></td>"
    mean, interval = percent(cell, form).replace("-", "−").split(" ", 1)
    return f"<td>{mean} <small>{interval}</small></td>"


def _scores(scores: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy on every split; the other metrics on the first alone, or the table would be wider than any screen."""
    found = {(row["method"], row["metric"], row["split"]): row for row in scores}
    tasks = {row["split"]: row["n"] for row in scores}
    splits = splits_of(scores)
    measured = {metric: splits if metric == "accuracy" else splits[:1] for metric in _metrics(scores)}
    columns = [(metric, split) for metric, shown in measured.items() for split in shown]
    groups = "".join(
        f"<th colspan={len(shown)} scope=colgroup>{escape(metric)}{' (%)' if metric == 'accuracy' else ''}</th>"
        for metric, shown in measured.items()
    )
    names = "".join(
        f"<th scope=col>{escape(TITLES.get(split, split))}<small>{tasks[split]} tasks</small></th>"
        for _, split in columns
    )
    lines = []
    for method in _in_order(scores):
        cells = "".join(_cell(found.get((method, metric, split))) for metric, split in columns)
        own = " class=own" if method == "generated" else ""
        lines.append(f"<tr{own}><th scope=row>{escape(method)}</th>{cells}</tr>")
    head = f"<thead><tr><th rowspan=2 scope=col>method</th>{groups}</tr><tr>{names}</tr></thead>"
    return f'<div class="scroll numbers"><table>{head}<tbody>{"".join(lines)}</tbody></table></div>'


def _metrics(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    """Accuracy first, whatever the recipe's order."""
    return sorted(dict.fromkeys(row["metric"] for row in scores), key=lambda metric: metric != "accuracy")


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "<td></td>"
    shown = _percent if row["metric"] == "accuracy" else _significant
    interval = f"[{shown(row['ci_low'])}, {shown(row['ci_high'])}]"
    return f"<td>{shown(row['mean'])} <small>{interval}</small></td>"


def _figure(name: str, uri: str, caption: str) -> str:
    alt = escape(f"{name}: {caption}", quote=True)
    image = f'<div class="plate scroll"><img src="{escape(uri, quote=True)}" alt="{alt}"></div>'
    return f'<figure id="{escape(name, quote=True)}">{image}<figcaption>{escape(caption)}</figcaption></figure>'


def _caption(name: str, report: Mapping[str, Any], confidence: str) -> str:
    caption = CAPTIONS.get(name, name).replace("{confidence}", confidence)
    if name == "pictures" and "pictures" in report:
        shown = report["pictures"]
        caption += (
            f" {shown['right']} of the {shown['shown']} are right; of all {shown['images']} test images of this task, "
            f"{_percent(shown['accuracy'])} %. Its {len(shown['classes'])} classes: {', '.join(shown['classes'])}."
        )
    return caption


def _methods(scores: Sequence[Mapping[str, Any]]) -> str:
    lines = [(name, METHODS[name].is_ if name in METHODS else "") for name in _in_order(scores)]
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(meaning)}</dd>" for name, meaning in lines)
    return f"<p>All are scored on the same tasks and the same test images.</p><dl>{items}</dl>"


def _training(training: Mapping[str, Any], chosen: Mapping[str, Any]) -> str:
    steps = (
        ", ".join(f"{count:,} ({phase})" for phase, count in training["steps"].items()) or "none: closed forms alone"
    )
    lines = [
        ("parameters of the generator", f"{training['parameters']:,}"),
        ("steps", steps),
        ("accuracy of generated heads", f"{_percent(training['validation_accuracy'])} %"),
        ("accuracy of the zoo's mean", f"{_percent(training['validation_accuracy_of_zoo_mean'])} %"),
        *((f"chosen: {name.replace('_', ' ')}", f"{value:g}") for name, value in chosen.items()),
    ]
    meaning = (
        "Accuracies are of held-out seen tasks on validation images, on which every choice is made: which average of "
        "the parameters is kept, ridge's penalty. A generator no better than the zoo's mean ignores its texts."
    )
    warning = "<p class=warning>The generator collapsed: it ignores its texts.</p>" if training["collapsed"] else ""
    return f"{warning}{_table((), lines)}<p class=note>{meaning}</p>"


def _seconds(seconds: Mapping[str, float]) -> str:
    lines = [(name, _duration(value)) for name, value in seconds.items()]
    return _table(("stage", "time"), [*lines, ("together", _duration(sum(seconds.values())))])


def _table(head: Sequence[str], lines: Any) -> str:
    titles = "".join(f"<th scope=col>{escape(title)}</th>" for title in head)
    body = "".join(
        f"<tr><th scope=row>{escape(str(key))}</th><td>{escape(str(value))}</td></tr>" for key, value in lines
    )
    top = f"<thead><tr>{titles}</tr></thead>" if head else ""
    return f"<div class=scroll><table>{top}<tbody>{body}</tbody></table></div>"


# ---------------------------------------------------------------- words and numbers


def _in_order(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    found = dict.fromkeys(row["method"] for row in scores)
    return sorted(found, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


def _name(method: str) -> str:
    return METHODS[method].called if method in METHODS else method


def _listed(names: Sequence[str], word: str) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"


def _percent(value: float) -> str:
    text = f"{100 * value:.1f}"
    return "0.0" if text == "-0.0" else text.replace("-", "−")


def _significant(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"


STYLE = """
:root { color-scheme: light dark; --paper: #fbfbf9; --card: #ffffff; --ink: #1c1d1f; --soft: #5b5f66; --line: #dcdcd6;
  --own: #e3f0f8; --mark: #0072b2; --warn: #b34700; }
@media (prefers-color-scheme: dark) { :root { --paper: #15171a; --card: #1d2024; --ink: #e9eaec; --soft: #a6abb3;
  --line: #363b42; --own: #16324a; --mark: #6fc0f0; --warn: #ffab66; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif;
  overflow-wrap: break-word; }
main { max-width: 52rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .8rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.6rem 0 .6rem; }
.kicker { margin: 0; color: var(--mark); font-size: .85rem; font-weight: 600; letter-spacing: .04em; }
.headline { font-size: 1.25rem; line-height: 1.45; margin: 0 0 .8rem; padding-left: .9rem;
  border-left: 4px solid var(--mark); }
.note, figcaption, small { color: var(--soft); }
.note, figcaption { font-size: .92rem; }
.warning { color: var(--warn); font-weight: 600; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .8rem .35rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
tbody th { font-weight: 400; }
.numbers { background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.numbers table { width: 100%; border-collapse: separate; border-spacing: 0; }
.numbers th, .numbers td { padding: .4rem .8rem; white-space: nowrap; text-align: right; }
.numbers th:first-child { text-align: left; }
.numbers thead th[colspan] { text-align: center; border-left: 1px solid var(--line); }
.numbers thead tr:last-child th { text-align: right; font-weight: 400; }
.numbers small { display: block; line-height: 1.2; }
.numbers tbody th { position: sticky; left: 0; background: var(--card); }
.numbers tbody tr:last-child > * { border-bottom: 0; }
.numbers .own > * { background: var(--own); font-weight: 650; }
.numbers .own small { font-weight: 400; }
figure { margin: 1.6rem 0 2.4rem; }
.plate { background: #ffffff; border: 1px solid var(--line); border-radius: 8px; padding: .6rem; }
.plate img { display: block; width: 100%; max-width: 40rem; height: auto; margin: 0 auto; }
figcaption { margin-top: .5rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .35rem 1.2rem; margin: 0; }
dt { font-weight: 600; }
dd { margin: 0; }
details { margin: 1.4rem 0 0; }
summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; font-size: .85rem; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .8rem; }
@media (max-width: 34rem) { .headline { font-size: 1.1rem; } dl { display: block; } dd { margin: 0 0 .6rem; }
  .plate { padding: .2rem; }
  #pictures img, section[id] figure:not(#plot-space-map) img { width: 34rem; max-width: none; } }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
