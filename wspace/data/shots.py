"""A few pictures of each class, drawn at random: what tasks come with beside their words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from wspace.data.features import Pool
from wspace.data.prompts import pad
from wspace.data.tasks import Task
from wspace.interfaces import Shots


def draw_shots(pool: Pool, tasks: Sequence[Task], count: int, rng: torch.Generator) -> Shots:
    """So many different images of each class of each task, or all the pool has of it where these are fewer; on the CPU.

    Each task's are drawn for itself. Fewer are among more: the first of what is drawn from the same state of `rng`.
    """
    index, mask = pad(tasks)  # (B, K)
    table = pool.table.cpu()
    images = pool.counts.cpu()[index] * mask
    order = torch.rand(*index.shape, table.shape[1], generator=rng)  # the same whatever the count
    repeated = torch.arange(table.shape[1]) >= images[..., None]
    drawn = order.masked_fill(repeated, torch.inf).argsort(2)[..., :count]  # (B, K, S)
    features = pool.features[table[index].gather(2, drawn).to(pool.device)].cpu()
    features = functional.pad(features, (0, 0, 0, count - features.shape[2]))  # where no class has so many
    shots = Shots(features, images.clamp_max(count))
    return Shots(features * shots.there[..., None], shots.counts)
