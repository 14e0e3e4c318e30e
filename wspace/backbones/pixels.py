"""Pixels, and the backbone that has no encoder: the picture itself, made small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from wspace.fingerprint import of_json
from wspace.interfaces import Backbone


def prepare(
    pixels: np.ndarray, mean: Sequence[float], std: Sequence[float], size: int | None, device: torch.device
) -> Tensor:
    """(M, S, S, 3) uint8 -> (M, 3, size, size) float32, standardised, in channels_last order.

    With `size` None, pictures keep theirs.
    """
    x = torch.tensor(pixels, device=device).permute(0, 3, 1, 2).float()  # (M, 3, S, S)
    if size is not None and tuple(x.shape[2:]) != (size, size):
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
    scale = torch.tensor([mean, std], device=device)[:, None, :, None, None] * 255  # (2, 1, 3, 1, 1)
    return x.sub_(scale[0]).div_(scale[1]).contiguous(memory_format=torch.channels_last)


class Pixels(Backbone):
    """No encoder: pixels in [-1, 1], averaged down to `side` x `side` and flattened."""

    def __init__(self, side: Annotated[int, Ge(1)] = 16, *, device: torch.device):
        self.dim = 3 * side * side
        self.fingerprint = of_json(["pixels", side])
        self._side, self._device = side, device

    def encode(self, pixels: np.ndarray) -> Tensor:
        x = prepare(pixels, (0.5,) * 3, (0.5,) * 3, None, self._device)
        return F.adaptive_avg_pool2d(x, self._side).flatten(1).cpu()
