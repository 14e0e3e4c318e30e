"""The mean of two networks' weights, once the hidden units of one are where the other has those like them."""

from __future__ import annotations

from torch import Tensor

from wspace.interfaces import Fusion
from wspace.interfaces.weights import WeightSpec
from wspace.weights.matching.by_weights import match, move


class GitRebasin(Fusion):
    """Weight matching, then the midpoint (Ainsworth et al., 2022, section 3.2): in table 3 of Tian et al. (2025).

    The second network's units are permuted along every axis that the target calls free. A target without one has nothing
    to match, and its networks are averaged.
    """

    def __init__(self, *, spec: WeightSpec):
        self.spec = spec

    def fuse(self, first: Tensor, second: Tensor) -> Tensor:
        if self.spec.free:
            second = move(second, self.spec, match(second, first, self.spec, self.spec.free))
        return (first + second) / 2
