"""Hidden units moved to other places: what that does to weights, and which moves bring one network near another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from wspace.errors import UserError
from wspace.weights import WeightEntry, WeightSpec

ROWS = 256  # networks matched at once: more only takes more memory
SWEEPS = 100  # at most, as in the authors' code; it takes a few
ROUNDING = 1e-6  # of what a step changes: a gain below is none


@dataclass(frozen=True)
class Move:
    """Along one axis: unit places[b, i] of network b goes to place i, times signs[b, i]."""

    places: Tensor  # (B, n) int64
    signs: Tensor | None = None  # (B, n) of 1 and -1; None: all 1

    def __call__(self, tensor: Tensor, dim: int) -> Tensor:
        shape = [len(self.places), *(-1 if d == dim else 1 for d in range(1, tensor.ndim))]
        tensor = tensor.gather(dim, self.places.view(shape).expand_as(tensor))
        return tensor if self.signs is None else tensor * self.signs.to(tensor.dtype).view(shape)


Moves = Mapping[str, Move]
"""By the name of the axis."""


def axes_of(spec: WeightSpec, named: tuple[str, ...] | None, symmetry: str) -> tuple[str, ...]:
    """The axes that a symmetry acts on: those named, or else the target's free ones. Raises UserError."""
    axes = spec.free if named is None else named
    if not axes:
        raise UserError(f"symmetry {symmetry!r}: no axis to act on; free axes: {', '.join(spec.free) or 'none'}")
    for axis in axes:
        lengths = {
            n: entry.name for entry in spec.entries for a, n in zip(entry.axes, entry.shape, strict=True) if a == axis
        }
        if not lengths:
            known = ", ".join(sorted({a for entry in spec.entries for a in entry.axes}))
            raise UserError(f"symmetry {symmetry!r}: this target has no axis {axis!r}; it has {known}")
        if len(lengths) > 1:
            found = " and ".join(f"{length} in {name!r}" for length, name in lengths.items())
            raise UserError(f"symmetry {symmetry!r}: the lengths of axis {axis!r} differ: {found}")
        if axes.count(axis) > 1:
            raise UserError(f"symmetry {symmetry!r}: axis {axis!r} is named twice")
    return axes


def move(weights: Tensor, spec: WeightSpec, moves: Moves) -> Tensor:
    """(B, P) -> (B, P)."""
    tensors = spec.unflatten(weights)
    return spec.flatten({entry.name: _moved(tensors[entry.name], entry, moves) for entry in spec.entries})


def _moved(tensor: Tensor, entry: WeightEntry, moves: Moves, but: int | None = None) -> Tensor:
    """(B, *shape) moved along every dimension that `moves` knows, `but` one."""
    for dim, axis in enumerate(entry.axes, start=1):
        if axis in moves and dim != but:
            tensor = moves[axis](tensor, dim)
    return tensor


def match(
    weights: Tensor, reference: Tensor, spec: WeightSpec, axes: tuple[str, ...], *, signed: bool = False
) -> dict[str, Move]:
    """Moves of these axes under which weights (B, P) agree best with `reference` (P,) or (B, P), by inner product.

    Weight matching (Ainsworth et al., 2022, "Git Re-Basin", section 3.2 and algorithm 1), from where the weights are and
    axis by axis in the order given: with the other axes as already moved, the best places of one are a linear assignment.
    It ends when a whole sweep changes nothing, which is the optimum for axes that share no tensor, as a single one, and
    a local one otherwise. `signed`: a unit may also change its sign, so that absolute inner products are assigned.

    Where one tensor has an axis twice the assignment is only an approximation (the other side stays as it was), so a step
    is taken only if the networks do agree better after it.
    """
    blocks = zip(weights.split(ROWS), reference.expand_as(weights).split(ROWS), strict=True)
    found = [_match(ours, theirs, spec, axes, signed) for ours, theirs in blocks]
    joined = {}
    for axis in axes:
        signs = [part[axis].signs for part in found]
        places = torch.cat([part[axis].places for part in found])
        joined[axis] = Move(places, torch.cat([s for s in signs if s is not None]) if signed else None)
    return joined


def _match(
    weights: Tensor, reference: Tensor, spec: WeightSpec, axes: tuple[str, ...], signed: bool
) -> dict[str, Move]:
    moves = {}
    for axis in axes:
        places = torch.arange(spec.axis_size(axis), device=weights.device).expand(len(weights), -1)
        moves[axis] = Move(places, torch.ones_like(places, dtype=weights.dtype) if signed else None)
    coupled = any(sum(axis in moves for axis in entry.axes) > 1 for entry in spec.entries)
    for _ in range(SWEEPS if coupled else 1):
        changed = False
        for axis in axes:
            better, rows = _improved(axis, weights, reference, spec, moves)
            moves[axis], changed = better, changed or bool(rows.any())
        if not changed:
            break
    return moves


def _improved(axis: str, weights: Tensor, reference: Tensor, spec: WeightSpec, moves: Moves) -> tuple[Move, Tensor]:
    """The best move of one axis given those of the others, and for which networks (B,) it is another than before."""
    ours, theirs, old = spec.unflatten(weights), spec.unflatten(reference), moves[axis]
    count, length = old.places.shape
    worth = weights.new_zeros(count, length, length)  # (B, n, n): of unit j in place i
    once, twice = worth.clone(), []  # worth in the tensors that have the axis once; those that have it more often
    for entry in spec.entries:
        dims = [dim for dim, a in enumerate(entry.axes, start=1) if a == axis]
        if len(dims) > 1:
            twice.append(entry)
        for dim in dims:
            moved = _moved(ours[entry.name], entry, moves, but=dim)
            wanted, has = (t.movedim(dim, 1).reshape(count, length, -1) for t in (theirs[entry.name], moved))
            agreeing = wanted @ has.mT
            worth += agreeing
            if len(dims) == 1:
                once += agreeing
    new = _assigned(worth, signed=old.signs is not None)

    def agreement(tried: Move) -> Tensor:  # (B,)
        total = _picked(once, tried).sum(1, dtype=torch.float64)
        for entry in twice:
            moved = _moved(ours[entry.name], entry, {**moves, axis: tried})
            total += (moved * theirs[entry.name]).flatten(1).sum(1, dtype=torch.float64)
        return total

    differ = new.places != old.places
    if new.signs is not None and old.signs is not None:
        differ |= new.signs != old.signs
    changing = ((_picked(worth, new).abs() + _picked(worth, old).abs()) * differ).sum(1)  # (B,)
    taken = (agreement(new) - agreement(old) > ROUNDING * changing)[:, None]  # (B, 1)
    signs = None
    if new.signs is not None and old.signs is not None:
        signs = torch.where(taken, new.signs, old.signs)
    return Move(torch.where(taken, new.places, old.places), signs), taken[:, 0]


def _assigned(worth: Tensor, *, signed: bool) -> Move:
    """(B, n, n) -> the move of greatest total worth."""
    places = torch.empty(worth.shape[:2], dtype=torch.long)
    for row, matrix in zip(places, (worth.abs() if signed else worth).cpu().numpy(), strict=True):
        row.copy_(torch.from_numpy(linear_sum_assignment(matrix, maximize=True)[1]))
    best = Move(places.to(worth.device))
    if not signed:
        return best
    return Move(best.places, torch.where(_picked(worth, best) < 0, -1.0, 1.0).to(worth.dtype))


def _picked(worth: Tensor, chosen: Move) -> Tensor:
    """(B, n): of each place's unit there."""
    picked = worth.gather(2, chosen.places[..., None])[..., 0]
    return picked if chosen.signs is None else picked * chosen.signs
