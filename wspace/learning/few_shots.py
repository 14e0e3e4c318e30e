"""Methods that go by a few pictures of each class, all of them scored in whitened feature space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from wspace.data.features import Pool
from wspace.data.prompts import pad
from wspace.data.shots import draw_shots
from wspace.data.tasks import Task
from wspace.interfaces import Contest, Evidence, Shots
from wspace.learning.prototypes import FeatureSpace, Heads, best_for_left_out

FewShotHeads = Callable[..., Tensor]
"""Tasks, pictures of their classes, and what is chosen, as numbers -> networks (B, P)."""


class ByPictures:
    """A method fitted to the classes that are not set apart, with a choice of its own for each number of pictures.

    `fitted(known)` is the fit to the classes `known` alone, and `choices` are what it leaves open, the first for when too few
    classes are known. A choice is what does best with so many pictures of each of some known classes that the fit did not
    see: training images of these are the pictures, validation images are what counts.
    """

    def __init__(
        self, evidence: Evidence, choices: Sequence[tuple[float, ...]], fitted: Callable[[Task], FewShotHeads]
    ):
        fitted_once, pool = cache(fitted), _pool_of(evidence)

        def with_shots(count: int) -> Callable[..., Heads]:
            def heads(known: Task, *choice: float) -> Heads:
                def networks(tasks: Sequence[Task]) -> Tensor:
                    shots = draw_shots(pool, tasks, count, evidence.rng("pictures of left out"))
                    return fitted_once(known)(tasks, shots, *choice)

                return networks

            return heads

        self.chosen = {count: best_for_left_out(evidence, choices, with_shots(count)) for count in evidence.shown}
        self.heads = fitted_once(evidence.classes)

    def numbers(self, *names: str) -> dict[str, float]:
        """What was chosen, for the report: `NAME_4` with four pictures."""
        return {
            f"{name}_{count}": value
            for count, choice in self.chosen.items()
            for name, value in zip(names, choice, strict=True)
        }

    def weights(self, contest: Contest) -> Tensor:
        """Networks (B, P) for the tasks of a contest that has pictures."""
        assert contest.shots is not None, "it takes pictures"
        return self.heads(contest.tasks, contest.shots, *self.chosen[contest.shots.features.shape[2]])


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
