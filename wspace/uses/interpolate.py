"""Between tasks: along what the generator is told, and along weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from wspace.data.splits import SEEN, UNSEEN_TASKS
from wspace.data.tasks import Task
from wspace.interfaces import Condition
from wspace.runs.report.drawing import BLUE, GREEN, INK, ORANGE, TEXT, dress, encoded, new_figure
from wspace.runs.report.intervals import summary
from wspace.runs.report.section import Figure, Row, Section, Table, percent
from wspace.runs.run import Run
from wspace.support.errors import UserError
from wspace.support.seeding import stream
from wspace.uses.enhance import Start
from wspace.uses.fuse import trained
from wspace.weights.interpolation import along, mixed, positions

LINEAR, SPHERICAL = "condition, linear", "condition, spherical"
GENERATED, TRAINED = "generated weights", "trained weights"
WAYS = (LINEAR, SPHERICAL, GENERATED, TRAINED)
"""What is interpolated: conditions, on a line or an arc, for each point of which a head is generated; or the weights of heads
generated for the corners, or trained for them as the zoo's are, on a line."""

EITHER = "on whichever of the tasks it does better"
"""Where tasks are orders: no network serves two orders of the same classes, and the mean over both says little."""

TOGETHER = (2, 3, 4)  # tasks of which the study takes the mean


def generated(run: Run, condition: Condition, seed: int) -> Tensor:
    """Networks (B, P) under conditions of any origin: what is told of tasks, or between what is told of several."""
    return run.system.sample_under(condition, run.recipe.generate, stream(seed, "interpolate")).cpu()


class Corners:
    """n tasks to go between, for each of B ways at once: corners[i][b]."""

    def __init__(self, run: Run, tasks: Sequence[Sequence[Task]], seed: int):
        self.run, self.tasks, self.seed = run, tasks, seed
        self.conditions = [self._condition(corner) for corner in tasks]
        self.generated = torch.stack([generated(run, condition, seed) for condition in self.conditions])  # (n, B, P)
        start: Start = "base" if run.zoo.shares_base else "fresh"
        self.trained = torch.stack([trained(run, corner, start, seed) for corner in tasks])

    @torch.no_grad()
    def _condition(self, tasks: Sequence[Task]) -> Condition:
        return self.run.system.condition(self.run.prompts(tasks), start=True)

    def networks(self, way: str, counts: Tensor) -> Tensor:
        """(B, P), where corners count so much (B, n)."""
        if way in (LINEAR, SPHERICAL):
            told = mixed(self.conditions, counts, in_places=self.run.zoo.tasks.ordered)
            return generated(self.run, told, self.seed)
        ends = self.generated if way == GENERATED else self.trained
        return torch.einsum("nbp,bn->bp", ends, counts)

    def joined(self) -> Tensor | None:
        """(B, P), each generated from the texts of all its corners at once.

        None if the generator goes by other than texts, and where classes have places in their task: joined, they have none.
        """
        if self.run.zoo.tasks.ordered:
            return None
        joint = [tuple(sorted({c for task in way for c in task})) for way in zip(*self.tasks, strict=True)]
        return generated(self.run, self._condition(joint), self.seed) if self.run.knows(joint) else None

    def zoo_mean(self) -> Tensor:
        """(B, P), what the generator has to be better than anywhere."""
        return self.run.zoo.weights.mean(0).expand(len(self.tasks[0]), -1)

    def counts(self, way: str, at: float) -> Tensor:
        """(B, n), `at` in [0, n - 1] of the legs from corner to corner."""
        pooled = [condition.pooled for condition in self.conditions]
        return along(pooled, at, "spherical" if way == SPHERICAL else "linear")

    def score(self, networks: Tensor) -> Tensor:
        """Accuracy of (B, P) on each corner's task: (n, B)."""
        run, scores = self.run, []
        for tasks in self.tasks:
            scores.append(run.bench.accuracies(networks, tasks, run.bench.test))
        return torch.stack(scores)

    def on_own_tasks(self, ends: Tensor) -> Tensor:
        """Of networks (n, B, P), the accuracy of each corner's on its own task, mean over corners: (B,)."""
        return torch.stack([self.score(networks)[i] for i, networks in enumerate(ends)]).mean(0)


# ---------------------------------------------------------------- along the way


def _sweep(corners: Corners, at: Sequence[float]) -> dict[str, Tensor]:
    """Way -> accuracy (points, n, B)."""
    accuracy = {}
    with corners.run.bench.progress.bar("interpolate", len(WAYS) * len(at)) as bar:
        for way in WAYS:
            scores = []
            for place in at:
                scores.append(corners.score(corners.networks(way, corners.counts(way, place))))
                bar.advance()
            accuracy[way] = torch.stack(scores)
    return accuracy


def _along_the_way(run: Run, at: Sequence[float], accuracy: Mapping[str, Tensor], names: Sequence[str]) -> list[Table]:
    """A table for each corner's task, and one of the mean over them."""
    tables = []
    for title, scores in {
        **{f"on {name}": {way: values[:, i] for way, values in accuracy.items()} for i, name in enumerate(names)},
        "mean over the tasks": {way: values.mean(1) for way, values in accuracy.items()},
        **({EITHER: _on_the_better(accuracy)} if run.zoo.tasks.ordered else {}),
    }.items():
        rows = [
            Row(f"{place / at[-1]:.3g}", {way: summary(values[point], run.recipe) for way, values in scores.items()})
            for point, place in enumerate(at)
        ]
        tables.append(Table(f"{title}: accuracy (%), by how far along", dict.fromkeys(WAYS, "percent"), rows))
    return tables


def _on_the_better(accuracy: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Way -> accuracy (points, B), each network's on that task of which it knows more."""
    return {way: values.amax(1) for way, values in accuracy.items()}


def _figure(at: Sequence[float], accuracy: Mapping[str, Tensor], names: Sequence[str], of: str) -> Figure:
    panels = {f"on {name}": {way: (100 * values[:, i].mean(1)).tolist() for way, values in accuracy.items()}
              for i, name in enumerate(names)}  # fmt: skip
    panels["mean over the tasks"] = {way: (100 * values.mean((1, 2))).tolist() for way, values in accuracy.items()}
    caption = (
        f"Accuracy on test images on the way from {names[0]} to {names[-1]}{of}: along the condition, for each point of "
        "which a head is generated, and along the weights of heads that were generated or trained for the ends."
    )
    return Figure("ways", caption, ways_between([place / at[-1] for place in at], panels, WAYS))


def _says(run: Run, at: Sequence[float], accuracy: Mapping[str, Tensor], corners: Corners) -> list[str]:
    alone = ["There is one way, and so no figure has an interval."] if len(corners.tasks[0]) == 1 else []
    return [_halfway(run, at, accuracy), _worst(run, accuracy, corners), *_between(run, accuracy), *alone]


def _halfway(run: Run, at: Sequence[float], accuracy: Mapping[str, Tensor]) -> str:
    middle = min(range(len(at)), key=lambda point: abs(at[point] - at[-1] / 2))
    halfway = {way: values[middle].mean(0) for way, values in accuracy.items()}  # (B,)
    best = max(halfway, key=lambda way: float(halfway[way].mean()))
    rest = [
        f"{percent(summary(halfway[best] - values, run.recipe), 'points')} points before {way}"
        for way, values in halfway.items()
        if way != best
    ]
    return f"Halfway, mean over the tasks: best is {best}, {percent(summary(halfway[best], run.recipe))} %, {', '.join(rest)}."


def _between(run: Run, accuracy: Mapping[str, Tensor]) -> list[str]:
    """Of tasks that exclude each other, whether every point of a way still serves one of them."""
    if not run.zoo.tasks.ordered:
        return []
    lowest = [
        f"{way} {percent(summary(values.amin(0), run.recipe))}" for way, values in _on_the_better(accuracy).items()
    ]
    return [f"Worst point of a way, on the task that its network does better, %: {', '.join(lowest)}."]


def _worst(run: Run, accuracy: Mapping[str, Tensor], corners: Corners) -> str:
    """Of each way its worst point, mean over the tasks; and a level that is easily had."""
    lowest = [f"{way} {percent(summary(values.mean(1).amin(0), run.recipe))}" for way, values in accuracy.items()]
    mean = percent(summary(corners.score(corners.zoo_mean()).mean(0), run.recipe))
    return f"Worst point of a way, mean over the tasks, %: {', '.join(lowest)}; the zoo's mean has {mean}."


# ---------------------------------------------------------------- several tasks at once


def _together(corners: Corners) -> dict[str, Tensor]:
    """Name -> accuracy (B,), mean over the corners' tasks, of one network for all; and of one for each."""
    count, pairs = len(corners.tasks), len(corners.tasks[0])
    even = torch.full((pairs, count), 1 / count)
    accuracy = {f"mean of {way}": corners.score(corners.networks(way, even)).mean(0) for way in (GENERATED, TRAINED)}
    joined = corners.joined()
    if joined is not None:
        accuracy["generated from the joined texts"] = corners.score(joined).mean(0)
    return {
        "mean of conditions": corners.score(corners.networks(LINEAR, even)).mean(0),
        **accuracy,
        "the zoo's mean": corners.score(corners.zoo_mean()).mean(0),
        "each task's own, generated": corners.on_own_tasks(corners.generated),
        "each task's own, trained": corners.on_own_tasks(corners.trained),
    }


def _together_table(run: Run, groups: Mapping[str, Mapping[str, Tensor]]) -> Table:
    names = list(next(iter(groups.values())))
    rows = [
        Row(
            name,
            {label: summary(values[name], run.recipe) for label, values in groups.items()},
            own=name.startswith("mean of con"),
        )
        for name in names
    ]
    title = "several tasks at once: accuracy (%), mean over the tasks"
    return Table(title, dict.fromkeys(groups, "percent"), rows)


# ---------------------------------------------------------------- the study, and a user's tasks


def disjoint(tasks: Sequence[Task], size: int, count: int, *, ordered: bool = False) -> list[tuple[Task, ...]]:
    """At most so many groups of tasks without a class in common, no task in two of them, in the order they come.

    Where tasks are `ordered`, without a class at the same place: two orders of the same classes may be of one group.
    """
    free, groups = list(tasks), list[tuple[Task, ...]]()
    while free and len(groups) < count:
        group, claims = [free[0]], _claims(free[0], ordered)
        for task in free[1:]:
            if len(group) < size and not claims & _claims(task, ordered):
                group.append(task)
                claims |= _claims(task, ordered)
        free = [task for task in free if task not in (group if len(group) == size else group[:1])]
        if len(group) == size:
            groups.append(tuple(group))
    return groups


def _claims(task: Task, ordered: bool) -> set[tuple[int, int]]:
    """What no other task of a group may have: its classes, each with its place where that means something."""
    return {(place if ordered else 0, number) for place, number in enumerate(task)}


def study(run: Run, *, pairs: int = 20, steps: int = 9, seed: int = 0) -> Section:
    """From one unseen task to another along conditions and weights; and the means of several, on all of theirs.

    `pairs` pairs of tasks without a class in common, or of orders without one at the same place, at most; `steps` points along
    the way, both ends among them. Seen tasks take their place where unseen ones cannot be told to the generator. Accuracies
    are on test images, in percent.

    Raises UserError if no two tasks are without a class in common, WspaceError if the run's data are no longer those of its
    zoo.
    """
    run.zoo.check(run.bench.accepted)
    tasks, split = run.zoo.tasks.scored(UNSEEN_TASKS), "unseen"
    if not run.knows(tasks):
        tasks, split = tuple(dict.fromkeys(run.zoo.tasks.scored(SEEN))), "seen"
    ordered = run.zoo.tasks.ordered
    ends = disjoint(tasks, 2, pairs, ordered=ordered)
    if not ends:
        common = "a class in common" + ordered * " at the same place"
        raise UserError(f"no two {split} tasks of this run are without {common}: name two by --from and --to")
    corners = Corners(run, list(zip(*ends, strict=True)), seed)
    at = positions(2, steps)
    accuracy = _sweep(corners, at)
    names = ("the first task", "the second task")
    groups = {}
    for size in TOGETHER:
        several = disjoint(tasks, size, pairs, ordered=ordered)
        if len(several) > 1:
            of_size = corners if size == 2 else Corners(run, list(zip(*several, strict=True)), seed)
            groups[f"{size} tasks"] = _together(of_size)
    tables = _along_the_way(run, at, accuracy, names)
    if groups:
        tables.append(_together_table(run, groups))
    settings = {"pairs": len(ends), "of": split, "steps": steps, "seed": seed}
    of = f", for one pair of {split} tasks" if len(ends) == 1 else f", mean over {len(ends)} pairs of {split} tasks"
    says = _says(run, at, accuracy, corners)
    figures = (_figure(at, accuracy, names, of),)
    return Section("interpolate", "Between two tasks", says, settings, tables, figures)


def one(run: Run, named: Sequence[Sequence[str]], *, steps: int, seed: int) -> Section:
    """From the first of a user's tasks through the others to the last, and the means of all.

    Raises UserError for fewer than two classes, one named twice or one that the data set has no images of, and for two
    tasks of the same classes in a row.
    """
    tasks = [run.task_of(classes) for classes in named]
    for before, after in pairwise(tasks):
        if before == after or (not run.zoo.tasks.ordered and set(before) == set(after)):
            raise UserError("there is no way from a task to itself: name other classes")
    run.zoo.check(run.bench.accepted)
    corners, at = Corners(run, [[task] for task in tasks], seed), positions(len(tasks), steps)
    accuracy = _sweep(corners, at)
    names = ["the first task", *(f"task {number}" for number in range(2, len(tasks))), "the last task"]
    tables = [
        *_along_the_way(run, at, accuracy, names),
        _together_table(run, {f"{len(tasks)} tasks": _together(corners)}),
    ]
    settings = {"tasks": [list(run.names_of(task)) for task in tasks], "steps": steps, "seed": seed}
    says = _says(run, at, accuracy, corners)
    return Section("interpolate", "Between tasks", says, settings, tables, (_figure(at, accuracy, names, ""),))


# ---------------------------------------------------------------- drawing


def ways_between(at: Sequence[float], panels: Mapping[str, Mapping[str, Sequence[float]]], ways: Sequence[str]) -> str:
    """Accuracy (%) on the way from task to task, a panel for each task and one for all; lines differ in their marks too."""
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    figure = new_figure(0.7 + 2.6 * down, width=7.4)
    axes = figure.subplots(down, across, sharey=True, squeeze=False)
    styles = [(BLUE, "-", "o", 2.4), (ORANGE, "--", "s", 1.8), (GREEN, "-.", "^", 1.8), (INK, ":", "D", 1.8)]
    for panel in axes.flat[len(panels) :]:
        panel.axis("off")
    for panel, (title, lines) in zip(axes.flat, panels.items(), strict=False):
        for way, (colour, style, mark, width) in zip(ways, styles, strict=True):
            panel.plot(at, lines[way], style, marker=mark, color=colour, linewidth=width, markersize=4.5, label=way)
        dress(panel, title, "share of the way", "y")
    for panel in axes[:, 0]:
        panel.set_ylabel("accuracy (%)", fontsize=TEXT, color=INK)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=TEXT
    )
    return encoded(figure)
