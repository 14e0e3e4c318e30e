"""One network for every task: what can be had without knowing the task."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from wspace.interfaces import Contest, Evidence, Opponent
from wspace.learning.rates import best_rate


class OneForAll(Opponent):
    """Trained on the images of all classes that are not set apart, with rate and steps as validation images like best."""

    known_as: ClassVar[str]
    """Of its stream of random numbers, and of its progress."""

    def __init__(self) -> None:
        self.network = torch.empty(0)  # (P,)

    def trained(self, evidence: Evidence) -> Tensor | None:
        """Which weights (P,) are; None for all of them."""
        return None

    def choose(self, evidence: Evidence) -> dict[str, float]:
        effort, trained = evidence.effort, self.trained(evidence)

        def at(rate: float) -> tuple[Tensor, Tensor]:
            fitted = evidence.fit(
                evidence.target.init(1, evidence.rng("init")),
                [evidence.classes],
                evidence.rng(self.known_as, rate),
                steps=effort.universal_steps,
                batch=evidence.zoo.base_batch,
                lr=rate,
                check_every=5 * effort.check_every,
                patience=effort.patience,
                only=trained,
            )
            bar.advance()
            return fitted

        with evidence.progress.bar(self.known_as, len(effort.rates)) as bar:
            rate, weights = best_rate(effort.rates, at, at_once=evidence.target.concurrent)  # (1, P)
        self.network = weights[0]
        return {"rate": rate}

    def weights(self, evidence: Evidence, contest: Contest) -> Tensor:
        return self.network
