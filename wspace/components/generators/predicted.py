"""What a predictor makes, and nothing drawn around it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from wspace.interfaces import Closed, Condition, Generator, Pairs, Predictor, TokenLayout
from wspace.support.errors import UserError
from wspace.support.parameters import Default, built
from wspace.support.settings import Generate


class Predicted(Generator):
    """The predictor's network for a task; every draw is the same. It learns by a task loss (`task_loss`) alone.

    With predictor `offset` and a conditioner that starts from networks (`class-prototypes`), it writes those.
    """

    draws = False

    def __init__(self, predictor: Predictor = Default("linear"), *, layout: TokenLayout, pooled_width: int):
        super().__init__()
        if layout.codes:
            raise UserError(
                "generator 'predicted' makes numbers, and tokens are codes: take another tokenizer or generator"
            )
        self.predictor = built("predictor", predictor, layout=layout, pooled_width=pooled_width)
        self.directions = self.predictor.directions

    def fit(self, closed: Closed) -> None:
        self.predictor.fit(closed.tokens, closed.condition, closed.held_out)

    def fit_parts(
        self,
        products: Tensor,
        condition: Condition,
        held_out: Condition,
        look: Callable[[Tensor, int], float] | None = None,
    ) -> Tensor:
        return self.predictor.fit_parts(products, condition, held_out, look)

    def at(self, layout: TokenLayout, anchor: Tensor, along: Tensor | None = None) -> None:
        self.predictor.at(layout, anchor.new_zeros(0, *anchor.shape) if along is None else along)

    def task_parameters(self) -> list[nn.Parameter]:
        return list(self.predictor.parameters())

    def typical(self, condition: Condition) -> Tensor:
        return self.predictor(condition)

    def loss(self, pairs: Pairs, rng: torch.Generator) -> dict[str, Tensor]:
        return {}

    @torch.no_grad()
    def sample(
        self,
        condition: Condition,
        null: Condition,
        how: Generate,
        rng: torch.Generator,
        watch: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        self.sampler_of(how)
        return self.predictor(condition)
