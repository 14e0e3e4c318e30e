"""A frozen network under one last layer for every task: what a pretrained backbone gives without knowing the task."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from wspace.interfaces import Evidence
from wspace.interfaces.weights import WeightSpec
from wspace.learning.one_for_all import OneForAll


class LastLayer(OneForAll):
    """What the target's networks begin as, packaged weights for example, its last layer alone trained on all known classes.

    The last layer is the module of the last tensor that is generated, or the last matrix and its bias. Rate and steps are
    those that validation images like best. Statistics of images (batch norm) are the images', as those of all methods are.
    """

    version: ClassVar[int] = 1
    what: ClassVar[str] = (
        "one set of weights for every task: what networks begin as, of which the last layer alone was trained, on the images "
        "of all seen classes"
    )
    called: ClassVar[str] = "the frozen backbone with a universal last layer"
    place: ClassVar[int] = 62
    from_zoo: ClassVar[bool] = False
    prominence: ClassVar[Literal["headline", "tables", "report"]] = "headline"
    one_for_all: ClassVar[bool] = True
    trains_on_images: ClassVar[bool] = True
    known_as: ClassVar[str] = "last-layer"

    def __init__(self) -> None:
        super().__init__()

    def trained(self, evidence: Evidence) -> Tensor:
        return of_last_layer(evidence.target.spec)


def of_last_layer(spec: WeightSpec) -> Tensor:
    """Which weights (P,) are of the module of the last tensor; where that is in none, of the last matrix and what follows."""
    module = spec.entries[-1].name.rpartition(".")[0]
    matrices = [number for number, entry in enumerate(spec.entries) if len(entry.shape) > 1]
    first = matrices[-1] if matrices else len(spec.entries) - 1
    return torch.cat(
        [
            torch.full((entry.size,), entry.name.rpartition(".")[0] == module if module else number >= first)
            for number, entry in enumerate(spec.entries)
        ]
    )
