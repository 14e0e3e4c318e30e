"""What is said of a task, and how a generator listens to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from wspace.support.errors import UserError


@dataclass(frozen=True)
class Prompts:
    """What is said about a batch of tasks: the text vectors of their classes, padded to the longest, and what else is known.

    Classes come in the order that the task has them, which means something where a target has `places`.

    Every field is of B tasks, a row or an item each; those that may be None are for conditioners that ask for them.
    """

    texts: Tensor  # (B, K, T), rows of unit length, zero where padded
    mask: Tensor  # (B, K) bool
    names: tuple[str, ...] | None = None  # what each task is called, as `wspace.data.prompts.name_of` has it
    pictures: Tensor | None = (
        None  # (B, K, F), of each class the mean features of pictures that were given with its name
    )
    shots: Tensor | None = None  # (B, K), how many pictures those are; 0 for a class that goes by its words
    centre: Tensor | None = None  # (B, F), mean features of unlabelled pictures, as those that networks are to name

    def count(self) -> Tensor:
        """(B, 1): how many classes each task has."""
        return self.mask.sum(1, keepdim=True)

    def mean_text(self) -> Tensor:
        """(B, T): over the classes of each task."""
        return self.texts.sum(1) / self.count()

    def in_places(self, places: int) -> Tensor:
        """(B, places * T): the text of the first class, of the second and so on, zero where a task has no more.

        Raises UserError for a task of more classes.
        """
        most = int(self.count().max())
        if most > places:
            raise UserError(f"a task has {most} classes, and there are places for {places}")
        texts = functional.pad(self.texts, (0, 0, 0, max(0, places - self.texts.shape[1])))[:, :places]
        return texts.flatten(1)

    def to(self, device: torch.device) -> Prompts:
        """The same, with all tensors on this device."""
        return self._each(lambda values: values.to(device) if isinstance(values, Tensor) else values)

    def __getitem__(self, index: Tensor | slice) -> Prompts:
        """Of some rows, whose numbers lie on the CPU."""
        rows = range(len(self.mask))[index] if isinstance(index, slice) else index.tolist()
        there = index if isinstance(index, slice) else index.to(self.mask.device)
        return self._each(
            lambda values: values[there] if isinstance(values, Tensor) else tuple(values[r] for r in rows)
        )

    def _each(self, change: Callable[[Any], Any]) -> Prompts:
        by_field = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(values) for name, values in by_field.items() if values is not None})


PICTURE_SIDE = 8
"""Pixels along one side of a picture in `Told.pictures`."""

PICTURE = 3 * PICTURE_SIDE**2
"""Values of one picture in `Told.pictures`."""


@dataclass(frozen=True)
class Told:
    """What holds for all tasks of a run: its data set and its architecture, for conditioners that ask for them."""

    texts: Tensor  # (n, T), of the classes that the zoo knows, as prompts have them
    pictures: (
        Tensor  # (n, S, PICTURE), some training images of each, made small, in [-1, 1]; S is 0 if nobody looks at them
    )
    architecture: Tensor  # (T,), the text of what is generated
    means: Tensor | None = (
        None  # (n, F), of each class the mean features of its training images; with auxiliary classes last
    )
    within: Tensor | None = None  # (F, F), covariance of features about these means


@dataclass(frozen=True)
class Condition:
    """A task as the generator sees it."""

    tokens: Tensor  # (B, L, C)
    mask: Tensor  # (B, L) bool: False where padded
    pooled: Tensor  # (B, C'), one parameter-free vector a task: what linear paths read
    start: Tensor | None = None  # (B, N, D), networks to start from, where the conditioner has such
    classes: int | None = None  # so many of the first tokens are the task's classes, in its order; None: all of them

    def where(self, keep: Tensor, other: Condition) -> Condition:
        """This condition for the tasks with keep (B,) bool, `other` for the rest; the networks to start from stay."""
        return Condition(
            torch.where(keep[:, None, None], self.tokens, other.tokens),
            torch.where(keep[:, None], self.mask, other.mask),
            torch.where(keep[:, None], self.pooled, other.pooled),
            self.start,
            self.classes,
        )


class Conditioner(nn.Module, ABC):
    """What is said of a task, made into what a generator listens to."""

    version: ClassVar[int] = 1  # part of every cached artifact's key: raise it when the class computes something else
    asks: ClassVar[bool] = False  # whether it is to be `told` of the data set and the architecture, before all else
    linear: ClassVar[bool] = (
        False  # whether `starting_networks` are `Target.from_linear`'s: a target without is refused
    )
    takes_pictures: ClassVar[bool] = (
        False  # whether it reads pictures and centre of prompts; a literal of the class itself
    )
    keeps_order: ClassVar[bool] = (
        False  # whether another order of a task's classes is another condition: a target with `places` needs one that does
    )
    looks_at: ClassVar[Literal["pictures", "features"]] = "pictures"  # what it is told of images, if it asks
    width: int  # C
    pooled_width: int  # C'

    def told(self, what: Told) -> None:
        """Take in what holds for all tasks. It is no part of the state.

        Called once before `fit`, and again after every load of the state: `wspace.learning.system.System` sees to it.
        """

    def drawn_from_told(self) -> dict[str, Tensor]:
        """What `told` came to, by names, where it takes long to work out: it is stored beside the generator.

        Nothing of a conditioner that takes it in at once.
        """
        return {}

    def recall(self, drawn: Mapping[str, Tensor]) -> None:
        """Take in `drawn_from_told` of an equal conditioner, in place of `told`. Never called with nothing."""
        raise NotImplementedError(f"{type(self).__name__} gives what it draws from `told`, and cannot recall it")

    @abstractmethod
    def fit(self, prompts: Prompts) -> None:
        """Take statistics from the training tasks' prompts. They are buffers, saved with the generator."""

    @abstractmethod
    def forward(self, prompts: Prompts) -> Condition:
        """B tasks -> tokens (B, L, C), their mask (B, L), and pooled vectors (B, C')."""

    @abstractmethod
    def null(self, like: Condition) -> Condition:
        """The condition that says nothing, shaped as `like`: for condition dropout and guidance."""

    def starting_networks(self, prompts: Prompts) -> Tensor | None:
        """Networks (B, P) to start from, in closed form; None of a conditioner that knows nothing of networks.

        What a predictor makes of them is its own affair: see `offset`.
        """
        return None

    def check(self, prompts: Prompts) -> None:
        """Raise UserError for a task of which it knows nothing; of such a task `forward` says what `null` does."""
