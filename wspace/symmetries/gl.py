"""Changes of basis in the middle of a linear low-rank pair: GL(r)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from wspace.errors import UserError
from wspace.interfaces import Part, Symmetry
from wspace.matching import ROWS, axes_of
from wspace.weights import WeightSpec

STRETCH = 2.0  # singular values of sampled elements lie between its inverse and it: float32 stays exact to 1e-5
DEGENERATE = 1e-10  # smallest singular value of the pair's product, over the greatest, below which it has lost rank


class GL(Symmetry):
    """Every invertible M on one axis: incoming W becomes W M, outgoing V becomes M⁻¹ V, and W V stays (T2W, eq. 15).

    Holds where nothing but a linear map lies between (`clip-adapter` with `activation: none`). Tensors that have the axis
    as their last dimension are incoming, biases among them; matrices that have it as their first are outgoing. Without
    `axis`: the first that the target calls free. An element is M, flattened.

    The nearest member of an orbit has no closed form. `align` gives the one that is nearest once both networks are
    balanced (WᵀW = VVᵀ), which fixes a network up to a rotation, and that rotation is orthogonal Procrustes' (Tu et al.,
    2016, "Procrustes Flow"; Schönemann, 1966); what balanced the reference is then undone. So the result depends on the
    orbit and the reference alone, and is the reference itself for every network of its orbit.
    """

    def __init__(self, axis: str | None = None, *, spec: WeightSpec):
        (self.axis,) = axes_of(spec, spec.free[:1] if axis is None else (axis,), "gl")
        self.spec, self.rank = spec, spec.axis_size(self.axis)
        self.incoming: list[str] = []
        self.outgoing: list[str] = []
        for entry in spec.entries:
            if self.axis not in entry.axes:
                continue
            if entry.axes.count(self.axis) == 1 and entry.axes[-1] == self.axis:
                self.incoming.append(entry.name)
            elif entry.axes[0] == self.axis and len(entry.axes) == 2 and entry.axes[1] != self.axis:
                self.outgoing.append(entry.name)
            else:
                raise UserError(
                    f"symmetry 'gl': tensor {entry.name!r} of axes {', '.join(entry.axes)} is on neither side of axis "
                    f"{self.axis!r}: incoming tensors have it last, outgoing ones are matrices that have it first"
                )
        if not (self.incoming and self.outgoing):
            lacking = "outgoing" if self.incoming else "incoming"
            found = ", ".join(self.incoming + self.outgoing)
            raise UserError(f"symmetry 'gl': axis {self.axis!r} has no {lacking} tensor: it has {found} alone")

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        left, right = (_rotations(count, self.rank, rng) for _ in range(2))
        stretch = STRETCH ** (2 * torch.rand(count, 1, self.rank, generator=rng) - 1)
        return ((left * stretch) @ right).flatten(1)

    def identity(self, count: int) -> Tensor:
        return torch.eye(self.rank).flatten().expand(count, -1)

    def inverse(self, elements: Tensor) -> Tensor:
        return torch.linalg.inv(self._matrices(elements)).flatten(1)

    def compose(self, left: Tensor, right: Tensor) -> Tensor:
        return (self._matrices(right) @ self._matrices(left)).flatten(1)

    def act(self, elements: Tensor, weights: Tensor) -> Tensor:
        matrices = self._matrices(elements).to(weights.dtype)  # (B, r, r)
        tensors = self.spec.unflatten(weights)
        for name in self.incoming:
            rows = self._rows(tensors[name])
            tensors[name] = (rows @ matrices).view_as(tensors[name])
        for name in self.outgoing:
            tensors[name] = torch.linalg.solve(matrices, tensors[name])
        return self.spec.flatten(tensors)

    def align(self, weights: Tensor, reference: Tensor) -> Tensor:
        blocks = weights.split(ROWS)
        references = [reference[None]] * len(blocks) if reference.ndim == 1 else reference.split(ROWS)
        pairs = zip(blocks, references, strict=True)
        return torch.cat([self._aligned(ours.double(), theirs.double()) for ours, theirs in pairs]).to(weights.dtype)

    def parts(self) -> list[Part]:
        return [Part("changing the basis of", self.axis, partial(GL, self.axis))]

    def _matrices(self, elements: Tensor) -> Tensor:
        return elements.unflatten(1, (self.rank, self.rank))

    def _rows(self, tensor: Tensor) -> Tensor:
        """Of an incoming tensor: (B, ..., r) -> (B, m, r)."""
        return tensor.reshape(len(tensor), -1, self.rank)

    def _aligned(self, weights: Tensor, reference: Tensor) -> Tensor:
        (w, v), (w_reference, v_reference) = self._sides(weights), self._sides(reference)
        balance, balance_reference = _balancing(w, v, self.axis), _balancing(w_reference, v_reference, self.axis)
        agreement = (w @ balance).mT @ (w_reference @ balance_reference)  # (B, r, r)
        agreement += torch.linalg.solve(balance, v) @ torch.linalg.solve(balance_reference, v_reference).mT
        left, _, right = torch.linalg.svd(agreement)
        return torch.linalg.solve(balance_reference, balance @ left @ right, left=False).flatten(1)

    def _sides(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """All incoming weights W (B, m, r) and all outgoing ones V (B, r, t)."""
        tensors = self.spec.unflatten(weights)
        incoming = torch.cat([self._rows(tensors[name]) for name in self.incoming], dim=1)
        return incoming, torch.cat([tensors[name] for name in self.outgoing], dim=2)


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
            "lower the rank, or use `symmetry: permutation`"
        )
    return torch.linalg.solve(r_w, left * values.sqrt()[:, None])
