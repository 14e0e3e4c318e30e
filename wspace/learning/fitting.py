"""Networks trained on images, many at once: one batched matmul and one fused Adam step for a slice of them.

What is computed is computed on the pool's device, wherever networks and texts lie; and what is given back lies where the
networks do. On a CPU, a slice is as many networks as stay in its cache, and each of its threads has slices for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import cos, isfinite, pi

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.adam import adam

from wspace.data.features import Pool
from wspace.data.prompts import pad
from wspace.data.tasks import Task
from wspace.interfaces import Fit, Target, cross_entropy
from wspace.support.devices import steps_unread
from wspace.support.errors import Diverged
from wspace.support.seeding import stream
from wspace.support.slices import even
from wspace.support.threads import by_threads, check_wanted

AVERAGED = 0.98
"""Decay of the running average that `fit_until_validated` looks at: steadier than the iterates, and better."""

CACHED = 12 * 2**20
"""Bytes that a slice of networks takes at a step: a share of a CPU's last cache. Slices change rounding at the most."""

AHEAD = 64  # steps whose images are drawn at once, and that a slice goes through before the next one does

CALIBRATED_ON = 256  # training images behind a network's statistics, as evenly of its classes as those of a step


@dataclass(frozen=True)
class Schedule:
    steps: int
    batch: int  # images a step, of each network
    lr: float
    average: float = 0.0  # the last part of the steps, whose iterates are averaged
    decay: bool = True  # cosine to a tenth
    setting: str = ""  # of a recipe, that the rate comes from


class TaskBatches:
    """Labelled images of several tasks at once, each from its own classes, on the pool's device."""

    def __init__(self, tasks: Sequence[Task], pool: Pool, class_texts: Tensor):
        self.pool = pool
        self.index, mask = (tensor.to(pool.device) for tensor in pad(tasks))  # (B, K)
        self.texts = class_texts.to(pool.device)[self.index]  # (B, K, T)
        self.hidden = ~mask[:, None]  # (B, 1, K): classes a task does not have
        self.sizes = mask.sum(1, keepdim=True)  # (B, 1)

    def part(self, where: slice) -> TaskBatches:
        """Of some of the tasks."""
        part = copy(self)
        part.index, part.texts, part.hidden, part.sizes = (
            tensor[where] for tensor in (self.index, self.texts, self.hidden, self.sizes)
        )
        return part

    def draw(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """`count` images a task, classes uniform: features (B, m, F) and labels (B, m) within the task."""
        row, label = next(self.draws(1, count, rng))
        return self.features(row), label

    def draws(self, times: int, count: int, rng: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """So many times what `draw` draws, as rows (B, m) of the pool and labels (B, m).

        The CPU draws, so that images are the same on every device, and tells another one of several draws at once.
        """
        for done in range(0, times, AHEAD):
            drawn = torch.rand(min(AHEAD, times - done), 2, len(self.index), count, generator=rng)
            yield from zip(*self._placed(*drawn.to(self.pool.device).unbind(1)), strict=True)

    def at(self, which: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """As `draw`, of classes and of a class's images as far along as numbers (B, m) and (B, m) in [0, 1) say."""
        row, label = self._placed(which, image)
        return self.features(row), label

    def features(self, row: Tensor) -> Tensor:
        """Of rows (B, m) of the pool: (B, m, F)."""
        return self.pool.features.index_select(0, row.flatten()).unflatten(0, row.shape)  # faster than [row] by half

    def _placed(self, which: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and labels, of numbers as `at` takes them, or of several draws of such at once: (..., B, m) each."""
        label = (which * self.sizes).long()
        name = self.index.expand(*label.shape[:-1], -1).gather(-1, label)
        return self.pool.table[name, (image * self.pool.counts[name]).long()], label

    def losses(self, target: Target, weights: Tensor, features: Tensor, label: Tensor) -> Tensor:
        """Mean cross-entropy of each network on its own images: (B, P), (B, m, F), (B, m) -> (B,)."""
        return cross_entropy(target.training_logits(weights, features, self.texts), self.hidden, label)

    def descent(self, target: Target, weights: Tensor, features: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """`losses` (B,), and the gradient of each (B, P)."""
        return target.descent(weights, features, self.texts, self.hidden, label)


class _Slice:
    """Some of the networks that are trained together, with Adam's state."""

    def __init__(
        self,
        target: Target,
        weights: Tensor,  # (B, P), of which the slice's are overwritten
        averaged: Tensor,  # (B, P), as well
        batches: TaskBatches,
        where: slice,
        schedule: Schedule,
        share: Callable[[int], float],
        only: Tensor | None,  # (P,)
    ):
        self.target, self.batches, self.where = target, batches.part(where), where
        self.schedule, self.share, self.only = schedule, share, only
        self.weights, self.averaged = weights[where], averaged[where]
        self.moments = torch.zeros_like(self.weights), torch.zeros_like(self.weights)
        self.count = weights.new_zeros((), dtype=torch.float32)  # of Adam's steps
        self.unread: list[Tensor] = []  # losses of the last steps, that the host has not looked at

    def advance(self, first: int, images: Sequence[tuple[Tensor, Tensor]]) -> None:
        """A step on each of these rows (B, m) and labels (B, m) of all networks. Raises Diverged."""
        for step, (row, label) in enumerate(images, first):
            features = self.batches.features(row[self.where])
            losses, gradient = self.batches.descent(self.target, self.weights, features, label[self.where])
            self.unread.append(losses.sum())
            if (step + 1) % steps_unread(losses.device) == 0:
                self.read(step + 1)
            if self.only is not None:
                gradient = gradient.mul_(self.only)  # where it is 0 from the first step on, Adam goes nowhere
            self._descend(gradient, self.schedule.lr * _decayed(step, self.schedule))
            if (share := self.share(step + 1)) > 0:
                self.averaged.lerp_(self.weights, share)

    def read(self, steps: int) -> None:
        """Losses up to this number of steps. Raises Diverged."""
        values = torch.stack(self.unread).tolist() if self.unread else []
        for step, value in enumerate(values, steps - len(values)):
            if not isfinite(value):
                raise _diverged(self.target, self.weights, self.schedule, step)
        self.unread.clear()

    def _descend(self, gradient: Tensor, lr: float) -> None:
        first, second = self.moments
        adam(
            [self.weights],
            [gradient],
            [first],
            [second],
            [],
            [self.count],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=lr,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )


def _trained(
    target: Target,
    start: Tensor,
    batches: TaskBatches,
    schedule: Schedule,
    rng: torch.Generator,
    share: Callable[[int], float],
    looks: Sequence[int],
    advanced: Callable[[int], None] | None = None,
    only: Tensor | None = None,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Train networks from start (B, P), and give step, weights and running averages at each of the steps `looks`.

    The average begins at the start; after a step, it goes by `share(step)` of the way to the weights. What is given is
    overwritten as the training goes on. Now and then `advanced` is told how many steps were taken since. Raises Diverged
    when a weight is no longer finite.
    """
    weights, averaged = (start.to(batches.pool.device, copy=True) for _ in range(2))
    count = _slices(weights, schedule.batch * batches.pool.features.shape[1])
    only = None if only is None else only.to(weights)
    slices = [_Slice(target, weights, averaged, batches, p, schedule, share, only) for p in even(len(start), count)]
    drawn, done = batches.draws(schedule.steps, schedule.batch, rng), 0
    for until in sorted({*looks, *range(AHEAD, schedule.steps, AHEAD), schedule.steps}):
        check_wanted()
        images = list(islice(drawn, until - done))
        steps = [partial(part.advance, done, images) for part in slices]
        by_threads(steps, at_once=target.concurrent)
        if advanced is not None:
            advanced(until - done)
        done = until
        if done in looks:
            yield done, weights, averaged
    if not (torch.isfinite(weights).all() and torch.isfinite(averaged).all()):
        for part in slices:
            part.read(schedule.steps)
        raise _diverged(target, weights, schedule, schedule.steps)


def _slices(weights: Tensor, features: int) -> int:
    """How many slices these networks (B, P) are trained in, each of which is given so many features at a step."""
    if weights.device.type != "cpu":
        return 1
    state = 5 * weights.shape[1]  # weights, their average, gradient and two moments
    count = min(len(weights), -(-len(weights) * (state + features) * weights.element_size() // CACHED))
    threads = torch.get_num_threads()
    return count if count <= threads else min(len(weights), -(-count // threads) * threads)  # all busy to the end


def fit(
    target: Target,
    start: Tensor,
    tasks: Sequence[Task],
    pool: Pool,
    class_texts: Tensor,
    schedule: Schedule,
    rng: torch.Generator,
    *,
    on_step: Callable[[int, Tensor], None] | None = None,
    advanced: Callable[[int], None] | None = None,
) -> Tensor:
    """Train network b from start[b] on tasks[b], by Adam on cross-entropy; returns weights (B, P), calibrated.

    Each network's numbers depend on its own images alone. `on_step(step, weights)` may look at weights not calibrated yet;
    `advanced` is told, now and then, how many steps were taken since.
    Raises Diverged when a weight is no longer finite.
    """
    batches = TaskBatches(tasks, pool, class_texts)
    unaveraged = schedule.steps - round(schedule.average * schedule.steps)

    def share(step: int) -> float:
        return 1 / (step - unaveraged) if step > unaveraged else 0.0

    looks, result = range(1, schedule.steps + 1) if on_step is not None else (schedule.steps,), start
    for step, weights, averaged in _trained(target, start, batches, schedule, rng, share, looks, advanced):
        result = averaged if step > unaveraged else weights
        if on_step is not None:
            on_step(step, weights)
    return calibrated(target, result, tasks, pool, class_texts).to(start.device)


def _diverged(target: Target, weights: Tensor, schedule: Schedule, step: int) -> Diverged:
    """Of networks (B, P): which tensor is not finite any more; none, where the loss alone is not."""
    tensors = target.spec.unflatten(weights)
    first = next((name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()), None)
    what = "a loss that is not a finite number" if first is None else "weights that are not finite numbers"
    where = f"at step {step}" if first is None else f"tensor {first}, at step {step}"
    rate = f"rate {schedule.lr}" + (f" ({schedule.setting})" if schedule.setting else "")
    return Diverged(f"training networks at {rate} gave {what} ({where}): lower it")


def calibrated(target: Target, weights: Tensor, tasks: Sequence[Task], pool: Pool, class_texts: Tensor) -> Tensor:
    """Networks (B, P) with their statistics, where the target has such, taken from the pool's images of tasks[b].

    Images are drawn evenly of a task's classes, the same ones for the same task and pool; no network sees their labels.
    """
    if not target.statistics:
        return weights
    drawn = torch.rand(2, 1, CALIBRATED_ON, generator=stream(0, "calibration")).to(pool.device)
    which, image = drawn.expand(-1, len(tasks), -1)
    features, _ = TaskBatches(tasks, pool, class_texts).at(which, image)
    return target.calibrated(weights.to(pool.device), features).to(weights.device)


def _decayed(step: int, schedule: Schedule) -> float:
    return 0.55 + 0.45 * cos(pi * step / schedule.steps) if schedule.decay else 1.0


def accuracies(target: Target, weights: Tensor, tasks: Sequence[Task], pool: Pool, class_texts: Tensor) -> Tensor:
    """Accuracy (B,) of network b on all of the pool's images of tasks[b]; 0 where there are none, so no choice hangs on it."""
    count = min(len(tasks), torch.get_num_threads()) if pool.device.type == "cpu" else 1
    parts = [partial(_accuracies, target, weights[p], tasks[p], pool, class_texts) for p in even(len(tasks), count)]
    return torch.cat(by_threads(parts, at_once=target.concurrent))


@torch.no_grad()
def _accuracies(target: Target, weights: Tensor, tasks: Sequence[Task], pool: Pool, class_texts: Tensor) -> Tensor:
    alone = weights.to(pool.device)[:, None]  # (B, 1, P)
    values = [
        (predicted == labels).float().sum() / max(1, len(labels))
        for predicted, labels in predictions(target, alone, tasks, pool, class_texts)
    ]
    return torch.stack(values).to(weights.device)


@torch.no_grad()
def losses(target: Target, weights: Tensor, tasks: Sequence[Task], pool: Pool, class_texts: Tensor) -> Tensor:
    """Cross-entropy (B,) of network b on all of the pool's images of tasks[b]."""
    alone = weights.to(pool.device)[:, None]  # (B, 1, P)
    values = [
        functional.cross_entropy(logits[0], labels)
        for logits, labels in _scored(target, alone, tasks, pool, class_texts)
    ]
    return torch.stack(values).to(weights.device)


@torch.no_grad()
def predict(target: Target, weights: Tensor, task: Task, pool: Pool, class_texts: Tensor) -> tuple[Tensor, Tensor]:
    """Several networks (B, P) on one task's images: predictions (B, m) and labels (m,), within the task."""
    ((predicted, labels),) = predictions(target, [weights], [task], pool, class_texts)
    return predicted.to(weights.device), labels.to(weights.device)


@torch.no_grad()
def predictions(
    target: Target, weights: Iterable[Tensor], tasks: Sequence[Task], pool: Pool, class_texts: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """As `predict`, task by task, of several networks (B, P) for each; given back where the pool lies."""
    for logits, labels in _scored(target, weights, tasks, pool, class_texts):
        yield logits.argmax(2), labels


def _scored(
    target: Target, weights: Iterable[Tensor], tasks: Sequence[Task], pool: Pool, class_texts: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Scores (B, m, K) and labels (m,) of each task's images, by the networks (B, P) for it."""
    named = torch.tensor([name for task in tasks for name in task]).to(pool.device)
    texts = class_texts.to(pool.device)[named].split([len(task) for task in tasks])
    for of_task, of_classes, (features, labels) in zip(weights, texts, pool.of_tasks(tasks), strict=True):
        networks = of_task.to(pool.device)
        shared = features.expand(len(networks), -1, -1)  # (B, m, F), no copy
        yield target.logits(networks, shared, of_classes.expand(len(networks), -1, -1)), labels


def fit_until_validated(
    target: Target,
    start: Tensor,
    tasks: Sequence[Task],
    train: Pool,
    val: Pool,
    class_texts: Tensor,
    schedule: Schedule,
    rng: torch.Generator,
    *,
    check_every: int,
    patience: int,
    only: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Train, and keep of each network the averaged weights that were best on validation images.

    Stops when the mean over networks has not improved for `patience` checks. Returns weights (B, P) and their
    validation accuracies (B,). The start itself is the first candidate. With `only` (P,), weights where it is false stay.
    """
    best = calibrated(target, start.to(train.device), tasks, train, class_texts)
    best_accuracy = accuracies(target, best, tasks, val, class_texts)
    peak, since = float(best_accuracy.mean()), 0

    def share(step: int) -> float:
        return 1 - min(AVERAGED, step / (step + 10))  # short at first, or the start would linger

    batches = TaskBatches(tasks, train, class_texts)
    looks = range(check_every, schedule.steps + 1, check_every)
    with nullcontext() if only is None else target.holding(only):
        for _, _, averaged in _trained(target, start, batches, schedule, rng, share, looks, only=only):
            candidate = calibrated(target, averaged, tasks, train, class_texts)
            now = accuracies(target, candidate, tasks, val, class_texts)
            better = now > best_accuracy
            best = torch.where(better[:, None], candidate, best)
            best_accuracy = torch.where(better, now, best_accuracy)
            mean = float(now.mean())
            peak, since = (mean, 0) if mean > peak else (peak, since + 1)
            if since >= patience:
                break
    return best.to(start.device), best_accuracy.to(start.device)


def fit_on(target: Target, train: Pool, val: Pool, class_texts: Tensor) -> Fit:
    """`Evidence.fit`, as opponents are given it: `fit_until_validated` on these images."""

    def fit(
        start: Tensor,
        tasks: Sequence[Task],
        rng: torch.Generator,
        *,
        steps: int,
        batch: int,
        lr: float,
        check_every: int,
        patience: int,
        only: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        schedule, effort = Schedule(steps, batch, lr), {"check_every": check_every, "patience": patience}
        return fit_until_validated(target, start, tasks, train, val, class_texts, schedule, rng, **effort, only=only)

    return fit
