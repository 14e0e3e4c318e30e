"""Weights as sequences of tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from wspace.interfaces.old_names import keep_old_method
from wspace.support.errors import UserError


@dataclass(frozen=True)
class Span:
    """Values that lie side by side in the token of a unit."""

    length: int
    """How many values."""
    axis: str | None = None
    """The axis of whose units each has as many of the values, unit after unit: unflatten(-1, (units, -1)). None: values whose
    places mean something."""


@dataclass(frozen=True)
class UnitTokens:
    """Tokens of the units of one axis, one each, in order: permuting units permutes tokens."""

    axis: str
    """Its name in the spec."""
    count: int
    """How many units."""
    spans: tuple[Span, ...]
    """What a token holds from its first value on, in the order of the spec's tensors: a span for each that it has a part of.
    Permuting the units of a span's axis permutes the values in it."""


@dataclass(frozen=True)
class TokenLayout:
    """Shape of a network's token sequence. Values outside `mask` are padding: zero, and ignored by every loss."""

    mask: Tensor  # (N, D) bool: True where a token value is a weight
    units: int = 0
    """The first so many tokens are one each for the units of one axis; of several axes there are `groups`."""
    codes: int = 0  # above 0: token values are codes, whole numbers from 0 to below this
    places: Tensor | None = None  # (N, 3): of each token its tensor, the row there, and where in the row
    serves: Tensor | None = None
    """(N, D), of a target with places: the place of the class that a token value serves alone, -1 for one that serves several.
    None where nothing is known."""
    meanings: Callable[[], Tensor] | None = (
        None  # (D, codes, any width): the vectors that codes stand for, as learnt by now
    )
    groups: tuple[UnitTokens, ...] = ()  # of a token for each unit of several axes: the first tokens, axis after axis
    stretches: Tensor | None = None
    """(N, 2), of tokens that hold weights as they are, side by side: where in the flat vector (P,) a token's begin, and how
    many they are. A token's weights are all of one tensor, and tokens come in the order of the weights. None of others."""

    def part(self, rows: Tensor) -> TokenLayout:
        """Of the tokens with these numbers (n,) alone."""
        places, stretches = (None if of_all is None else of_all[rows] for of_all in (self.places, self.stretches))
        return TokenLayout(self.mask[rows], places=places, stretches=stretches)

    @property
    def count(self) -> int:  # N
        return self.mask.shape[0]

    @property
    def width(self) -> int:  # D
        return self.mask.shape[1]


CODES = "this tokenizer's tokens are codes, which no symmetry moves: set train.augment and losses.symmetry to 0"
"""What a lossy tokenizer says when a symmetry is to act on its tokens."""


class Tokenizer(nn.Module, ABC):
    """Weights <-> a sequence of tokens. The round trip is exact up to float32 rounding, unless it says that it is `lossy`.

    A lossy one learns a code: its parameters are trained in a phase of their own (`reconstruction`), before the generator,
    by its `loss`. Its tokens are no places of weights, so that no symmetry acts on them.
    """

    version: ClassVar[int] = 1  # part of every cached artifact's key: raise it when the class computes something else
    lossy: ClassVar[bool] = False  # whether it learns a code, so that a round trip changes the weights
    layout: TokenLayout  # of every network's tokens

    @abstractmethod
    def fit(self, weights: Tensor) -> None:
        """Take scales from the training zoo (n, P). They are buffers, so they are saved with the generator.

        Of a lossy one it is called before it learns, and again after that.
        """

    def loss(self, weights: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Of a lossy one: named scalars for networks (B, P), whose sum is descended.

        Names that the training keeps for its own (`wspace.learning.terms.RESERVED`) are refused.
        """
        raise NotImplementedError(f"{type(self).__name__} has nothing to learn")

    def log_values(self) -> dict[str, Tensor]:
        """Of a lossy one: scalars that the log has of the last `loss` beside it, such as how much of a codebook is in use."""
        return {}

    def figures(self) -> dict[str, Tensor]:
        """The old name of `log_values`, until 0.3."""
        return Tokenizer.log_values(self)  # not an override's: an old `figures` may call this one by `super()`

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        keep_old_method(cls, "figures", "log_values")

    @abstractmethod
    def tokenize(self, weights: Tensor) -> Tensor:
        """(B, P) -> (B, N, D)."""

    @abstractmethod
    def detokenize(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, P)."""

    def blend(self, shares: Tensor) -> Tensor:
        """Networks (B, P) of shares (B, N, D, codes) of each code, differentiable in these; of a tokenizer that writes codes.

        Where each share is 0 or 1 it is `detokenize` of the codes that have all of it. Raises UserError from one that cannot.
        """
        raise UserError(
            "task_loss: this tokenizer cannot blend codes, so no task loss reaches a generator of its codes"
        )

    def through(self, name: str, values: Tensor) -> tuple[Tensor, Tensor]:
        """One tensor's values (B, size of it) as tokens (B, n, D), and back: for networks too large to take whole.

        Raises UserError from a tokenizer that cannot.
        """
        raise UserError("this tokenizer cannot take one tensor of a network at a time: choose one whose `through` does")

    def arrange(self, values: Tensor) -> Tensor:
        """One value a weight to where that weight lies among the tokens, unscaled: (B, P) -> (B, N, D).

        Raises UserError from a lossy one; every other has this and `collect`.
        """
        raise UserError(CODES)

    def collect(self, tokens: Tensor) -> Tensor:
        """`arrange` undone: (B, N, D) -> (B, P)."""
        raise UserError(CODES)
