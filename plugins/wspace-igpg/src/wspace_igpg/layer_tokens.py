"""An architecture layer by layer: what each tensor is, as numbers, and how its weights are cut into pieces of one length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import log2, prod

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from wspace.api import UserError, WeightEntry, WeightSpec

KINDS = ("matrix", "kernel", "table", "bias", "scale", "mean", "variance")
MOST_DIMS = 5  # of a kernel: outputs, inputs, and a field of three
FROM_AN_END = 4  # layers told apart by their number from either end; those between look alike but for where they are
DESCRIBED = len(KINDS) + 3 + 2 * (FROM_AN_END + 1) + 1
"""Values that `described` says of a tensor."""


def kind_of(entry: WeightEntry) -> str:
    """Raises UserError for a tensor that the description has no word for."""
    dims, name = len(entry.shape), entry.name.rpartition(".")[2]
    if not 0 < dims <= MOST_DIMS or not entry.size:
        raise UserError(
            f"tensor {entry.name!r} has shape {entry.shape}, which the description of an architecture cannot express: it knows "
            f"vectors, matrices and kernels of up to {MOST_DIMS} dimensions"
        )
    if dims == 1:
        kinds = {"bias": "bias", "running_mean": "mean", "running_var": "variance"}
        return kinds.get(name, "bias" if name.startswith("b") else "scale")
    if dims > 2:
        return "kernel" if name == "weight" else "table"
    return "matrix"


@dataclass(frozen=True)
class Cut:
    """One tensor as rows of pieces: a row for each unit, which is an output unless only the inputs are hidden units.

    Where outputs stand for classes (`by_output`), they are always what a row is of.
    """

    entry: WeightEntry
    kind: str
    size: int  # values of a piece
    by_input: bool

    @classmethod
    def of(cls, entry: WeightEntry, spec: WeightSpec, size: int, by_output: bool = False) -> Cut:
        kind = kind_of(entry)
        return cls(entry, kind, size, not by_output and _is_last(entry, spec))

    @property
    def rows(self) -> int:
        if len(self.entry.shape) == 1:
            return 1
        return prod(self.entry.shape[:-1]) if self.kind == "table" else self.entry.shape[self.by_input]

    @property
    def length(self) -> int:
        return self.entry.size // self.rows

    @property
    def blocks(self) -> int:
        """Pieces of a row."""
        return -(-self.length // self.size)

    @property
    def pieces(self) -> int:
        return self.rows * self.blocks

    @property
    def scale(self) -> tuple[float, float]:
        """Centre and size of its values in a network of any zoo: Glorot and Bengio's (2010, eq. 12) where it has fans."""
        if self.kind in ("matrix", "kernel"):
            field = prod(self.entry.shape[2:])
            return 0.0, (2 / (field * sum(self.entry.shape[:2]))) ** 0.5
        return {"table": (0.0, 0.02), "bias": (0.0, 0.1), "scale": (1.0, 0.3), "mean": (0.0, 1.0)}.get(
            self.kind, (1.0, 1.0)
        )

    def pieces_of(self, values: Tensor) -> Tensor:
        """(B, size of the tensor) -> (B, pieces, size), the last of a row padded with zeros."""
        if self.by_input:
            out, into, *_ = self.entry.shape
            values = rearrange(values, "b (out into field) -> b (into out field)", out=out, into=into)
        rows = rearrange(values, "b (rows length) -> b rows length", rows=self.rows)
        padded = functional.pad(rows, (0, self.blocks * self.size - self.length))
        return rearrange(padded, "b rows (blocks size) -> b (rows blocks) size", size=self.size)

    def values_of(self, pieces: Tensor) -> Tensor:
        """`pieces_of` undone."""
        rows = rearrange(pieces, "b (rows blocks) size -> b rows (blocks size)", rows=self.rows)[..., : self.length]
        values = rearrange(rows, "b rows length -> b (rows length)")
        if not self.by_input:
            return values
        out, into, *_ = self.entry.shape
        return rearrange(values, "b (into out field) -> b (out into field)", out=out, into=into)


@dataclass(frozen=True)
class Cuts:
    """All tensors of a network, in the order of its flat vector."""

    spec: WeightSpec
    size: int
    by_output: bool = False

    @cached_property
    def each(self) -> tuple[Cut, ...]:
        return tuple(Cut.of(entry, self.spec, self.size, self.by_output) for entry in self.spec.entries)

    @property
    def count(self) -> int:
        return sum(cut.pieces for cut in self.each)

    def with_values(self, weights: Tensor) -> Iterator[tuple[Cut, Tensor]]:
        """Each tensor, and its values (B, size of the tensor) of networks (B, P)."""
        for cut in self.each:
            yield cut, weights[:, self.spec.slices[cut.entry.name]]

    @cached_property
    def places(self) -> Tensor:
        """(N, 3): of each piece its tensor, the row, and where in the row."""
        rows = []
        for number, cut in enumerate(self.each):
            grid = torch.cartesian_prod(torch.arange(cut.rows), torch.arange(cut.blocks))
            rows.append(functional.pad(grid.view(-1, 2), (1, 0), value=number))
        return torch.cat(rows)

    @cached_property
    def serves(self) -> Tensor:
        """(N,): of each piece the output that it serves alone, -1 for all that serve several."""
        by_output = torch.tensor([_is_last(cut.entry, self.spec) and not cut.by_input for cut in self.each])
        return torch.where(by_output[self.places[:, 0]], self.places[:, 1], -1)


def described(spec: WeightSpec) -> Tensor:
    """(tensors, DESCRIBED): kind, the logarithm of outputs, inputs and field, and where its layer is, from either end."""
    layers = list(dict.fromkeys(_layer(entry) for entry in spec.entries))
    rows = []
    for entry in spec.entries:
        kind, number = kind_of(entry), layers.index(_layer(entry))
        shape = (*entry.shape[:2], prod(entry.shape[2:])) if len(entry.shape) > 1 else (entry.size, 1, 1)
        ends = [_one_hot(min(n, FROM_AN_END), FROM_AN_END + 1) for n in (number, len(layers) - 1 - number)]
        sizes = [log2(side) / 6 for side in shape]
        rows.append([*_one_hot(KINDS.index(kind), len(KINDS)), *sizes, *ends[0], *ends[1], log2(len(layers)) / 4])
    return torch.tensor(rows)


def _is_last(entry: WeightEntry, spec: WeightSpec) -> bool:
    """Whether it leads from hidden units to outputs."""
    return kind_of(entry) in ("matrix", "kernel") and entry.axes[0] not in spec.free and entry.axes[1] in spec.free


def _layer(entry: WeightEntry) -> str:
    return entry.name.rpartition(".")[0] or entry.name[1:]  # w1 and b1 are one layer


def _one_hot(number: int, count: int) -> list[float]:
    return [float(number == other) for other in range(count)]
