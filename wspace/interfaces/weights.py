"""Names, shapes and axes of a target's weights; flat vectors <-> named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from wspace.interfaces.axes import Block, blocks_of, names_in, read, solved
from wspace.support.errors import FileError, UserError


@dataclass(frozen=True)
class WeightEntry:
    """One tensor. Axes of equal name are one axis of the network: a permutation moves them together."""

    name: str  # as in the module's state dict
    shape: tuple[int, ...]  # of one network's tensor
    axes: tuple[str, ...]  # one per dimension: a name, or what `wspace.interfaces.axes` can read

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of all axes in it, each once."""
        return tuple(dict.fromkeys(axis for text in self.axes for axis in names_in(text)))


@dataclass(frozen=True)
class Product:
    """Two matrices of which only the product counts: a linear layer's low-rank update, scale · left · right (LoRA)."""

    layer: str
    """The layer whose weight (out, in) it is added to."""
    left: str
    """The entry of shape (out, r)."""
    right: str
    """The entry of shape (r, in)."""
    scale: float = 1.0
    """Of the product: alpha / r, in LoRA's terms."""


@dataclass(frozen=True)
class WeightSpec:
    """The tensors of one network, in the order of its flat vector (P,)."""

    entries: tuple[WeightEntry, ...]  # in the order of the flat vector
    free: tuple[str, ...] = ()  # axes whose order means nothing: permuting one leaves the function as it is
    products: tuple[Product, ...] = ()  # what the function depends on instead of the matrices themselves
    aside: tuple[str, ...] = ()  # what files of such networks hold besides: buffers, further names of a tensor
    notes: tuple[str, ...] = field(default=(), compare=False)  # why no more axes are free, one sentence each

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
        """Number of units of a named axis; of one within another, in all units of that together.

        Raises KeyError if no tensor has it.
        """
        outer = self.outer(axis)
        return self._sizes[axis] * (1 if outer is None else self._sizes[outer])

    def outer(self, axis: str) -> str | None:
        """The axis each of whose units has units of this one of its own, if it is within another."""
        return self._outers.get(axis)

    def layout(self, entry: WeightEntry) -> tuple[tuple[Block, ...], ...]:
        """Of each dimension of a tensor, the stretches that move with an axis. Raises UserError if they do not fill it."""
        if entry.name not in self._layouts:
            self._layouts[entry.name] = tuple(self._blocks(entry, dim, text) for dim, text in enumerate(entry.axes))
        return self._layouts[entry.name]

    def _blocks(self, entry: WeightEntry, dim: int, text: str) -> tuple[Block, ...]:
        who = f"tensor {entry.name!r}: dimension {dim}, {text!r},"
        try:
            blocks = blocks_of(text, self._sizes)
        except KeyError as error:
            raise UserError(
                f"{who} leaves the size of axis {error} open: write it behind the name, in brackets"
            ) from error
        for block in blocks:
            if block.axis is not None and block.outer != self.outer(block.axis):
                raise UserError(f"{who} does not have axis {block.axis!r} within {self.outer(block.axis)!r}; others do")
        filled = blocks[-1].start + blocks[-1].length
        if filled != entry.shape[dim]:
            raise UserError(f"{who} is {filled} long, as far as other tensors tell; the tensor has {entry.shape[dim]}")
        return blocks

    @cached_property
    def _layouts(self) -> dict[str, tuple[tuple[Block, ...], ...]]:
        return {}

    @cached_property
    def _sizes(self) -> dict[str, int]:
        """Units of each axis; of one within another, in one unit of that."""
        dims = dict.fromkeys((text, n) for e in self.entries for text, n in zip(e.axes, e.shape, strict=True))
        sizes = {axis: size for text, _ in dims for axis, size in read(text)[1]}
        open_ = list(dims)
        while True:
            solutions = [pair for text, length in open_ if (pair := solved(text, length, sizes))]
            if not solutions:
                return sizes
            sizes = dict(reversed(solutions)) | sizes  # where tensors disagree, the first is believed
            open_ = [(text, length) for text, length in open_ if any(a not in sizes for a in names_in(text))]

    @cached_property
    def _outers(self) -> dict[str, str]:
        terms = dict.fromkeys(term for entry in self.entries for text in entry.axes for term in read(text)[0])
        return {term.axes[1]: term.axes[0] for term in terms if len(term.axes) == 2}

    def unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        """(..., P) -> name: (..., *shape), views of `flat`."""
        parts = flat.split([e.size for e in self.entries], dim=-1)  # of which the gradient is put together in one go
        return {e.name: part.view((*flat.shape[:-1], *e.shape)) for e, part in zip(self.entries, parts, strict=True)}

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """name: (..., *shape) -> (..., P)."""
        first = self.entries[0]
        batch = tensors[first.name].shape[: tensors[first.name].ndim - len(first.shape)]
        return torch.cat([tensors[e.name].reshape((*batch, e.size)) for e in self.entries], dim=-1)

    def validate(self, tensors: Mapping[str, Tensor], source: str) -> None:
        """Raise FileError, naming `source`, unless these are finite weights, real numbers, of this very shape."""
        expected = {e.name: e.shape for e in self.entries}
        if set(tensors) - set(self.aside) != set(expected):
            raise FileError(
                f"{source}: holds tensors {', '.join(sorted(tensors)) or '(none)'}; this target has {', '.join(expected)}"
            )
        for name, shape in expected.items():
            if tuple(tensors[name].shape) != shape:
                raise FileError(f"{source}: {name} has shape {tuple(tensors[name].shape)}; this target needs {shape}")
            if not tensors[name].is_floating_point():
                dtype = str(tensors[name].dtype).removeprefix("torch.")
                raise FileError(f"{source}: {name} is {dtype}; this target needs real numbers, such as float32")
            if not torch.isfinite(tensors[name].float()).all():  # as weights are held
                raise FileError(f"{source}: {name} holds values that are not finite numbers")


def plain_spec(shapes: Mapping[str, tuple[int, ...]]) -> WeightSpec:
    """Tensors of these shapes, of which nothing may be permuted."""
    return WeightSpec(tuple(WeightEntry(name, shape, tuple(map(str, shape))) for name, shape in shapes.items()))
