"""Each token by itself, told where it stands: a denoiser that is no larger for a larger network."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional

from wspace.interfaces import Condition, Denoiser, TokenLayout
from wspace.learning.denoising import sinusoids
from wspace.support.errors import UserError

RATES = 8  # octaves in which a place is told


class ByToken(Denoiser):
    """Token, anchor and place through residual layers that level and pooled condition modulate (adaLN: Peebles and Xie, 2023).

    One map serves all tokens. It knows them apart by their place, in sinusoids: which tensor, and which token of it. So it can
    be trained on some tokens of a network at a time (`train.tokens`), and a network may be drawn some tokens at a time.
    """

    def __init__(
        self,
        width: Annotated[int, Ge(2)] = 256,
        depth: Annotated[int, Ge(1)] = 4,
        *,
        layout: TokenLayout,
        pooled_width: int,
    ):
        super().__init__()
        if layout.places is None:
            raise UserError(
                "denoiser 'by-token': this tokenizer does not say where tokens stand: take one that does, such as 'chunk' with "
                "scale none"
            )
        self.width, values = width, layout.width
        self.places: Tensor
        self.register_buffer("places", layout.places, persistent=False)  # (N, 3)
        self.of_token = nn.Linear(values, width)
        self.of_anchor = nn.Linear(values, width)
        self.of_place = nn.Linear(3 * 2 * RATES, width)
        self.of_condition = nn.Linear(pooled_width, width)
        self.of_level = nn.Linear(2 * (width // 2), width)
        self.layers = nn.ModuleList(_Layer(width) for _ in range(depth))
        self.leave = nn.Linear(width, values)
        self.gate = nn.Linear(2 * (width // 2), 1)
        for layer in (self.leave, self.gate):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def at(self, layout: TokenLayout) -> None:
        assert layout.places is not None, "a part has places where the whole has"
        self.places = layout.places

    def forward(self, x: Tensor, level: Tensor, condition: Condition, anchor: Tensor) -> Tensor:
        time = sinusoids(level, self.width)  # (B, width)
        said = self.of_condition(condition.pooled) + self.of_level(time)  # (B, width)
        hidden = self.of_token(x) + self.of_anchor(anchor) + self.of_place(self._places().to(x))
        for layer in self.layers:
            hidden = layer(hidden, said)
        return self.leave(functional.layer_norm(hidden, (self.width,))) + self.gate(time)[:, None] * x

    def _places(self) -> Tensor:
        """(N, 6 * RATES), in periods of 2, 8, 32, ... tokens: near ones differ in the short, far ones in the long."""
        rates = torch.pi * 0.25 ** torch.arange(RATES, device=self.places.device)
        angles = (self.places[..., None] * rates).flatten(1)
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class _Layer(nn.Module):
    """A residual layer, whose input and output what is said of the task scales: (B, N, width), (B, width) -> (B, N, width)."""

    def __init__(self, width: int):
        super().__init__()
        self.modulate = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))
        self.inner = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, hidden: Tensor, said: Tensor) -> Tensor:
        shift, scale, gate = self.modulate(said)[:, None].chunk(3, dim=2)
        normal = functional.layer_norm(hidden, hidden.shape[2:])
        return hidden + (1 + gate) * self.inner(normal * (1 + scale) + shift)
