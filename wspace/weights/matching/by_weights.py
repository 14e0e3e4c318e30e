"""Hidden units moved to other places: what that does to weights, and which moves bring one network near another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wspace.interfaces.axes import Block
from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.support.errors import UserError

ROWS = 256  # networks matched at once, at most: more only takes more memory
VALUES = 2**27  # of weights, or of what each unit would be worth in each place, held of them at once
SWEEPS = 100  # at most, as in the authors' code; it takes a few
MATCHING = "weight matching"
ROUNDING = 1e-6  # of what a step changes: a gain below is none


@dataclass(frozen=True)
class Move:
    """Along one axis: unit places[b, i] of network b goes to place i, times signs[b, i]."""

    places: Tensor  # (B, n) int64
    signs: Tensor | None = None  # (B, n) of 1 and -1; None: all 1

    def __call__(self, tensor: Tensor, dim: int) -> Tensor:
        shape = [len(self.places), *(-1 if d == dim else 1 for d in range(1, tensor.ndim))]
        if len(self.places) == 1:
            tensor = tensor.index_select(dim, self.places[0])  # the same, many times as fast
        else:
            tensor = tensor.gather(dim, self.places.view(shape).expand_as(tensor))
        return tensor if self.signs is None else tensor * self.signs.to(tensor.dtype).view(shape)


Moves = Mapping[str, Move]
"""By the name of the axis."""


def axes_of(spec: WeightSpec, named: Sequence[str] | None, who: str) -> tuple[str, ...]:
    """The axes that a symmetry or a matching (`who`) acts on: those named, or else the free ones. Raises UserError."""
    if isinstance(named, str):
        raise UserError(f"{who}: axes are a list of names, not {named!r} alone: write [{named!r}]")
    axes = spec.free if named is None else tuple(named)
    if not axes:
        why = f" ({'; '.join(spec.notes)})" if spec.notes else ""
        raise UserError(f"{who}: no axis to act on; free axes: {', '.join(spec.free) or 'none'}{why}")
    for axis in axes:
        if all(axis not in entry.names for entry in spec.entries):
            existing = ", ".join(sorted({a for entry in spec.entries for a in entry.names}))
            raise UserError(f"{who}: this target has no axis {axis!r}; it has {existing}")
        lengths = {
            n: entry.name for entry in spec.entries for a, n in zip(entry.axes, entry.shape, strict=True) if a == axis
        }
        if len(lengths) > 1:
            by_tensor = " and ".join(f"{length} in {name!r}" for length, name in lengths.items())
            raise UserError(f"{who}: the lengths of axis {axis!r} differ: {by_tensor}")
        if axes.count(axis) > 1:
            raise UserError(f"{who}: axis {axis!r} is named twice")
    return axes


def move(weights: Tensor, spec: WeightSpec, moves: Moves) -> Tensor:
    """(B, P) -> (B, P). Raises UserError for moves of an axis that the spec has not."""
    if moves:
        axes_of(spec, tuple(moves), "moving units")
    tensors = spec.unflatten(weights)
    return spec.flatten({entry.name: moved(tensors[entry.name], entry, spec, moves) for entry in spec.entries})


def moved(tensor: Tensor, entry: WeightEntry, spec: WeightSpec, moves: Moves, but: int | None = None) -> Tensor:
    """One tensor (B, *shape) of the networks, moved along every dimension that has an axis of `moves`, `but` one."""
    for dim, (text, blocks) in enumerate(zip(entry.axes, spec.layout(entry), strict=True), start=1):
        along = moves.get(text) or _along(blocks, moves)
        if along is not None and dim != but:
            tensor = along(tensor, dim)
    return tensor


def _along(blocks: tuple[Block, ...], moves: Moves) -> Move | None:
    """What these moves do to a dimension made of blocks; None: nothing."""
    of_blocks = [moves.get(block.axis or "") or moves.get(block.outer or "") for block in blocks]
    any_move = next((move for move in of_blocks if move is not None), None)
    if any_move is None:
        return None
    places, signs = [], []
    for block, move in zip(blocks, of_blocks, strict=True):
        if move is None:
            stay = torch.arange(block.length, device=any_move.places.device)
            places.append(block.start + stay.expand(len(any_move.places), -1))
            signs.append(None)
            continue
        width = block.length // move.places.shape[1]  # slices of a unit
        slices = move.places[..., None] * width + torch.arange(width, device=move.places.device)
        places.append(block.start + slices.flatten(1))
        signs.append(None if move.signs is None else move.signs.repeat_interleave(width, dim=1))
    joined = None
    if any(sign is not None for sign in signs):
        ones = [torch.ones_like(p, dtype=torch.float32) for p in places]
        joined = torch.cat([one if sign is None else sign for one, sign in zip(ones, signs, strict=True)], dim=1)
    return Move(torch.cat(places, dim=1), joined)


# ---------------------------------------------------------------- weight matching


def match(
    weights: Tensor, reference: Tensor, spec: WeightSpec, axes: Sequence[str], *, signed: bool = False
) -> dict[str, Move]:
    """Moves of these axes under which weights (B, P) agree best with `reference` (P,) or (B, P), by inner product.

    Weight matching (Ainsworth et al., 2022, "Git Re-Basin", section 3.2 and algorithm 1), from where the weights are and
    axis by axis in the order given: with the other axes as already moved, the best places of one are a linear assignment,
    and with it those of the axes within it. It ends when a whole sweep changes nothing, which is the optimum for axes that
    share no tensor, as a single one, and a local one otherwise. `signed`: a unit may also change its sign, so that absolute
    inner products are assigned.

    Where one tensor has an axis twice the assignment is only an approximation (the other side stays as it was), so a step
    is taken only if the networks do agree better after it; if they do not, the assignment by all other tensors is tried.

    Raises UserError for an axis that the spec has not, and for weights that are not finite numbers of this spec.
    """
    axes = axes_of(spec, axes, MATCHING)
    _check(weights, reference, spec)
    precision = torch.promote_types(weights.dtype, torch.float32)  # half precision rounds sums
    weights, reference = weights.detach().to(precision), reference.detach().to(precision)
    rows = max(1, min(ROWS, VALUES // max(spec.size, *(spec.axis_size(axis) ** 2 for axis in axes))))
    blocks = zip(weights.split(rows), reference.expand_as(weights).split(rows), strict=True)
    uses = _uses(spec, families_of(spec, axes))
    matched = [_Descent(ours, theirs, spec, uses, signed).run() for ours, theirs in blocks]
    joined = {}
    for axis in axes:
        signs = [part[axis].signs for part in matched]
        places = torch.cat([part[axis].places for part in matched])
        joined[axis] = Move(places, torch.cat([s for s in signs if s is not None]) if signed else None)
    return joined


def _check(weights: Tensor, reference: Tensor, spec: WeightSpec) -> None:
    shapes = tuple(weights.shape), tuple(reference.shape)
    if weights.ndim != 2 or weights.shape[1] != spec.size or shapes[1] not in ((spec.size,), shapes[0]):
        raise UserError(
            f"{MATCHING}: weights are (B, {spec.size}) and the reference ({spec.size},) or (B, {spec.size}) for this spec, "
            f"not {shapes[0]} and {shapes[1]}"
        )
    if weights.dtype != reference.dtype or not weights.is_floating_point():
        raise UserError(
            f"{MATCHING}: weights are {weights.dtype} and the reference is {reference.dtype}: bring both to one floating "
            "dtype, as by .float()"
        )
    for whose, flat in (("the networks to move", weights), ("the reference", reference)):
        if not flat.isfinite().all():
            tensors = spec.unflatten(flat).items()
            name = next(name for name, tensor in tensors if not tensor.isfinite().all())
            raise UserError(f"{MATCHING}: tensor {name!r} of {whose} holds values that are not finite numbers")


Family = tuple[str, ...]
"""Axes that are assigned together: one, and those within it."""

Uses = Mapping[frozenset[Family], list[tuple[WeightEntry, int]]]
"""The tensors that have a family, and along which dimension, by the families that they have along others."""


def families_of(spec: WeightSpec, axes: tuple[str, ...]) -> tuple[Family, ...]:
    """In the order of their outermost axes, which come first in each."""
    inner = {axis for axis in axes if spec.outer(axis) in axes}
    return tuple((axis, *(a for a in axes if spec.outer(a) == axis)) for axis in axes if axis not in inner)


def _uses(spec: WeightSpec, families: Sequence[Family]) -> Mapping[Family, Uses]:
    family_of = {axis: family for family in families for axis in family}
    uses = {family: dict[frozenset[Family], list[tuple[WeightEntry, int]]]() for family in families}
    for entry in spec.entries:
        along = [
            {family_of[axis] for block in blocks for axis in (block.axis, block.outer) if axis in family_of}
            for blocks in spec.layout(entry)
        ]
        for place, here in enumerate(along):
            others = frozenset(family for side in (*along[:place], *along[place + 1 :]) for family in side)
            for family in here:
                uses[family].setdefault(others, []).append((entry, place + 1))
    return uses


class _Descent:
    """Of networks (B, P) towards others, family by family, until none improves."""

    def __init__(self, weights: Tensor, reference: Tensor, spec: WeightSpec, uses: Mapping[Family, Uses], signed: bool):
        self.ours, self.theirs, self.spec, self.uses = spec.unflatten(weights), spec.unflatten(reference), spec, uses
        self.weights, self.signed = weights, signed
        self.kept = dict[tuple[Family, frozenset[Family]], dict[str, Tensor]]()
        self.moves = dict[str, Move]()
        for axis in (axis for family in uses for axis in family):
            places = torch.arange(spec.axis_size(axis), device=weights.device).expand(len(weights), -1)
            self.moves[axis] = Move(places, torch.ones_like(places, dtype=weights.dtype) if signed else None)

    def run(self) -> dict[str, Move]:
        pending = set(self.uses)
        for _ in range(SWEEPS):
            for family in self.uses:
                if family not in pending:  # it would come out as it did
                    continue
                better, rows = self._improved(family)
                pending.discard(family)
                if rows.any():
                    self.moves |= better
                    self.kept = {key: worth for key, worth in self.kept.items() if family not in key[1]}
                    pending |= {other for other, uses in self.uses.items() if any(family in others for others in uses)}
            if not pending:
                break
        return self.moves

    def _worth(self, family: Family, others: frozenset[Family]) -> dict[str, Tensor]:
        """(B, n, n): what unit j is worth in place i, to the tensors that have these others. Kept until one of them moves."""
        if (family, others) in self.kept:
            return self.kept[family, others]
        count, sizes = len(self.weights), {axis: self.spec.axis_size(axis) for axis in family}
        worth = {axis: self.weights.new_zeros(count, n, n) for axis, n in sizes.items()}
        for entry, dim in self.uses[family][others]:
            has = moved(self.ours[entry.name], entry, self.spec, self.moves, but=dim)
            for block in self.spec.layout(entry)[dim - 1]:
                axis = block.axis if block.axis in family else block.outer
                if axis in worth:
                    whole = (self.theirs[entry.name], has)
                    stretch = (t.narrow(dim, block.start, block.length).movedim(dim, 1) for t in whole)
                    left, right = (t.reshape(count, sizes[axis], -1) for t in stretch)
                    worth[axis].baddbmm_(left, right.mT)
        if sum(table.numel() for tables in (*self.kept.values(), worth) for table in tables.values()) <= VALUES:
            self.kept[family, others] = worth
        return worth

    def _improved(self, family: Family) -> tuple[dict[str, Move], Tensor]:
        """The best moves of a family given those of the others, and for which networks (B,) they are others than before."""
        old = {axis: self.moves[axis] for axis in family}
        # by tensors with the family along one dimension alone; `twice` are the others
        sizes = {axis: self.spec.axis_size(axis) for axis in family}
        once = {axis: self.weights.new_zeros(len(self.weights), n, n) for axis, n in sizes.items()}
        for others in (others for others in self.uses[family] if family not in others):
            for axis, table in self._worth(family, others).items():
                once[axis] += table
        worth = dict(once)
        for others in (others for others in self.uses[family] if family in others):
            worth = {axis: worth[axis] + table for axis, table in self._worth(family, others).items()}
        twice = {
            entry.name: entry for others, uses in self.uses[family].items() if family in others for entry, _ in uses
        }

        def agreement(tried: Mapping[str, Move]) -> Tensor:  # (B,)
            total = sum(_picked(once[axis], move).sum(1, dtype=torch.float64) for axis, move in tried.items())
            for entry in twice.values():
                of_ours = moved(self.ours[entry.name], entry, self.spec, {**self.moves, **tried})
                total += (of_ours * self.theirs[entry.name]).flatten(1).sum(1, dtype=torch.float64)
            return torch.as_tensor(total)

        chosen, before = old, agreement(old)
        improved = torch.zeros_like(before, dtype=torch.bool)
        for table in (worth, once) if twice else (worth,):  # where what is worth twice misleads, the rest may not
            new = assigned(table, self.spec, signed=self.signed)
            gain = agreement(new) - before  # (B,)
            taken = ~improved & (gain > ROUNDING * _changed(worth, old, new))
            chosen = {axis: _where(taken[:, None], new[axis], chosen[axis]) for axis in family}
            improved |= taken
            if improved.all():
                break
        return chosen, improved


def _changed(worth: Mapping[str, Tensor], old: Mapping[str, Move], new: Mapping[str, Move]) -> Tensor:
    """(B,): what the units that these moves disagree on are worth, where they were and where they would be."""
    total = torch.zeros(len(next(iter(worth.values()))), device=next(iter(worth.values())).device)
    for axis, ours in old.items():
        theirs = new[axis]
        differ = theirs.places != ours.places
        if ours.signs is not None and theirs.signs is not None:
            differ |= theirs.signs != ours.signs
        total += ((_picked(worth[axis], theirs).abs() + _picked(worth[axis], ours).abs()) * differ).sum(1)
    return total


def _where(rows: Tensor, new: Move, old: Move) -> Move:
    """The new move of those networks (B, 1), the old one of the others."""
    signs = None if new.signs is None or old.signs is None else torch.where(rows, new.signs, old.signs)
    return Move(torch.where(rows, new.places, old.places), signs)


def assigned(worth: Mapping[str, Tensor], spec: WeightSpec, *, signed: bool = False) -> dict[str, Move]:
    """Of a family, given what (B, n, n) unit j is worth in place i: the moves that are worth most.

    Units within another's are first assigned for each pair of outer units, which is what those are worth to each other.
    """
    from scipy.optimize import linear_sum_assignment  # a third of a second, and most that import this never match

    first, *inner = worth
    outer, within = spec.outer(first), list(inner)
    if outer is not None:  # which stays: its units are assigned within each unit of it
        within = [first]
    units = worth[first].shape[1] if outer is None else spec.axis_size(outer)
    pairs = [(i, j) for i in range(units) for j in range(units) if outer is None or i == j] if within else []
    places = {axis: torch.empty(value.shape[:2], dtype=torch.long) for axis, value in worth.items()}
    on_cpu = {axis: (value.abs() if signed else value).cpu().numpy() for axis, value in worth.items()}
    for row in range(len(worth[first])):
        values = {axis: value[row] for axis, value in on_cpu.items()}
        gain = values[first].copy() if outer is None else np.zeros((units, units))
        chosen = {}
        for axis in within:
            tables = values[axis].reshape(units, -1, units, values[axis].shape[1] // units)
            chosen[axis] = np.zeros((units, units, tables.shape[1]), dtype=np.int64)
            for i, j in pairs:
                chosen[axis][i, j] = linear_sum_assignment(tables[i, :, j], maximize=True)[1]
                gain[i, j] += tables[i, np.arange(tables.shape[1]), j, chosen[axis][i, j]].sum()
        of_outer = linear_sum_assignment(gain, maximize=True)[1] if outer is None else np.arange(units)
        if outer is None:
            places[first][row] = torch.from_numpy(of_outer)
        for axis, columns in chosen.items():
            here = columns[np.arange(units), of_outer] + of_outer[:, None] * columns.shape[2]
            places[axis][row] = torch.from_numpy(here.reshape(-1))
    moves = {axis: Move(place.to(worth[axis].device)) for axis, place in places.items()}
    if not signed:
        return moves
    picked = {axis: _picked(worth[axis], move) for axis, move in moves.items()}
    return {
        axis: Move(move.places, torch.where(picked[axis] < 0, -1.0, 1.0).to(worth[axis].dtype))
        for axis, move in moves.items()
    }


def _picked(worth: Tensor, chosen: Move) -> Tensor:
    """(B, n): of each place's unit there."""
    picked = worth.gather(2, chosen.places[..., None])[..., 0]
    return picked if chosen.signs is None else picked * chosen.signs
