"""A linear offset from a network that is there already."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from wspace.components.predictors.linear import Linear
from wspace.interfaces import Condition, TokenLayout


class Offset(Linear):
    """The network that the conditioner starts from, and an offset that is linear in the pooled condition, trained from zero.

    Of a conditioner that starts from none, `of_zoo` takes its place.
    """

    def __init__(self, axes: Annotated[int, Ge(1)] = 256, *, layout: TokenLayout, pooled_width: int):
        super().__init__(axes, layout=layout, pooled_width=pooled_width)

    @torch.no_grad()
    def fit(self, tokens: Tensor, condition: Condition, held_out: tuple[Tensor, Condition]) -> None:
        super().fit(tokens, condition, held_out)
        self.weight.zero_()
        self.bias.zero_()

    def forward(self, condition: Condition) -> Tensor:
        start = self.of_zoo(condition) if condition.start is None else condition.start
        return start + super().forward(condition)
