"""A learning rate chosen on validation images, for the opponents that train on images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from wspace.support.errors import Diverged


def best_rate(rates: Sequence[float], at: Callable[[float], tuple[Tensor, Tensor]]) -> tuple[float, Tensor]:
    """The rate with the highest mean validation accuracy, and its weights (B, P).

    `at(rate)` gives weights (B, P) and accuracies (B,); a rate at which it diverges is no candidate. Raises Diverged if
    every one does.
    """
    candidates: list[tuple[float, float, Tensor]] = []
    for rate in rates:
        try:
            weights, accuracy = at(rate)
        except Diverged:
            continue
        candidates.append((float(accuracy.mean()), rate, weights))
    if not candidates:
        raise Diverged(f"training on images diverges at every one of opponents.rates, {', '.join(map(str, rates))}")
    _, rate, weights = max(candidates, key=lambda row: row[0])
    return rate, weights
