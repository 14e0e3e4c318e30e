"""Permutations of hidden units: axes of the weights, moved together."""

from __future__ import annotations

from wspace.api import AxisPermutations, WeightSpec


class Permutation(AxisPermutations):
    """S_n for each named axis of the target's weights (Ainsworth et al., 2022, section 2).

    Without `axes`: for each that the target calls free. An element is the permutations of all axes side by side: (sum of
    axis lengths,) of indices, and moves unit g[i] to place i. Of an axis within another (dimensions of a head) units are
    permuted within their outer unit, and move with it. Networks are aligned by weight matching.
    """

    def __init__(self, axes: tuple[str, ...] | None = None, *, spec: WeightSpec):
        super().__init__(spec, axes)
