"""What generated weights are set beside, apart from networks trained on images: closed forms over the zoo."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from wspace.ridge import PENALTIES, Ridge


def retrieval(weights: Tensor, pooled: Tensor, asked: Tensor) -> Tensor:
    """Of each task asked for, the training weights whose pooled condition is nearest by cosine.

    (n, P), (n, C'), (B, C') -> (B, P).
    """
    likeness = functional.normalize(asked, dim=1) @ functional.normalize(pooled, dim=1).T  # (B, n)
    return weights[likeness.argmax(1)]


def noise(nearest: Tensor, weights: Tensor, rng: torch.Generator) -> Tensor:
    """Training weights (B, P) plus noise of the zoo's own spread, weight by weight.

    The baseline that most weight generators lose to (Zeng et al., 2025, arXiv 2506.07998).
    """
    return nearest + torch.randn(nearest.shape, generator=rng) * weights.std(0)


def ridge(
    weights: Tensor,
    pooled: Tensor,
    chosen_on: slice,
    asked: dict[str, Tensor],
    accuracy: Callable[[Tensor], float],
) -> tuple[dict[str, Tensor], float]:
    """Closed-form linear map from pooled condition to weights, for the tasks asked for; and its penalty.

    The penalty is the one whose weights for the tasks `chosen_on` have the highest `accuracy` (on validation images),
    fitted without them; the map is then fitted on all.
    """
    kept = torch.ones(len(weights), dtype=torch.bool)
    kept[chosen_on] = False
    trial = Ridge.fit(pooled[kept], weights[kept])
    best = max(PENALTIES, key=lambda penalty: accuracy(trial.predict(pooled[chosen_on], penalty)))
    fitted = Ridge.fit(pooled, weights)
    return {split: fitted.predict(conditions, best) for split, conditions in asked.items()}, best
