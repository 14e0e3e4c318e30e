"""A mask-free transformer over [condition tokens, time token, weight tokens]."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Lt
from einops import einsum, rearrange
from torch import Tensor, nn

from wspace.api import Condition, Since, TokenLayout, sinusoids
from wspace_t2w.conditioned_attention import ConditionedAttention


class PriorAttention(ConditionedAttention):
    """The prediction network of Tian et al. (2025, sections 3.1 and 4.1), after Peebles et al. (2022).

    "Mask-free": every token sees every other; only padding among condition tokens is hidden.
    projections: `own` gives each weight token its own linear maps in and out (eq. 5), `shared` one pair to all.
    skip: adds the input times a learned gate of the noise level to the output, so that noise, which is most of what
    comes in, need not pass through a width far narrower than a token. The paper has none.
    conditioning: how it learns of level and condition. `tokens`: they stand before the weights' tokens, as in the paper;
    `cross`: every block looks at them, besides; `adaln`: with the pooled condition, they scale and shift what every block
    takes in, and gate what it adds (adaLN-Zero); `concat`: they stand beside each weight token's values.
    """

    version: ClassVar[int] = 2  # 2: no work on padding, which sums in another order

    def __init__(
        self,
        width: Annotated[int, Ge(2)] = 192,
        depth: Annotated[int, Ge(1)] = 4,
        heads: Annotated[int, Ge(1)] = 4,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        projections: Literal["own", "shared"] = "shared",
        skip: bool = True,
        conditioning: Annotated[Literal["tokens", "adaln", "cross", "concat"], Since("0.2")] = "tokens",
        *,
        layout: TokenLayout,
        condition_width: int,
        pooled_width: int,
    ):
        super().__init__("prior-attention", width, heads)
        self.skip = skip
        count = layout.count
        copies = count if projections == "own" else 1
        self.enter = nn.Parameter(torch.randn(copies, layout.width, width) * layout.width**-0.5)
        self.leave = nn.Parameter(torch.zeros(copies, width, layout.width))
        self.leave_bias = nn.Parameter(torch.zeros(count, layout.width))
        self.position = nn.Parameter(torch.randn(count, width) * 0.02)
        self.add_blocks(conditioning, depth, dropout, condition_width, pooled_width)
        self.gate = nn.Linear(2 * (width // 2), count)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, x: Tensor, level: Tensor, condition: Condition, anchor: Tensor) -> Tensor:
        waves = sinusoids(level, self.width)  # (B, width)
        weights = _mapped(x, self.enter) + self.position
        normed = self.through_blocks(weights, waves, condition)
        out = _mapped(normed, self.leave) + self.leave_bias
        if self.skip:
            out = out + rearrange(self.gate(waves), "b n -> b n 1") * x
        return out  # (B, N, D)


def _mapped(tokens: Tensor, maps: Tensor) -> Tensor:
    """By a linear map of each token's own, or one for all: (B, N, D), (N or 1, D, D') -> (B, N, D')."""
    if len(maps) == 1:
        return tokens @ maps[0]
    return einsum(tokens, maps, "b n d, n d out -> b n out")
