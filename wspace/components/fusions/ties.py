"""What two networks learned since they parted, without what is small and without what they contradict each other in."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt, Le
from torch import Tensor

from wspace.interfaces import Fusion


class Ties(Fusion):
    """TIES-merging (Yadav et al., 2023, algorithm 1): trim, elect signs, mean of those that agree; `scale` is their lambda.

    Defaults are those advised where there are no images to choose on (section 5).
    """

    def __init__(
        self, keep: Annotated[float, Gt(0), Le(1)] = 0.2, scale: Annotated[float, Gt(0)] = 1.0, *, base: Tensor
    ):
        self.keep, self.scale, self.base = keep, scale, base

    def fuse(self, first: Tensor, second: Tensor) -> Tensor:
        learned = torch.stack([self.trimmed(first - self.base), self.trimmed(second - self.base)])  # (2, B, P)
        elected = learned.sum(0).sign()
        agreeing = (learned.sign() == elected) & (learned != 0)
        mean = (learned * agreeing).sum(0) / agreeing.sum(0).clamp_min(1)
        return self.base + self.scale * mean

    def trimmed(self, learned: Tensor) -> Tensor:
        """(B, P): the largest `keep` of each row stay, the others are zero; of equals at the border, all stay."""
        count = max(1, round(self.keep * learned.shape[1]))
        border = learned.abs().topk(count, dim=1).values[:, -1:]
        return torch.where(learned.abs() >= border, learned, 0)
