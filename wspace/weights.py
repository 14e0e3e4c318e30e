"""Names, shapes and axes of a target's weights; flat vectors <-> named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from wspace.errors import FileError


@dataclass(frozen=True)
class WeightEntry:
    """One tensor. Axes of equal name are one axis of the network: a permutation moves them together."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]  # one name per dimension

    @property
    def size(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Product:
    """Two matrices of which only the product counts: a linear layer's low-rank update, scale · left · right (LoRA)."""

    layer: str  # whose weight it is added to
    left: str  # an entry (out, r)
    right: str  # an entry (r, in)
    scale: float = 1.0


@dataclass(frozen=True)
class WeightSpec:
    """The tensors of one network, in the order of its flat vector (P,)."""

    entries: tuple[WeightEntry, ...]
    free: tuple[str, ...] = ()  # axes whose order means nothing: permuting one leaves the function as it is
    products: tuple[Product, ...] = ()  # what the function depends on instead of the matrices themselves

    @cached_property
    def size(self) -> int:  # P
        return sum(entry.size for entry in self.entries)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each tensor lies in the flat vector."""
        out, start = {}, 0
        for entry in self.entries:
            out[entry.name] = slice(start, start + entry.size)
            start += entry.size
        return out

    def axis_size(self, axis: str) -> int:
        """Length of a named axis. Raises KeyError if no tensor has it."""
        for entry in self.entries:
            if axis in entry.axes:
                return entry.shape[entry.axes.index(axis)]
        raise KeyError(axis)

    def unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        """(..., P) -> name: (..., *shape), views of `flat`."""
        return {e.name: flat[..., self.slices[e.name]].view((*flat.shape[:-1], *e.shape)) for e in self.entries}

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """name: (..., *shape) -> (..., P)."""
        first = self.entries[0]
        batch = tensors[first.name].shape[: tensors[first.name].ndim - len(first.shape)]
        return torch.cat([tensors[e.name].reshape((*batch, e.size)) for e in self.entries], dim=-1)

    def multiplied(self, flat: Tensor) -> Tensor:
        """Every product, one after the other: (..., P) -> (..., sum of out * in)."""
        tensors = self.unflatten(flat)
        pairs = ((product.scale * tensors[product.left], tensors[product.right]) for product in self.products)
        return torch.cat([(left @ right).flatten(-2) for left, right in pairs], dim=-1)

    def validate(self, tensors: Mapping[str, Tensor], source: str) -> None:
        """Raise FileError, naming `source`, unless these are finite weights of this very shape."""
        expected = {e.name: e.shape for e in self.entries}
        if set(tensors) != set(expected):
            raise FileError(
                f"{source}: holds tensors {', '.join(sorted(tensors)) or '(none)'}; this target has {', '.join(expected)}"
            )
        for name, shape in expected.items():
            if tuple(tensors[name].shape) != shape:
                raise FileError(f"{source}: {name} has shape {tuple(tensors[name].shape)}; this target needs {shape}")
            if not torch.isfinite(tensors[name]).all():
                raise FileError(f"{source}: {name} holds values that are not finite numbers")
