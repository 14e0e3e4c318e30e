"""Permutations of hidden units: axes of the weights, moved together."""

from __future__ import annotations

import torch
from torch import Tensor

from wspace.errors import UserError
from wspace.interfaces import Symmetry
from wspace.weights import WeightSpec


class Permutation(Symmetry):
    """S_n for each named axis of the target's weights (Ainsworth et al., 2022, section 2).

    An element is the permutations of all axes side by side: (sum of axis lengths,) of indices, and moves unit
    g[i] to place i.
    """

    def __init__(self, axes: tuple[str, ...] | None = None, *, spec: WeightSpec):
        axes = spec.free if axes is None else axes
        if not axes:
            raise UserError("symmetry 'permutation': no axes to permute")
        for axis in axes:
            if axis not in spec.free:
                free = ", ".join(spec.free) or "none"
                raise UserError(
                    f"symmetry 'permutation': permuting axis {axis!r} of this target changes its function; free axes: {free}"
                )
        self.spec, self.axes = spec, axes
        self.lengths = [spec.axis_size(axis) for axis in axes]

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        return torch.cat([torch.rand(count, n, generator=rng).argsort(dim=1) for n in self.lengths], dim=1)

    def identity(self, count: int) -> Tensor:
        return torch.cat([torch.arange(n) for n in self.lengths]).expand(count, -1)

    def inverse(self, elements: Tensor) -> Tensor:
        return torch.cat([part.argsort(dim=1) for part in elements.split(self.lengths, dim=1)], dim=1)

    def compose(self, left: Tensor, right: Tensor) -> Tensor:
        parts = zip(left.split(self.lengths, dim=1), right.split(self.lengths, dim=1), strict=True)
        return torch.cat([outer.gather(1, first) for first, outer in parts], dim=1)

    def align(self, weights: Tensor, reference: Tensor) -> Tensor:
        raise NotImplementedError

    def act(self, elements: Tensor, weights: Tensor) -> Tensor:
        permutations = dict(zip(self.axes, elements.split(self.lengths, dim=1), strict=True))  # axis: (B, n)
        moved = self.spec.unflatten(weights)  # name: (B, *shape)
        for entry in self.spec.entries:
            tensor = moved[entry.name]
            for dim, axis in enumerate(entry.axes, start=1):
                if axis in permutations:
                    index = permutations[axis]  # (B, n)
                    index = index.view(len(index), *(-1 if d == dim else 1 for d in range(1, tensor.ndim)))
                    tensor = tensor.gather(dim, index.expand_as(tensor))
            moved[entry.name] = tensor
        return self.spec.flatten(moved)
