"""A transformer that cannot tell hidden units apart by place: equivariant to their permutation by construction."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Lt
from einops import einsum
from torch import Tensor, nn

from wspace.api import Condition, Since, TokenLayout, UserError, sinusoids
from wspace_t2w.conditioned_attention import ConditionedAttention


class UnitAttention(ConditionedAttention):
    """A denoiser F with F(g·x) = g·F(x) for every permutation g of the hidden units, up to rounding.

    Tian et al. (2025) train a denoiser towards this by a loss (eq. 12), which holds it only approximately.
    A token for each hidden unit, all through the same maps, none with a position: what a unit is shows in its own noisy
    weights and in its anchor, the mean network's weights of that unit, which move when the units do. Tokens that are no
    units (an output bias) keep maps and positions of their own.
    conditioning: how units learn of level and condition, and stay interchangeable: see `prior-attention`.
    """

    version: ClassVar[int] = 2  # 2: no work on padding, which sums in another order

    def __init__(
        self,
        width: Annotated[int, Ge(2)] = 192,
        depth: Annotated[int, Ge(1)] = 4,
        heads: Annotated[int, Ge(1)] = 4,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        conditioning: Annotated[Literal["tokens", "adaln", "cross", "concat"], Since("0.2")] = "tokens",
        *,
        layout: TokenLayout,
        condition_width: int,
        pooled_width: int,
    ):
        super().__init__("unit-attention", width, heads)
        if not layout.units:
            raise UserError(
                "denoiser 'unit-attention': it needs a token for each hidden unit, as `tokenizer: neuron` makes"
            )
        self.units, values = layout.units, layout.width
        others = layout.count - layout.units
        self.enter = nn.Linear(2 * values, width)  # a unit's noisy weights, and its anchor's
        self.enter_others = nn.Parameter(torch.randn(others, 2 * values, width) * (2 * values) ** -0.5)
        self.position = nn.Parameter(torch.randn(others, width) * 0.02)
        self.add_blocks(conditioning, depth, dropout, condition_width, pooled_width)
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
        normed = self.through_blocks(torch.cat([units, others], dim=1), waves, condition)  # (B, N, width)
        of_others = (
            einsum(normed[:, self.units :], self.leave_others, "b n width, n width d -> b n d") + self.bias_others
        )
        out = torch.cat([self.leave(normed[:, : self.units]), of_others], dim=1)  # (B, N, D)
        gate = self.gate(waves)  # (B, 2)
        of_units = torch.arange(x.shape[1], device=x.device) < self.units  # (N,)
        return out + torch.where(of_units, gate[:, :1], gate[:, 1:])[..., None] * x
