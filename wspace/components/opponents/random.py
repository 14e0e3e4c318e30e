"""What no training at all gives."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from wspace.interfaces import Contest, Evidence, Opponent


class Random(Opponent):
    """Fresh weights for each task, as the target initialises them."""

    version: ClassVar[int] = 1
    what: ClassVar[str] = "the target's own initialisation"
    called: ClassVar[str] = "random heads"
    place: ClassVar[int] = 90
    from_zoo: ClassVar[bool] = False

    def weights(self, evidence: Evidence, contest: Contest) -> Tensor:
        return evidence.target.init(len(contest.tasks), evidence.rng("random", contest.split))
