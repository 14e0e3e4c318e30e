"""A transformer over the units of a network whose weights are its edges: equivariant to permutations of every hidden layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Lt
from einops import einsum, rearrange
from torch import Tensor, nn
from torch.nn import functional

from wspace.interfaces import Condition, Denoiser, TokenLayout
from wspace.learning.denoising import sinusoids
from wspace.support.errors import UserError


@dataclass(frozen=True)
class _Edges:
    """Weights from the units of one layer to those of another: where they lie in the tokens, and whom they join."""

    tokens: slice  # of the units at one end, (n); their places among all units too
    values: slice  # of each token, (m*e)
    others: slice  # of the units at the other end, (m)
    each: int  # e: weights between two units, of a convolution its kernel


class NeuralGraph(Denoiser):
    """A denoiser F with F(g·x) = g·F(x) for permutations g of the units of each layer that has tokens, up to rounding.

    Units are nodes, told apart by nothing but their weights; a weight between two hidden units is an edge with a feature for
    each head (Kofinas et al., 2024; Zhou et al., 2023, on equivariant networks for weights). In each block every unit takes
    in what its edges bring from the units at their other ends, all units attend to each other and to the condition, and
    edges change with the two units that they join. Weights to inputs and outputs, whose order means something, are features
    of their unit. It needs the tokens of `tokenizer: units`.
    """

    def __init__(
        self,
        width: Annotated[int, Ge(2)] = 64,
        depth: Annotated[int, Ge(1)] = 2,
        heads: Annotated[int, Ge(1)] = 8,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        *,
        layout: TokenLayout,
        condition_width: int,
    ):
        super().__init__()
        if width % heads:
            raise UserError(f"denoiser 'neural-graph': width {width} is not a multiple of heads {heads}")
        if not layout.groups:
            raise UserError(
                "denoiser 'neural-graph': it needs a token for each unit of every hidden layer, as `tokenizer: units` makes"
            )
        self.width = width
        self.layers, self.fixed, self.edges = _read(layout)
        self.units = self.layers[-1].stop  # tokens after these are no units
        self.counts: Tensor
        self.register_buffer("counts", torch.tensor([_length(layer) for layer in self.layers]), persistent=False)
        others, of_level = layout.count - self.units, 2 * (width // 2)
        self.layer = nn.Parameter(torch.randn(len(self.layers), width) * 0.02)
        self.enter = nn.ModuleList(nn.Linear(sum(map(_length, spans)), width) for _, spans in self.fixed)
        self.enter_edges = nn.ModuleList(nn.Linear(edges.each, heads) for edges in self.edges)
        self.enter_others = nn.Parameter(torch.randn(others, layout.width, width) * layout.width**-0.5)
        self.position = nn.Parameter(torch.randn(others, width) * 0.02)
        self.of_condition = nn.Linear(condition_width, width)
        self.of_level = nn.Sequential(nn.Linear(of_level, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(_Block(width, heads, dropout, self.edges) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.ModuleList(nn.Linear(width, sum(map(_length, spans))) for _, spans in self.fixed)
        self.leave_edges = nn.ModuleList(nn.Linear(heads, edges.each) for edges in self.edges)
        self.leave_others = nn.Parameter(torch.zeros(others, width, layout.width))
        self.bias_others = nn.Parameter(torch.zeros(others, layout.width))
        gates = len(self.fixed) + len(self.edges) + 1  # of each part, and of the others
        self.gate = nn.Linear(of_level, gates)  # times the input
        for parameter in (*self.leave.parameters(), *self.leave_edges.parameters(), *self.gate.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, level: Tensor, condition: Condition, anchor: Tensor) -> Tensor:
        waves = sinusoids(level, self.width)  # (B, width)
        # (B, n, v) each, and (B, n, m, e) each
        of_fixed = [torch.cat([x[:, tokens, span] for span in spans], dim=2) for tokens, spans in self.fixed]
        of_edges = [_between(x, edges) for edges in self.edges]
        of_others = x[:, self.units :]  # (B, O, D)
        nodes = self.layer.repeat_interleave(self.counts, dim=0, output_size=self.units)
        nodes = nodes + rearrange(self.of_level(waves), "b width -> b 1 width")  # (B, U, width)
        for (tokens, _), values, enter in zip(self.fixed, of_fixed, self.enter, strict=True):
            nodes = functional.pad(enter(values), (0, 0, tokens.start, self.units - tokens.stop)) + nodes
        entered = zip(self.enter_edges, of_edges, strict=True)
        features = [enter(weights) for enter, weights in entered]  # (B, n, m, heads) each
        others = einsum(of_others, self.enter_others, "b n d, n d width -> b n width") + self.position
        rest = torch.cat([self.of_condition(condition.tokens), others], dim=1)  # (B, C + O, width)
        padding = ~condition.mask
        hidden = functional.pad(padding, (self.units, len(self.position)))  # (B, U + C + O)
        for block in self.blocks:
            nodes, features, rest = block(nodes, features, rest, hidden)
        gates = iter(self.gate(waves).unbind(1))  # (B,) each
        out = torch.zeros_like(x)
        normed = self.norm(nodes)
        for (tokens, spans), values, leave in zip(self.fixed, of_fixed, self.leave, strict=True):
            written = leave(normed[:, tokens]) + rearrange(next(gates), "b -> b 1 1") * values
            for span, part in zip(spans, written.split([_length(span) for span in spans], dim=2), strict=True):
                out[:, tokens, span] = part
        for edges, weights, of_edge, leave in zip(self.edges, of_edges, features, self.leave_edges, strict=True):
            gate = rearrange(next(gates), "b -> b 1 1 1")
            out[:, edges.tokens, edges.values] = (leave(of_edge) + gate * weights).flatten(2)
        normed = self.norm(rest[:, condition.mask.shape[1] :])
        written = einsum(normed, self.leave_others, "b n width, n width d -> b n d") + self.bias_others
        out[:, self.units :] = written + rearrange(next(gates), "b -> b 1 1") * of_others
        return out


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float, edges: Sequence[_Edges]):
        super().__init__()
        self.edges, self.heads = edges, heads
        self.norm = nn.LayerNorm(width)
        self.brought = nn.ModuleList(nn.Linear(width, 2 * width) for _ in edges)  # to one end, to the other
        self.taken_in = nn.Linear(width, width)
        self.attention = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.joined = nn.ModuleList(nn.Linear(width, 2 * width) for _ in edges)
        self.changed = nn.ModuleList(
            nn.Sequential(nn.Linear(heads, 4 * heads), nn.GELU(), nn.Linear(4 * heads, heads)) for _ in edges
        )

    def forward(
        self, nodes: Tensor, features: Sequence[Tensor], rest: Tensor, hidden: Tensor
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """(B, U, width), (B, n, m, heads) of each edges, (B, C + O, width), (B, U + C + O) -> the first three, changed."""
        normed, messages = self.norm(nodes), torch.zeros_like(nodes)
        for edges, of_edges, brought in zip(self.edges, features, self.brought, strict=True):
            # (B, U, heads, width / heads) each
            at, other = (self._by_head(part) for part in brought(normed).chunk(2, dim=2))
            to_one = einsum(of_edges, other[:, edges.others], "b n m h, b m h v -> b n h v") * of_edges.shape[2] ** -0.5
            to_other = einsum(of_edges, at[:, edges.tokens], "b n m h, b n h v -> b m h v") * of_edges.shape[1] ** -0.5
            for tokens, message in ((edges.tokens, to_one), (edges.others, to_other)):
                messages = messages + functional.pad(
                    message.flatten(2), (0, 0, tokens.start, nodes.shape[1] - tokens.stop)
                )
        sequence = torch.cat([nodes + self.taken_in(messages), rest], dim=1)
        sequence = self.attention(sequence, src_key_padding_mask=hidden)
        nodes, rest = sequence.split([nodes.shape[1], rest.shape[1]], dim=1)
        normed, changed = self.norm(nodes), []
        for edges, of_edges, joined, change in zip(self.edges, features, self.joined, self.changed, strict=True):
            at, other = (self._by_head(part) for part in joined(normed).chunk(2, dim=2))
            both = (
                einsum(at[:, edges.tokens], other[:, edges.others], "b n h v, b m h v -> b n m h") * at.shape[3] ** -0.5
            )
            changed.append(of_edges + change(of_edges + both))
        return nodes, changed, rest

    def _by_head(self, nodes: Tensor) -> Tensor:
        return rearrange(nodes, "b u (h v) -> b u h v", h=self.heads)


def _length(part: slice) -> int:
    return part.stop - part.start


def _read(layout: TokenLayout) -> tuple[list[slice], list[tuple[slice, list[slice]]], list[_Edges]]:
    """Tokens of each layer's units; of those with values that mean something by place, which; and edges between units."""
    layers: dict[str, slice] = {}
    for group in layout.groups:
        start = sum(map(_length, layers.values()))
        layers[group.axis] = slice(start, start + group.count)
    counts = {group.axis: group.count for group in layout.groups}
    fixed, edges = [], []
    for group in layout.groups:
        places, start = [], 0
        for span in group.spans:
            values = slice(start, start + span.length)
            if span.axis is None:
                places.append(values)
            else:
                each = span.length // counts[span.axis]
                edges.append(_Edges(layers[group.axis], values, layers[span.axis], each))
            start += span.length
        if places:
            fixed.append((layers[group.axis], places))
    return list(layers.values()), fixed, edges


def _between(x: Tensor, edges: _Edges) -> Tensor:
    """Token values (B, N, D) -> weights between units (B, n, m, e)."""
    return x[:, edges.tokens, edges.values].unflatten(2, (-1, edges.each))
