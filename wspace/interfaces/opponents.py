"""What generated weights are set beside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import torch
from torch import Tensor

from wspace.interfaces.data import ClassStatistics, Shots, Task
from wspace.interfaces.symmetry import Symmetry
from wspace.interfaces.targets import Target
from wspace.support import settings
from wspace.support.errors import UserError
from wspace.support.progress import Progress

Made = TypeVar("Made")


class Fit(Protocol):
    """Networks trained on images, as `wspace.learning.fitting.fit_until_validated` does it."""

    def __call__(
        self,
        start: Tensor,
        tasks: Sequence[Task],
        rng: torch.Generator,
        *,
        steps: int,
        batch: int,
        lr: float,
        check_every: int,
        patience: int,
        only: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Network b from start[b] on training images of tasks[b]: weights (B, P), and validation accuracies (B,).

        `steps` of Adam at most, on `batch` images each. Every `check_every` steps validation images are looked at; the
        training stops when the mean has not improved for `patience` looks, and each network's best weights are kept. With
        `only`, booleans (P,), weights where it is false stay as they begin, but for `Target.statistics`.
        Raises Diverged for weights that are no longer finite.
        """
        ...


@dataclass(frozen=True)
class Evidence:
    """All that an opponent may go by, before it is asked for any task. No test image is in it, nor a generated network."""

    target: Target  # whose weights they all are
    shared_base: Tensor | None  # (P,), `base`, where the zoo's networks share one
    weights: Tensor
    """(n, P), of the zoo's networks as they lie in the zoo, whatever `train.align` says; the held-out ones last."""
    tasks: Sequence[Task]  # what each of them was trained for
    held_out: int  # the last so many of the zoo's networks: choices are made on their tasks, by `accuracy`
    classes: Task  # all that are not set apart as unseen; training on images of others would be cheating
    class_texts: Tensor  # (classes of the data set, T), what `target.logits` scores against
    images: Callable[[Task], tuple[Tensor, Tensor]]  # a task's training images: features (M, F), labels (M,) within it
    accuracy: Callable[
        [Tensor, Sequence[Task]], Tensor
    ]  # of network b on tasks[b]'s validation images: (B, P), ... -> (B,)
    fit: Fit  # trains networks on images
    rng: Callable[..., torch.Generator]  # random numbers by name, from the recipe's seed: `rng("noise", contest.split)`
    effort: settings.Opponents  # the recipe's section `opponents`
    zoo: settings.Zoo  # how the zoo's networks were trained
    progress: Progress  # told of what takes long
    auxiliary: Sequence[ClassStatistics] = ()  # of auxiliary data sets, but for one that `trains_on_images`
    described: Tensor | None = None  # `descriptions`, where there are any
    shown: tuple[int, ...] = ()  # how many pictures of each class tasks come with, in contests that have such
    symmetry: Symmetry | None = None
    """The recipe's, where it names one; none in an opponent that `trains_on_images`, whose stage knows of none."""
    given_mean: Tensor | None = None  # (P,), of `weights`, where these are too large to be together, and are not here
    _made: dict[Hashable, Any] = field(init=False, repr=False, default_factory=dict)

    @property
    def mean(self) -> Tensor:
        """(P,), of the zoo's networks; where these are taken in parts, of those that the generator learnt from."""
        return self.weights.mean(0) if self.given_mean is None else self.given_mean

    def once(self, what: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` gives, made when it is first asked for under this name: fits that several opponents share.

        Names are everybody's: those of a plugin begin with its own.
        """
        if what not in self._made:
            self._made[what] = make()
        return self._made[what]

    @property
    def base(self) -> Tensor:
        """(P,), that the zoo's networks were trained from. Raises UserError where each began at weights of its own.

        An opponent that cannot do without says so: `Opponent.from_base`.
        """
        if self.shared_base is None:
            raise UserError(
                "each of the zoo's networks began at weights of its own (zoo.start: fresh): there is no base"
            )
        return self.shared_base

    def starts(self, count: int, rng: torch.Generator) -> Tensor:
        """(count, P), where networks begin that are trained as the zoo's are: at its base, or each at fresh weights."""
        return self.target.init(count, rng) if self.shared_base is None else self.shared_base.expand(count, -1)

    @property
    def descriptions(self) -> Tensor:
        """(n, D), of the zoo's tasks: mean text, number of classes, and their product, each at unit variance. Of a target with
        `places`, the text at each place, and the number.

        Raises UserError in an opponent that `trains_on_images`: that one is made before any text is told.
        """
        return _given(self.described, "descriptions")


@dataclass(frozen=True)
class Contest:
    """The tasks of one split, for which an opponent is asked."""

    split: str  # "seen", "unseen-tasks", "unseen-classes", or a further one, as "unseen-classes-20-pictures-4"
    tasks: Sequence[Task]  # B of them
    described: Tensor | None = None  # `descriptions`, where there are any
    drawn_for_others: Tensor | None = None  # `mismatched`, where there are any
    shots: Shots | None = None  # pictures of the tasks' classes: in every contest of an opponent that `takes_pictures`

    @property
    def descriptions(self) -> Tensor:
        """(B, D), on the scale of `Evidence.descriptions`. Raises UserError as that does."""
        return _given(self.described, "descriptions")

    @property
    def mismatched(self) -> Tensor:
        """(B, P): what the generator drew from the description of another task of the split. Raises UserError as above."""
        return _given(self.drawn_for_others, "generated networks")


def _given(tensor: Tensor | None, label: str) -> Tensor:
    if tensor is None:
        raise UserError(f"an opponent that trains on images is made before there are {label}; it cannot go by them")
    return tensor


class Opponent(ABC):
    """A method that generated weights are set beside: it has the same tasks, and is scored on the same test images.

    A recipe names its opponents in `against`. Their class variables are literals, which are read without an import.
    """

    version: ClassVar[int] = 1  # part of every cached artifact's key: raise it when the class computes something else
    what: ClassVar[str]
    """What it is, as the report explains it beside the scores: one clause."""
    called: ClassVar[str]
    """What a sentence calls it, as in "better than the oracle"."""
    place: ClassVar[int]
    """Where it stands in tables, from the strongest by nature (the oracle, 0) to the weakest (random weights, 90).

    Generated weights are at 10.
    """
    prominence: ClassVar[Literal["headline", "tables", "report"]] = "tables"
    """`headline`: the report's first sentence and the differences of a study have it, too. `tables`: those of several runs.
    `report`: only that of the run itself."""
    novelty: ClassVar[bool] = False
    """Whether the report says how far its networks are from the zoo's."""
    linear: ClassVar[bool] = False
    """Whether its networks are `Target.from_linear`'s: a target without that is refused before anything is trained."""
    from_base: ClassVar[bool] = False
    """Whether it goes by the base that the zoo's networks share: it is left out where each began at weights of its own."""
    from_zoo: ClassVar[bool] = True
    """Whether it goes by the zoo's networks themselves (`Evidence.weights`): it is left out where these are so large that they
    are taken in parts (`train.tokens`). Their `mean` is there in any case."""
    one_for_all: ClassVar[bool] = False
    """Whether it trains one network for every task: it is left out where the target has `places`, for no network serves two
    orders of the same classes."""
    trains_on_images: ClassVar[bool] = False
    """Whether it is made in stage `opponents`: of zoo and images alone, and kept for every recipe that shares these."""
    takes_pictures: ClassVar[bool] = False
    """Whether it goes by a few pictures of each class: it is asked for the tasks that come with some (`tasks.pictures`), and
    for no others. Where it does not, its networks for such tasks are those for the same tasks without pictures."""

    def choose(self, evidence: Evidence) -> dict[str, float]:
        """Called once, before `weights`, if `resume` is not enough: what is chosen or fitted for all tasks, kept here.

        What it gives (name -> number) is in the report, among what was chosen on validation images.
        """
        return {}

    def resume(self, chosen: Mapping[str, float]) -> bool:
        """Take what `choose` gave to another object of this class, in the place of choosing. False: that is not enough.

        Then `choose` is called here as well. What it says must be the same for whatever numbers.
        """
        return False

    @abstractmethod
    def weights(self, evidence: Evidence, contest: Contest) -> Tensor:
        """Networks for the tasks of a contest: (B, P); or (P,), one network for every task of every split, asked for once.

        Statistics of images (`Target.statistics`) need not be right: they are taken anew, for all methods alike.
        """
