"""Four layers over all of a network's tokens."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn

from wspace.api import Discriminator, TokenLayout


class MLP(Discriminator):
    """ "A 4-layer MLP with ReLU activations" (Tian et al., 2025, section 4.1); its logit stands for the sigmoid."""

    def __init__(self, width: Annotated[int, Ge(1)] = 256, *, layout: TokenLayout):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(layout.mask.numel(), width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 1),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        return self.layers(tokens.flatten(1))[:, 0]  # (B,)
