"""Where a class's images lie, guessed from its words: the closed form that a generator has to beat on unseen classes."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from wspace.interfaces import Contest, Evidence, Opponent
from wspace.learning.prototypes import Heads, best_words, heads_at, placed_by_words, space_of


class TextPrototype(Opponent):
    """Kernel ridge from a class's text to the mean of its whitened features; the nearest of these means wins.

    All classes are placed by their words, those with images too, and brought to one length. Classes of auxiliary data sets
    are known as well. Width and penalty are those that do best on validation images of known classes left out of the fit.
    """

    version: ClassVar[int] = 1
    what: ClassVar[str] = "kernel ridge from a class's text to the mean of its features, and the nearest mean"
    called: ClassVar[str] = "text prototypes"
    place: ClassVar[int] = 45
    linear: ClassVar[bool] = True

    def __init__(self) -> None:
        self.heads: Heads | None = None

    def choose(self, evidence: Evidence) -> dict[str, float]:
        width, penalty = best_words(evidence)
        space = space_of(evidence, evidence.classes)
        places = placed_by_words(evidence, space, evidence.classes, width, penalty)
        self.heads = lambda tasks: heads_at(evidence.target, space, places, evidence.class_texts, tasks)
        return {"width": width, "penalty": penalty}

    def weights(self, evidence: Evidence, contest: Contest) -> Tensor:
        assert self.heads is not None, "choose comes first"
        return self.heads(contest.tasks)
