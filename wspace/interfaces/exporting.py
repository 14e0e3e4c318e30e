"""Exporters: a network with the backbone before it, written so that others run it without wspace."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor, nn

Precision = Literal["float32", "float16", "int8"]
"""What the numbers of a file are stored as. All are computed with in float32."""

Answers = Callable[[np.ndarray], np.ndarray]
"""Pixels (M, S, S, 3) uint8 -> probabilities (M, K) float32, for any M from 1."""


@dataclass(frozen=True)
class Classifier:
    """One network on its backbone, and what is to be said of it. Modules are on the CPU, in evaluation mode."""

    backbone: nn.Module  # pixels (M, S, S, 3) uint8 -> features (M, F)
    head: nn.Module  # features (M, F) -> scores (M, K)
    classes: tuple[str, ...]  # K names, in the order of the scores
    side: int  # S, of the pictures
    network: Mapping[str, Tensor]  # the weights that were generated, as a file of wspace has them
    about: Mapping[str, Any] = field(default_factory=dict)  # facts, as JSON: where it comes from, what it is worth

    def module(self) -> nn.Module:
        """The whole: pixels (M, S, S, 3) uint8 -> probabilities (M, K)."""
        return nn.Sequential(
            OrderedDict(backbone=self.backbone, head=self.head, probabilities=nn.Softmax(dim=1))
        ).eval()


class Exporter(ABC):
    """A format that classifiers are written in, for programs other than wspace: what `wspace export` makes."""

    version: ClassVar[int] = 1  # raise it when the class writes something else
    suffix: ClassVar[str]  # how the name of such a file ends, ".onnx"; empty: it is a folder
    precisions: ClassVar[tuple[Precision, ...]] = ("float32",)  # that it can write, the usual one first

    def beside(self, weights: Path, name: str) -> Path:
        """Where it goes if nobody says it: beside the weights, as they are called; `name` is the exporter's."""
        return weights.with_suffix(self.suffix) if self.suffix else weights.with_name(f"{weights.stem}-{name}")

    @abstractmethod
    def write(self, classifier: Classifier, out: Path, precision: Precision) -> None:
        """Make the file, or fill the empty folder. Raises UserError for a classifier that has no such form."""

    @abstractmethod
    def read(self, out: Path) -> Answers:
        """What was written, opened as somebody opens it who has no wspace: by this an export is checked."""
