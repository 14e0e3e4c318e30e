"""What an importer finds in a folder: networks that are not read yet, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from wspace.interfaces.weights import WeightSpec


@dataclass(frozen=True)
class Said:
    """What was said of one network, beside its weights."""

    texts: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    seed: int | None = None
    parent: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """One network."""

    name: str
    file: Path  # what messages call it
    said: Said
    read: Callable[[], Mapping[str, Tensor]]  # may raise FileError


@dataclass(frozen=True)
class Collection:
    networks: Sequence[Found]
    spec: WeightSpec | None = None  # names, shapes and axes, where the importer knows them
    target: dict[str, Any] | None = None
    made_with: dict[str, Any] = field(default_factory=dict)
