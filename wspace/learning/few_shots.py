"""Methods that go by a few pictures of each class, all of them scored in whitened feature space."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from wspace.data.features import Pool
from wspace.data.prompts import pad
from wspace.data.shots import draw_shots
from wspace.data.tasks import Task
from wspace.interfaces import Contest, Evidence, Opponent, Shots
from wspace.learning.prototypes import FeatureSpace, Heads, best_for_left_out

FewShotHeads = Callable[[Sequence[Task], Shots, float], Tensor]
"""Tasks, pictures of their classes, and what is chosen -> networks (B, P)."""


class ByPictures(Opponent):
    """An opponent fitted to the classes that are not set apart, with a choice of its own for each number of pictures.

    A choice is what does best with so many pictures of each of some known classes that the fit did not see: training images of
    these are the pictures, validation images are what counts.
    """

    choices: ClassVar[tuple[float, ...]]
    """What a fit leaves open; the first is for when too few classes are known."""
    choice: ClassVar[str]
    """What the report calls it: `NAME_4` with four pictures."""

    @abstractmethod
    def fitted(self, evidence: Evidence, known: Task) -> FewShotHeads:
        """The fit to the classes `known` alone."""

    def choose(self, evidence: Evidence) -> dict[str, float]:
        fitted_once, pool = cache(partial(self.fitted, evidence)), _pool_of(evidence)

        def with_shots(count: int) -> Callable[..., Heads]:
            def heads(known: Task, choice: float) -> Heads:
                def networks(tasks: Sequence[Task]) -> Tensor:
                    shots = draw_shots(pool, tasks, count, evidence.rng("pictures of left out"))
                    return fitted_once(known)(tasks, shots, choice)

                return networks

            return heads

        choices = [(choice,) for choice in self.choices]
        best = {count: best_for_left_out(evidence, choices, with_shots(count)) for count in evidence.shown}
        self.chosen = {count: choice for count, (choice,) in best.items()}
        self.heads = fitted_once(evidence.classes)
        return {f"{self.choice}_{count}": choice for count, choice in self.chosen.items()}

    def weights(self, evidence: Evidence, contest: Contest) -> Tensor:
        assert contest.shots is not None, "it takes pictures"
        return self.heads(contest.tasks, contest.shots, self.chosen[contest.shots.features.shape[2]])


def _pool_of(evidence: Evidence) -> Pool:
    """Training images of all classes that are not set apart, by their numbers in the data set."""
    features, labels = evidence.images(evidence.classes)
    return Pool.of(features, torch.tensor(evidence.classes)[labels], len(evidence.class_texts))


def whitened(space: FeatureSpace, shots: Shots, *, at_one_length: bool) -> Shots:
    """Pictures as points of the space; if asked, each of unit length, so that cosines count."""
    points = space(shots.features)
    points = functional.normalize(points, dim=3) if at_one_length else points
    return Shots(points * shots.there[..., None], shots.counts)


def networks_scoring(
    evidence: Evidence, space: FeatureSpace, tasks: Sequence[Task], directions: Tensor, offsets: Tensor
) -> Tensor:
    """Networks (B, P) whose scores of a whitened image z are z @ directions.mT + offsets: (B, K, F), (B, K)."""
    index, mask = pad(tasks)
    scorers, bias = space.scores(directions, offsets, mask, evidence.target.linear_rank)
    return evidence.target.from_linear(scorers, bias, evidence.class_texts[index], mask)


STEPS = 300  # of L-BFGS at most


def logistic_regression(shots: Shots, penalty: float) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression on the pictures of each task: directions (B, K, F) and offsets (B, K).

    It is least of the cross-entropy, in the mean over classes and over the pictures of each, and half the penalty times the
    squared length of the directions; offsets are free. Solved in the span of a task's pictures, where the solution lies.
    """
    images, there = shots.features.flatten(1, 2), shots.there.flatten(1)  # (B, M, F), (B, M)
    mask = shots.counts > 0  # (B, K)
    weight = there / shots.counts.repeat_interleave(shots.there.shape[2], 1).clamp_min(1) / mask.sum(1, keepdim=True)
    labels = torch.arange(mask.shape[1]).repeat_interleave(shots.there.shape[2]).expand(len(mask), -1)
    axes, coordinates = torch.linalg.qr(images.mT)  # (B, F, R), (B, R, M)
    inside, weight = coordinates.mT.double(), weight.double()  # (B, M, R)
    directions = torch.zeros(*mask.shape, inside.shape[2], dtype=torch.double, requires_grad=True)
    offsets = torch.zeros(mask.shape, dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [directions, offsets],
        max_iter=STEPS,
        tolerance_grad=1e-7,
        tolerance_change=1e-10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        scores = inside @ directions.mT + offsets[:, None]  # (B, M, K)
        scores = scores.masked_fill(~mask[:, None], -torch.inf)
        wrong = functional.cross_entropy(scores.mT, labels, reduction="none")  # (B, M)
        # of an absent picture the class may be padded, and its cross-entropy infinite
        loss = wrong.masked_fill(~there, 0).mul(weight).sum() + 0.5 * penalty * directions.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return directions.detach().to(axes.dtype) @ axes.mT, offsets.detach().to(axes.dtype)
