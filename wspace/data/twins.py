"""Classes whose names are one to a text encoder: no network that scores against texts can tell them apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from wspace.interfaces import Task

APART = 1e-3
"""Between vectors of unit length. Rounding leaves 1e-6; no two names of the icons are nearer than 0.15."""

TOGETHER = 1024  # vectors compared with all others at once
NAMED = 4  # classes of a group that a sentence names


def twins(vectors: Tensor) -> list[tuple[int, ...]]:
    """Groups of rows of (n, T), two or more in each, that are one vector but for rounding."""
    exact, groups = vectors.double(), dict[int, list[int]]()  # by the first of each
    grouped = set[int]()
    for start, rows in enumerate(exact.split(TOGETHER)):
        near = torch.cdist(rows, exact) < APART
        for i, j in near.triu(start * TOGETHER + 1).nonzero().tolist():
            first = start * TOGETHER + i
            if first not in grouped:
                groups.setdefault(first, [first]).append(j)
                grouped.add(j)
    return [tuple(group) for group in groups.values()]


def held_together(tasks: Iterable[Task], groups: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Classes of one group that the first such task holds; none if no task holds two of any group."""
    group_of = {number: group for group in groups for number in group}
    for task in tasks:
        for number in task:
            both = tuple(other for other in task if other in group_of.get(number, ()))
            if len(both) > 1:
                return both
    return ()


def listed(names: Sequence[str]) -> str:
    """'Apple' and 'apple', for a sentence; of many, the first few."""
    shown = [repr(name) for name in names[:NAMED]]
    if len(names) > NAMED:
        return f"{', '.join(shown)} and {len(names) - NAMED} more"
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else shown[0]
