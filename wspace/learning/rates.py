"""A learning rate chosen on validation images, for the opponents that train on images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain

from torch import Tensor

from wspace.support.errors import Diverged
from wspace.support.threads import by_threads


def best_rate(
    rates: Sequence[float], at: Callable[[float], tuple[Tensor, Tensor]], *, at_once: bool = False
) -> tuple[float, Tensor]:
    """The rate with the highest mean validation accuracy, and its weights (B, P).

    `at(rate)` gives weights (B, P) and accuracies (B,); a rate at which it diverges is no candidate. `at_once`: a thread for
    each rate, where a training is of too few networks for several. Raises Diverged if every one does.
    """

    def tried(rate: float) -> list[tuple[float, float, Tensor]]:
        try:
            weights, accuracy = at(rate)
        except Diverged:
            return []
        return [(float(accuracy.mean()), rate, weights)]

    parts = [partial(tried, rate) for rate in rates]
    candidates = list(chain.from_iterable(by_threads(parts, at_once=at_once)))
    if not candidates:
        raise Diverged(at_every(rates))
    _, rate, weights = max(candidates, key=lambda row: row[0])
    return rate, weights


def at_every(rates: Sequence[float]) -> str:
    """What is said where a training diverges at each of these."""
    return f"training on images diverges at every one of opponents.rates, {', '.join(map(str, rates))}"
