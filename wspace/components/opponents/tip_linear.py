"""Words and pictures by adding their scores: the nearest kin of Tip-Adapter among linear networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from wspace.data.prompts import pad
from wspace.interfaces import Evidence, Shots, Task
from wspace.learning.few_shots import ByPictures, FewShotHeads, networks_scoring, whitened
from wspace.learning.prototypes import best_words, placed_by_words, space_of


class TipLinear(ByPictures):
    """Scores of the words, as `text-prototype` has them, plus `share` times the mean likeness to a class's few pictures.

    Tip-Adapter (Zhang et al., 2022) adds alpha * exp(-beta (1 - s)) for each picture, s its cosine with the image. No
    network that is linear in the features can hold that. This has the exponential to first order, alpha (1 - beta + beta s),
    so that alpha and beta count as their product alone; and the image's length stays in s, of the words as of the pictures.
    Features are whitened as for `nearest-mean`. The share is what does best on known classes left out of the fit.
    """

    version: ClassVar[int] = 1
    what: ClassVar[str] = (
        "text prototypes' scores plus a multiple of the likeness to the class's few pictures: Tip-Adapter to first order, "
        "for its exponential fits no linear head"
    )
    called: ClassVar[str] = "a linear Tip-Adapter"
    place: ClassVar[int] = 44
    linear: ClassVar[bool] = True
    takes_pictures: ClassVar[bool] = True
    choices: ClassVar[tuple[float, ...]] = (1.0, 0.25, 0.5, 2.0, 4.0)  # of the pictures' scores, to one of the words'
    choice: ClassVar[str] = "share"

    def __init__(self) -> None:
        pass

    def fitted(self, evidence: Evidence, known: Task) -> FewShotHeads:
        space = space_of(evidence, known)
        places = placed_by_words(evidence, space, known, *best_words(evidence))

        def heads(tasks: Sequence[Task], shots: Shots, share: float) -> Tensor:
            index, _ = pad(tasks)
            words, length = functional.normalize(places[index], dim=2), places.norm(dim=1).mean()
            likeness = whitened(space, shots, at_one_length=True).means()  # (B, K, F)
            directions = length * (words + share * likeness)
            return networks_scoring(evidence, space, tasks, directions, directions.new_zeros(index.shape))

        return heads
