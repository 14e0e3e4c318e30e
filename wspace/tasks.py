"""Which tasks there are: random sets of classes, drawn once, seen and unseen ones apart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import comb
from pathlib import Path

import torch
from torch import Tensor

from wspace.errors import DataError
from wspace.interfaces import Prompts
from wspace.settings import Tasks

Task = tuple[int, ...]
"""Classes of one task, ascending, as indices into the data set's classes."""

SEEN, UNSEEN_TASKS, UNSEEN_CLASSES = "seen", "unseen-tasks", "unseen-classes"

FEWEST_UNSEEN = 4  # classes, of which tasks of unseen classes can be made


@dataclass(frozen=True)
class TaskSet:
    classes: tuple[int, ...]  # that seen and unseen tasks are made of; nothing is ever trained on the others
    seen: tuple[Task, ...]
    unseen: tuple[Task, ...]
    novel: tuple[Task, ...]  # of the other classes alone; none, if those are too few
    held_out: int  # the last so many seen tasks: never trained on, for choosing strengths
    evaluate: int  # at most so many tasks of each split are scored
    notes: tuple[str, ...] = ()

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that are scored."""
        return (SEEN, UNSEEN_TASKS, UNSEEN_CLASSES) if self.novel else (SEEN, UNSEEN_TASKS)

    @property
    def training(self) -> tuple[Task, ...]:
        return self.seen[: len(self.seen) - self.held_out]

    @property
    def choosing(self) -> tuple[Task, ...]:
        return self.seen[len(self.seen) - self.held_out :]

    @cached_property
    def kept_back(self) -> frozenset[Task]:
        """Known classes' tasks that nothing may be trained on."""
        return frozenset((*self.choosing, *self.unseen))

    def scored(self, split: str) -> tuple[Task, ...]:
        """Tasks of a split that the report is about; the seen ones are among those trained on."""
        tasks = {SEEN: self.training, UNSEEN_TASKS: self.unseen, UNSEEN_CLASSES: self.novel}
        return tasks[split][: self.evaluate]

    def save(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> TaskSet:
        raw = json.loads(file.read_text(encoding="utf-8"))
        tasks = {name: tuple(map(tuple, raw[name])) for name in ("seen", "unseen", "novel")}
        rest = {name: tuple(raw[name]) for name in ("classes", "notes")}
        return cls(**tasks, **rest, held_out=raw["held_out"], evaluate=raw["evaluate"])


def draw_tasks(settings: Tasks, classes: int, rng: torch.Generator) -> TaskSet:
    """Distinct sets of k classes, k uniform in the range asked for (T2W, section 4.1).

    Classes set apart as unseen make tasks of their own. With fewer classes than all that needs, the range and the number
    of tasks shrink, and `notes` says so. Raises DataError if there are too few classes for two different tasks on each
    side.
    """
    if settings.classes[0] > settings.classes[1]:
        raise DataError(f"tasks.classes: {settings.classes[0]} to {settings.classes[1]} is an empty range")
    if classes < 4:
        raise DataError(f"{classes} classes are too few to make seen and unseen tasks of; 4 are the least")
    notes: list[str] = []
    apart = round(settings.unseen_classes * classes)
    if apart and (apart < FEWEST_UNSEEN or classes - apart < FEWEST_UNSEEN):
        notes.append(f"{classes} classes: none is set apart as unseen; that takes {FEWEST_UNSEEN} at least")
        apart = 0
    shuffled = torch.randperm(classes, generator=rng)
    known, others = (tuple(part.sort().values.tolist()) for part in (shuffled[apart:], shuffled[:apart]))
    seen, unseen = _known_tasks(settings, known, rng, notes)
    novel: tuple[Task, ...] = ()
    if others:
        low, high = _range(settings, len(others))
        available = sum(comb(len(others), k) for k in range(low, high + 1))
        novel = _distinct(others, low, high, min(settings.evaluate, -(-available // 2)), rng)
    chosen_on = min(
        max(1, round(settings.held_out * len(seen))), len(seen) - 1
    )  # at least one task is left to train on
    return TaskSet(known, seen, unseen, novel, chosen_on, settings.evaluate, tuple(notes))


def fresh_tasks(settings: Tasks, tasks: TaskSet, count: int, rng: torch.Generator) -> list[Task]:
    """As the seen tasks are drawn, with repetition; none that is held out or unseen."""
    low, high = _range(settings, len(tasks.classes))
    kept_back, drawn = tasks.kept_back, list[Task]()
    while len(drawn) < count:
        task = _one(tasks.classes, low, high, rng)
        if task not in kept_back:
            drawn.append(task)
    return drawn


def _known_tasks(
    settings: Tasks, known: tuple[int, ...], rng: torch.Generator, notes: list[str]
) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
    """Seen and unseen tasks of the known classes."""
    classes, wanted, unseen = len(known), settings.seen + settings.unseen, settings.unseen
    low, high = _range(settings, classes)
    if (low, high) != settings.classes:
        notes.append(
            f"{classes} classes: tasks have {low} to {high} classes, not {settings.classes[0]} to {settings.classes[1]}"
        )
    available = sum(comb(classes, k) for k in range(low, high + 1))
    if available < 4:
        raise DataError(
            f"{classes} classes make {available} different tasks of {low} to {high} classes; 4 are the least"
        )
    if wanted > available // 2 and wanted > 4:
        wanted = max(available // 2, 4)
        unseen = round(wanted * settings.unseen / (settings.seen + settings.unseen))
        unseen = min(max(unseen, min(2, settings.unseen)), wanted - 2)
        notes.append(f"{classes} classes: {wanted} tasks, not {settings.seen + settings.unseen}; more would repeat")
    tasks = _distinct(known, low, high, wanted, rng)
    return tasks[: wanted - unseen], tasks[wanted - unseen :]


def _range(settings: Tasks, classes: int) -> tuple[int, int]:
    """Fewest and most classes of a task, where there are so many to choose from."""
    low, high = settings.classes
    return (low, high) if classes >= high else (min(low, max(2, classes // 4)), classes)


def _distinct(classes: tuple[int, ...], low: int, high: int, count: int, rng: torch.Generator) -> tuple[Task, ...]:
    drawn: dict[Task, None] = {}
    while len(drawn) < count:
        drawn[_one(classes, low, high, rng)] = None
    return tuple(drawn)


def _one(classes: tuple[int, ...], low: int, high: int, rng: torch.Generator) -> Task:
    k = int(torch.randint(low, high + 1, (), generator=rng))
    return tuple(sorted(classes[c] for c in torch.randperm(len(classes), generator=rng)[:k].tolist()))


def pad(tasks: Sequence[Task]) -> tuple[Tensor, Tensor]:
    """Class indices (B, K) padded with 0, and their mask (B, K)."""
    lengths = torch.tensor([len(task) for task in tasks])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    padded = torch.zeros(mask.shape, dtype=torch.long)
    padded[mask] = torch.tensor([c for task in tasks for c in task])
    return padded, mask


def prompts_of(tasks: Sequence[Task], class_texts: Tensor) -> Prompts:
    """What the texts (n, T) of all classes say of each task."""
    index, mask = pad(tasks)
    return Prompts(class_texts[index] * mask[..., None], mask)
