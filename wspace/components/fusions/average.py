"""The mean of two networks' weights."""

from __future__ import annotations

from torch import Tensor

from wspace.interfaces import Fusion


class Average(Fusion):
    """Half of each, weight by weight (Wortsman et al., 2022, "Model soups", section 2, with two ingredients)."""

    def fuse(self, first: Tensor, second: Tensor) -> Tensor:
        return (first + second) / 2
