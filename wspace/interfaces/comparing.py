"""Networks set against each other: fusions and metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


class Fusion(ABC):
    """One network for two tasks out of a network for each, by their weights alone: no text, no images, no training."""

    version: ClassVar[int] = 1  # part of every cached artifact's key: raise it when the class computes something else

    @abstractmethod
    def fuse(self, first: Tensor, second: Tensor) -> Tensor:
        """first[b] with second[b], of one target: (B, P), (B, P) -> (B, P)."""


@dataclass(frozen=True)
class Outcome:
    """What one method did on the tasks of one split."""

    weights: Tensor  # (B, P)
    oracle: Tensor  # (B, P), weights trained for the same tasks
    predictions: Sequence[Tensor]  # per task (M_b,) predicted class
    labels: Sequence[Tensor]  # per task (M_b,) true class


class Metric(ABC):
    """A figure of the report: how good, or how new, a method's networks are."""

    version: ClassVar[int] = 1  # part of every cached artifact's key: raise it when the class computes something else
    name: ClassVar[str]  # as in the report
    higher_is_better: ClassVar[bool]  # what the report marks as best

    @abstractmethod
    def measure(self, outcome: Outcome) -> Tensor:
        """One value per task: (B,)."""
