"""What accuracy to expect of a network for a task: from tasks like it, whose networks were scored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wspace.learning.ridge_regression import Ridge
from wspace.weights.scaling import spread_of

FEWEST = 30  # scored tasks, of which an expectation is worth saying
LIKE = 100  # scored tasks that are most like the one asked for: by these it is known how far off one is
FOLDS = 10
PENALTY = 1e-3
CLIP = 0.01  # accuracies are kept so far from 0 and 1, where the logit is not finite


def described(texts: Tensor, mask: Tensor, known: Tensor) -> Tensor:
    """What tells how hard a task is, of B tasks' class texts (B, K, T) and those of known classes (n, T): (B, 5).

    The logarithm of its number of classes; how far these are from the nearest known class, in the mean and at most; which
    share of them is not known; and how near they are to each other.
    """
    count = mask.sum(1)  # (B,)
    novelty = torch.where(mask, 1 - (texts @ known.mT).amax(2), 0).clamp_min(0)  # (B, K)
    among = texts @ texts.mT - 2 * torch.eye(texts.shape[1])  # (B, K, K), a class is not its own neighbour
    among = among.masked_fill(~(mask[:, :, None] & mask[:, None, :]), -2)
    crowding = torch.where(mask, among.amax(2), 0).sum(1) / count
    mean, unknown = novelty.sum(1) / count, (novelty > SAME).sum(1) / count
    return torch.stack([count.log(), mean, novelty.amax(1), unknown, crowding], dim=1)


SAME = 1e-4
"""Distance of two texts, 1 less their cosine, below which they are of one class."""


@dataclass(frozen=True)
class Expectation:
    """Of one task's accuracy, in [0, 1]."""

    mean: float
    low: float
    high: float
    confidence: float  # how often the accuracy of such a task lies between `low` and `high`
    tasks: int  # how many scored tasks this is known from
    guessed: bool  # it has fewer or more classes than any scored task


@dataclass(frozen=True)
class ScoredTasks:
    """Tasks (n, D) whose accuracies are known: a line through their logits, and how far off each was without itself.

    The first of D tells how many classes a task has.

    The interval is conformal (Lei et al., 2018, "Distribution-Free Predictive Inference for Regression", section 2.3): it has
    quantiles of what tasks like the one asked for were off by, when the line was fitted without them.
    """

    line: Ridge
    centre: Tensor  # (D,)
    spread: Tensor  # (D,)
    tasks: Tensor  # (n, D), at unit variance
    residuals: Tensor  # (n,), of logits

    @classmethod
    def of(cls, tasks: Tensor, accuracies: Tensor) -> ScoredTasks | None:
        """Of tasks (n, D) and their accuracies (n,); None where these are too few."""
        if len(tasks) < FEWEST:
            return None
        centre, spread = tasks.mean(0), spread_of(tasks)
        scaled, logits = (tasks - centre) / spread, accuracies.float().clamp(CLIP, 1 - CLIP).logit()[:, None]
        fold, residuals = torch.arange(len(tasks)) % FOLDS, torch.empty(len(tasks))
        for number in range(FOLDS):
            out = fold == number
            predicted = Ridge.fit(scaled[~out], logits[~out]).predict(scaled[out], PENALTY)
            residuals[out] = (logits[out] - predicted)[:, 0]
        return cls(Ridge.fit(scaled, logits), centre, spread, scaled, residuals)

    def expect(self, task: Tensor, confidence: float = 0.9) -> Expectation:
        """Of a task (D,)."""
        scaled = (task - self.centre) / self.spread
        like = (self.tasks - scaled).square().sum(1).argsort()[:LIKE]
        logit = self.line.predict(scaled[None], PENALTY)[0, 0] + self.residuals[like]  # (LIKE,)
        tail = (1 - confidence) / 2
        beyond = tail * (1 - 1 / len(like))  # a quantile of n values is of n + 1, with the one to come
        low, high = logit.quantile(torch.tensor([beyond, 1 - beyond])).sigmoid().tolist()
        ways, scored = float(scaled[0]), self.tasks[:, 0]
        guessed = not float(scored.min()) - SAME <= ways <= float(scored.max()) + SAME
        return Expectation(float(logit.sigmoid().mean()), low, high, confidence, len(self.tasks), guessed)
