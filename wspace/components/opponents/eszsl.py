"""A bilinear map between features and words: the simplest method of zero-shot learning, and hard to beat for long."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import ClassVar

from torch import Tensor

from wspace.data.prompts import pad
from wspace.interfaces import Contest, Evidence, Opponent, Task
from wspace.learning.prototypes import Heads, SemanticMap, best_for_left_out

PENALTIES = (1e-1, 1e-3, 1e1)


class Eszsl(Opponent):
    """ESZSL (Romera-Paredes and Torr, 2015): scores x V t of images x and class texts t, V by ridge on both sides.

    Both penalties are those that do best on validation images of known classes left out of the fit.
    """

    version: ClassVar[int] = 1
    what: ClassVar[str] = "a bilinear map from features and class texts to scores, by ridge regression (ESZSL)"
    called: ClassVar[str] = "ESZSL"
    place: ClassVar[int] = 47
    linear: ClassVar[bool] = True

    def __init__(self) -> None:
        self.heads: Heads | None = None

    def choose(self, evidence: Evidence) -> dict[str, float]:
        texts, target = evidence.class_texts, evidence.target

        @cache
        def of_known(known: Task) -> tuple[SemanticMap, Tensor, Tensor]:
            """And the middles of their texts and features, (T,) and (F,)."""
            features, labels = evidence.images(known)
            shared, centre = texts[list(known)].mean(0), features.mean(0)
            return SemanticMap.of(features - centre, labels, texts[list(known)] - shared), shared, centre

        def fitted(known: Task, of_features: float, of_texts: float) -> Heads:
            semantic, shared, centre = of_known(known)
            matrix = semantic.matrix(of_features, of_texts)
            scorers = (texts - shared) @ matrix.mT  # (n, F)

            def heads(tasks: Sequence[Task]) -> Tensor:
                index, mask = pad(tasks)  # (B, K)
                return target.from_linear(scorers[index], -scorers[index] @ centre, texts[index], mask)

            return heads

        of_features, of_texts = best_for_left_out(evidence, list(product(PENALTIES, PENALTIES)), fitted)
        self.heads = fitted(evidence.classes, of_features, of_texts)
        return {"feature_penalty": of_features, "text_penalty": of_texts}

    def weights(self, evidence: Evidence, contest: Contest) -> Tensor:
        assert self.heads is not None, "choose comes first"
        return self.heads(contest.tasks)
