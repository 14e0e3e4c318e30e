"""A point on the arc between two networks."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor

from wspace.interfaces import Fusion
from wspace.interfaces.weights import WeightSpec
from wspace.weights.interpolation import shares


class Slerp(Fusion):
    """Spherical interpolation (Shoemake, 1985), of each tensor by itself; `at` is 0 for the first network, 1 for the second.

    Halfway between two tensors at right angles the mean is shorter than either, by a factor of 0.7; the arc is not.
    """

    def __init__(self, at: Annotated[float, Ge(0), Le(1)] = 0.5, *, spec: WeightSpec):
        self.at, self.spec = at, spec

    def fuse(self, first: Tensor, second: Tensor) -> Tensor:
        ours, theirs = self.spec.unflatten(first), self.spec.unflatten(second)
        fused = {}
        for entry in self.spec.entries:
            left, right = ours[entry.name].flatten(1), theirs[entry.name].flatten(1)
            of_left, of_right = shares(left, right, self.at, "spherical")
            fused[entry.name] = (left * of_left.to(left)[:, None] + right * of_right.to(right)[:, None]).view(
                -1, *entry.shape
            )
        return self.spec.flatten(fused)
