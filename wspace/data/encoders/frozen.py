"""Frozen image encoders: how pictures are prepared, in what precision they run, and in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wspace.support.errors import UserError


def prepare(
    pixels: np.ndarray, mean: Sequence[float], std: Sequence[float], size: int | None, device: torch.device
) -> Tensor:
    """(M, S, S, 3) uint8 -> (M, 3, size, size) float32, standardised, in channels_last order.

    With `size` None, pictures keep theirs.
    """
    return _standardised(torch.tensor(pixels, device=device), _scale(mean, std, device), size)


def _scale(mean: Sequence[float], std: Sequence[float], device: torch.device) -> Tensor:
    """Of pixels from 0 to 255: (2, 1, 3, 1, 1)."""
    return torch.tensor([mean, std], device=device)[:, None, :, None, None] * 255


def _standardised(pixels: Tensor, scale: Tensor, size: int | None) -> Tensor:
    x = pixels.permute(0, 3, 1, 2).to(scale.dtype)  # (M, 3, S, S)
    if size is not None and tuple(x.shape[2:]) != (size, size):
        x = functional.interpolate(x, (size, size), mode="bilinear", antialias=True)
    return x.sub_(scale[0]).div_(scale[1]).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class ImageEncoder:
    """A frozen network with its preprocessing: pixels in, features out, in batches."""

    network: Callable[[Tensor], Tensor]  # (M, 3, S, S) -> (M, F)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int | None  # images are resized to it; None: used at the size they come in
    batch: int
    precision: Literal["float32", "bfloat16"]
    device: torch.device

    def __call__(self, pixels: np.ndarray) -> Tensor:
        """(M, S, S, 3) uint8 -> (M, F) float32 on the CPU."""
        blocks = []
        half = self.precision == "bfloat16"
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            for start in range(0, max(len(pixels), 1), self.batch):
                blocks.append(self.network(self.prepare(pixels[start : start + self.batch])).float())
        return torch.cat(blocks).cpu()  # outside: an inference tensor could not be an input of training

    def prepare(self, pixels: np.ndarray) -> Tensor:
        """(M, S, S, 3) uint8 -> (M, 3, size, size), as the network takes them."""
        return prepare(pixels, self.mean, self.std, self.size, self.device)

    def module(self, holder: nn.Module) -> PicturesEncoder:
        """For `Backbone.module`; `holder` has the parameters that `network` computes with."""
        return PicturesEncoder(self, holder)

    def dim(self, size: int) -> int:
        """F, by encoding one black picture."""
        features = self(np.zeros((1, size, size, 3), np.uint8))
        if features.ndim != 2:
            raise UserError(f"gives {tuple(features.shape[1:])} for a picture, not one vector")
        return features.shape[1]


class PicturesEncoder(nn.Module):
    """A frozen network and its preprocessing as one module: (M, S, S, 3) uint8 -> (M, F), in the type of its numbers."""

    def __init__(self, encoder: ImageEncoder, holder: nn.Module):
        super().__init__()
        self.encoder, self.network = encoder, holder
        self.scale = nn.Buffer(_scale(encoder.mean, encoder.std, encoder.device))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.encoder.network(_standardised(pixels, self.scale, self.encoder.size)).to(self.scale.dtype)


def as_maps(values: Tensor, prefix: int = 0, channels_last: bool = False) -> Tensor:
    """What a layer gives, as maps of its features: tokens (M, prefix + h*h, C), (M, C, h, w) or (M, h, w, C) -> (M, C, h, w).

    Raises UserError for what has no places in the picture, or one alone.
    """
    if isinstance(values, Tensor):
        side = isqrt(max(0, values.shape[1] - prefix)) if values.ndim == 3 else 0
        if values.ndim == 3 and prefix + side**2 == values.shape[1]:
            values = values[:, prefix:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
        elif values.ndim == 4 and channels_last:
            values = values.permute(0, 3, 1, 2)
        if values.ndim == 4 and min(values.shape[2:]) > 1:
            return values
        raise UserError(f"gives {tuple(values.shape[1:])} for a picture, which is no map of it")
    raise UserError(f"gives a {type(values).__name__} for a picture, which is no map of it")


def precision_for(
    asked: Literal["auto", "float32", "bfloat16"], device: torch.device
) -> Literal["float32", "bfloat16"]:
    """'auto' takes bfloat16 where the processor itself has it: there it is 2 to 5 times as fast."""
    if asked != "auto":
        return asked
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        native = device.type == "cpu" and any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return "bfloat16" if native else "float32"


def freeze(model: nn.Module, device: torch.device) -> nn.Module:
    return model.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
