"""What a generator that ignores its condition would give."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from wspace.interfaces import Contest, Evidence, Opponent


class ZooMean(Opponent):
    """The mean of the zoo's networks, weight by weight, for every task."""

    version: ClassVar[int] = 1
    what: ClassVar[str] = "the mean of the training weights"
    called: ClassVar[str] = "the zoo's mean"
    place: ClassVar[int] = 40
    from_zoo: ClassVar[bool] = False

    def weights(self, evidence: Evidence, contest: Contest) -> Tensor:
        return evidence.mean
