"""Training from generated weights, beside the usual initialisations (T2W, section 4.4 and table 4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn

from wspace.data.features import Pool
from wspace.data.tasks import Task
from wspace.interfaces import Target
from wspace.learning.fitting import Schedule, accuracies, calibrated, fit, losses
from wspace.runs.report.drawing import BLUE, GREEN, GREY, INK, ORANGE, TEXT, VERMILLION, dress, encoded, new_figure
from wspace.runs.report.intervals import summary
from wspace.runs.report.section import Figure, Row, Section, Table, percent
from wspace.runs.run import Run
from wspace.support.methods import BASE, OURS, RIDGE, UNIVERSAL
from wspace.support.quantities import counted
from wspace.support.seeding import stream

ALL = 0
"""Images of a class, where there is no limit."""

MARKS = 24  # steps at which networks are scored, closer together at first


Draw = Callable[[Tensor, int, int, torch.Generator], Tensor]
"""Fills a tensor, given its fan in and fan out. The target says these: a matrix may have its inputs first."""


def _uniform(bound: Callable[[int, int], float]) -> Draw:
    def draw(tensor: Tensor, fan_in: int, fan_out: int, rng: torch.Generator) -> Tensor:
        width = bound(fan_in, fan_out)
        return nn.init.uniform_(tensor, -width, width, generator=rng)

    return draw


def _normal(deviation: Callable[[int, int], float]) -> Draw:
    def draw(tensor: Tensor, fan_in: int, fan_out: int, rng: torch.Generator) -> Tensor:
        return nn.init.normal_(tensor, std=deviation(fan_in, fan_out), generator=rng)

    return draw


STANDARD = {
    "Xavier uniform": _uniform(lambda fan_in, fan_out: sqrt(6 / (fan_in + fan_out))),
    "Xavier normal": _normal(lambda fan_in, fan_out: sqrt(2 / (fan_in + fan_out))),
    "Kaiming uniform": _uniform(lambda fan_in, _: sqrt(6 / fan_in)),
    "Kaiming normal": _normal(lambda fan_in, _: sqrt(2 / fan_in)),
    "uniform(-0.1, 0.1)": _uniform(lambda *_: 0.1),
    "normal(0, 0.01)": _normal(lambda *_: 0.01),
}
"""Glorot and Bengio (2010), eq. 16; He et al. (2015), eq. 10; and T2W's two of a fixed size."""


OTHERS: dict[str, Callable[[Run, Sequence[Task]], Tensor]] = {
    BASE: lambda run, tasks: run.zoo.base.expand(len(tasks), -1),
    UNIVERSAL: lambda run, tasks: run.opponents.universal.expand(len(tasks), -1),
    RIDGE: lambda run, tasks: run.ridge(tasks),
}
"""Starts that cost no generator."""


def standard(name: str, target: Target, count: int, rng: torch.Generator) -> Tensor:
    """Fresh networks (count, P): matrices and kernels drawn so, vectors as the target itself begins."""
    tensors = target.spec.unflatten(target.init(count, rng))
    for entry in target.spec.entries:
        if len(entry.shape) > 1:
            tensors[entry.name] = STANDARD[name](torch.empty_like(tensors[entry.name]), *target.fans(entry), rng)
    return target.spec.flatten(tensors)


def _has(run: Run, name: str) -> bool:
    """Whether the run has that one of `OTHERS`."""
    return run.zoo.shares_base if name == BASE else name != UNIVERSAL or run.opponents.has(UNIVERSAL)


def starts(run: Run, tasks: Sequence[Task], rng: torch.Generator) -> dict[str, Tensor]:
    """Name -> networks (B, P) to train from."""
    count = len(tasks)
    return {
        OURS: run.sample(tasks, rng),
        **{name: standard(name, run.target, count, rng) for name in STANDARD},
        **{name: start(run, tasks) for name, start in OTHERS.items() if _has(run, name)},
    }


@dataclass(frozen=True)
class Trained:
    """What became of one start on each of B tasks."""

    steps: Sequence[int]  # at which it was scored; the first is 0
    curve: Tensor  # (len(steps), B), accuracy on test images
    loss: Tensor  # (B,), on test images in the end
    weights: Tensor  # (B, P)

    def reached(self, accuracy: Tensor) -> Tensor:
        """(B,): the first step scored at which a network was as accurate as (B,); the last one, if none was."""
        there = self.curve >= accuracy  # (marks, B)
        there[-1] = True
        return torch.tensor(self.steps, dtype=torch.float32)[there.int().argmax(0)]


def train(run: Run, tasks: Sequence[Task], pool: Pool, start: Tensor, schedule: Schedule, seed: int) -> Trained:
    """From start[b] on tasks[b]. The images drawn depend on the seed alone, so every start sees the same ones."""
    bench, target = run.bench, run.target
    spacing = torch.logspace(0, torch.tensor(schedule.steps).log10().item(), MARKS)
    marks = sorted({0, *spacing.round().int().tolist(), schedule.steps})
    curve = list[Tensor]()

    def score(step: int, weights: Tensor) -> None:
        if step in marks:
            ready = calibrated(target, weights, tasks, pool, bench.class_texts)
            curve.append(accuracies(target, ready, tasks, bench.test, bench.class_texts).cpu())

    score(0, start)
    rng = stream(seed, "init images")
    ended = fit(target, start, tasks, pool, bench.class_texts, schedule, rng, on_step=score)
    return Trained(marks, torch.stack(curve), losses(target, ended, tasks, bench.test, bench.class_texts), ended)


def study(
    run: Run,
    tasks: Sequence[Task],
    *,
    shots: Sequence[int] = (ALL, 16, 4, 1),
    epochs: int = 50,
    lr: float = 3e-4,
    batch: int = 32,
    seed: int = 0,
) -> tuple[Section, Tensor]:
    """Every start on every task, with so many images a class (0: all of them), by Adam with a cosine schedule.

    An epoch is as many images as a task has, on the mean over the B tasks; `batch` is in images, `lr` is the schedule's
    highest. Accuracies are on test images, in percent; differences are in points; the test loss is cross-entropy in nats.
    Also gives the networks (B, P) that were trained from generated weights on the first of `shots`.

    Raises UserError if the generator cannot be told of a task, WspaceError if the run's data are no longer those of its
    zoo.
    """
    run.zoo.check(run.bench.accepted)
    begun = starts(run, tasks, stream(seed, "init"))
    tables, curves, says, kept = list[Table](), dict[str, dict[str, Trained]](), list[str](), None
    with run.bench.progress.bar("init", len(shots) * len(begun)) as bar:
        for count in shots:
            pool = run.bench.train if count == ALL else run.bench.train.few(count, stream(seed, "init few", count))
            images = sum(map(pool.count, tasks)) / len(tasks)
            schedule = Schedule(max(1, round(epochs * images / batch)), batch, lr)
            trained = dict[str, Trained]()
            for name, start in begun.items():
                trained[name] = train(run, tasks, pool, start, schedule, seed)
                bar.advance()
            kept = trained[OURS].weights if kept is None else kept
            label = "all images" if count == ALL else f"{counted(count, 'image')} a class"
            table, sentence = _compared(run, trained, label, schedule.steps)
            tables.append(table)
            says.append(sentence)
            curves[label] = trained
    assert kept is not None
    drawn = {
        label: {name: (t.steps, (100 * t.curve.mean(1)).tolist()) for name, t in trained.items()}
        for label, trained in curves.items()
    }
    caption = (
        f"Accuracy on test images while training from each start, mean over {counted(len(tasks), 'unseen task')}; steps on a "
        "logarithmic axis, the start itself on its left edge."
    )
    settings = {"tasks": len(tasks), "epochs": epochs, "optimiser": "Adam", "lr": lr, "batch": batch, "seed": seed}
    figures = (Figure("curves", caption, learning_curves(drawn, OURS, tuple(STANDARD))),)
    return Section("init", "Training from generated weights", says, settings, tables, figures), kept


def _compared(run: Run, trained: Mapping[str, Trained], label: str, steps: int) -> tuple[Table, str]:
    """One table, and what it says of the generated start against the best of the standard ones."""
    final = {name: t.curve[-1] for name, t in trained.items()}
    best = max(STANDARD, key=lambda name: float(final[name].mean()))
    rows = []
    for name, t in trained.items():
        cells = {
            "at the start": summary(t.curve[0], run.recipe),
            "trained": summary(final[name], run.recipe),
            "test loss": summary(t.loss, run.recipe),
            f"minus {best}": summary(final[name] - final[best], run.recipe),
            "steps to equal it": summary(t.reached(final[best]), run.recipe),
        }
        rows.append(Row(name, cells, own=name == OURS))
    forms = ("percent", "percent", "number", "points", "number")
    columns = dict(zip(rows[0].cells, forms, strict=True))
    ours = rows[0].cells
    others = [
        f"{percent(summary(final[OURS] - final[name], run.recipe), 'points')} from {name}"
        for name in OTHERS
        if name in final
    ]
    sentence = (
        f"{label}: trained from generated weights {percent(ours['trained'])} % ({100 * ours['at the start']['mean']:.1f} "
        f"before), {percent(ours[f'minus {best}'], 'points')} points from {best}, the best standard start, whose accuracy "
        f"it has after {ours['steps to equal it']['mean']:.0f} of {counted(steps, 'step')}; {', '.join(others)}."
    )
    return Table(f"{label}, {counted(steps, 'step')}: accuracy (%), by start", columns, rows), sentence


# ---------------------------------------------------------------- drawing


Curve = tuple[Sequence[float], Sequence[float]]
"""Where along, and how high."""


def learning_curves(panels: Mapping[str, Mapping[str, Curve]], main: str, crowd: Sequence[str]) -> str:
    """Accuracy (%) over steps, a panel for each amount of data; `crowd`: lines that share a colour and a name."""
    figure = new_figure(0.8 + 2.5 * -(-len(panels) // 2), width=7.0)
    axes = figure.subplots(-(-len(panels) // 2), min(2, len(panels)), sharey=True, squeeze=False)
    styles = {BASE: (ORANGE, "--"), UNIVERSAL: (VERMILLION, ":"), RIDGE: (GREEN, "-."), main: (BLUE, "-")}
    for panel in axes.flat[len(panels) :]:
        panel.axis("off")
    for panel, (title, curves) in zip(axes.flat, panels.items(), strict=False):
        for name, (steps, heights) in curves.items():
            colour, style = styles.get(name, (GREY, "-"))
            along = [max(step, 0.7) for step in steps]  # a logarithmic axis has no 0
            label = "standard initialisations" if name == crowd[0] else None if name in crowd else name
            width = 2.6 if name == main else 1.0 if name in crowd else 1.8
            panel.plot(
                along, heights, style, color=colour, linewidth=width, label=label, zorder=4 if name == main else 2
            )
        panel.set_xscale("log")
        dress(panel, title, "step", "y")
    for panel in axes[:, 0]:
        panel.set_ylabel("accuracy (%)", fontsize=TEXT, color=INK)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=TEXT
    )
    return encoded(figure)
