"""No encoder: the picture itself, made small."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor, nn

from wspace.data.encoders.frozen import ImageEncoder, prepare
from wspace.interfaces import Backbone
from wspace.support.fingerprint import of_json
from wspace.support.parameters import Since


class Pixels(Backbone):
    """No encoder: pixels in [-1, 1], averaged down to `side` x `side` and flattened; if `grey`, over the three colours, too."""

    def __init__(
        self,
        side: Annotated[int, Ge(1)] = 16,
        grey: Annotated[bool, Since("0.2")] = False,
        *,
        device: torch.device,
    ):
        self.dim = (1 if grey else 3) * side * side
        self.fingerprint = of_json(["pixels", side, *(["grey"] if grey else [])])
        self._device = device
        self._pool = nn.Sequential(*([Grey()] if grey else []), nn.AdaptiveAvgPool2d(side), nn.Flatten())

    def encode(self, pixels: np.ndarray) -> Tensor:
        return self._pool(prepare(pixels, (0.5,) * 3, (0.5,) * 3, None, self._device)).cpu()

    def module(self) -> nn.Module:
        return ImageEncoder(self._pool, (0.5,) * 3, (0.5,) * 3, None, 1, "float32", self._device).module(self._pool)


class Grey(nn.Module):
    """The mean over colours: (M, 3, S, S) -> (M, 1, S, S)."""

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.mean(1, keepdim=True)
