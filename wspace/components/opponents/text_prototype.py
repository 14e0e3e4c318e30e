"""Where a class's images lie, guessed from its words: the closed form that a generator has to beat on unseen classes."""

from __future__ import annotations

from itertools import product
from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from wspace.interfaces import Contest, Evidence, Opponent, Task
from wspace.learning.prototypes import FeatureSpace, Heads, WordsToPoints, best_for_left_out, heads_at

WIDTHS = (0.6, 0.4, 0.8)  # of the kernel, on the unit sphere
PENALTIES = (1.0, 0.3, 3.0)


class TextPrototype(Opponent):
    """Kernel ridge from a class's text to the mean of its whitened features; the nearest of these means wins.

    All classes are placed by their words, those with images too, and brought to one length. Width and penalty are those that
    do best on validation images of known classes left out of the fit.
    """

    version: ClassVar[int] = 1
    what: ClassVar[str] = "kernel ridge from a class's text to the mean of its features, and the nearest mean"
    called: ClassVar[str] = "text prototypes"
    place: ClassVar[int] = 45
    linear: ClassVar[bool] = True

    def __init__(self) -> None:
        self.heads: Heads | None = None

    def choose(self, evidence: Evidence) -> dict[str, float]:
        def fitted(known: Task, width: float, penalty: float) -> Heads:
            space = FeatureSpace.of(*evidence.images(known), len(known))
            of_words = WordsToPoints.fit(evidence.class_texts[list(known)], space.points, width, penalty)
            points = of_words.length * functional.normalize(of_words(evidence.class_texts), dim=1)
            return lambda tasks: heads_at(evidence.target, space, points, evidence.class_texts, tasks)

        width, penalty = best_for_left_out(evidence, list(product(WIDTHS, PENALTIES)), fitted)
        self.heads = fitted(evidence.classes, width, penalty)
        return {"width": width, "penalty": penalty}

    def weights(self, evidence: Evidence, contest: Contest) -> Tensor:
        assert self.heads is not None, "choose comes first"
        return self.heads(contest.tasks)
