"""Between several: weights along a line or an arc, and conditions mixed by such weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from wspace.interfaces import Condition

Way = Literal["linear", "spherical"]

PARALLEL = 1e-3  # a sine below: too close to a line for an arc to be told


def shares(first: Tensor, second: Tensor, t: float, way: Way) -> tuple[Tensor, Tensor]:
    """What two vectors (B, n) each count, t of the way from the first to the second: (B,) and (B,).

    Linear: 1 - t and t. Spherical: sin((1 - t) a) / sin a and sin(t a) / sin a, where a is the angle between them
    (Shoemake, 1985, "Animating rotation with quaternion curves", section 3.3); of parallel ones, which span no arc, as
    linear.
    """
    ahead = torch.full((len(first),), float(t))
    if way == "linear":
        return 1 - ahead, ahead
    cosine = functional.cosine_similarity(first.double(), second.double(), dim=1).clamp(-1, 1).cpu()
    angle = cosine.arccos()
    sine, flat = angle.sin(), angle.sin() < PARALLEL
    safe = sine.where(~flat, torch.ones_like(sine))
    of_first, of_second = ((1 - t) * angle).sin() / safe, (t * angle).sin() / safe
    return torch.where(flat, 1 - ahead, of_first.float()), torch.where(flat, ahead, of_second.float())


def along(ends: Sequence[Tensor], at: float, way: Way) -> Tensor:
    """What each of n vectors (B, C) counts on the path through them, `at` in [0, n - 1] of its legs: (B, n)."""
    leg = min(int(at), len(ends) - 2)
    counts = torch.zeros(len(ends[0]), len(ends))
    counts[:, leg], counts[:, leg + 1] = shares(ends[leg], ends[leg + 1], at - leg, way)
    return counts


def positions(corners: int, steps: int) -> list[float]:
    """So many evenly spaced points of the path through n corners, both ends among them."""
    return torch.linspace(0, corners - 1, steps, dtype=torch.float64).tolist()


def mixed(conditions: Sequence[Condition], counts: Tensor, *, in_places: bool = False) -> Condition:
    """One condition out of n, each of B tasks, by what they count (B, n); they need not be of as many tokens.

    Pooled vectors, and networks to start from, are added, each times what it counts. Tokens are a set, in which nothing
    says which of one task belongs to which of another: so all sets lie side by side, each token times what its condition
    counts, which moves it towards the zero that a conditioner's tokens lie about. Those of a condition that counts nothing
    are hidden: at the ends of a path there are the conditions themselves. Conditions of one token each are no sets, and
    their tokens are added. So are those that stand `in_places`, as of tasks that are orders: the first to the first.
    """
    shown = counts != 0  # (B, n)
    counts = counts.to(conditions[0].pooled)
    weighed = [c.tokens * counts[:, i, None, None] for i, c in enumerate(conditions)]
    pooled = torch.stack([c.pooled * counts[:, i, None] for i, c in enumerate(conditions)]).sum(0)
    starts = [c.start * counts[:, i, None, None] for i, c in enumerate(conditions) if c.start is not None]
    start = torch.stack(starts).sum(0) if starts else None
    if all(c.tokens.shape[1] == 1 for c in conditions):
        return Condition(torch.stack(weighed).sum(0), conditions[0].mask, pooled, start)
    masks = [c.mask & shown[:, i, None].to(c.mask.device) for i, c in enumerate(conditions)]
    if in_places:
        longest = max(mask.shape[1] for mask in masks)
        tokens = [functional.pad(t, (0, 0, 0, longest - t.shape[1])) for t in weighed]
        there = [functional.pad(mask, (0, longest - mask.shape[1])) for mask in masks]
        return Condition(torch.stack(tokens).sum(0), torch.stack(there).any(0), pooled, start)
    return Condition(torch.cat(weighed, dim=1), torch.cat(masks, dim=1), pooled, start)
