"""How weights are drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from wspace.interfaces.conditions import Condition
from wspace.interfaces.tokens import TokenLayout
from wspace.support.errors import UserError, did_you_mean
from wspace.support.settings import Generate


class Predictor(nn.Module, ABC):
    """The typical network of a task, in one step: what other generators draw around, and what a task loss trains.

    After `fit` it says two things: `of_zoo`, where the zoo's networks for such a task lie, which stays; and `forward`,
    which starts there and is trained on by the loss of the networks it makes.
    """

    version: ClassVar[int] = 1  # part of every cached artifact's key: raise it when the class computes something else
    directions: int = 0
    """Of one that takes networks in parts (`fit_parts`, `at`): along how many of the zoo's directions its networks lie."""
    spread: Tensor  # (), root mean square of what `of_zoo` leaves of the zoo's tokens

    @abstractmethod
    def fit(self, tokens: Tensor, condition: Condition, held_out: tuple[Tensor, Condition]) -> None:
        """In closed form, from tokens (n, N, D) and their conditions; `held_out` ones are for choosing strengths."""

    @abstractmethod
    def of_zoo(self, condition: Condition) -> Tensor:
        """(B, N, D), of no trainable parameter."""

    @abstractmethod
    def forward(self, condition: Condition) -> Tensor:
        """(B, N, D), differentiable in the parameters."""

    def fit_parts(
        self,
        products: Tensor,
        condition: Condition,
        held_out: Condition,
        look: Callable[[Tensor, int], float] | None = None,
    ) -> Tensor:
        """As `fit`, of networks too large to be here: of each two of n + m, the mean product over all weights, (n + m, n + m).

        The first n are of tasks with this `condition`, the others held out. Networks are about the mean of the n, and each
        tensor is in units of its spread about that. `look` says how accurate the sum of all networks by some shares (n + m,) is
        for the task of one of them, by its number, on validation images; it takes a second or more, and is None where there are
        no images. Returns the directions that `at` is to be given a part of, each as a sum of the n networks about their mean:
        (A, n) float32, with A from 1 to `directions`. Raises UserError as `at` does.
        """
        raise UserError(TOO_LARGE)

    def at(self, layout: TokenLayout, along: Tensor) -> None:
        """From now on, tokens are those of this layout, a part of a network's; `along` (A, n, D), that part of its directions.

        `of_zoo` and `forward` are then of these tokens alone, about the zoo's mean, and nothing in it is as large as a network
        or grows with the zoo. It may be built with the layout of a part, too. Raises UserError in one that takes them whole.
        """
        raise UserError(TOO_LARGE)


TOO_LARGE = (
    "train.tokens: this predictor is as large as a network: take 'directions', or set generator.predictor to null; the zoo's "
    "mean takes its place"
)
"""What is said of a predictor where networks are taken in parts."""


class Denoiser(nn.Module, ABC):
    """Noisy tokens, noise level, condition -> the generator's prediction target, shaped as the tokens."""

    version: ClassVar[int] = 1  # part of every cached artifact's key: raise it when the class computes something else

    @abstractmethod
    def forward(self, x: Tensor, level: Tensor, condition: Condition, anchor: Tensor) -> Tensor:
        """(B, N, D), (B,) in [0, 1] (0: clean, 1: pure noise), Condition, (B, N, D) -> (B, N, D).

        `anchor` is the zoo's mean network as tokens, and is moved whenever x is: what a denoiser that must not know
        places can tell units apart by. One that knows places may leave it.
        """

    def at(self, layout: TokenLayout) -> None:
        """From now on, tokens are those of this layout, a part of a network's (`TokenLayout.part`).

        Of a denoiser that looks at each token by itself, given its place, and is no larger for a larger network. What it says
        of a token is then the same whatever others it is given with. Raises UserError in any other.
        """
        raise UserError(
            "train.tokens: this denoiser looks at all tokens of a network at once: take one that takes each by itself, such "
            "as 'by-token'"
        )


class Discriminator(nn.Module, ABC):
    """Tells networks of the zoo from generated ones (T2W, eq. 13)."""

    version: ClassVar[int] = 1  # part of every cached artifact's key: raise it when the class computes something else

    @abstractmethod
    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B,), logits: above 0 for a network of the zoo, below for a generated one."""


@dataclass(frozen=True)
class Moves:
    """One random element of the symmetry for each pair of a batch, as it acts on token values."""

    act: Callable[[Tensor], Tensor]  # (B, N, D) -> (B, N, D), linear
    augment: Tensor  # (B,) bool, on the CPU: pairs that are trained on moved (T2W, eq. 10)
    penalty: bool  # whether `loss` has a term "symmetry" (T2W, eq. 12)


@dataclass(frozen=True)
class Pairs:
    """A batch of training pairs: networks as tokens, their tasks as conditions."""

    tokens: Tensor  # (B, N, D)
    condition: Condition  # of B tasks
    null: Condition  # the condition that says nothing, for as many: condition dropout puts it in place of `condition`
    moves: Moves | None = None  # None: the recipe uses no symmetry


@dataclass(frozen=True)
class Closed:
    """What a generator may take closed forms from."""

    tokens: Tensor  # (n, N, D), of the training zoo
    condition: Condition  # of the n tasks
    held_out: tuple[Tensor, Condition]  # other training tasks, for choosing strengths
    anchor: Tensor  # (N, D), the mean network, each tensor scaled to unit size


class Generator(nn.Module, ABC):
    """How weights are drawn given a condition."""

    version: ClassVar[int] = 1  # part of every cached artifact's key: raise it when the class computes something else
    samplers: ClassVar[tuple[str, ...]] = ()  # names that `generate.sampler` may have; the first is the default
    draws: ClassVar[bool] = True  # False: a network depends on nothing that `Generate` says; users are told
    directions: int = 0
    """Of one that takes networks in parts, the `Predictor.directions` of what it draws around; 0: the zoo's mean alone."""
    task_loss_last: bool = False
    """Whether a task loss goes on from what `loss` has trained, on the same parameters. If not, it comes first, and `loss`
    leaves its parameters alone."""

    @abstractmethod
    def fit(self, closed: Closed) -> None:
        """Whatever has a closed form, before the first gradient step. May do nothing."""

    @abstractmethod
    def loss(self, pairs: Pairs, rng: torch.Generator) -> dict[str, Tensor]:
        """Named scalars, whose weighted sum is descended: `symmetry` by `losses.symmetry`, the others as they are.

        `symmetry` is returned where `pairs.moves.penalty` asks for it, and only there. Names that the training keeps for its
        own (`wspace.learning.terms.RESERVED`: `adversarial`, `product`, `loss`, ...) are refused.

        Each is a mean over the batch, and draws from `rng` have the batch as their first axis: a batch may be shared out.
        They are made with `device=rng.device`, which is where the batch lies.
        """

    def estimate(self, pairs: Pairs, noise: float, rng: torch.Generator) -> Tensor:
        """Networks as this generator makes them of the batch's, noised to a level of at most `noise`: (B, N, D).

        Differentiable, and never moved by the symmetry; what a discriminator sees (T2W, eq. 13).
        """
        raise UserError(
            "losses.adversarial: this generator makes no estimates for a discriminator to judge; set it to 0"
        )

    def equivariance_error(self, pairs: Pairs, rng: torch.Generator) -> Tensor | None:
        """|F(g x) - g F(x)| / |F(x)| of the learned map F, for `pairs.moves` as g: (B,); None of a generator without one."""
        return None

    def task_parameters(self) -> list[nn.Parameter]:
        """What a task loss trains, and `loss` leaves alone unless the task loss comes last; none if this generator learns
        from weights only."""
        return []

    def typical(self, condition: Condition) -> Tensor:
        """Tokens (B, N, D) of one network a task, differentiable in `task_parameters`: where the task loss is taken.

        Where tokens are codes, which have no gradient: shares (B, N, D, codes) of each, for `Tokenizer.blend`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no task parameters")

    def predicted(self, condition: Condition) -> Tensor | None:
        """Tokens (B, N, D) of the networks that draws lie around, where a predictor makes them before anything is drawn.

        What drawing is worth is told from these. None of a generator that has no such.
        """
        return None

    @abstractmethod
    def sample(
        self,
        condition: Condition,
        null: Condition,
        how: Generate,
        rng: torch.Generator,
        watch: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Tokens (B, N, D). `how.temperature` scales every random draw: 0 gives the most typical network.

        `watch` is called after every step, if there are any, with the steps done and the network (B, N, D) as it would
        now end. Raises UserError for a sampler it has not.
        """

    def fit_parts(
        self,
        products: Tensor,
        condition: Condition,
        held_out: Condition,
        look: Callable[[Tensor, int], float] | None = None,
    ) -> Tensor:
        """`Predictor.fit_parts` of the predictor that it draws around: (A, n). Called where `directions` is above 0."""
        raise UserError(TOO_LARGE)

    def at(self, layout: TokenLayout, anchor: Tensor, along: Tensor | None = None) -> None:
        """From now on, tokens are those of this layout, a part of a network's, and `anchor` (n, D) is that part of the anchor.

        `loss` and `sample` are then of these tokens alone, and nothing in it is as large as the network. It may be built with
        the layout of a part, too. `along` (A, n, D) is that part of the zoo's directions, and is given where `directions` is
        above 0. Raises UserError in a generator that has to see whole networks.
        """
        raise UserError(
            "train.tokens: this generator takes networks whole: take 'diffusion', 'flow' or 'predicted', or leave it out"
        )

    def sampler_of(self, how: Generate) -> str | None:
        """The sampler asked for, or else the first; None of a generator without. Raises UserError for one it has not."""
        if how.sampler is None:
            return self.samplers[0] if self.samplers else None
        if how.sampler not in self.samplers:
            hint = did_you_mean(how.sampler, self.samplers) if self.samplers else " It has none to choose from."
            raise UserError(f"generate.sampler: this generator has no sampler {how.sampler!r}.{hint}")
        return how.sampler

    def steps_of(self, how: Generate) -> int:
        """How many steps `sample` takes: those asked for, unless it has no more to take."""
        return how.steps

    def refine(
        self,
        tokens: Tensor,
        condition: Condition,
        null: Condition,
        how: Generate,
        level: float,
        rng: torch.Generator,
    ) -> Tensor:
        """Networks (B, N, D) noised to a level in (0, 1] and drawn from there on, as SDEdit does (Meng et al., 2022).

        Raises UserError from a generator that has no levels of noise.
        """
        raise UserError(
            "this generator has no levels of noise to go back to, so it cannot refine weights that are there"
        )
