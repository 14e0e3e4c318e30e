"""Networks along a few directions of the zoo: what a predictor can know of networks that are never in memory whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional

from wspace.interfaces import Condition, Predictor, TokenLayout
from wspace.learning.lines import Line
from wspace.learning.ridge_regression import PENALTIES, Ridge

LOOKED_AT = 8  # tasks whose networks are made and called, at most
TRIED = PENALTIES[::2]
LOOKS = 2 * LOOKED_AT * len(TRIED)  # at most


class Directions(Predictor):
    """The zoo's mean network, and how far from it along each of the zoo's principal axes: linear in the pooled condition.

    `of_zoo` is ridge regression; `forward` starts there. With as many directions as there are networks less one, and a small
    penalty, a task that the zoo has a network of is given that network.

    It takes networks in parts (`train.tokens`): of networks it sees inner products, and each direction is a row of a file,
    which is read as the zoo's mean is. The penalty is then the one whose networks are the most accurate on validation images:
    of eight tasks at most, those held out and then others, each with and without its own network among the zoo's. Of penalties
    as good it is the smallest. Of whole networks it is chosen by squared error on held-out tasks.

    directions: at most so many; the first differ most, each tensor in units of its spread where networks are in parts.
    """

    def __init__(
        self,
        directions: Annotated[int, Ge(1)] = 16,
        axes: Annotated[int, Ge(1)] = 256,
        *,
        layout: TokenLayout,
        pooled_width: int,
    ):
        super().__init__()
        self.directions = directions
        self.line = Line(pooled_width, directions, axes)
        self.mask: Tensor
        self.mean: Tensor
        self.along: Tensor
        self.register_buffer("mask", layout.mask, persistent=False)  # (N, D)
        self.register_buffer("mean", torch.zeros(layout.mask.shape))  # (N, D)
        self.register_buffer("along", torch.zeros(directions, *layout.mask.shape))  # (A, N, D)
        self.register_buffer("spread", torch.ones(()))

    @torch.no_grad()
    def fit(self, tokens: Tensor, condition: Condition, held_out: tuple[Tensor, Condition]) -> None:
        self.mean.copy_(tokens.mean(0))
        away = (torch.cat([tokens, held_out[0]]) - self.mean).flatten(1)  # (n + m, N * D)
        products = (away.double() @ away.double().mT) / self.mask.sum()
        sums = self.fit_parts(products, condition, held_out[1])
        self.along.zero_()[: len(sums)] = (sums @ away[: len(tokens)]).unflatten(1, self.mask.shape)

    @torch.no_grad()
    def fit_parts(
        self,
        products: Tensor,
        condition: Condition,
        held_out: Condition,
        look: Callable[[Tensor, int], float] | None = None,
    ) -> Tensor:
        asked, others = condition.pooled, held_out.pooled
        sums = self._principal(products[: len(asked), : len(asked)])  # (A, n)
        places = (products[:, : len(asked)] @ sums.double().mT).to(asked.dtype)  # (n + m, A)
        places = functional.pad(places, (0, self.directions - len(sums)))
        ridge = Ridge.fit(asked, places[: len(asked)])
        theirs = places[len(asked) :]
        penalty = ridge.best_penalty(others, theirs)[0] if look is None else self._most_accurate(asked, others, look)
        self.line.take(ridge, penalty)
        beyond = products.diagonal()[len(asked) :] - theirs.double().square().sum(1)  # of what lies along no direction
        left = (ridge.predict(others, penalty) - theirs).double().square().sum(1) + beyond.clamp_min(0)
        self.spread.fill_(max(float(left.mean()) ** 0.5, 1e-6))  # networks all alike leave nothing
        return sums

    def _principal(self, products: Tensor) -> Tensor:
        """Sums of networks (A, n), each a direction of unit size: the root of its mean square over all weights is one."""
        variances, sums = torch.linalg.eigh(products.double())  # ascending
        few = max(1, min(self.directions, len(products) - 1))  # about their mean, n networks span no more than n - 1
        variances, sums = variances.flip(0)[:few], sums.flip(1)[:, :few].mT
        sums = sums * sums.gather(1, sums.abs().argmax(1, keepdim=True)).sign()  # an eigenvector has no sign of its own
        there = variances > 1e-9 * variances[0].clamp_min(1e-12)
        return (sums * torch.where(there, variances.clamp_min(1e-12).rsqrt(), 0)[:, None]).float()

    def _most_accurate(self, asked: Tensor, others: Tensor, look: Callable[[Tensor, int], float]) -> float:
        """Of `TRIED`, by sums of networks as they are, along all directions: with the task's own network, and without."""
        known, scores = len(asked), dict.fromkeys(TRIED, 0.0)
        everyone = torch.cat([asked, others]).double()  # for shares that are one together to the last digit of a weight
        tasks = [*range(known, len(everyone)), *range(known)][:LOOKED_AT]
        for number, left_out in [(n, out) for n in tasks for out in (True, False) if out or n < known]:
            kept = torch.tensor([row for row in range(known) if row != number or not left_out])
            if not len(kept):
                continue
            ridge = Ridge.fit(everyone[kept], torch.eye(len(kept), dtype=torch.double))
            for penalty in TRIED:
                its = ridge.predict(everyone[number : number + 1], penalty)[0].float()
                scores[penalty] += look(torch.zeros(len(everyone)).index_copy(0, kept, its), number)
        return max(TRIED, key=scores.__getitem__)

    def at(self, layout: TokenLayout, along: Tensor) -> None:
        """About the zoo's mean, which is taken off before tokens come here."""
        self.mask, self.mean = layout.mask, along.new_zeros(layout.mask.shape)
        missing = self.directions - len(along)
        self.along = torch.cat([along, along.new_zeros(missing, *layout.mask.shape)]) if missing else along

    def _network(self, places: Tensor) -> Tensor:
        """Along the directions (B, A) so far: (B, N, D)."""
        return self.mean + (places @ self.along.flatten(1)).unflatten(1, self.mask.shape)

    def of_zoo(self, condition: Condition) -> Tensor:
        return self._network(self.line.fitted(condition.pooled))

    def forward(self, condition: Condition) -> Tensor:
        return self._network(self.line.trained(condition.pooled))
