"""Networks of different widths and depths that start alike: the smaller one is a part of the larger."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from wspace.api import Architecture, Default, Since, built, stream

BETWEEN = 0.3  # size of the noise on layers between the first and the last, in that of torch's own initialisation


class Nested(Architecture):
    """Another architecture, initialised so that networks of other widths and depths share what they have in common.

    Each tensor's values are drawn row by row, from the seed and the tensor's name: a narrower network has the first units of
    a wider one. Layers between the first and the last begin near the identity, so that a deeper network computes nearly what
    a shallower one does (Net2Net: Chen et al., 2016). Bounds are those of torch's Linear and Conv2d, 1/sqrt(fan in).

    starts: how many such beginnings there are, shared by all widths, depths and data sets; of which a network has one by
    chance. Without, each seed has a beginning of its own.
    last: size of the last layer's values at the beginning, in that of torch's. At 0 no output differs from another there, so
    that networks of one beginning and other orders of outputs learn the same features.
    """

    def __init__(
        self,
        of: Architecture = Default("mlp"),
        starts: Annotated[Annotated[int, Ge(1)] | None, Since("0.2")] = None,
        last: Annotated[float, Ge(0), Since("0.2")] = 1.0,
    ):
        self.of, self.starts, self.last = built("architecture", of), starts, last
        self.sees = self.of.sees

    def build(self, inputs: tuple[int, ...], outputs: int) -> nn.Module:
        seed = int(torch.randint(2**62, ()))
        if self.starts is not None:
            seed %= self.starts
        network = self.of.build(inputs, outputs)
        layers = [(name, p) for name, p in network.named_parameters() if p.ndim > 1]
        with torch.no_grad():
            for number, (name, weight) in enumerate(layers):
                between = 0 < number < len(layers) - 1
                size = BETWEEN if between else self.last if number == len(layers) - 1 else 1
                weight.copy_(_rows(seed, name, weight) * size)
                if between:
                    weight.add_(_identity(weight))
                bias = dict(network.named_parameters()).get(f"{name.removesuffix('weight')}bias")
                if bias is not None:
                    fan_in = prod(weight.shape[1:])
                    bias.copy_(_uniform(stream(seed, name, "bias"), len(bias), fan_in))
                    bias.mul_(size)
        return network

    def axes(self, module: nn.Module) -> Mapping[str, tuple[str, ...]] | None:
        return self.of.axes(module)


def _uniform(rng: torch.Generator, count: int, fan_in: int) -> Tensor:
    """(count,), of which the first are the same for any count."""
    return (torch.rand(count, generator=rng, dtype=torch.float64).float() * 2 - 1) * fan_in**-0.5


def _rows(seed: int, name: str, like: Tensor) -> Tensor:
    """A row for each output; its first values, and the first rows, are the same for any shape."""
    fan_in = prod(like.shape[1:])
    return torch.stack([_uniform(stream(seed, name, row), fan_in, fan_in) for row in range(len(like))]).view(like.shape)


def _identity(like: Tensor) -> Tensor:
    """Of a matrix (out, in), or a kernel (out, in, ...) whose middle it is at; as far as the shorter side goes."""
    identity = torch.zeros_like(like)
    middle = tuple(side // 2 for side in like.shape[2:])
    for unit in range(min(like.shape[:2])):
        identity[(unit, unit, *middle)] = 1
    return identity
