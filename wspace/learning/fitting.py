"""Networks trained on images, many at once: one batched matmul and one fused Adam step for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    """Labelled images of several tasks at once, each from its own classes."""

    def __init__(self, tasks: Sequence[Task], pool: Pool, class_texts: Tensor):
        self.pool = pool
        self.index, mask = pad(tasks)  # (B, K)
        self.texts = class_texts[self.index]  # (B, K, T)
        self.hidden = ~mask[:, None]  # (B, 1, K): classes a task does not have
        self.sizes = mask.sum(1, keepdim=True)  # (B, 1)

    def draw(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """`count` images a task, classes uniform: features (B, m, F) and labels (B, m) within the task."""
        shape = (len(self.index), count)
        return self.at(torch.rand(shape, generator=rng), torch.rand(shape, generator=rng))

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
    weights = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([weights], lr=schedule.lr, fused=True)
    averaged, terms = torch.zeros_like(start), 0
    first_averaged = schedule.steps - round(schedule.average * schedule.steps)
    for step in range(schedule.steps):
        optimizer.param_groups[0]["lr"] = schedule.lr * _decayed(step, schedule)
        features, label = batches.draw(schedule.batch, rng)
        loss = batches.losses(target, weights, features, label).sum()
        if not torch.isfinite(loss):
            raise _diverged(target, weights.detach(), schedule.lr, step)
        (weights.grad,) = torch.autograd.grad(loss, [weights])
        optimizer.step()
        if schedule.average and step >= first_averaged:
            terms += 1
            averaged.lerp_(weights.detach(), 1 / terms)
        if on_step is not None and on_step(step + 1, weights.detach()):
            break
    result = averaged if terms else weights.detach()
    if not torch.isfinite(result).all():
        raise _diverged(target, result, schedule.lr, schedule.steps)
    return calibrated(target, result, tasks, pool, class_texts)


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
    which, image = torch.rand(2, 1, CALIBRATED_ON, generator=stream(0, "calibration")).expand(-1, len(tasks), -1)
    return target.calibrated(weights, TaskBatches(tasks, pool, class_texts).at(which, image)[0])


def _decayed(step: int, schedule: Schedule) -> float:
    return 0.55 + 0.45 * cos(pi * step / schedule.steps) if schedule.decay else 1.0


@torch.no_grad()
def accuracies(target: Target, weights: Tensor, tasks: Sequence[Task], pool: Pool, class_texts: Tensor) -> Tensor:
    """Accuracy (B,) of network b on all of the pool's images of tasks[b]; 0 where there are none, so no choice hangs on it."""
    values = []
    for row, task in zip(weights, tasks, strict=True):
        predicted, labels = predict(target, row[None], task, pool, class_texts)
        values.append((predicted == labels).float().sum() / max(1, len(labels)))
    return torch.stack(values)


@torch.no_grad()
def losses(target: Target, weights: Tensor, tasks: Sequence[Task], pool: Pool, class_texts: Tensor) -> Tensor:
    """Cross-entropy (B,) of network b on all of the pool's images of tasks[b]."""
    values = []
    for row, task in zip(weights, tasks, strict=True):
        features, labels = pool.of_task(task)
        logits = target.logits(row[None], features[None], class_texts[list(task)][None])[0]  # (m, K)
        values.append(functional.cross_entropy(logits, labels))
    return torch.stack(values)


@torch.no_grad()
def predict(target: Target, weights: Tensor, task: Task, pool: Pool, class_texts: Tensor) -> tuple[Tensor, Tensor]:
    """Several networks (B, P) on one task's images: predictions (B, m) and labels (m,), within the task."""
    features, labels = pool.of_task(task)
    shared = features.expand(len(weights), -1, -1)  # (B, m, F), no copy
    texts = class_texts[list(task)].expand(len(weights), -1, -1)
    return target.logits(weights, shared, texts).argmax(2), labels


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
    best, averaged = calibrated(target, start, tasks, train, class_texts).clone(), start.clone()
    best_accuracy = accuracies(target, best, tasks, val, class_texts)
    peak, since = float(best_accuracy.mean()), 0

    def check(step: int, weights: Tensor) -> bool:
        nonlocal peak, since
        averaged.lerp_(weights, 1 - min(AVERAGED, step / (step + 10)))  # short at first, or the start would linger
        if step % check_every:
            return False
        candidate = calibrated(target, averaged, tasks, train, class_texts)
        now = accuracies(target, candidate, tasks, val, class_texts)
        better = now > best_accuracy
        best[better], best_accuracy[better] = candidate[better], now[better]
        mean = float(now.mean())
        peak, since = (mean, 0) if mean > peak else (peak, since + 1)
        return since >= patience

    fit(target, start, tasks, train, class_texts, schedule, rng, on_step=check)
    return best, best_accuracy
