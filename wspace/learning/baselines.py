"""What generated weights are set beside, apart from networks trained on images: closed forms over the zoo."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from wspace.interfaces import Prompts
from wspace.learning.ridge_regression import PENALTIES, Ridge
from wspace.weights.scaling import spread_of


def descriptions(of_zoo: Prompts, *asked: Prompts, places: int) -> list[Tensor]:
    """What the opponents know of a task with k classes of mean text m: m, 1/k and m/k, each at unit variance over `of_zoo`.

    The same for every recipe, so that no choice of a conditioner can weaken them. (B, 2T + 1) for each of the arguments. Of a
    target with `places` they know the order too: the text at each place, and 1/k. These are turned to the axes that the n tasks
    of `of_zoo` span, which no line and no cosine with them can tell from the whole: (B, min(n, places * T + 1)) then.
    """
    raw = []
    for prompts in (of_zoo, *asked):
        count, mean = prompts.count(), prompts.mean_text()  # (B, 1), (B, T)
        parts = [prompts.in_places(places), 1 / count] if places else [mean, 1 / count, mean / count]
        raw.append(torch.cat(parts, dim=1))
    center, spread = raw[0].mean(0), spread_of(raw[0])
    scaled = [(description - center) / spread for description in raw]
    if not places:
        return scaled
    axes = torch.linalg.svd(scaled[0], full_matrices=False).Vh  # (min(n, ...), places * T + 1)
    return [description @ axes.T for description in scaled]


def retrieval(weights: Tensor, described: Tensor, asked: Tensor) -> Tensor:
    """Of each task asked for, the training weights whose description is nearest by cosine.

    (n, P), (n, C), (B, C) -> (B, P).
    """
    likeness = functional.normalize(asked, dim=1) @ functional.normalize(described, dim=1).T  # (B, n)
    return weights[likeness.argmax(1)]


def noise(nearest: Tensor, weights: Tensor, rng: torch.Generator) -> Tensor:
    """Training weights (B, P) plus noise of the zoo's own spread, weight by weight.

    The baseline that most weight generators lose to (Zeng et al., 2025, arXiv 2506.07998).
    """
    return nearest + torch.randn(nearest.shape, generator=rng) * weights.std(0)


def chosen_penalty(weights: Tensor, described: Tensor, chosen_on: slice, accuracy: Callable[[Tensor], float]) -> float:
    """The penalty of ridge regression from descriptions (n, C) to weights (n, P), fitted without the tasks `chosen_on`.

    Of all penalties, the one whose weights for those tasks have the highest `accuracy` (on validation images).
    """
    kept = torch.ones(len(weights), dtype=torch.bool)
    kept[chosen_on] = False
    trial = Ridge.fit(described[kept], weights[kept])
    return max(PENALTIES, key=lambda penalty: accuracy(trial.predict(described[chosen_on], penalty)))
