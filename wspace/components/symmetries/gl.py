"""Changes of basis in the middle of linear low-rank pairs: GL(r)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from wspace.interfaces import Part, Symmetry
from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.support.errors import UserError
from wspace.weights.lowrank import balanced
from wspace.weights.matching.by_weights import ROWS, axes_of

STRETCH = 2.0  # singular values of sampled elements lie between its inverse and it: float32 stays exact to 1e-5
DEGENERATE = 1e-10  # smallest singular value of the pair's product, over the greatest, below which it has lost rank


class GL(Symmetry):
    """Every invertible M on each axis: incoming W becomes W M, outgoing V becomes M⁻¹ V; W V stays (Tian et al., 2025, eq. 15).

    Holds where nothing but a linear map lies between (each layer of `lora`, or a two-layer head without activation).
    Tensors that have the axis as their last dimension are incoming, biases among them; matrices that have it as their
    first are outgoing. Without `axes`: those inside the target's low-rank products, or if it has none, the first that it
    calls free. An element is the M of all axes side by side, each flattened.

    The nearest member of an orbit has no closed form. `align` gives the one that is nearest once both networks are
    balanced (WᵀW = VVᵀ), which fixes a network up to a rotation, and that rotation is orthogonal Procrustes' (Tu et al.,
    2016, "Procrustes Flow"; Schönemann, 1966); what balanced the reference is then undone. So the result depends on the
    orbit and the reference alone, and is the reference itself for every network of its orbit.

    With `canonical: svd`, networks are not brought near to a reference but into a form of their own: U √S and √S Vᵀ of the
    product's singular value decomposition. That exists too for products that have lost rank, as of padded adapters.
    """

    def __init__(
        self,
        axes: tuple[str, ...] | None = None,
        canonical: Literal["nearest", "svd"] = "nearest",
        *,
        spec: WeightSpec,
    ):
        inside = {axis: None for product in spec.products for axis in _entry(spec, product.right).axes[:1]}
        self.axes = axes_of(spec, (tuple(inside) or spec.free[:1]) if axes is None else axes, "symmetry 'gl'")
        self.spec, self.canonical = spec, canonical
        self.middles = [_Middle(spec, axis) for axis in self.axes]
        owners: dict[str, str] = {}
        for middle in self.middles:
            for name in (*middle.incoming, *middle.outgoing):
                if name in owners:
                    raise UserError(
                        f"symmetry 'gl': axes {owners[name]!r} and {middle.axis!r} share tensor {name!r}: name one of them"
                    )
                owners[name] = middle.axis

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        return self._joined([_well_conditioned(count, middle.rank, rng) for middle in self.middles])

    def identity(self, count: int) -> Tensor:
        return self._joined([torch.eye(middle.rank).expand(count, -1, -1) for middle in self.middles])

    def inverse(self, elements: Tensor) -> Tensor:
        return self._joined([torch.linalg.inv(matrices) for matrices in self._matrices(elements)])

    def compose(self, left: Tensor, right: Tensor) -> Tensor:
        pairs = zip(self._matrices(left), self._matrices(right), strict=True)
        return self._joined([second @ first for first, second in pairs])

    def act(self, elements: Tensor, weights: Tensor) -> Tensor:
        tensors = self.spec.unflatten(weights)
        for middle, matrices in zip(self.middles, self._matrices(elements), strict=True):
            m = matrices.to(weights.dtype)  # (B, r, r)
            for name in middle.incoming:
                tensors[name] = (middle.rows(tensors[name]) @ m).view_as(tensors[name])
            for name in middle.outgoing:
                tensors[name] = torch.linalg.solve(m, tensors[name])
        return self.spec.flatten(tensors)

    def align(self, weights: Tensor, reference: Tensor) -> Tensor:
        blocks = weights.split(ROWS)
        references = [reference[None]] * len(blocks) if reference.ndim == 1 else reference.split(ROWS)
        pairs = zip(blocks, references, strict=True)
        return torch.cat([self._aligned(ours.double(), theirs.double()) for ours, theirs in pairs]).to(weights.dtype)

    def canonicalize(self, weights: Tensor, reference: Tensor) -> Tensor:
        if self.canonical == "nearest":
            return self.act(self.align(weights, reference), weights)
        return torch.cat([self._decomposed(block.double()) for block in weights.split(ROWS)]).to(weights.dtype)

    def parts(self) -> list[Part]:
        return [Part("changing the basis of", axis, partial(GL, (axis,))) for axis in self.axes]

    def _matrices(self, elements: Tensor) -> list[Tensor]:
        """M (B, r, r) of each axis."""
        parts = elements.split([middle.rank**2 for middle in self.middles], dim=1)
        return [part.unflatten(1, (middle.rank, -1)) for part, middle in zip(parts, self.middles, strict=True)]

    def _joined(self, matrices: list[Tensor]) -> Tensor:
        return torch.cat([m.flatten(1) for m in matrices], dim=1)

    def _aligned(self, weights: Tensor, reference: Tensor) -> Tensor:
        ours, theirs = self.spec.unflatten(weights), self.spec.unflatten(reference)
        return self._joined([middle.aligned(ours, theirs) for middle in self.middles])

    def _decomposed(self, weights: Tensor) -> Tensor:
        tensors = self.spec.unflatten(weights)
        for middle in self.middles:
            tensors |= middle.split(*balanced(*middle.sides(tensors)), tensors)
        return self.spec.flatten(tensors)


class _Middle:
    """One axis, and the tensors on either side of it."""

    def __init__(self, spec: WeightSpec, axis: str):
        self.axis, self.rank = axis, spec.axis_size(axis)
        self.incoming: list[str] = []
        self.outgoing: list[str] = []
        for entry in spec.entries:
            if axis not in entry.axes:
                continue
            if entry.axes.count(axis) == 1 and entry.axes[-1] == axis:
                self.incoming.append(entry.name)
            elif entry.axes[0] == axis and len(entry.axes) == 2 and entry.axes[1] != axis:
                self.outgoing.append(entry.name)
            else:
                raise UserError(
                    f"symmetry 'gl': tensor {entry.name!r} of axes {', '.join(entry.axes)} is on neither side of axis "
                    f"{axis!r}: incoming tensors have it last, outgoing ones are matrices that have it first"
                )
        if not (self.incoming and self.outgoing):
            lacking = "outgoing" if self.incoming else "incoming"
            present = ", ".join(self.incoming + self.outgoing)
            raise UserError(f"symmetry 'gl': axis {axis!r} has no {lacking} tensor: it has {present} alone")

    def rows(self, tensor: Tensor) -> Tensor:
        """Of an incoming tensor: (B, ..., r) -> (B, m, r)."""
        return tensor.reshape(len(tensor), -1, self.rank)

    def sides(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """All incoming weights W (B, m, r) and all outgoing ones V (B, r, t)."""
        incoming = torch.cat([self.rows(tensors[name]) for name in self.incoming], dim=1)
        return incoming, torch.cat([tensors[name] for name in self.outgoing], dim=2)

    def split(self, w: Tensor, v: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`sides` undone."""
        rows = w.split([self.rows(like[name]).shape[1] for name in self.incoming], dim=1)
        columns = v.split([like[name].shape[2] for name in self.outgoing], dim=2)
        incoming = {name: part.view_as(like[name]) for name, part in zip(self.incoming, rows, strict=True)}
        return incoming | dict(zip(self.outgoing, columns, strict=True))

    def aligned(self, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Tensor:
        """M (B, r, r)."""
        (w, v), (w_reference, v_reference) = self.sides(ours), self.sides(theirs)
        balance, balance_reference = _balancing(w, v, self.axis), _balancing(w_reference, v_reference, self.axis)
        agreement = (w @ balance).mT @ (w_reference @ balance_reference)  # (B, r, r)
        agreement += torch.linalg.solve(balance, v) @ torch.linalg.solve(balance_reference, v_reference).mT
        left, _, right = torch.linalg.svd(agreement)
        return torch.linalg.solve(balance_reference, balance @ left @ right, left=False)


def _entry(spec: WeightSpec, name: str) -> WeightEntry:
    return next(entry for entry in spec.entries if entry.name == name)


def _well_conditioned(count: int, rank: int, rng: torch.Generator) -> Tensor:
    left, right = (_rotations(count, rank, rng) for _ in range(2))
    stretch = STRETCH ** (2 * torch.rand(count, 1, rank, generator=rng) - 1)
    return (left * stretch) @ right


def _rotations(count: int, size: int, rng: torch.Generator) -> Tensor:
    """Orthogonal matrices (count, size, size), uniformly distributed (Mezzadri, 2007)."""
    q, r = torch.linalg.qr(torch.randn(count, size, size, generator=rng))
    return q * r.diagonal(dim1=1, dim2=2).sign()[:, None]


def _balancing(w: Tensor, v: Tensor, axis: str) -> Tensor:
    """M (B, r, r) for which (W M)ᵀ(W M) = (M⁻¹ V)(M⁻¹ V)ᵀ: both sides get the roots of the product's singular values."""
    r_w, r_v = (torch.linalg.qr(side, mode="r").R for side in (w, v.mT))
    left, values, _ = torch.linalg.svd(r_w @ r_v.mT, full_matrices=False)  # of W V, but for rotations outside
    rank = w.shape[2]
    if values.shape[1] < rank or not (values[:, -1] > DEGENERATE * values[:, 0]).all():
        raise UserError(
            f"symmetry 'gl': a network's {rank} units of axis {axis!r} are not independent, so that it cannot be aligned; "
            "lower the rank, or use another symmetry"
        )
    return torch.linalg.solve(r_w, left * values.sqrt()[:, None])
