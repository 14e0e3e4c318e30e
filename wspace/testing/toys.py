"""Toy tasks and a toy zoo: prompts, conditions, and networks that follow from them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from wspace.interfaces import Closed, Condition, Pairs, Prompts
from wspace.testing.subject import CONDITION, POOLED, TEXTS, Surroundings, normal

TASKS = 16
BATCH = 4


def prompts_of(count: int, seed: int = 0) -> Prompts:
    """Two to four classes a task, padded to four."""
    sizes = torch.tensor([2 + (row + seed) % 3 for row in range(count)])
    mask = torch.arange(4) < sizes[:, None]
    texts = functional.normalize(normal(count, 4, TEXTS, seed=10 + seed), dim=2)
    return Prompts(texts * mask[..., None], mask, tuple(f"task {row} of {seed}" for row in range(count)))


def condition_of(count: int, seed: int = 0) -> Condition:
    """One to three visible tokens a task; the pooled vector is a task's own."""
    mask = torch.arange(3) < torch.tensor([1 + (row + seed) % 3 for row in range(count)])[:, None]
    tokens = normal(count, 3, CONDITION, seed=20 + seed) * mask[..., None]
    return Condition(tokens, mask, normal(count, POOLED, seed=30 + seed))


def null_of(condition: Condition) -> Condition:
    mask = torch.zeros_like(condition.mask)
    mask[:, 0] = True
    return Condition(torch.zeros_like(condition.tokens), mask, torch.zeros_like(condition.pooled))


def otherwise_padded(condition: Condition) -> Condition:
    """The same, with two more tokens of padding and noise in all of it."""
    longer = functional.pad(condition.tokens, (0, 0, 0, 2))
    mask = functional.pad(condition.mask, (0, 2))
    return Condition(torch.where(mask[..., None], longer, 7.0), mask, condition.pooled)


def rows_of(condition: Condition, rows: slice) -> Condition:
    return Condition(condition.tokens[rows], condition.mask[rows], condition.pooled[rows])


def zoo_of(around: Surroundings, condition: Condition, seed: int = 0) -> Tensor:
    """Tokens (n, N, D) that follow from the conditions by a line, about a mean that is not zero, but for some noise."""
    mask = around.layout.mask
    line = normal(POOLED, mask.numel(), seed=40)
    tokens = (2 + condition.pooled @ line).unflatten(1, mask.shape)
    tokens = (tokens + 0.3 * normal(*tokens.shape, seed=50 + seed)) * mask
    return tokens if not around.layout.codes else tokens.round() % around.layout.codes


def closed_of(around: Surroundings) -> Closed:
    condition, held_out = condition_of(TASKS), condition_of(6, seed=1)
    tokens = zoo_of(around, condition)
    anchor = tokens.mean(0) / tokens.mean(0).square().mean().sqrt()
    return Closed(tokens, condition, (zoo_of(around, held_out, seed=1), held_out), anchor)


def pairs_of(around: Surroundings) -> Pairs:
    condition = condition_of(TASKS)
    return Pairs(zoo_of(around, condition), condition, null_of(condition))
