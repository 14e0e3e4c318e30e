"""What an average gives once hidden units are where others have those like them: no generator, and hard to beat."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from wspace.interfaces import Contest, Evidence, Opponent
from wspace.learning.baselines import likeness, matching, soup


class AlignedSoup(Opponent):
    """The mean of networks of the zoo, matched to one of them (Ainsworth et al., 2022, "Git Re-Basin", section 3.2).

    Matched by the recipe's symmetry, or if it has none by permuting units along the target's free axes; where there are none
    of these either, it is the plain mean, and says so.
    of: how many networks, those whose tasks are described most like the one asked for. Of networks of one task, which they are
    is drawn anew for each task asked for, so that draws differ.
    """

    version: ClassVar[int] = 1
    what: ClassVar[str] = "the mean of a few training networks, their units matched to those of one of them"
    called: ClassVar[str] = "an aligned soup"
    place: ClassVar[int] = 35
    novelty: ClassVar[bool] = True

    def __init__(self, of: Annotated[int, Ge(2)] = 16):
        self.of = of

    def weights(self, evidence: Evidence, contest: Contest) -> Tensor:
        rng = evidence.rng("aligned-soup", contest.split)
        symmetry = matching(evidence, "aligned-soup")
        alike = likeness(evidence.descriptions, contest.descriptions, evidence.tasks)
        return torch.stack([soup(evidence, of_task, self.of, symmetry, rng) for of_task in alike])
