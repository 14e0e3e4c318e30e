"""What a memory would give: the network of the task most like the one asked for."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from wspace.interfaces import Contest, Evidence, Opponent
from wspace.learning.baselines import retrieval


class Retrieval(Opponent):
    """Of each task, the zoo's network whose task's description is nearest, by cosine."""

    version: ClassVar[int] = 1
    what: ClassVar[str] = "the training weights whose task is described most alike"
    called: ClassVar[str] = "retrieval"
    place: ClassVar[int] = 30
    novelty: ClassVar[bool] = True

    def weights(self, evidence: Evidence, contest: Contest) -> Tensor:
        return retrieval(evidence.weights, evidence.descriptions, contest.descriptions)
