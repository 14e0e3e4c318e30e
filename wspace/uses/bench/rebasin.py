"""Weight matching as it was published, to measure ours against: plain, and with permutations said by hand.

Ainsworth et al., 2023, "Git Re-Basin: Merging Models modulo Permutation Symmetries", algorithm 1 and its appendix on residual
networks: a permutation for each hidden axis, and coordinate descent over these in random order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from timm.models.resnet import ResNet
from torch import Tensor, nn

from wspace.support.errors import UserError

PLAIN = "bench matching --peer: permutations are written down for plain ResNets"
SWEEPS = 100  # at the most


@dataclass(frozen=True)
class ByHand:
    """Which permutation moves which axis: of each parameter, one for each dimension, and None where nothing does."""

    of: Mapping[str, tuple[str | None, ...]]

    @cached_property
    def axes(self) -> dict[str, list[tuple[str, int]]]:
        """Permutation -> what it moves: parameters, and which dimension of each."""
        axes = dict[str, list[tuple[str, int]]]()
        for name, permutations in self.of.items():
            for dimension, permutation in enumerate(permutations):
                if permutation is not None:
                    axes.setdefault(permutation, []).append((name, dimension))
        return axes

    def moved(self, name: str, tensor: Tensor, orders: Mapping[str, Tensor], but: int | None = None) -> Tensor:
        """A parameter in these orders of units, but for the dimension `but`."""
        for dimension, permutation in enumerate(self.of[name]):
            if permutation is not None and dimension != but:
                tensor = tensor.index_select(dimension, orders[permutation])
        return tensor

    def matched(
        self, first: Mapping[str, Tensor], second: Mapping[str, Tensor], rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """The second network, its units in the orders that make it most like the first."""
        sizes = {permutation: first[axes[0][0]].shape[axes[0][1]] for permutation, axes in self.axes.items()}
        orders = {permutation: torch.arange(size) for permutation, size in sizes.items()}
        for _ in range(SWEEPS):
            better = False
            for permutation in rng.permutation(list(sizes)):
                size = sizes[permutation]
                likeness = torch.zeros(size, size)  # (n, n): of unit i there to unit j here
                for name, dimension in self.axes[permutation]:
                    there = first[name].movedim(dimension, 0).reshape(size, -1)  # (n, all others)
                    here = self.moved(name, second[name], orders, but=dimension).movedim(dimension, 0)
                    likeness += there @ here.reshape(size, -1).mT
                units, order = map(torch.from_numpy, linear_sum_assignment(likeness.numpy(), maximize=True))
                gain = likeness[units, order].sum() - likeness[units, orders[permutation]].sum()
                better |= bool(gain > 1e-12)
                orders[permutation] = order
            if not better:
                break
        return {name: self.moved(name, tensor, orders) for name, tensor in second.items()}


def of_perceptron(hidden: int) -> ByHand:
    """Of linear layers with one activation after each, in `nn.Sequential`: `0.weight`, `2.weight`, ..."""
    units = [None, *(f"hidden {layer}" for layer in range(hidden)), None]
    of = dict[str, tuple[str | None, ...]]()
    for layer in range(hidden + 1):
        of |= {f"{2 * layer}.weight": (units[layer + 1], units[layer]), f"{2 * layer}.bias": (units[layer + 1],)}
    return ByHand(of)


def of_resnet(network: nn.Module) -> ByHand:
    """Of timm's plain ResNets: a permutation for each stage's stream, and one for each convolution within a block.

    Raises UserError for a network with other layers.
    """
    if not isinstance(network, ResNet):
        raise UserError(f"{PLAIN}, and {type(network).__name__} is none")
    layers: dict[str, tuple[str | None, ...]] = {"conv1": ("stem", None), "bn1": ("stem",)}
    stream = "stem"
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        for number, block in enumerate(network.get_submodule(stage).children()):
            at, has = f"{stage}.{number}", dict(block.named_children())
            convolutions = [name for name in ("conv1", "conv2", "conv3") if name in has]
            out = stage if has.get("downsample") is not None else stream
            source = stream
            for place, name in enumerate(convolutions, 1):
                to = out if place == len(convolutions) else f"{at}.{name}"
                layers |= {f"{at}.{name}": (to, source), f"{at}.bn{place}": (to,)}
                source = to
            if out != stream:
                layers |= {f"{at}.downsample.0": (out, stream), f"{at}.downsample.1": (out,)}
            stream = out
    layers["fc"] = (None, stream)
    of = dict[str, tuple[str | None, ...]]()
    for name, parameter in network.named_parameters():
        layer = name.rpartition(".")[0]
        if layer not in layers:
            raise UserError(f"{PLAIN}, which have no {layer!r}")
        permutations = layers[layer][: parameter.ndim]
        of[name] = (*permutations, *[None] * (parameter.ndim - len(permutations)))
    return ByHand(of)
