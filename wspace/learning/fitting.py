"""Networks trained on images, many at once: one batched matmul and one fused Adam step for all of them.

What is computed is computed on the pool's device, wherever networks and texts lie; and what is given back lies where the
networks do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import cos, pi

import torch
from torch import Tensor
from torch.nn import functional

from wspace.data.features import Pool
from wspace.data.prompts import pad
from wspace.data.tasks import Task
from wspace.interfaces import Target
from wspace.support.errors import Diverged
from wspace.support.processes import steps_unread
from wspace.support.seeding import stream

AVERAGED = 0.98
"""Decay of the running average that `fit_until_validated` looks at: steadier than the iterates, and better."""

CALIBRATED_ON = 256  # training images behind a network's statistics, as evenly of its classes as those of a step


@dataclass(frozen=True)
class Schedule:
    steps: int
    batch: int  # images a step, of each network
    lr: float
    average: float = 0.0  # the last part of the steps, whose iterates are averaged
    decay: bool = True  # cosine to a tenth


class TaskBatches:
    """Labelled images of several tasks at once, each from its own classes, on the pool's device."""

    def __init__(self, tasks: Sequence[Task], pool: Pool, class_texts: Tensor):
        self.pool = pool
        self.index, mask = (tensor.to(pool.device) for tensor in pad(tasks))  # (B, K)
        self.texts = class_texts.to(pool.device)[self.index]  # (B, K, T)
        self.hidden = ~mask[:, None]  # (B, 1, K): classes a task does not have
        self.sizes = mask.sum(1, keepdim=True)  # (B, 1)

    def draw(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """`count` images a task, classes uniform: features (B, m, F) and labels (B, m) within the task."""
        return next(self.draws(1, count, rng))

    def draws(self, times: int, count: int, rng: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """So many times what `draw` gives.

        The CPU draws, so that images are the same on every device, and tells another one of several draws at once.
        """
        at_once = steps_unread(self.pool.device)
        for done in range(0, times, at_once):
            drawn = torch.rand(min(at_once, times - done), 2, len(self.index), count, generator=rng)
            for which, image in drawn.to(self.pool.device):
                yield self.at(which, image)

    def at(self, which: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """As `draw`, of classes and of a class's images as far along as numbers (B, m) and (B, m) in [0, 1) say."""
        label = (which * self.sizes).long()
        name = self.index.gather(1, label)
        row = self.pool.table[name, (image * self.pool.counts[name]).long()]
        features = self.pool.features.index_select(0, row.flatten())  # faster than [row] by half
        return features.unflatten(0, row.shape), label

    def losses(self, target: Target, weights: Tensor, features: Tensor, label: Tensor) -> Tensor:
        """Mean cross-entropy of each network on its own images: (B, P), (B, m, F), (B, m) -> (B,)."""
        logits = target.training_logits(weights, features, self.texts).masked_fill(self.hidden, -torch.inf)  # (B, m, K)
        return functional.cross_entropy(logits.mT, label, reduction="none").mean(1)


def fit(
    target: Target,
    start: Tensor,
    tasks: Sequence[Task],
    pool: Pool,
    class_texts: Tensor,
    schedule: Schedule,
    rng: torch.Generator,
    *,
    on_step: Callable[[int, Tensor], bool] | None = None,
) -> Tensor:
    """Train network b from start[b] on tasks[b], by Adam on cross-entropy; returns weights (B, P), calibrated.

    Each network's numbers depend on its own images alone. `on_step(step, weights)` may look at weights not calibrated yet,
    and stops the training by returning True. Raises Diverged when a weight is no longer finite.
    """
    batches = TaskBatches(tasks, pool, class_texts)
    weights = start.to(pool.device, copy=True).requires_grad_()
    optimizer = torch.optim.Adam([weights], lr=schedule.lr, fused=True)
    averaged, terms = torch.zeros_like(weights), 0
    first_averaged = schedule.steps - round(schedule.average * schedule.steps)
    diverged = torch.full((), schedule.steps, device=pool.device)  # the first step whose loss was no finite number
    for step, (features, label) in enumerate(batches.draws(schedule.steps, schedule.batch, rng)):
        optimizer.param_groups[0]["lr"] = schedule.lr * _decayed(step, schedule)
        loss = batches.losses(target, weights, features, label).sum()
        diverged.masked_fill_(~torch.isfinite(loss) & (diverged > step), step)
        if (step + 1) % steps_unread(pool.device) == 0 and int(diverged) < schedule.steps:
            raise _diverged(target, weights.detach(), schedule.lr, int(diverged))
        (weights.grad,) = torch.autograd.grad(loss, [weights])
        optimizer.step()
        if schedule.average and step >= first_averaged:
            terms += 1
            averaged.lerp_(weights.detach(), 1 / terms)
        if on_step is not None and on_step(step + 1, weights.detach()):
            break
    result = averaged if terms else weights.detach()
    if not torch.isfinite(result).all():
        raise _diverged(target, result, schedule.lr, int(diverged))
    return calibrated(target, result, tasks, pool, class_texts).to(start.device)


def _diverged(target: Target, weights: Tensor, lr: float, step: int) -> Diverged:
    """Of networks (B, P): which tensor is not finite any more; none, where the loss alone is not."""
    tensors = target.spec.unflatten(weights)
    first = next((name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()), None)
    what = "a loss that is not a finite number" if first is None else "weights that are not finite numbers"
    where = f"at step {step}" if first is None else f"tensor {first}, at step {step}"
    return Diverged(f"training networks at rate {lr} gave {what} ({where}): lower it")


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


@torch.no_grad()
def accuracies(target: Target, weights: Tensor, tasks: Sequence[Task], pool: Pool, class_texts: Tensor) -> Tensor:
    """Accuracy (B,) of network b on all of the pool's images of tasks[b]; 0 where there are none, so no choice hangs on it."""
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
) -> tuple[Tensor, Tensor]:
    """Train, and keep of each network the averaged weights that were best on validation images.

    Stops when the mean over networks has not improved for `patience` checks. Returns weights (B, P) and their
    validation accuracies (B,). The start itself is the first candidate.
    """
    averaged = start.to(train.device, copy=True)
    best = calibrated(target, averaged, tasks, train, class_texts).clone()
    best_accuracy = accuracies(target, best, tasks, val, class_texts)
    peak, since = float(best_accuracy.mean()), 0

    def check(step: int, weights: Tensor) -> bool:
        nonlocal best, best_accuracy, peak, since
        averaged.lerp_(weights, 1 - min(AVERAGED, step / (step + 10)))  # short at first, or the start would linger
        if step % check_every:
            return False
        candidate = calibrated(target, averaged, tasks, train, class_texts)
        now = accuracies(target, candidate, tasks, val, class_texts)
        better = now > best_accuracy
        best = torch.where(better[:, None], candidate, best)
        best_accuracy = torch.where(better, now, best_accuracy)
        mean = float(now.mean())
        peak, since = (mean, 0) if mean > peak else (peak, since + 1)
        return since >= patience

    fit(target, start, tasks, train, class_texts, schedule, rng, on_step=check)
    return best.to(start.device), best_accuracy.to(start.device)
