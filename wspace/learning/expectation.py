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
CLIP = 0.01  # the part above chance is kept so far from 0 and 1, where the logit is not finite


def novelty_of(texts: Tensor, known: Tensor) -> Tensor:
    """How far each class (..., T) is from the nearest of the known ones (m, T), by their texts: (...)."""
    return (1 - (texts @ known.mT).amax(-1)).clamp_min(0)


def described(texts: Tensor, novelty: Tensor, mask: Tensor) -> Tensor:
    """What tells how hard a task is, of B tasks' class texts (B, K, T) and their `novelty_of` (B, K): (B, 5).

    The logarithm of its number of classes; how far these are from the nearest known class, in the mean and at most; which
    share of them is not known; and how near they are to each other.
    """
    count = mask.sum(1)  # (B,)
    novelty = torch.where(mask, novelty, 0)
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

    mean: float  # chance at least
    low: float
    high: float
    confidence: float  # how often the accuracy of such a task lies between `low` and `high`
    tasks: int  # how many scored tasks this is known from
    guessed: bool  # it has fewer or more classes than any scored task


@dataclass(frozen=True)
class ScoredTasks:
    """Tasks (n, D) whose accuracies are known: a line through these, and how far off each was without itself.

    The first of D is the logarithm of a task's number of classes. The line is through the logits of what accuracies have
    above chance, so nothing below chance is expected.

    The interval is conformal (Lei et al., 2018, "Distribution-Free Predictive Inference for Regression", sections 2.3 and
    5.2): it has quantiles of what tasks like the one asked for were off by, when the line was fitted without them. They are
    off by so many times their `_scatter`: a task of few classes has few images, and accuracies differ more.
    """

    line: Ridge
    centre: Tensor  # (D,)
    spread: Tensor  # (D,)
    tasks: Tensor  # (n, D), at unit variance
    residuals: Tensor  # (n,), in units of `_scatter`

    @classmethod
    def of(cls, tasks: Tensor, accuracies: Tensor) -> ScoredTasks | None:
        """Of tasks (n, D) and their accuracies (n,); None where these are too few."""
        if len(tasks) < FEWEST:
            return None
        centre, spread = tasks.mean(0), spread_of(tasks)
        scaled, ways = (tasks - centre) / spread, tasks[:, 0].exp()
        above_chance = (accuracies.float() - 1 / ways) / (1 - 1 / ways)
        logits = above_chance.clamp(CLIP, 1 - CLIP).logit()[:, None]
        fold, residuals = torch.arange(len(tasks)) % FOLDS, torch.empty(len(tasks))
        for number in range(FOLDS):
            out = fold == number
            expected = _on(Ridge.fit(scaled[~out], logits[~out]), scaled[out], ways[out])
            residuals[out] = (accuracies[out] - expected) / _scatter(expected, ways[out])
        return cls(Ridge.fit(scaled, logits), centre, spread, scaled, residuals)

    def expect(self, task: Tensor, confidence: float = 0.9) -> Expectation:
        """Of a task (D,)."""
        scaled, ways = (task - self.centre) / self.spread, task[:1].exp()
        like = (self.tasks - scaled).square().sum(1).argsort()[:LIKE]
        on_line = _on(self.line, scaled[None], ways)  # (1,)
        accuracies = on_line + self.residuals[like] * _scatter(on_line, ways)  # (LIKE,)
        tail = (1 - confidence) / 2
        beyond = tail * (1 - 1 / len(like))  # a quantile of n values is of n + 1, with the one to come
        low, high = accuracies.quantile(torch.tensor([beyond, 1 - beyond])).clamp(0, 1).tolist()
        mean = max(float(accuracies.mean()), 1 / float(ways))
        place, scored = float(scaled[0]), self.tasks[:, 0]
        guessed = not float(scored.min()) - SAME <= place <= float(scored.max()) + SAME
        return Expectation(mean, min(low, mean), max(high, mean), confidence, len(self.tasks), guessed)


def _on(line: Ridge, scaled: Tensor, ways: Tensor) -> Tensor:
    """The accuracies that a line has for tasks (n, D) of so many classes (n,): (n,), between chance and 1."""
    return 1 / ways + (1 - 1 / ways) * line.predict(scaled, PENALTY)[:, 0].sigmoid()


def _scatter(expected: Tensor, ways: Tensor) -> Tensor:
    """How much accuracies differ where one is expected, but for a factor: as a mean over classes, each right or wrong."""
    return ((expected * (1 - expected)).clamp_min(CLIP / 2) / ways).sqrt()
