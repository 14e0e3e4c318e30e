"""The trivial group: nothing moves."""

from __future__ import annotations

import torch
from torch import Tensor

from wspace.interfaces import Symmetry


class Trivial(Symmetry):
    """The identity alone; its element is empty (B, 0). For measuring what another symmetry is worth."""

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        return torch.empty(count, 0)

    def identity(self, count: int) -> Tensor:
        return torch.empty(count, 0)

    def inverse(self, elements: Tensor) -> Tensor:
        return elements

    def compose(self, left: Tensor, right: Tensor) -> Tensor:
        return left

    def act(self, elements: Tensor, weights: Tensor) -> Tensor:
        return weights

    def align(self, weights: Tensor, reference: Tensor) -> Tensor:
        return self.identity(len(weights))
