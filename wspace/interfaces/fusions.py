"""Networks put together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor


class Fusion(ABC):
    """One network for two tasks out of a network for each, by their weights alone: no text, no images, no training."""

    version: ClassVar[int] = 1  # part of every cached artifact's key: raise it when the class computes something else

    @abstractmethod
    def fuse(self, first: Tensor, second: Tensor) -> Tensor:
        """first[b] with second[b], of one target: (B, P), (B, P) -> (B, P)."""
