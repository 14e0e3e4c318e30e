"""What the zoo's spread gives along the directions in which its networks differ most."""

from __future__ import annotations

from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from wspace.interfaces import Contest, Evidence, Opponent
from wspace.learning.baselines import matching, principal_gaussian, to_fit
from wspace.support.quantities import counted


class PcaGaussian(Opponent):
    """Draws from a Gaussian in the principal subspace of the zoo's networks (Zeng et al., 2025, arXiv 2506.07998).

    It is fitted to the networks of the task described most like the one asked for, where the zoo has several
    (`zoo.copies`), and to the whole zoo otherwise.
    axes: how many principal axes it is drawn along; left out, all that the networks span, one fewer than there are.
    align: networks are first matched to the zoo's base, or without one to the first of them, by the recipe's symmetry, or if
    it has none by permuting units along the target's free axes. `train.align` is the generator's, and changes nothing here.
    """

    version: ClassVar[int] = 1
    what: ClassVar[str] = "draws from a Gaussian in the principal subspace of the training weights"
    called: ClassVar[str] = "a Gaussian in the principal subspace"
    place: ClassVar[int] = 64
    prominence: ClassVar[Literal["headline", "tables", "report"]] = "report"
    novelty: ClassVar[bool] = True

    def __init__(self, axes: Annotated[int, Ge(1)] | None = None, align: bool = False):
        self.axes, self.align = axes, align

    def weights(self, evidence: Evidence, contest: Contest) -> Tensor:
        rng = evidence.rng("pca-gaussian", contest.split)
        drawn = torch.empty(len(contest.tasks), evidence.target.spec.size)
        for rows, networks in to_fit(evidence, contest, matching(evidence, "pca-gaussian") if self.align else None):
            axes = self._axes(evidence, len(networks) - 1)
            drawn[rows] = principal_gaussian(networks, torch.randn(len(rows), axes, generator=rng))
        return drawn

    def _axes(self, evidence: Evidence, spanned: int) -> int:
        if self.axes is None or self.axes <= spanned:
            return self.axes or spanned
        along = counted(spanned, "axis", "axes")
        note = f"note: the opponent 'pca-gaussian' draws along {along}, not {self.axes}; networks span no more"
        evidence.once(("pca-gaussian spans", spanned), partial(evidence.progress.say, note))
        return spanned
