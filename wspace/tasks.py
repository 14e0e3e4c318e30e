"""Which tasks there are: random sets of classes, drawn once, seen and unseen ones apart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb
from pathlib import Path

import torch
from torch import Tensor

from wspace.errors import DataError
from wspace.interfaces import Prompts
from wspace.settings import Tasks

Task = tuple[int, ...]
"""Classes of one task, ascending, as indices into the data set's classes."""

SPLITS: tuple[str, ...] = ("seen", "unseen-tasks")


@dataclass(frozen=True)
class TaskSet:
    seen: tuple[Task, ...]
    unseen: tuple[Task, ...]
    held_out: int  # the last so many seen tasks: never trained on, for choosing strengths
    evaluate: int  # at most so many tasks of each split are scored
    notes: tuple[str, ...] = ()

    @property
    def training(self) -> tuple[Task, ...]:
        return self.seen[: len(self.seen) - self.held_out]

    @property
    def choosing(self) -> tuple[Task, ...]:
        return self.seen[len(self.seen) - self.held_out :]

    def scored(self, split: str) -> tuple[Task, ...]:
        """Tasks of a split that the report is about; the seen ones are among those trained on."""
        return (self.training if split == "seen" else self.unseen)[: self.evaluate]

    def save(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> TaskSet:
        raw = json.loads(file.read_text(encoding="utf-8"))
        return cls(
            tuple(map(tuple, raw["seen"])),
            tuple(map(tuple, raw["unseen"])),
            raw["held_out"],
            raw["evaluate"],
            tuple(raw["notes"]),
        )


def draw_tasks(settings: Tasks, classes: int, rng: torch.Generator) -> TaskSet:
    """Distinct sets of k classes, k uniform in the range asked for (T2W, section 4.1).

    With fewer classes than that range needs, the range and the number of tasks shrink, and `notes` says so.
    Raises DataError if there are too few classes for two different tasks on each side.
    """
    (low, high), wanted, notes = settings.classes, settings.seen + settings.unseen, []
    if low > high:
        raise DataError(f"tasks.classes: {low} to {high} is an empty range")
    if classes < 4:
        raise DataError(f"{classes} classes are too few to make seen and unseen tasks of; 4 are the least")
    if classes < high:
        high = classes
        low = min(low, max(2, classes // 4))
        notes.append(
            f"{classes} classes: tasks have {low} to {high} classes, not {settings.classes[0]} to {settings.classes[1]}"
        )
    available = sum(comb(classes, k) for k in range(low, high + 1))
    if available < 4:
        raise DataError(
            f"{classes} classes make {available} different tasks of {low} to {high} classes; 4 are the least"
        )
    unseen = settings.unseen
    if wanted > available // 2 and wanted > 4:
        wanted = max(available // 2, 4)
        unseen = round(wanted * settings.unseen / (settings.seen + settings.unseen))
        unseen = min(max(unseen, min(2, settings.unseen)), wanted - 2)
        notes.append(f"{classes} classes: {wanted} tasks, not {settings.seen + settings.unseen}; more would repeat")
    drawn: dict[Task, None] = {}
    while len(drawn) < wanted:
        k = int(torch.randint(low, high + 1, (), generator=rng))
        drawn[tuple(sorted(torch.randperm(classes, generator=rng)[:k].tolist()))] = None
    tasks = tuple(drawn)
    seen = tasks[: wanted - unseen]
    chosen_on = min(
        max(1, round(settings.held_out * len(seen))), len(seen) - 1
    )  # at least one task is left to train on
    return TaskSet(seen, tasks[len(seen) :], chosen_on, settings.evaluate, tuple(notes))


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
