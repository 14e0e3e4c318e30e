"""No encoder: the picture itself, made small."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional

from wspace.data.encoders.frozen import ImageEncoder, prepare
from wspace.interfaces import Backbone
from wspace.support.fingerprint import of_json


class Pixels(Backbone):
    """No encoder: pixels in [-1, 1], averaged down to `side` x `side` and flattened."""

    def __init__(self, side: Annotated[int, Ge(1)] = 16, *, device: torch.device):
        self.dim = 3 * side * side
        self.fingerprint = of_json(["pixels", side])
        self._side, self._device = side, device

    def encode(self, pixels: np.ndarray) -> Tensor:
        x = prepare(pixels, (0.5,) * 3, (0.5,) * 3, None, self._device)
        return functional.adaptive_avg_pool2d(x, self._side).flatten(1).cpu()

    def module(self) -> nn.Module:
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(self._side), nn.Flatten())
        return ImageEncoder(pool, (0.5,) * 3, (0.5,) * 3, None, 1, "float32", self._device).module(pool)
