"""What the generator's condition is worth."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from wspace.interfaces import Contest, Evidence, Opponent


class Mismatched(Opponent):
    """The recipe's generator, told of another task of the same split."""

    version: ClassVar[int] = 1
    what: ClassVar[str] = "generated, but from the texts of another task: what the condition is worth"
    called: ClassVar[str] = "heads for another task's texts"
    place: ClassVar[int] = 80
    from_zoo: ClassVar[bool] = False
    prominence: ClassVar[Literal["headline", "tables", "report"]] = "report"

    def weights(self, evidence: Evidence, contest: Contest) -> Tensor:
        return contest.mismatched
