"""A class is where its pictures are: the closed form that words have to add something to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from wspace.interfaces import Evidence, Shots, Task
from wspace.learning.few_shots import ByPictures, FewShotHeads, networks_scoring, whitened
from wspace.learning.prototypes import space_of

AT_ONE_LENGTH, AS_THEY_ARE = 1.0, 0.0


class NearestMean(ByPictures):
    """The nearest mean of a class's few pictures, in features whitened by the covariance that known classes share.

    That is linear discriminant analysis with these means, and the prototypes of Snell et al. (2017) in that space. Whether
    pictures and means are brought to one length, so that cosines count, is what does better on known classes left out of the
    fit.
    """

    version: ClassVar[int] = 1
    what: ClassVar[str] = "pictures alone: the nearest mean of a class's few pictures, in whitened feature space"
    called: ClassVar[str] = "the nearest mean of the pictures"
    place: ClassVar[int] = 51
    linear: ClassVar[bool] = True
    takes_pictures: ClassVar[bool] = True
    choices: ClassVar[tuple[float, ...]] = (AT_ONE_LENGTH, AS_THEY_ARE)
    choice: ClassVar[str] = "one_length"

    def __init__(self) -> None:
        pass

    def fitted(self, evidence: Evidence, known: Task) -> FewShotHeads:
        space = space_of(evidence, known)

        def heads(tasks: Sequence[Task], shots: Shots, length: float) -> Tensor:
            means = whitened(space, shots, at_one_length=length == AT_ONE_LENGTH).means()  # (B, K, F)
            if length == AT_ONE_LENGTH:
                means = space.points.norm(dim=1).mean() * functional.normalize(means, dim=2)
            return networks_scoring(evidence, space, tasks, means, -0.5 * means.square().sum(2))

        return heads
