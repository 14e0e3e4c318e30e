"""What is generated: architectures, and targets made of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.support.errors import UserError


def cross_entropy(logits: Tensor, hidden: Tensor, labels: Tensor) -> Tensor:
    """Of each network on its own images, the mean: (B, M, K), (B, 1, K), (B, M) -> (B,). Its task has no `hidden` class."""
    visible = logits.masked_fill(hidden, -torch.inf)
    return functional.cross_entropy(visible.mT, labels, reduction="none").mean(1)


class Architecture(ABC):
    """An ordinary torch module, made to measure: what the target `module` generates the weights of."""

    version: ClassVar[int] = 1  # part of every cached artifact's key: raise it when the class computes something else
    sees: Literal["features", "pictures"] = "features"
    """Vectors (F,), or pictures (3, S, S) in [-1, 1], for which the backbone is to be `pixels`."""

    @abstractmethod
    def build(self, inputs: tuple[int, ...], outputs: int) -> nn.Module:
        """A fresh module: (M, *inputs) -> (M, outputs), image by image in evaluation mode.

        Initialised as its author would, by torch's global random numbers, which are seeded. Raises UserError for
        inputs that it cannot take.
        """

    def axes(self, module: nn.Module) -> Mapping[str, tuple[str, ...]] | None:
        """Name of each parameter and floating buffer -> what each dimension is made of (`wspace.interfaces.axes`), by hand.

        Axes that have names may be permuted, which is proven before use; a number is a dimension whose order means
        something. None: found by tracing the module.
        """
        return None


class Target(ABC):
    """The architecture whose weights are generated: a classifier over frozen features, evaluated for many nets at once."""

    version: ClassVar[int] = 1  # part of every cached artifact's key: raise it when the class computes something else
    spec: WeightSpec  # names, shapes and axes of the tensors that are generated
    outputs: ClassVar[int] = 0
    """The dimension that the outputs of a matrix or a kernel are on: the first, as torch lays them out."""
    concurrent: ClassVar[bool] = False
    """Whether several threads may call it at a time, as none may where a call changes the target, if only meanwhile:
    `torch.func.functional_call` does, of the module that it is given."""
    of_module: ClassVar[tuple[str, ...]] = ()
    """Settings that say which torch module its networks are. Where one is not at its default, only torch can tell whether there
    is such a module, and `wspace check` builds it. A literal of the class itself, read without an import."""
    statistics: tuple[str, ...] = ()
    """Tensors that follow from the others and from images, and that nobody trains: running means of batch norm."""
    places: int = 0
    """How many outputs stand for a task's classes, in the order that the task has them: the first for its first class. 0: a
    network is scored against the classes' texts, and their order means nothing."""
    notes: tuple[str, ...] = ()  # what a user should know, one sentence each
    linear_rank: int | None = None
    """Most independent scores that `from_linear` can hold, where there is a most: of more, it keeps the principal ones."""
    base_model: str = ""
    """Of adapters: what the frozen network that they are added to is called where it is had; empty if it has no name."""

    @abstractmethod
    def init(self, count: int, rng: torch.Generator) -> Tensor:
        """Fresh weights (count, P), as the architecture's author would initialise them."""

    def serves(self) -> Tensor | None:
        """Of each weight (P,) the place of the output that it serves alone, as a row of the last layer does; -1 if several do.

        None of a target without `places`, or one that does not know.
        """
        return None

    def fans(self, entry: WeightEntry) -> tuple[int, int]:
        """Inputs and outputs of a matrix or a convolution's kernel."""
        field = prod(entry.shape[2:])
        return entry.shape[1 - self.outputs] * field, entry.shape[self.outputs] * field

    @abstractmethod
    def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:
        """Scores of every class, differentiable in `weights`.

        (B, P), (B, M, F), (B, K, T) -> (B, M, K): net b sees only features[b] and texts[b]; of texts only how many there
        are, where it has `places`.
        """

    def training_logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:
        """As `logits`, while training: `statistics` are not read, but those of these very images take their place."""
        return self.logits(weights, features, texts)

    def descent(
        self, weights: Tensor, features: Tensor, texts: Tensor, hidden: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What a step of training goes by: `cross_entropy` (B,) of `training_logits`, and its gradient in the weights (B, P).

        (B, P), (B, M, F), (B, K, T), (B, 1, K), (B, M) -> (B,), (B, P), neither of which is differentiable. The default
        differentiates; a target may write the gradient out, where that is faster.
        """
        with torch.enable_grad():
            leaf = weights.detach().requires_grad_()
            losses = cross_entropy(self.training_logits(leaf, features, texts), hidden, labels)
            (gradient,) = torch.autograd.grad(losses.sum(), [leaf])
        return losses.detach(), gradient

    def holding(self, trained: Tensor) -> AbstractContextManager[None]:
        """Inside, nobody reads gradients of weights where `trained` (P,) is false: a target may leave them at zero, sooner.

        No other thread calls the target meanwhile, unless it is `concurrent`. The default differentiates all the same.
        """
        return nullcontext()

    def calibrated(self, weights: Tensor, features: Tensor) -> Tensor:
        """Weights whose `statistics` are those of training images: (B, P), (B, M, F) -> (B, P); the others stay."""
        return weights

    def from_linear(self, scorers: Tensor, bias: Tensor, texts: Tensor, mask: Tensor) -> Tensor:
        """Networks whose scores are linear in the features, as near to these as the architecture allows: (B, P).

        Scores (B, M, K) are features @ scorers.mT + bias, up to what is the same for all classes of an image. `scorers` are
        (B, K, F), `bias` (B, K); `texts` (B, K, T) are what `logits` will see, and `mask` (B, K) tells padding. Nothing is
        trained. Raises UserError in a target that has no such closed form.
        """
        raise UserError("this target cannot be put together from linear scores")

    def plain(self, weights: Tensor) -> nn.Module:
        """One network (P,) as a torch module with these weights: features (M, F), texts (K, T) -> scores (M, K).

        What somebody would train who has a single network. The default trains a vector of weights through `logits`;
        a target whose networks are ordinary layers may return those.
        """
        return _Alone(self, weights)

    def frozen(self, weights: Tensor, texts: Tensor) -> nn.Module:
        """One network (P,) for classes of these texts (K, T), for good: features (M, F) -> scores (M, K).

        What exporters write: all its numbers are parameters and buffers. The default computes `logits`; a target may
        give a plainer module that computes the same.
        """
        return _Frozen(self, weights, texts)

    def exported(self, weights: Tensor) -> dict[str, Tensor]:
        """One network (P,) as tensors for a file: those of the spec, and whatever `spec.aside` names."""
        return self.spec.unflatten(weights)


class _Alone(nn.Module):
    """One of a target's networks, its weights a parameter."""

    def __init__(self, target: Target, weights: Tensor):
        super().__init__()
        self.target, self.weights = target, nn.Parameter(weights.clone())

    def forward(self, features: Tensor, texts: Tensor) -> Tensor:
        logits = self.target.training_logits if self.training else self.target.logits
        return logits(self.weights[None], features[None], texts[None])[0]


class _Frozen(nn.Module):
    """One of a target's networks with the texts of its classes, as buffers."""

    def __init__(self, target: Target, weights: Tensor, texts: Tensor):
        super().__init__()
        self.target = target
        self.weights, self.texts = nn.Buffer(weights.clone()), nn.Buffer(texts.clone())

    def forward(self, features: Tensor) -> Tensor:
        return self.target.logits(self.weights[None], features[None], self.texts[None])[0]
