"""What chance gives near to networks that are there."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from wspace.interfaces import Contest, Evidence, Opponent
from wspace.learning.baselines import noise, retrieval


class Noise(Opponent):
    """The zoo's network whose task's description is nearest, plus noise of the zoo's own spread, weight by weight.

    The baseline that most weight generators lose to (Zeng et al., 2025, arXiv 2506.07998). Networks are as they lie in the
    zoo, whatever `train.align` says: where each began at weights of its own, their spread is mostly that of units which do
    the same in different places. Of networks of one task it is always the first that the noise is about.
    """

    version: ClassVar[int] = 1
    what: ClassVar[str] = "nearest training weights plus noise of the zoo's own spread"
    called: ClassVar[str] = "noise around the nearest training head"
    place: ClassVar[int] = 70
    prominence: ClassVar[Literal["headline", "tables", "report"]] = "report"
    novelty: ClassVar[bool] = True

    def weights(self, evidence: Evidence, contest: Contest) -> Tensor:
        nearest = retrieval(evidence.weights, evidence.descriptions, contest.descriptions)  # (B, P)
        return noise(nearest, evidence.weights, evidence.rng("noise", contest.split))
