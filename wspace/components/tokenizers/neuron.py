"""One token for each hidden unit: its incoming weights, bias and outgoing weights."""

from __future__ import annotations

from typing import Literal

import torch

from wspace.interfaces import TokenLayout
from wspace.interfaces.axes import names_in
from wspace.interfaces.weights import WeightSpec
from wspace.support.errors import UserError
from wspace.weights.placed import Fitted, PlacedTokenizer, Places


class Neuron(PlacedTokenizer):
    """Tokens along a named axis of the target, so that permuting hidden units permutes tokens.

    Tensors without that axis (an output bias) follow in tokens of their own. Scales are those of
    `wspace.weights.scaling.fit_scale`, tensor by tensor; `centered` ones belong to places, so that a zoo must be aligned
    for them.
    """

    def __init__(self, axis: str = "hidden", scale: Literal["zscore", "centered"] = "centered", *, spec: WeightSpec):
        if all(axis not in entry.axes for entry in spec.entries):
            names = sorted({a for entry in spec.entries for a in entry.names})
            raise UserError(
                f"tokenizer 'neuron': this target has no axis {axis!r}; it has {', '.join(names) or 'none'}"
            )
        for entry in spec.entries:
            for text in entry.axes:
                if axis in names_in(text) and text != axis:
                    raise UserError(
                        f"tokenizer 'neuron': axis {axis!r} is only a part of a dimension of {entry.name!r}, {text!r}, so that "
                        "its units are no tokens: use the tokenizer 'chunk', or another axis"
                    )
        units = spec.axis_size(axis)
        of_units, others, groups = [], [], torch.empty(spec.size, dtype=torch.long)
        for number, entry in enumerate(spec.entries):
            groups[spec.slices[entry.name]] = number
            where = torch.arange(spec.size)[spec.slices[entry.name]].view(entry.shape)
            if axis in entry.axes:
                of_units.append(where.movedim(entry.axes.index(axis), 0).reshape(units, -1))
            else:
                others.append(where.flatten())
        rows = torch.cat(of_units, dim=1)  # (units, D): the weight each token value is
        width, rest = rows.shape[1], torch.cat(others) if others else torch.empty(0, dtype=torch.long)
        extra = -(-len(rest) // width)
        mask = torch.ones(units + extra, width, dtype=torch.bool)
        mask.view(-1)[units * width + len(rest) :] = False
        place = torch.empty(spec.size, dtype=torch.long)
        place[torch.cat([rows.flatten(), rest])] = torch.arange(spec.size)  # weights fill the tokens in this order
        super().__init__(TokenLayout(mask, units), Places(place, mask.numel()), Fitted(scale, groups))
