"""Permutations of hidden units that may also change their signs: what networks of odd activations allow."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from wspace.interfaces import Part, Symmetry
from wspace.interfaces.weights import WeightSpec
from wspace.weights.matching.by_weights import Move, Moves, axes_of, match, move
from wspace.weights.permutations import AxisPermutations


class SignPermutation(Symmetry):
    """Signed permutations of each named axis: for odd activations, tanh(-x) = -tanh(x) (Chen, Lu, Hecht-Nielsen, 1993).

    A unit's incoming weights, bias and outgoing weights may all change sign together. Without `axes`: of each that the
    target calls free. An element is (places, signs) side by side, each of as many values as all axes have units: unit
    g[i] goes to place i, times sign i. Aligned by weight matching on absolute inner products, exact for a single axis.
    """

    def __init__(self, axes: tuple[str, ...] | None = None, *, spec: WeightSpec):
        self.spec, self.axes = spec, axes_of(spec, axes, "symmetry 'sign-permutation'")
        self.lengths = [spec.axis_size(axis) for axis in self.axes]
        self.permutation = AxisPermutations(spec, self.axes)

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        places = self.permutation.sample(count, rng)
        return _element(places, 2.0 * torch.randint(2, places.shape, generator=rng) - 1)

    def identity(self, count: int) -> Tensor:
        places = self.permutation.identity(count)
        return _element(places, torch.ones(places.shape))

    def inverse(self, elements: Tensor) -> Tensor:
        places, signs = _places_and_signs(elements)
        back = self.permutation.inverse(places)
        return _element(back, self._gathered(signs, back))

    def compose(self, left: Tensor, right: Tensor) -> Tensor:
        (outer, outer_signs), (first, first_signs) = _places_and_signs(left), _places_and_signs(right)
        return _element(self.permutation.compose(outer, first), outer_signs * self._gathered(first_signs, outer))

    def act(self, elements: Tensor, weights: Tensor) -> Tensor:
        return move(weights, self.spec, self._moves(elements))

    def align(self, weights: Tensor, reference: Tensor) -> Tensor:
        moves = match(weights, reference, self.spec, self.axes, signed=True).values()
        signs = [m.signs for m in moves if m.signs is not None]
        return _element(torch.cat([m.places for m in moves], dim=1), torch.cat(signs, dim=1))

    def parts(self) -> list[Part]:
        flips = [Part("flipping the signs of", axis, partial(SignPermutation, (axis,))) for axis in self.axes]
        return [*self.permutation.parts(), *flips]  # in this order: what fails only now is not the order of units

    def _gathered(self, values: Tensor, places: Tensor) -> Tensor:
        """Of each axis by itself: values[places]."""
        pairs = zip(values.split(self.lengths, dim=1), places.split(self.lengths, dim=1), strict=True)
        return torch.cat([part.gather(1, index) for part, index in pairs], dim=1)

    def _moves(self, elements: Tensor) -> Moves:
        parts = [part.split(self.lengths, dim=1) for part in _places_and_signs(elements)]
        return {axis: Move(places, signs) for axis, places, signs in zip(self.axes, *parts, strict=True)}


def _element(places: Tensor, signs: Tensor) -> Tensor:
    return torch.cat([places.to(torch.float32), signs.to(torch.float32)], dim=1)


def _places_and_signs(elements: Tensor) -> tuple[Tensor, Tensor]:
    places, signs = elements.chunk(2, dim=1)
    return places.long(), signs
