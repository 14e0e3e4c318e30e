"""A linear map from the pooled condition, started at ridge regression."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wspace.interfaces import Condition, Predictor, TokenLayout
from wspace.ridge import PENALTIES, Ridge


class Linear(Predictor):
    """`of_zoo` is ridge regression on the pooled condition, its penalty chosen on held-out tasks; `forward` starts there.

    What is trained works on inputs turned to their principal axes and shrunk to spreads of power 1/2, half-way to white.
    It is the same map, on which Adam needs half as many steps: text vectors vary mostly along few axes, and what tells
    classes apart lies along the others.
    """

    def __init__(self, *, layout: TokenLayout, pooled_width: int):
        super().__init__()
        self.mask: Tensor
        self.line_weight: Tensor
        self.line_bias: Tensor
        self.turn: Tensor
        values = layout.mask.numel()
        self.register_buffer("mask", layout.mask, persistent=False)  # (N, D)
        self.register_buffer("line_weight", torch.zeros(pooled_width, values))
        self.register_buffer("line_bias", torch.zeros(values))
        self.register_buffer("spread", torch.ones(()))
        self.register_buffer("turn", torch.eye(pooled_width))  # (C', C')
        self.weight = nn.Parameter(torch.zeros(pooled_width, values))
        self.bias = nn.Parameter(torch.zeros(values))
        # One input beside so many others: so scaled that Adam moves it as far as all of them together.
        self.intercept = pooled_width**0.5

    @torch.no_grad()
    def fit(self, tokens: Tensor, condition: Condition, held_out: tuple[Tensor, Condition]) -> None:
        ridge = Ridge.fit(condition.pooled, tokens.flatten(1))
        others, asked = held_out[0].flatten(1), held_out[1].pooled
        errors = {p: float((ridge.predict(asked, p) - others).square().mean()) for p in PENALTIES}
        best = min(errors, key=errors.__getitem__)
        weight = ridge.weight(best)
        self.line_weight.copy_(weight)
        self.line_bias.copy_(ridge.mean_y - ridge.mean_x @ weight)
        left = (errors[best] * self.mask.numel() / float(self.mask.sum())) ** 0.5
        self.spread.fill_(max(left, 1e-6))  # networks all alike leave nothing

        least = 1e-3 * ridge.eigenvalues.mean().clamp_min(1e-6)
        shrink = (ridge.eigenvalues + least) ** -0.25  # (C',): a spread of s becomes one of sqrt(s)
        size = (ridge.eigenvalues * shrink.square()).mean().sqrt().clamp_min(1e-6)
        self.turn.copy_(ridge.basis * (shrink / size))
        self.weight.copy_((ridge.basis / shrink * size).T @ weight)  # turn @ this = weight
        self.bias.copy_(self.line_bias / self.intercept)

    def of_zoo(self, condition: Condition) -> Tensor:
        return (self.line_bias + condition.pooled @ self.line_weight).unflatten(1, self.mask.shape)  # (B, N, D)

    def forward(self, condition: Condition) -> Tensor:
        tokens = self.bias * self.intercept + (condition.pooled @ self.turn) @ self.weight
        return tokens.unflatten(1, self.mask.shape)
