"""Affine scales taken from training data: how tokenizers and conditioners bring values to a size a network likes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Scale = Literal["minmax", "zscore", "centered"]
"""What `fit_scale` can do."""


def fit_scale(weights: Tensor, groups: Tensor, how: Scale) -> tuple[Tensor, Tensor]:
    """Shift and scale of every weight, (P,) each, so that tokens are (weights - shift) / scale.

    `weights` (n, P) is the training zoo; `groups` (P,) numbers the block or tensor each weight belongs to.

    minmax    each group to [-1, 1] over the zoo (T2W, section 4.1)
    zscore    each group to mean 0, variance 1 over the zoo
    centered  each weight to mean 0 over the zoo, then each group to variance 1: what tells networks of one
              starting point apart, which the other two leave small beside the starting point itself

    A group that does not vary, up to rounding, is shifted and keeps its scale.
    """
    count = int(groups.max()) + 1
    zeros = weights.new_zeros(count)
    low = zeros.scatter_reduce(0, groups, weights.amin(0), "amin", include_self=False)[groups]
    high = zeros.scatter_reduce(0, groups, weights.amax(0), "amax", include_self=False)[groups]
    rounding = 4 * torch.finfo(weights.dtype).eps * torch.maximum(high, -low)
    if how == "minmax":
        shift, scale = (high + low) / 2, (high - low) / 2
    else:
        means = weights.mean(0)
        shift = (
            means if how == "centered" else zeros.scatter_reduce(0, groups, means, "mean", include_self=False)[groups]
        )
        # E[(w - shift)^2] = Var[w] + (E[w] - shift)^2, without a second copy of the zoo
        squares = weights.var(0, correction=0) + (means - shift).square()
        scale = zeros.scatter_reduce(0, groups, squares, "mean", include_self=False)[groups].sqrt()
    return shift, torch.where(scale > rounding, scale, torch.ones_like(scale))


def spread_of(values: Tensor) -> Tensor:
    """Standard deviation of each column over the rows, (n, C) -> (C,); 1 where it does not vary.

    A column that the training tasks leave constant (1/k, when all have k classes) must not be blown up by a later one.
    """
    spread = values.std(0, correction=0)
    return torch.where(spread > 1e-6, spread, torch.ones_like(spread))
