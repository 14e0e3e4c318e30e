"""What the zoo's spread alone gives, each weight by itself."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from wspace.interfaces import Contest, Evidence, Opponent
from wspace.learning.baselines import gaussian, matching, to_fit


class Gaussian(Opponent):
    """Draws from an independent Gaussian for each weight, fitted to the zoo's networks (Zeng et al., 2025, arXiv 2506.07998).

    It is fitted to the networks of the task described most like the one asked for, where the zoo has several
    (`zoo.copies`), and to the whole zoo otherwise.
    align: networks are first matched to the zoo's base, or without one to the first of them, by the recipe's symmetry, or if
    it has none by permuting units along the target's free axes. `train.align` is the generator's, and changes nothing here.
    """

    version: ClassVar[int] = 1
    what: ClassVar[str] = "draws from a Gaussian fitted to the training weights, each weight by itself"
    called: ClassVar[str] = "an independent Gaussian"
    place: ClassVar[int] = 66
    prominence: ClassVar[Literal["headline", "tables", "report"]] = "report"
    novelty: ClassVar[bool] = True

    def __init__(self, align: bool = False):
        self.align = align

    def weights(self, evidence: Evidence, contest: Contest) -> Tensor:
        rng = evidence.rng("gaussian", contest.split)
        drawn = torch.randn(len(contest.tasks), evidence.target.spec.size, generator=rng)
        for rows, networks in to_fit(evidence, contest, matching(evidence, "gaussian") if self.align else None):
            drawn[rows] = gaussian(networks, drawn[rows])
        return drawn
