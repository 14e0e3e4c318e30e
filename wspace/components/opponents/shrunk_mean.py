"""Few pictures of a class, and what is known of how classes differ: the strongest that pictures alone do in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from wspace.interfaces import Evidence, Shots, Task
from wspace.learning.few_shots import ByPictures, FewShotHeads, networks_scoring, whitened
from wspace.learning.prototypes import Spread, space_of


class ShrunkMean(ByPictures):
    """As `nearest-mean`, with the mean of the pictures shrunk in the directions in which known classes differ little.

    It is the class's posterior mean in PLDA (Ioffe, 2006): a Gaussian prior, with the covariance of the known classes' means,
    and pictures about it as images of known classes scatter. All means are brought to one length. How much the prior is
    trusted is what does better on known classes left out of the fit.
    """

    version: ClassVar[int] = 1
    what: ClassVar[str] = (
        "pictures alone: the mean of a class's few pictures, shrunk in the directions in which known classes differ little"
    )
    called: ClassVar[str] = "the shrunken mean of the pictures"
    place: ClassVar[int] = 48
    linear: ClassVar[bool] = True
    takes_pictures: ClassVar[bool] = True
    choices: ClassVar[tuple[float, ...]] = (1.0, 0.5, 2.0)  # in what known classes have in common, against the pictures
    choice: ClassVar[str] = "trust"

    def __init__(self) -> None:
        pass

    def fitted(self, evidence: Evidence, known: Task) -> FewShotHeads:
        space = space_of(evidence, known)
        among_classes, length = Spread.of(space.points), space.points.norm(dim=1).mean()

        def heads(tasks: Sequence[Task], shots: Shots, trust: float) -> Tensor:
            means = whitened(space, shots, at_one_length=False).means()  # (B, K, F)
            means = among_classes.posterior(torch.zeros_like(means), means, shots.counts, trust)
            means = length * functional.normalize(means, dim=2)
            return networks_scoring(evidence, space, tasks, means, means.new_zeros(means.shape[:2]))

        return heads
