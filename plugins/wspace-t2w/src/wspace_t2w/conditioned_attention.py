"""What T2W's denoisers share: attention over weight tokens, and the ways in which it learns of noise level and condition."""

from __future__ import annotations

from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from wspace.api import Condition, Denoiser, UserError

Conditioning = Literal["tokens", "adaln", "cross", "concat"]


class ConditionedAttention(Denoiser):
    """A transformer over weight tokens. Nothing here knows a token's place, so that units stay interchangeable.

    conditioning: how it learns of level and condition.

    tokens  the condition's tokens and the level's stand before the weights' (Tian et al., 2025: "prior attention")
    cross   every block looks at these tokens, besides the weights' among themselves (Peebles and Xie, 2022)
    adaln   level and pooled condition scale and shift what every block takes in, and gate what it adds: adaLN-Zero
            (Peebles and Xie, 2022), after FiLM (Perez et al., 2018)
    concat  level and pooled condition stand beside the values of every weight token as it enters
    """

    def __init__(self, who: str, width: int, heads: int):
        """Raises UserError, in the name of the denoiser `who`, for a width that heads do not divide."""
        super().__init__()
        if width % heads:
            raise UserError(f"denoiser {who!r}: width {width} is not a multiple of heads {heads}")
        self.width, self.heads = width, heads

    def add_blocks(
        self, conditioning: Conditioning, depth: int, dropout: float, condition_width: int, pooled_width: int
    ) -> None:
        """Once, by the constructor, which draws its own parameters in an order that has to stay."""
        width, heads = self.width, self.heads
        self.conditioning: Conditioning = conditioning
        self.of_condition = nn.Linear(condition_width if conditioning in ("tokens", "cross") else pooled_width, width)
        self.of_level = nn.Sequential(nn.Linear(2 * (width // 2), width), nn.SiLU(), nn.Linear(width, width))

        def block() -> nn.Module:
            if conditioning == "adaln":
                return AdaptiveBlock(width, heads, dropout)
            layer = nn.TransformerDecoderLayer if conditioning == "cross" else nn.TransformerEncoderLayer
            return layer(width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True)

        self.blocks = nn.ModuleList(block() for _ in range(depth))  # not nn.TransformerEncoder: its layers start alike
        self.norm = nn.LayerNorm(width)

    def through_blocks(self, weights: Tensor, waves: Tensor, condition: Condition) -> Tensor:
        """Weight tokens (B, N, width) and the level's sinusoids (B, width) -> (B, N, width), normed."""
        count, time = weights.shape[1], rearrange(self.of_level(waves), "b width -> b 1 width")
        if self.conditioning == "tokens":
            sequence = torch.cat([self.of_condition(condition.tokens), time, weights], dim=1)  # (B, L+1+N, width)
            hidden = padding(condition, 1 + count)
            for block in self.blocks:
                sequence = block(sequence, src_key_padding_mask=hidden)
            return self.norm(sequence[:, -count:])
        if self.conditioning == "cross":
            memory, hidden = torch.cat([self.of_condition(condition.tokens), time], dim=1), padding(condition, 1)
            for block in self.blocks:
                weights = block(weights, memory, memory_key_padding_mask=hidden)
            return self.norm(weights)
        given = rearrange(self.of_condition(condition.pooled), "b width -> b 1 width") + time
        if self.conditioning == "concat":  # a linear map of values side by side is the sum of one of each
            weights = weights + given
        for block in self.blocks:
            weights = block(weights, given) if self.conditioning == "adaln" else block(weights)
        return self.norm(weights)


class AdaptiveBlock(nn.Module):
    """Attention and a feed-forward network between adaptive norms. A fresh one changes nothing (adaLN-Zero)."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, tokens: Tensor, given: Tensor) -> Tensor:
        """(B, N, width), and what modulates them (B, 1, width) -> (B, N, width)."""
        modulation = self.modulation(nn.functional.silu(given))
        shift, scale, gate, shift_after, scale_after, gate_after = modulation.chunk(6, dim=2)
        normed = self.norm(tokens) * (1 + scale) + shift
        tokens = tokens + gate * self.attention(normed, normed, normed, need_weights=False)[0]
        normed = self.norm(tokens) * (1 + scale_after) + shift_after
        return tokens + gate_after * self.feed_forward(normed)


def padding(condition: Condition, count: int) -> Tensor | None:
    """(B, L + count), True where attention over condition tokens and `count` others must not look; None: nothing is hidden."""
    if condition.mask.all():
        return None
    return nn.functional.pad(~condition.mask, (0, count), value=False)
