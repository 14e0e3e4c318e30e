"""Whether accuracies lie where `generate` expects them: on fresh tasks of every kind, that the report did not score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wspace.data.tasks import Task, near_and_far, task_of
from wspace.data.twins import held_together, twins
from wspace.learning.expectation import FEWEST, Expectation
from wspace.learning.fitting import accuracies
from wspace.runs.report.drawing import BLUE, GREEN, GREY, INK, ORANGE, TEXT, VERMILLION, dress, encoded, new_figure
from wspace.runs.report.intervals import summary
from wspace.runs.report.section import Figure, Form, Row, Section, Table, percent
from wspace.runs.run import Run
from wspace.support.errors import UserError
from wspace.support.quantities import counted
from wspace.support.seeding import stream

MIXED = "mixed"
TRIES = 50  # for each task: of few classes, most that are drawn were scored, or drawn before
INSIDE, MEASURED, OFF, APART, WIDTH = (
    "in the interval",
    "accuracy",
    "expected - accuracy",
    "off by",
    "width of intervals",
)
COLUMNS: dict[str, Form] = {INSIDE: "percent", MEASURED: "percent", OFF: "points", APART: "percent", WIDTH: "percent"}


@dataclass(frozen=True)
class Expected:
    """A fresh task: what `generate` expects of it, and what came."""

    kind: str  # of its classes
    ways: int
    expectation: Expectation
    accuracy: float

    @property
    def inside(self) -> bool:
        return self.expectation.low <= self.accuracy <= self.expectation.high


def study(run: Run, *, tasks: int, seed: int) -> Section:
    """Accuracy on test images against the interval that `generate` gives, on so many fresh tasks.

    Their classes are known, near, far, or some known and some not (mixed), each kind as likely; they have as few as two, and
    as many as the report scored at most, small and large numbers alike (log-uniform). None of the tasks was scored.

    Raises UserError for a report of which nothing can be expected, and where nothing is left to draw.
    """
    run.zoo.check(run.bench.accepted)
    drawn = fresh_tasks(run, tasks, seed)
    expectations = [expected for task in drawn if (expected := run.expected_accuracy(run.names_of(task))) is not None]
    if not expectations:
        raise UserError(f"nothing is expected of this run: its report scores fewer than {FEWEST} tasks, or no accuracy")
    weights = run.sample(list(drawn), stream(seed, "expectation"))
    measured = accuracies(run.target, weights, list(drawn), run.bench.test, run.bench.class_texts).tolist()
    scored = [
        Expected(kind, len(task), expected, accuracy)
        for (task, kind), expected, accuracy in zip(drawn.items(), expectations, measured, strict=True)
    ]
    return _section(run, scored, tasks, seed)


def fresh_tasks(run: Run, count: int, seed: int) -> dict[Task, str]:
    """Task -> kind of its classes; fewer than `count` where there are no more. Raises UserError where there are none."""
    known = run.zoo.tasks.classes
    near, far = near_and_far(run.zoo.classes, known)
    pools: dict[str, Sequence[int]] = {"known": known, "near": near, "far": far, MIXED: (*known, *near, *far)}
    kinds = [kind for kind, pool in pools.items() if len(pool) > (len(known) if kind == MIXED else 1)]
    scored = {task for split in run.zoo.tasks.splits for task in run.zoo.tasks.scored(split)}
    most, groups = max(map(len, scored)), twins(run.zoo.class_texts)
    rng, drawn, ordered = stream(seed, "expectation tasks"), dict[Task, str](), run.zoo.tasks.ordered
    for _ in range(TRIES * count):
        kind = kinds[int(torch.randint(len(kinds), (), generator=rng))]
        ways = _log_uniform(2, min(most, len(pools[kind])), rng)
        if kind == MIXED:
            others = min(int(torch.randint(1, ways, (), generator=rng)), len(near) + len(far))
            task = task_of([*_some(known, ways - others, rng), *_some((*near, *far), others, rng)], ordered)
        else:
            task = task_of(_some(pools[kind], ways, rng), ordered)
        if task not in scored and not held_together([task], groups):
            drawn.setdefault(task, kind)
        if len(drawn) == count:
            break
    if not drawn:
        raise UserError("the report scores every task that can be made of the data set's classes: none is left to draw")
    return drawn


def _log_uniform(least: int, most: int, rng: torch.Generator) -> int:
    drawn = least * ((most + 1) / least) ** float(torch.rand((), generator=rng))
    return min(int(drawn), most)


def _some(classes: Sequence[int], count: int, rng: torch.Generator) -> list[int]:
    return [classes[place] for place in torch.randperm(len(classes), generator=rng)[:count].tolist()]


def _section(run: Run, scored: Sequence[Expected], asked: int, seed: int) -> Section:
    everything = _cells(run, scored)
    claimed, inside = scored[0].expectation.confidence, everything[INSIDE]
    low, high = inside["ci_low"], inside["ci_high"]
    verdict = "too often" if low > claimed else "too seldom" if high < claimed else "as often as it says"
    says = [
        f"The accuracy lies in the {claimed:.0%} interval that `generate` gives in {percent(inside)} % of "
        f"{counted(len(scored), 'fresh task')}: {verdict}. The interval is binomial, and takes tasks for independent, "
        "though they share classes.",
        f"Expected accuracies are {percent(everything[OFF], 'points')} points from measured ones in the mean; a single one is "
        f"off by {percent(everything[APART])}.",
    ]
    guessed = [task for task in scored if task.expectation.guessed]
    if guessed:
        says.append(
            f"Of {len(guessed)} tasks `generate` says that it guesses, for the report scores none of so few classes: of these "
            f"{sum(task.inside for task in guessed)} are in the interval."
        )
    kinds = dict.fromkeys(("known", "near", "far", MIXED))
    if missing := [kind for kind in kinds if all(task.kind != kind for task in scored)]:
        says.append(f"No tasks of kind {', '.join(missing)}: the run leaves too few such classes.")
    if len(scored) < asked:
        says.append(
            f"There are {len(scored)} tasks, not {asked}: no more could be drawn that the report did not score."
        )
    of_kind = {kind: [task for task in scored if task.kind == kind] for kind in kinds if kind not in missing}
    tables = [
        Table("All, and by kind of classes (%)", COLUMNS, [Row("all", everything, own=True), *_rows(run, of_kind)]),
        Table("By number of classes (%)", COLUMNS, _rows(run, _by_ways(scored))),
    ]
    caption = (
        f"Expected and measured accuracy of {len(scored)} fresh tasks, a dot for each; upright lines are the {claimed:.0%} "
        "intervals that `generate` gives. On the diagonal they are equal."
    )
    figure = Figure("tasks", caption, expected_and_measured(of_kind))
    return Section("expectation", "What accuracy to expect", says, {"tasks": asked, "seed": seed}, tables, (figure,))


def _rows(run: Run, groups: Mapping[str, Sequence[Expected]]) -> list[Row]:
    return [Row(f"{name} ({len(group)})", _cells(run, group)) for name, group in groups.items()]


def _by_ways(scored: Sequence[Expected]) -> dict[str, list[Expected]]:
    """In groups of twice as many classes each: 2, 3 to 4, 5 to 8, ..."""
    groups, low, high = dict[str, list[Expected]](), 2, 2
    while low <= max(task.ways for task in scored):
        group = [task for task in scored if low <= task.ways <= high]
        if group:
            groups[f"{low} classes" if low == high else f"{low} to {high} classes"] = group
        low, high = high + 1, 2 * high
    return groups


def _cells(run: Run, scored: Sequence[Expected]) -> dict[str, dict[str, float]]:
    from scipy.stats import binomtest

    expected, measured, low, high = torch.tensor(
        [(t.expectation.mean, t.accuracy, t.expectation.low, t.expectation.high) for t in scored]
    ).T
    count = sum(task.inside for task in scored)
    interval = binomtest(count, len(scored)).proportion_ci(run.recipe.evaluate.confidence, "wilson")
    share = {"mean": count / len(scored), "ci_low": interval.low, "ci_high": interval.high, "n": len(scored)}
    of_tasks: dict[str, Tensor] = {
        MEASURED: measured, OFF: expected - measured, APART: (expected - measured).abs(), WIDTH: high - low,
    }  # fmt: skip
    return {INSIDE: share} | {name: summary(values, run.recipe) for name, values in of_tasks.items()}


# ---------------------------------------------------------------- drawing


MARKS = {"known": (BLUE, "o"), "near": (GREEN, "s"), "far": (VERMILLION, "^"), MIXED: (ORANGE, "D")}


def expected_and_measured(groups: Mapping[str, Sequence[Expected]]) -> str:
    """A dot for each task of each kind, and its interval."""
    figure = new_figure(4.4)
    panel = figure.subplots()
    panel.plot([0, 100], [0, 100], color=INK, linewidth=1.2, zorder=2, label="equal")
    for kind, scored in groups.items():
        colour, marker = MARKS[kind]
        expected = [100 * task.expectation.mean for task in scored]
        low, high = ([100 * getattr(task.expectation, end) for task in scored] for end in ("low", "high"))
        panel.vlines(expected, low, high, color=GREY, alpha=0.25, linewidth=1, zorder=1)
        measured = [100 * task.accuracy for task in scored]
        style = {"color": colour, "alpha": 0.8, "markersize": 4.5, "markeredgewidth": 0, "zorder": 3}
        panel.plot(expected, measured, marker, label=kind, **style)
    dress(panel, "a dot for each task", "expected accuracy (%)", "")
    panel.set_ylabel("accuracy (%)", fontsize=TEXT)
    panel.set(xlim=(0, 102), ylim=(-2, 102))
    panel.grid(axis="both", color="#e4e4e4")
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=TEXT)
    return encoded(figure)
