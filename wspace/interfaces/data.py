"""Pictures with class names, the frozen encoders, and the wording of a class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from wspace.support.errors import UserError

Task = tuple[int, ...]
"""Classes of one task, ascending, as indices into the data set's classes."""


@dataclass(frozen=True)
class Shots:
    """A few pictures of each class of B tasks. No order among a class's pictures means anything."""

    features: Tensor  # (B, K, S, F), zero where there is no picture
    counts: Tensor  # (B, K), how many of the S are a class's: the first so many; 0 where padded

    @property
    def there(self) -> Tensor:
        """(B, K, S) bool: False where there is no picture."""
        return torch.arange(self.features.shape[2]) < self.counts[..., None]

    def means(self) -> Tensor:
        """Of each class the mean of its pictures: (B, K, F), zero of a class that has none."""
        return self.features.sum(2) / self.counts.clamp_min(1)[..., None]


TRAIN = 0
"""Value of `Images.split` for images that networks are trained on."""
VAL = 1
"""Value of `Images.split` for training images that are set apart: every choice is made on them, never on test images."""
TEST = 2
"""Value of `Images.split` for images that scores are reported on."""


class Images(ABC):
    """Named images, read on demand."""

    classes: tuple[str, ...]  # names, each once
    labels: np.ndarray  # (M,) int64, index into classes
    split: np.ndarray  # (M,) int8: TRAIN, VAL or TEST; every class has TRAIN and TEST images, and most have VAL ones
    fingerprint: str  # changes whenever a pixel, a label or a split does
    former_fingerprints: tuple[
        str, ...
    ] = ()  # of the same images, by earlier versions: what was made with these is valid
    warnings: tuple[str, ...] = ()  # what a user should know, one sentence each

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Pixels (len(indices), S, S, 3), uint8 RGB."""


@dataclass(frozen=True)
class ClassStatistics:
    """Where classes lie in feature space by their training images, and what they are called."""

    texts: Tensor  # (n, T), rows of unit length
    means: Tensor  # (n, F), of each class the mean features of its images
    within: Tensor  # (F, F), covariance of features about these means


class Dataset(ABC):
    """Where images come from: a folder, a package, a download."""

    version: ClassVar[int] = 1  # part of every cached artifact's key: raise it when the class computes something else

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

    version: ClassVar[int] = 1  # part of every cached artifact's key: raise it when the class computes something else
    dim: int  # F
    fingerprint: str  # of weights and preprocessing: part of every feature cache's key
    licence: str = "unknown"  # of the weights, as their publisher writes it

    @abstractmethod
    def encode(self, pixels: np.ndarray) -> Tensor:
        """(M, S, S, 3) uint8 -> (M, F) float32 on the CPU, the same for every batch size up to rounding."""

    def layers(self) -> Layers:
        """What pictures of attention are made of (Grad-CAM). Raises UserError from a backbone that has no layers."""
        raise UserError("this recipe's backbone has no layers to look into")

    def module(self) -> nn.Module:
        """The same as one torch module, which exporters write: pixels (M, S, S, 3) uint8 -> (M, F), in float32.

        All its numbers are parameters and buffers. Raises UserError from a backbone that is no torch network.
        """
        raise UserError(
            "this recipe's backbone is no torch module that a file could hold: nothing on it can be exported"
        )


class Text(ABC):
    """A frozen text encoder."""

    version: ClassVar[int] = 1  # part of every cached artifact's key: raise it when the class computes something else
    dim: int  # T
    fingerprint: str  # of weights and tokenizer: part of the key of whatever is made of texts

    @abstractmethod
    def encode(self, sentences: Sequence[str]) -> Tensor:
        """(len(sentences), T) float32 on the CPU, rows of unit length."""


class Wording(ABC):
    """What is said of a class to the generator. What a network's scores are taken against stays `tasks.template`."""

    version: ClassVar[int] = 1  # part of every cached artifact's key: raise it when the class computes something else

    @abstractmethod
    def sentences(self, classes: Sequence[str], templated: Sequence[str]) -> list[tuple[str, ...]]:
        """One sentence or more for each class; `templated` are the recipe's template filled in. Raises UserError."""
