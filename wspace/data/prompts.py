"""Tasks as prompts: what is said of each, padded to the longest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from wspace.interfaces import Prompts, Shots, Task


def pad(tasks: Sequence[Task]) -> tuple[Tensor, Tensor]:
    """Class indices (B, K) padded with 0, and their mask (B, K)."""
    lengths = torch.tensor([len(task) for task in tasks])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    padded = torch.zeros(mask.shape, dtype=torch.long)
    padded[mask] = torch.tensor([c for task in tasks for c in task])
    return padded, mask


def name_of(classes: Iterable[str], ordered: bool = False) -> str:
    """What a task of these classes is called, in whatever order they are named unless that order means something."""
    return ", ".join(classes if ordered else sorted(classes))


def prompts_of(
    tasks: Sequence[Task],
    class_texts: Tensor,
    classes: Sequence[str] | None = None,
    shots: Shots | None = None,
    *,
    ordered: bool = False,
) -> Prompts:
    """What the texts (n, T) of all classes say of each task; and what it is called, given the names of all classes.

    Prompts lie where the texts do.

    `shots` are of these tasks, where they come with pictures. `ordered`: whether another order is another task.
    """
    index, mask = (tensor.to(class_texts.device) for tensor in pad(tasks))
    names = None if classes is None else tuple(name_of((classes[c] for c in task), ordered) for task in tasks)
    pictures, counts = (None, None) if shots is None else (shots.means(), shots.counts)
    return Prompts(class_texts[index] * mask[..., None], mask, names, pictures, counts)
