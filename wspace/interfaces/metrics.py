"""What a report measures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


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
