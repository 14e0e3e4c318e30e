"""A transformer that cannot tell hidden units apart by place: equivariant to their permutation by construction."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Lt
from einops import einsum, rearrange
from torch import Tensor, nn

from wspace.api import Condition, Denoiser, TokenLayout, UserError, sinusoids
from wspace_t2w.prior_attention import padding


class UnitAttention(Denoiser):
    """A denoiser F with F(g·x) = g·F(x) for every permutation g of the hidden units, up to rounding.

    Tian et al. (2025) train a denoiser towards this by a loss (eq. 12), which holds it only approximately.
    A token for each hidden unit, all through the same maps, none with a position: what a unit is shows in its own noisy
    weights and in its anchor, the mean network's weights of that unit, which move when the units do. Tokens that are no
    units (an output bias) keep maps and positions of their own.
    """

    def __init__(
        self,
        width: Annotated[int, Ge(2)] = 192,
        depth: Annotated[int, Ge(1)] = 4,
        heads: Annotated[int, Ge(1)] = 4,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        *,
        layout: TokenLayout,
        condition_width: int,
    ):
        super().__init__()
        if width % heads:
            raise UserError(f"denoiser 'unit-attention': width {width} is not a multiple of heads {heads}")
        if not layout.units:
            raise UserError(
                "denoiser 'unit-attention': it needs a token for each hidden unit, as `tokenizer: neuron` makes"
            )
        self.width, self.units, values = width, layout.units, layout.width
        others = layout.count - layout.units
        self.enter = nn.Linear(2 * values, width)  # a unit's noisy weights, and its anchor's
        self.enter_others = nn.Parameter(torch.randn(others, 2 * values, width) * (2 * values) ** -0.5)
        self.position = nn.Parameter(torch.randn(others, width) * 0.02)
        self.of_condition = nn.Linear(condition_width, width)
        self.of_level = nn.Sequential(nn.Linear(2 * (width // 2), width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, values)
        self.leave_others = nn.Parameter(torch.zeros(others, width, values))
        self.bias_others = nn.Parameter(torch.zeros(others, values))
        self.gate = nn.Linear(2 * (width // 2), 2)  # times the input: of units, of the others
        for layer in (self.leave, self.gate):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, level: Tensor, condition: Condition, anchor: Tensor) -> Tensor:
        waves = sinusoids(level, self.width)  # (B, width)
        inputs = torch.cat([x, anchor], dim=2)  # (B, N, 2D)
        units = self.enter(inputs[:, : self.units])  # (B, U, width)
        others = einsum(inputs[:, self.units :], self.enter_others, "b n d, n d width -> b n width") + self.position
        time = rearrange(self.of_level(waves), "b width -> b 1 width")
        sequence = torch.cat([self.of_condition(condition.tokens), time, units, others], dim=1)
        hidden = padding(condition, x.shape[1])
        for block in self.blocks:
            sequence = block(sequence, src_key_padding_mask=hidden)
        normed = self.norm(sequence[:, -x.shape[1] :])
        of_others = (
            einsum(normed[:, self.units :], self.leave_others, "b n width, n width d -> b n d") + self.bias_others
        )
        out = torch.cat([self.leave(normed[:, : self.units]), of_others], dim=1)  # (B, N, D)
        gate = self.gate(waves)  # (B, 2)
        of_units = torch.arange(x.shape[1], device=x.device) < self.units  # (N,)
        return out + torch.where(of_units, gate[:, :1], gate[:, 1:])[..., None] * x
