"""One token for each hidden unit of every hidden layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from wspace.interfaces import Span, TokenLayout, UnitTokens
from wspace.interfaces.axes import names_in
from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.support.errors import UserError
from wspace.weights.placed import Fitted, PlacedTokenizer, Places


class Units(PlacedTokenizer):
    """Tokens along several axes of the target at once, so that permuting units of any layer permutes tokens.

    A tensor stands in the tokens of the first of these axes among its dimensions. So a weight between two hidden units is in
    the token of one of them, and moves within it when the other's layer is permuted: the layout tells denoisers such as
    `neural-graph` where. Tensors with none of the axes (an output bias) follow in tokens of their own. Without `axes`: along
    all that the target calls free.
    """

    def __init__(
        self,
        axes: tuple[str, ...] | None = None,
        scale: Literal["zscore", "centered"] = "zscore",
        *,
        spec: WeightSpec,
    ):
        axes = _checked(spec, spec.free if axes is None else axes)
        owned: dict[str | None, list[WeightEntry]] = {axis: [] for axis in (*axes, None)}
        for entry in spec.entries:
            owned[next((axis for axis in entry.axes if axis in axes), None)].append(entry)
        groups, rows = [], []
        for axis in axes:
            parts = [_of_units(spec, entry, axis, axes) for entry in owned[axis]]
            rows.append(torch.cat([where for where, _ in parts], dim=1))
            groups.append(UnitTokens(axis, spec.axis_size(axis), tuple(span for _, span in parts)))
        width = max(row.shape[1] for row in rows)
        rest = torch.cat([torch.empty(0, dtype=torch.long), *(_places(spec, entry).flatten() for entry in owned[None])])
        weight_of = torch.full((sum(map(len, rows)) + -(-len(rest) // width), width), -1)  # (N, D), -1: padding
        start = 0
        for row in rows:
            weight_of[start : start + len(row), : row.shape[1]] = row
            start += len(row)
        weight_of[start:].view(-1)[: len(rest)] = rest
        mask = weight_of >= 0
        place = torch.empty(spec.size, dtype=torch.long)
        place[weight_of[mask]] = mask.flatten().nonzero()[:, 0]
        units = groups[0].count if len(groups) == 1 else 0
        tensors = torch.cat([torch.full((entry.size,), number) for number, entry in enumerate(spec.entries)])
        layout = TokenLayout(mask, units, groups=tuple(groups))
        super().__init__(layout, Places(place, mask.numel()), Fitted(scale, tensors))


def _checked(spec: WeightSpec, axes: Sequence[str]) -> tuple[str, ...]:
    """Those axes, each of which some tensor has. Raises UserError."""
    if not axes:
        raise UserError(
            "tokenizer 'units': this target has no axis whose units may be permuted; use the tokenizer 'chunk'"
        )
    there = sorted({axis for entry in spec.entries for axis in entry.names})
    for axis in axes:
        if axis not in there:
            raise UserError(f"tokenizer 'units': this target has no axis {axis!r}; it has {', '.join(there) or 'none'}")
        for entry in spec.entries:
            part = next((text for text in entry.axes if axis in names_in(text) and text != axis), None)
            if part is not None:
                raise UserError(
                    f"tokenizer 'units': axis {axis!r} is only a part of a dimension of {entry.name!r}, {part!r}, so that "
                    "its units are no tokens: use the tokenizer 'chunk', or name other axes"
                )
    return tuple(dict.fromkeys(axes))


def _places(spec: WeightSpec, entry: WeightEntry) -> Tensor:
    """Of each value of a tensor, where it lies in the flat vector."""
    return torch.arange(spec.size)[spec.slices[entry.name]].view(entry.shape)


def _of_units(spec: WeightSpec, entry: WeightEntry, axis: str, axes: Sequence[str]) -> tuple[Tensor, Span]:
    """A tensor as rows, one for each unit of an axis (n, length), and what a row is: along one other axis, that axis first."""
    dim = entry.axes.index(axis)
    where, left = _places(spec, entry).movedim(dim, 0), [text for n, text in enumerate(entry.axes) if n != dim]
    others = [text for text in left if text in axes]
    if len(others) > 1:
        named = " and ".join(map(repr, others))
        raise UserError(
            f"tokenizer 'units': tensor {entry.name!r} lies along {axis!r}, {named}; of one tensor two axes at most can be "
            "tokens: name those in `axes`"
        )
    if others:
        where = where.movedim(1 + left.index(others[0]), 1)
    rows = where.flatten(1) if where.ndim > 1 else where[:, None]
    return rows, Span(rows.shape[1], others[0] if others else None)
