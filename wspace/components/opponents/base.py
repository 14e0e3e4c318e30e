"""What the zoo's networks began as."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from wspace.interfaces import Contest, Evidence, Opponent


class Base(Opponent):
    """The network that every network of the zoo was trained from, for every task."""

    version: ClassVar[int] = 1
    what: ClassVar[str] = "the shared starting point of the zoo"
    called: ClassVar[str] = "the shared base"
    place: ClassVar[int] = 50
    from_zoo: ClassVar[bool] = False
    prominence: ClassVar[Literal["headline", "tables", "report"]] = "report"
    from_base: ClassVar[bool] = True

    def weights(self, evidence: Evidence, contest: Contest) -> Tensor:
        return evidence.base
