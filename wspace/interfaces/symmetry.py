"""Groups that act on weights and leave the function alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Part:
    """A subgroup that moves one axis of the weights alone: what is blamed where f(g·w) = f(w) fails."""

    doing: str  # to that axis, as a sentence says it: "permuting"
    axis: str  # its name in the spec
    on: Callable[..., Symmetry]  # on(spec=spec): the subgroup, for weights of that spec. May raise UserError


class Symmetry(ABC):
    """A group acting linearly on a target's weights without changing the function: f(g·w) = f(w).

    Elements are rows of one tensor (B, E), in whatever representation the group likes. That the function stays is not
    taken on trust: `wspace.weights.proof.prove` tries it on random weights before a run uses a symmetry.
    """

    version: ClassVar[int] = 1  # part of every cached artifact's key: raise it when the class computes something else

    @abstractmethod
    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """`count` random elements (count, E)."""

    @abstractmethod
    def identity(self, count: int) -> Tensor:
        """e, `count` times: act(e, w) = w."""

    @abstractmethod
    def inverse(self, elements: Tensor) -> Tensor:
        """act(inverse(g), act(g, w)) = w."""

    @abstractmethod
    def compose(self, left: Tensor, right: Tensor) -> Tensor:
        """act(compose(g, h), w) = act(g, act(h, w))."""

    @abstractmethod
    def act(self, elements: Tensor, weights: Tensor) -> Tensor:
        """g·w for each pair of rows: (B, E), (B, P) -> (B, P). Linear in the weights."""

    @abstractmethod
    def align(self, weights: Tensor, reference: Tensor) -> Tensor:
        """Elements (B, E) that bring each row of weights (B, P) near to `reference` (P,) or (B, P)."""

    def canonicalize(self, weights: Tensor, reference: Tensor) -> Tensor:
        """(B, P): the member of each network's orbit near to the reference."""
        return self.act(self.align(weights, reference), weights)

    def parts(self) -> list[Part]:
        """Subgroups that together make this group; none: it is blamed as a whole."""
        return []
