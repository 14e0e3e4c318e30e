"""What T2W's denoisers share: attention over weight tokens, and the ways in which it learns of noise level and condition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

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
        time = rearrange(self.of_level(waves), "b width -> b 1 width")
        if self.conditioning == "tokens":
            return self._beside_condition(weights, time, condition)
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

    def _beside_condition(self, weights: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """As `through_blocks`, of tokens that stand after the condition's and the level's; the last block makes no others."""
        batch, count, _ = weights.shape
        rows = Rows.of(condition, 1 + count)
        others = torch.cat([time, weights], dim=1)  # (B, 1+N, width)
        tokens = rows.packed(self.of_condition(rows.of_condition(condition.tokens)), others)  # (R, width)
        for number, block in enumerate(self.blocks, 1):
            assert isinstance(block, nn.TransformerEncoderLayer)
            tokens = through_encoder_layer(block, tokens, rows, count if number == len(self.blocks) else None)
        return self.norm(tokens.unflatten(0, (batch, -1))[:, -count:])


@dataclass(frozen=True)
class Rows:
    """Where tokens of B sequences lie when those of all are rows of one matrix (R, width), without padding on a CPU.

    First come the condition's, sequence after sequence; then the `others` of each, which all sequences have as many of.
    """

    batch: int
    length: int  # of a condition, with padding: L
    others: int
    real: Tensor | None  # (R',) numbers of the condition's tokens that are no padding, among B*L; None: all are taken
    seen: Tensor | None  # (B, 1, 1, L + others): what attention may look at; None: all of it

    @classmethod
    def of(cls, condition: Condition, others: int) -> Rows:
        batch, length = condition.mask.shape
        hidden = padding(condition, others)
        if hidden is None:
            return cls(batch, length, others, None, None)
        # elsewhere than on a CPU, how many there are is not known without waiting
        packs = condition.mask.device.type == "cpu"
        real = condition.mask.flatten().nonzero()[:, 0] if packs else None
        return cls(batch, length, others, real, ~hidden[:, None, None])

    def of_condition(self, tokens: Tensor) -> Tensor:
        """(B, L, any) -> (R', any)."""
        flat = tokens.flatten(0, 1)
        return flat if self.real is None else flat.index_select(0, self.real)

    def packed(self, of_condition: Tensor, others: Tensor) -> Tensor:
        """(R', any), (B, others, any) -> (R, any)."""
        return torch.cat([of_condition, others.flatten(0, 1)])

    def padded(self, rows: Tensor) -> Tensor:
        """(R, any) -> (B, L + others, any), zero where padded."""
        first, last = rows.tensor_split([len(rows) - self.batch * self.others])
        if self.real is not None:
            first = first.new_zeros(self.batch * self.length, *first.shape[1:]).index_copy(0, self.real, first)
        return torch.cat([first.unflatten(0, (self.batch, self.length)), last.unflatten(0, (self.batch, -1))], dim=1)

    def unpadded(self, tokens: Tensor) -> Tensor:
        """(B, L + others, any) -> (R, any)."""
        return self.packed(self.of_condition(tokens[:, : self.length]), tokens[:, self.length :])


def through_encoder_layer(layer: nn.TransformerEncoderLayer, tokens: Tensor, rows: Rows, last: int | None) -> Tensor:
    """What the layer, its norms first, makes of tokens (R, width): (R, width), without work on padding.

    With `last`, of the last so many tokens of each sequence alone, which look at all: (B * last, width).
    """
    attention, normed = layer.self_attn, layer.norm1(tokens)
    width, heads = tokens.shape[1], attention.num_heads
    if last is None:
        mapped = functional.linear(normed, attention.in_proj_weight, attention.in_proj_bias)
        query, key, value = rows.padded(mapped).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)  # (B, H, S, d) each
    else:
        asking, tokens = (_last_of_each(these, rows, last) for these in (normed, tokens))  # (B * last, width)
        of_query, of_others = (
            piece.tensor_split([width]) for piece in (attention.in_proj_weight, attention.in_proj_bias)
        )
        query = functional.linear(asking, of_query[0], of_others[0])
        query = query.unflatten(0, (rows.batch, -1)).unflatten(2, (heads, -1)).transpose(1, 2)
        mapped = functional.linear(normed, of_query[1], of_others[1])
        key, value = rows.padded(mapped).unflatten(2, (2, heads, -1)).permute(2, 0, 3, 1, 4)
    looked = functional.scaled_dot_product_attention(
        query, key, value, rows.seen, dropout_p=attention.dropout if layer.training else 0.0
    )
    looked = looked.transpose(1, 2).flatten(2)  # (B, S, width)
    looked = rows.unpadded(looked) if last is None else looked.flatten(0, 1)
    tokens = tokens + layer.dropout1(attention.out_proj(looked))
    between = layer.dropout(layer.activation(layer.linear1(layer.norm2(tokens))))
    return tokens + layer.dropout2(layer.linear2(between))


def _last_of_each(tokens: Tensor, rows: Rows, last: int) -> Tensor:
    """(R, width) -> (B * last, width)."""
    others = tokens[len(tokens) - rows.batch * rows.others :].unflatten(0, (rows.batch, -1))
    return others[:, -last:].flatten(0, 1)


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
