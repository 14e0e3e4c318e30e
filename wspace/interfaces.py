"""The contracts of every kind of component. One abstract class per kind; implementations are final.

A component's constructor is its schema: positional parameters are set by the recipe (annotated with the closed list of
`wspace.signature`), keyword-only parameters are given by the run (`wspace.registry.GIVEN`). Randomness comes only through
the generator passed in as `rng`.

Letters in shapes, everywhere:
    B  networks or tasks of a batch      P  weights of one network, flattened
    N  tokens of one network             D  values of one token
    K  classes of a task                 M  images
    F  width of image features           T  width of text features
    L  condition tokens                  C  width of a condition token
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from wspace.errors import UserError, did_you_mean
from wspace.settings import Generate
from wspace.weights import WeightEntry, WeightSpec

# ---------------------------------------------------------------- data and frozen encoders

TRAIN, VAL, TEST = 0, 1, 2
"""Values of `Images.split`. VAL is part of the training images: every choice is made on it, never on TEST."""


class Images(ABC):
    """Named images, read on demand."""

    classes: tuple[str, ...]
    labels: np.ndarray  # (M,) int64, index into classes
    split: np.ndarray  # (M,) int8: TRAIN, VAL or TEST; every class has TRAIN and TEST images, and most have VAL ones
    fingerprint: str  # changes whenever a pixel, a label or a split does
    warnings: tuple[str, ...] = ()  # what a user should know, one sentence each

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Pixels (len(indices), S, S, 3), uint8 RGB."""


class Dataset(ABC):
    """Where images come from: a folder, a package, a download."""

    version: ClassVar[int] = 1

    @abstractmethod
    def load(self, cache: Path) -> Images:
        """Find or make the images; `cache` is a folder for what is expensive to make.

        Raises DataError when there is nothing to train on.
        """

    @abstractmethod
    def open_picture(self, path: Path) -> np.ndarray:
        """One picture from outside (S, S, 3), prepared as the data set's own. Raises DataError."""


@dataclass(frozen=True)
class Layers:
    """The network of a backbone, to be looked into while gradients pass through it."""

    network: nn.Module  # layers are called as its modules are
    features: Callable[[Tensor], Tensor]  # prepared pictures (M, 3, S, S) -> (M, F), differentiable in them
    prepare: Callable[[np.ndarray], Tensor]  # (M, S, S, 3) uint8 -> (M, 3, S, S)
    maps: Callable[[Tensor], Tensor]  # what a layer gives -> (M, C, h, w). Raises UserError if that has no places
    stages: tuple[str, ...] = ()  # layers worth looking at where none is named, the last of the network last


class Backbone(ABC):
    """A frozen image encoder."""

    version: ClassVar[int] = 1
    dim: int  # F
    fingerprint: str  # of weights and preprocessing: part of every feature cache's key

    @abstractmethod
    def encode(self, pixels: np.ndarray) -> Tensor:
        """(M, S, S, 3) uint8 -> (M, F) float32 on the CPU, the same for every batch size up to rounding."""

    def layers(self) -> Layers:
        """What pictures of attention are made of (Grad-CAM). Raises UserError from a backbone that has no layers."""
        raise UserError("this recipe's backbone has no layers to look into")


class Text(ABC):
    """A frozen text encoder."""

    version: ClassVar[int] = 1
    dim: int  # T
    fingerprint: str

    @abstractmethod
    def encode(self, sentences: Sequence[str]) -> Tensor:
        """(len(sentences), T) float32 on the CPU, rows of unit length."""


class Wording(ABC):
    """What is said of a class to the generator. What a network's scores are taken against stays `tasks.template`."""

    version: ClassVar[int] = 1

    @abstractmethod
    def sentences(self, classes: Sequence[str], templated: Sequence[str]) -> list[tuple[str, ...]]:
        """One sentence or more for each class; `templated` are the recipe's template filled in. Raises UserError."""


# ---------------------------------------------------------------- what is generated


class Architecture(ABC):
    """An ordinary torch module, made to measure: what the target `module` generates the weights of."""

    version: ClassVar[int] = 1
    sees: Literal["features", "pictures"] = "features"
    """Vectors (F,), or pictures (3, S, S) in [-1, 1], for which the backbone is to be `pixels`."""

    @abstractmethod
    def build(self, inputs: tuple[int, ...], outputs: int) -> nn.Module:
        """A fresh module: (M, *inputs) -> (M, outputs), image by image in evaluation mode.

        Initialised as its author would, by torch's global random numbers, which are seeded. Raises UserError for
        inputs that it cannot take.
        """

    def axes(self, module: nn.Module) -> Mapping[str, tuple[str, ...]] | None:
        """Name of each parameter and floating buffer -> what each dimension is made of (`wspace.axes`), by hand.

        Axes that have names may be permuted, which is proven before use; a number is a dimension whose order means
        something. None: found by tracing the module.
        """
        return None


class Target(ABC):
    """The architecture whose weights are generated: a classifier over frozen features, evaluated for many nets at once."""

    version: ClassVar[int] = 1
    spec: WeightSpec
    outputs: ClassVar[int] = 0
    """The dimension that the outputs of a matrix or a kernel are on: the first, as torch lays them out."""
    statistics: tuple[str, ...] = ()
    """Tensors that follow from the others and from images, and that nobody trains: running means of batch norm."""
    notes: tuple[str, ...] = ()  # what a user should know, one sentence each

    @abstractmethod
    def init(self, count: int, rng: torch.Generator) -> Tensor:
        """Fresh weights (count, P), as the architecture's author would initialise them."""

    def fans(self, entry: WeightEntry) -> tuple[int, int]:
        """Inputs and outputs of a matrix or a convolution's kernel."""
        field = prod(entry.shape[2:])
        return entry.shape[1 - self.outputs] * field, entry.shape[self.outputs] * field

    @abstractmethod
    def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:
        """Scores of every class, differentiable in `weights`.

        (B, P), (B, M, F), (B, K, T) -> (B, M, K): net b sees only features[b] and texts[b].
        """

    def training_logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:
        """As `logits`, while training: `statistics` are not read, but those of these very images take their place."""
        return self.logits(weights, features, texts)

    def calibrated(self, weights: Tensor, features: Tensor) -> Tensor:
        """Weights whose `statistics` are those of training images: (B, P), (B, M, F) -> (B, P); the others stay."""
        return weights

    def exported(self, weights: Tensor) -> dict[str, Tensor]:
        """One network (P,) as tensors for a file: those of the spec, and whatever `spec.aside` names."""
        return self.spec.unflatten(weights)


@dataclass(frozen=True)
class Part:
    """A subgroup that moves one axis of the weights alone: what is blamed where f(g·w) = f(w) fails."""

    doing: str  # to that axis, as a sentence says it: "permuting"
    axis: str
    on: Callable[..., Symmetry]  # on(spec=spec): the subgroup, for weights of that spec. May raise UserError


class Symmetry(ABC):
    """A group acting linearly on a target's weights without changing the function: f(g·w) = f(w).

    Elements are rows of one tensor (B, E), in whatever representation the group likes. That the function stays is not
    taken on trust: `wspace.proof.prove` tries it on random weights before a run uses a symmetry.
    """

    version: ClassVar[int] = 1

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


# ---------------------------------------------------------------- weights <-> tokens


@dataclass(frozen=True)
class TokenLayout:
    """Shape of a network's token sequence. Values outside `mask` are padding: zero, and ignored by every loss."""

    mask: Tensor  # (N, D) bool: True where a token value is a weight
    units: int = 0  # the first so many tokens are one each for a hidden unit: permuting units permutes these
    codes: int = 0  # above 0: token values are codes, whole numbers from 0 to below this
    places: Tensor | None = None  # (N, 3): of each token its tensor, the row there, and where in the row
    meanings: Callable[[], Tensor] | None = (
        None  # (D, codes, any width): the vectors that codes stand for, as learnt by now
    )

    @property
    def count(self) -> int:  # N
        return self.mask.shape[0]

    @property
    def width(self) -> int:  # D
        return self.mask.shape[1]


CODES = "this tokenizer's tokens are codes, which no symmetry moves: set train.augment and losses.symmetry to 0"


class Tokenizer(nn.Module, ABC):
    """Weights <-> a sequence of tokens. The round trip is exact up to float32 rounding, unless it says that it is `lossy`.

    A lossy one learns a code: its parameters are trained in a phase of their own (`reconstruction`), before the generator,
    by its `loss`. Its tokens are no places of weights, so that no symmetry acts on them.
    """

    version: ClassVar[int] = 1
    lossy: ClassVar[bool] = False
    layout: TokenLayout

    @abstractmethod
    def fit(self, weights: Tensor) -> None:
        """Take scales from the training zoo (n, P). They are buffers, so they are saved with the generator.

        Of a lossy one it is called before it learns, and again after that.
        """

    def loss(self, weights: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Of a lossy one: named scalars for networks (B, P), whose sum is descended."""
        raise NotImplementedError(f"{type(self).__name__} has nothing to learn")

    def figures(self) -> dict[str, Tensor]:
        """Of a lossy one: what the log says of the last `loss` beside it, such as how much of a codebook is in use."""
        return {}

    @abstractmethod
    def tokenize(self, weights: Tensor) -> Tensor:
        """(B, P) -> (B, N, D)."""

    @abstractmethod
    def detokenize(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, P)."""

    def through(self, name: str, values: Tensor) -> tuple[Tensor, Tensor]:
        """One tensor's values (B, size of it) as tokens (B, n, D), and back: for networks too large to take whole.

        Raises UserError from a tokenizer that cannot.
        """
        raise UserError("this tokenizer cannot take one tensor of a network at a time; `vq` can")

    def arrange(self, values: Tensor) -> Tensor:
        """One value a weight to where that weight lies among the tokens, unscaled: (B, P) -> (B, N, D).

        Raises UserError from a lossy one; every other has this and `collect`.
        """
        raise UserError(CODES)

    def collect(self, tokens: Tensor) -> Tensor:
        """`arrange` undone: (B, N, D) -> (B, P)."""
        raise UserError(CODES)


# ---------------------------------------------------------------- conditions


@dataclass(frozen=True)
class Prompts:
    """What is said about a batch of tasks: the text vectors of their classes, padded to the longest, and what else is known.

    Every field is of B tasks, a row or an item each; those that may be None are for conditioners that ask for them.
    """

    texts: Tensor  # (B, K, T), rows of unit length, zero where padded
    mask: Tensor  # (B, K) bool
    names: tuple[str, ...] | None = None  # what each task is called, as `wspace.tasks.name_of` has it

    def to(self, device: torch.device) -> Prompts:
        return self._each(lambda values: values.to(device) if isinstance(values, Tensor) else values)

    def __getitem__(self, index: Tensor | slice) -> Prompts:
        rows = range(len(self.mask))[index] if isinstance(index, slice) else index.tolist()
        return self._each(
            lambda values: values[index] if isinstance(values, Tensor) else tuple(values[r] for r in rows)
        )

    def _each(self, change: Callable[[Any], Any]) -> Prompts:
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(values) for name, values in known.items() if values is not None})


PICTURE_SIDE = 8
PICTURE = 3 * PICTURE_SIDE**2
"""Values of one picture in `Told.pictures`."""


@dataclass(frozen=True)
class Told:
    """What holds for all tasks of a run: its data set and its architecture, for conditioners that ask for them."""

    texts: Tensor  # (n, T), of the classes that the zoo knows, as prompts have them
    pictures: Tensor  # (n, S, PICTURE), some training images of each, made small, in [-1, 1]
    architecture: Tensor  # (T,), the text of what is generated


@dataclass(frozen=True)
class Condition:
    """A task as the generator sees it."""

    tokens: Tensor  # (B, L, C)
    mask: Tensor  # (B, L) bool: False where padded
    pooled: Tensor  # (B, C'), one parameter-free vector a task: what linear paths read

    def where(self, keep: Tensor, other: Condition) -> Condition:
        """This condition for the tasks with keep (B,) bool, `other` for the rest."""
        return Condition(
            torch.where(keep[:, None, None], self.tokens, other.tokens),
            torch.where(keep[:, None], self.mask, other.mask),
            torch.where(keep[:, None], self.pooled, other.pooled),
        )


class Conditioner(nn.Module, ABC):
    """What is said of a task, made into what a generator listens to."""

    version: ClassVar[int] = 1
    asks: ClassVar[bool] = False  # whether it is to be `told` of the data set and the architecture, before all else
    width: int  # C
    pooled_width: int  # C'

    def told(self, what: Told) -> None:
        """Take in what holds for all tasks. It is no part of the state: it is told again after that is loaded."""

    @abstractmethod
    def fit(self, prompts: Prompts) -> None:
        """Take statistics from the training tasks' prompts. They are buffers, saved with the generator."""

    @abstractmethod
    def forward(self, prompts: Prompts) -> Condition: ...

    @abstractmethod
    def null(self, like: Condition) -> Condition:
        """The condition that says nothing, shaped as `like`: for condition dropout and guidance."""

    def check(self, prompts: Prompts) -> None:
        """Raise UserError for a task of which it knows nothing; of such a task `forward` says what `null` does."""


# ---------------------------------------------------------------- generators


class Predictor(nn.Module, ABC):
    """The typical network of a task, in one step: what other generators draw around, and what a task loss trains.

    After `fit` it says two things: `of_zoo`, where the zoo's networks for such a task lie, which stays; and `forward`,
    which starts there and is trained on by the loss of the networks it makes.
    """

    version: ClassVar[int] = 1
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


class Denoiser(nn.Module, ABC):
    """Noisy tokens, noise level, condition -> the generator's prediction target, shaped as the tokens."""

    version: ClassVar[int] = 1

    @abstractmethod
    def forward(self, x: Tensor, level: Tensor, condition: Condition, anchor: Tensor) -> Tensor:
        """(B, N, D), (B,) in [0, 1] (0: clean, 1: pure noise), Condition, (B, N, D) -> (B, N, D).

        `anchor` is the zoo's mean network as tokens, and is moved whenever x is: what a denoiser that must not know
        places can tell units apart by. One that knows places may leave it.
        """


class Discriminator(nn.Module, ABC):
    """Tokens (B, N, D) -> (B,), a logit: above 0 for a network of the zoo, below for a generated one (T2W, eq. 13)."""

    version: ClassVar[int] = 1

    @abstractmethod
    def forward(self, tokens: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Moves:
    """One random element of the symmetry for each pair of a batch, as it acts on token values."""

    act: Callable[[Tensor], Tensor]  # (B, N, D) -> (B, N, D), linear
    augment: Tensor  # (B,) bool: pairs that are trained on moved (T2W, eq. 10)
    penalty: bool  # whether `loss` has a term "symmetry" (T2W, eq. 12)


@dataclass(frozen=True)
class Pairs:
    """A batch of training pairs: networks as tokens, their tasks as conditions."""

    tokens: Tensor  # (B, N, D)
    condition: Condition
    null: Condition
    moves: Moves | None = None


@dataclass(frozen=True)
class Closed:
    """What a generator may take closed forms from."""

    tokens: Tensor  # (n, N, D)
    condition: Condition
    held_out: tuple[Tensor, Condition]  # other training tasks, for choosing strengths
    anchor: Tensor  # (N, D), the mean network, each tensor scaled to unit size


class Generator(nn.Module, ABC):
    """How weights are drawn given a condition."""

    version: ClassVar[int] = 1
    samplers: ClassVar[tuple[str, ...]] = ()  # names that `generate.sampler` may have; the first is the default

    @abstractmethod
    def fit(self, closed: Closed) -> None:
        """Whatever has a closed form, before the first gradient step. May do nothing."""

    @abstractmethod
    def loss(self, pairs: Pairs, rng: torch.Generator) -> dict[str, Tensor]:
        """Named scalars, whose weighted sum is descended: `symmetry` by `losses.symmetry`, the others as they are."""

    def estimate(self, pairs: Pairs, noise: float, rng: torch.Generator) -> Tensor:
        """Networks as this generator makes them of the batch's, noised to a level of at most `noise`: (B, N, D).

        Differentiable, and never moved by the symmetry; what a discriminator sees (T2W, eq. 13).
        """
        raise UserError(
            "losses.adversarial: this generator makes no estimates for a discriminator to judge; set it to 0"
        )

    def task_parameters(self) -> list[nn.Parameter]:
        """What a task loss trains, and `loss` then leaves alone; none if this generator learns from weights only."""
        return []

    def typical(self, condition: Condition) -> Tensor:
        """Tokens (B, N, D) of one network a task, differentiable in `task_parameters`: where the task loss is taken."""
        raise NotImplementedError(f"{type(self).__name__} has no task parameters")

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

    def sampler_of(self, how: Generate) -> str | None:
        """The sampler asked for, or else the first; None of a generator without. Raises UserError for one it has not."""
        if how.sampler is None:
            return self.samplers[0] if self.samplers else None
        if how.sampler not in self.samplers:
            hint = did_you_mean(how.sampler, self.samplers) if self.samplers else " It has none to choose from."
            raise UserError(f"generate.sampler: this generator has no sampler {how.sampler!r}.{hint}")
        return how.sampler

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


# ---------------------------------------------------------------- two networks into one


class Fusion(ABC):
    """One network for two tasks out of a network for each, by their weights alone: no text, no images, no training."""

    version: ClassVar[int] = 1

    @abstractmethod
    def fuse(self, first: Tensor, second: Tensor) -> Tensor:
        """first[b] with second[b], of one target: (B, P), (B, P) -> (B, P)."""


# ---------------------------------------------------------------- evaluation


@dataclass(frozen=True)
class Outcome:
    """What one method did on the tasks of one split."""

    weights: Tensor  # (B, P)
    oracle: Tensor  # (B, P), weights trained for the same tasks
    predictions: Sequence[Tensor]  # per task (M_b,) predicted class
    labels: Sequence[Tensor]  # per task (M_b,) true class


class Metric(ABC):
    """A figure of the report: how good, or how new, a method's networks are."""

    version: ClassVar[int] = 1
    name: ClassVar[str]  # as in the report
    higher_is_better: ClassVar[bool]

    @abstractmethod
    def measure(self, outcome: Outcome) -> Tensor:
        """One value per task: (B,)."""
