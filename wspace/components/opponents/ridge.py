"""What a line can do: the closed-form map that a generator which is trained has to beat."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from wspace.interfaces import Contest, Evidence, Opponent
from wspace.learning.baselines import chosen_penalty
from wspace.learning.ridge_regression import Ridge as Fitted

CHOOSING = 64  # held-out tasks on which the penalty is chosen


class Ridge(Opponent):
    """Ridge regression from a task's description to weights, its penalty chosen on validation images of held-out tasks.

    The description is the same in every recipe, so that no choice of a conditioner can weaken it; the generator of that
    name reads what the recipe's conditioner makes of the task.
    """

    version: ClassVar[int] = 2  # 2: predictions are summed in another order
    what: ClassVar[str] = "closed-form linear map from the mean text of a task's classes, and their number, to weights"
    called: ClassVar[str] = "ridge"
    place: ClassVar[int] = 20
    prominence: ClassVar[Literal["headline", "tables", "report"]] = "headline"

    def __init__(self) -> None:
        self.penalty = 0.0
        self.fitted: Fitted | None = None

    def choose(self, evidence: Evidence) -> dict[str, float]:
        first = len(evidence.tasks) - evidence.held_out
        tasks = evidence.tasks[first:][:CHOOSING]

        def accuracy(weights: Tensor) -> float:
            return float(evidence.accuracy(weights, tasks).mean())

        left_out = slice(first, None)
        self.penalty = chosen_penalty(evidence.weights, evidence.descriptions, left_out, len(tasks), accuracy)
        self.fitted = Fitted.fit(evidence.descriptions, evidence.weights)
        return {"penalty": self.penalty}

    def weights(self, evidence: Evidence, contest: Contest) -> Tensor:
        assert self.fitted is not None, "choose comes first"
        return self.fitted.predict(contest.descriptions, self.penalty)
