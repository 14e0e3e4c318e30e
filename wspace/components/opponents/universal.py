"""One network for every task: what can be had without knowing the task."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from wspace.interfaces import Contest, Evidence, Opponent
from wspace.learning.rates import best_rate


class Universal(Opponent):
    """A network for all classes that are not set apart, with rate and steps as validation images like best."""

    version: ClassVar[int] = 1
    what: ClassVar[str] = (
        "one set of weights for every task, trained on the images of all seen classes; like generated, it has never met "
        "an unseen class"
    )
    called: ClassVar[str] = "the universal head"
    place: ClassVar[int] = 60
    from_zoo: ClassVar[bool] = False
    prominence: ClassVar[Literal["headline", "tables", "report"]] = "headline"
    one_for_all: ClassVar[bool] = True
    trains_on_images: ClassVar[bool] = True

    def __init__(self) -> None:
        self.network = torch.empty(0)  # (P,)

    def choose(self, evidence: Evidence) -> dict[str, float]:
        effort = evidence.effort

        def at(rate: float) -> tuple[Tensor, Tensor]:
            trained = evidence.fit(
                evidence.target.init(1, evidence.rng("init")),
                [evidence.classes],
                evidence.rng("universal", rate),
                steps=effort.universal_steps,
                batch=evidence.zoo.base_batch,
                lr=rate,
                check_every=5 * effort.check_every,
                patience=effort.patience,
            )
            bar.advance()
            return trained

        with evidence.progress.bar("universal", len(effort.rates)) as bar:
            rate, weights = best_rate(effort.rates, at, at_once=evidence.target.concurrent)  # (1, P)
        self.network = weights[0]
        return {"rate": rate}

    def weights(self, evidence: Evidence, contest: Contest) -> Tensor:
        return self.network
