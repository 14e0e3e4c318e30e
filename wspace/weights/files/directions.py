"""Directions of classes, which the outputs of a network are compared with, as a file beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from torch import Tensor
from torch.nn import functional

from wspace.support.files import save_tensors

FILE = "classes.safetensors"


@dataclass(frozen=True)
class Directions:
    """What a network's outputs are compared with: scores are temperature · cos(output, direction of each class)."""

    classes: tuple[str, ...]
    vectors: Tensor  # (K, D), of unit length
    temperature: float

    def scores(self, outputs: Tensor) -> Tensor:
        """(M, D) -> (M, K)."""
        return self.temperature * functional.normalize(outputs, dim=1) @ self.vectors.T

    def save(self, folder: Path) -> None:
        """Into `FILE`: the vectors as `directions`, classes and temperature in its metadata."""
        about = {"classes": json.dumps(self.classes, ensure_ascii=False), "temperature": str(self.temperature)}
        save_tensors(folder / FILE, {"directions": self.vectors}, about)

    @classmethod
    def load(cls, folder: Path) -> Directions | None:
        """None of a folder without them."""
        if not (folder / FILE).is_file():
            return None
        with safe_open(folder / FILE, "pt") as opened:
            about, vectors = opened.metadata(), opened.get_tensor("directions")
        return cls(tuple(json.loads(about["classes"])), vectors, float(about["temperature"]))
