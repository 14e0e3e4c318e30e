"""Importers: folders of networks that others trained, to be copied into a zoo."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from wspace.interfaces.weights import WeightSpec


@dataclass(frozen=True)
class Description:
    """What lies beside one network's weights: what it was trained for, and how well it does. Texts or classes are needed."""

    texts: tuple[str, ...] = ()  # sentences that describe what it was trained for
    classes: tuple[str, ...] = ()  # names, of what it tells apart
    metrics: Mapping[str, float] = field(
        default_factory=dict
    )  # name -> a finite number, in whatever unit its owner has
    seed: int | None = None  # that it was trained with
    parent: str | None = None  # name of the network that it was trained from
    extra: Mapping[str, Any] = field(default_factory=dict)  # anything else, as JSON


@dataclass(frozen=True)
class ImportedNetwork:
    """One network, not read yet."""

    name: str  # in the zoo
    file: Path  # what messages call it
    description: Description  # what lies beside its weights
    read: Callable[[], Mapping[str, Tensor]]  # tensors by name; may raise FileError


@dataclass(frozen=True)
class Collection:
    """Networks of one model, and what they share as far as the importer knows it."""

    networks: Sequence[ImportedNetwork]  # one or more; all have the same tensors
    spec: WeightSpec | None = None  # names, shapes and axes
    target: dict[str, Any] | None = None  # as a recipe writes it
    made_with: dict[str, Any] = field(default_factory=dict)  # what else they need: a base model, data
    left_over: Sequence[str] = ()  # what was not understood and may be a network: a sentence each, which names the file


class Importer(ABC):
    """Folders of one form to networks: what `wspace zoo import` reads."""

    version: ClassVar[int] = 1  # raise it when the class reads a folder otherwise
    takes: ClassVar[str]  # what such a folder holds, for messages: "checkpoints (.safetensors)"

    @abstractmethod
    def recognises(self, folder: Path) -> bool:
        """Whether the folder is of this form, by the names of its files; nothing is read."""

    @abstractmethod
    def collect(self, folder: Path) -> Collection:
        """Its networks. Raises FileError or DataError, which name the file."""

    @abstractmethod
    def example(self, folder: Path) -> None:
        """Write two small networks with their descriptions into an empty folder, in this form: for the checks."""
