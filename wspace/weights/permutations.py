"""Permutations of hidden units, on any named axes of the weights: what symmetries and proofs are made of."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from wspace.interfaces import Part, Symmetry
from wspace.interfaces.weights import WeightSpec
from wspace.weights.matching.by_weights import Move, axes_of, match, move


class AxisPermutations(Symmetry):
    """S_n for each named axis of the target's weights (Ainsworth et al., 2022, section 2).

    An element is the permutations of all axes side by side: (sum of axis lengths,) of indices, and moves unit g[i] to
    place i. Of an axis within another (dimensions of a head) units are permuted within their outer unit, and move with
    it. Networks are aligned by weight matching.
    """

    def __init__(self, spec: WeightSpec, axes: tuple[str, ...] | None = None):
        """Of these axes, or of those that the spec calls free. Raises UserError for an axis that cannot be permuted."""
        self.spec, self.axes = spec, axes_of(spec, axes, "symmetry 'permutation'")
        self.lengths = [spec.axis_size(axis) for axis in self.axes]  # units of each axis

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        drawn: dict[str, Tensor] = {}
        for axis, length in self._outermost_first():
            outer = self.spec.outer(axis)
            if outer is None:
                drawn[axis] = torch.rand(count, length, generator=rng).argsort(dim=1)
                continue
            units = self.spec.axis_size(outer)
            within = torch.rand(count, units, length // units, generator=rng).argsort(dim=2)
            of_outer = drawn.get(outer, torch.arange(units).expand(count, -1))
            drawn[axis] = (of_outer[..., None] * (length // units) + within).flatten(1)
        return torch.cat([drawn[axis] for axis in self.axes], dim=1)

    def identity(self, count: int) -> Tensor:
        return torch.cat([torch.arange(n) for n in self.lengths]).expand(count, -1)

    def inverse(self, elements: Tensor) -> Tensor:
        return torch.cat([part.argsort(dim=1) for part in elements.split(self.lengths, dim=1)], dim=1)

    def compose(self, left: Tensor, right: Tensor) -> Tensor:
        parts = zip(left.split(self.lengths, dim=1), right.split(self.lengths, dim=1), strict=True)
        return torch.cat([first.gather(1, outer) for outer, first in parts], dim=1)

    def act(self, elements: Tensor, weights: Tensor) -> Tensor:
        parts = zip(self.axes, elements.split(self.lengths, dim=1), strict=True)
        return move(weights, self.spec, {axis: Move(places) for axis, places in parts})

    def align(self, weights: Tensor, reference: Tensor) -> Tensor:
        moves = match(weights, reference, self.spec, self.axes)
        return torch.cat([moves[axis].places for axis in self.axes], dim=1)

    def parts(self) -> list[Part]:
        return [Part("permuting", axis, partial(AxisPermutations, axes=(axis,))) for axis in self.axes]

    def _outermost_first(self) -> list[tuple[str, int]]:
        return sorted(zip(self.axes, self.lengths, strict=True), key=lambda pair: self.spec.outer(pair[0]) is not None)
