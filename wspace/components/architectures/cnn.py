"""A small convolutional network."""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, MinLen
from torch import nn

from wspace.interfaces import Architecture
from wspace.support.errors import UserError
from wspace.support.quantities import counted

POOLS = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}


class CNN(Architecture):
    """Convolutions of 3 x 3 with `channels` outputs each, then the mean over the picture and a linear layer.

    Each convolution is followed by batch norm (Ioffe and Szegedy, 2015), ReLU, and pooling that halves the picture. Without
    batch norm, convolutions have biases.
    """

    version: ClassVar[int] = 2
    sees = "pictures"

    def __init__(
        self,
        channels: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)] = (16, 32),
        batch_norm: bool = True,
        pool: Literal["max", "average"] = "max",
    ):
        self.channels, self.batch_norm, self.pool = channels, batch_norm, pool

    def build(self, inputs: tuple[int, ...], outputs: int) -> nn.Module:
        width, side = inputs[0], inputs[-1]
        if side < 2 ** len(self.channels):
            raise UserError(
                f"architecture 'cnn': pictures of {side} x {side} cannot be halved {counted(len(self.channels), 'time')}: use "
                "larger ones (`backbone.side`), or fewer channels"
            )
        layers = OrderedDict[str, nn.Module]()
        for number, channels in enumerate(self.channels, start=1):
            layers[f"conv{number}"] = nn.Conv2d(width, channels, 3, padding=1, bias=not self.batch_norm)
            if self.batch_norm:
                layers[f"norm{number}"] = nn.BatchNorm2d(channels)
            layers[f"act{number}"] = nn.ReLU()
            layers[f"pool{number}"] = POOLS[self.pool](2)
            width = channels
        layers["mean"] = nn.AdaptiveAvgPool2d(1)
        layers["flat"] = nn.Flatten()
        layers["out"] = nn.Linear(width, outputs)
        return nn.Sequential(layers)
