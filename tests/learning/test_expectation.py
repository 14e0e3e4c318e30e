"""What accuracy to expect: that intervals hold as often as they say, and what a task is described by."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from wspace.learning.expectation import FEWEST, ScoredTasks, described, novelty_of


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


IMAGES = 4  # of each class


def a_world(count: int, seed: int, most: int = 32) -> tuple[Tensor, Tensor]:
    """Tasks (n, 3) and accuracies (n,): harder along the second, and less certain along the third.

    They have 2 to `most` classes, and an accuracy is of so many images as these have: it comes in steps, and is often 1.
    """
    rng = seeded(seed)
    tasks = torch.rand(count, 3, generator=rng)
    ways = (2 * (most / 2) ** tasks[:, 0]).round()
    noise = torch.randn(count, generator=rng) * (0.1 + tasks[:, 2]) / ways.sqrt()
    right = 1 / ways + (1 - 1 / ways) * (3 - 4 * tasks[:, 1] + noise).sigmoid()
    tasks[:, 0] = ways.log()
    return tasks, torch.binomial(IMAGES * ways, right, generator=rng) / (IMAGES * ways)


def held(scored: ScoredTasks | None, world: tuple[Tensor, Tensor], confidence: float = 0.9) -> float:
    """How often an accuracy is in its interval."""
    assert scored is not None
    inside = []
    for task, accuracy in zip(*world, strict=True):
        expected = scored.expect(task, confidence)
        inside.append(expected.low <= accuracy <= expected.high)
        assert 0 <= expected.low < expected.mean < expected.high <= 1
    return sum(inside) / len(inside)


@pytest.mark.parametrize("confidence", [0.9, 0.6])
def test_the_accuracy_of_a_new_task_is_in_the_interval_as_often_as_it_says(confidence: float) -> None:
    assert held(ScoredTasks.of(*a_world(600, 0)), a_world(800, 7), confidence) == pytest.approx(confidence, abs=0.05)


def test_intervals_hold_for_tasks_of_fewer_classes_than_any_scored_one() -> None:
    tasks, accuracies = a_world(1200, 0)
    large = tasks[:, 0] > torch.tensor(7.5).log()
    small, all_right = a_world(800, 7, most=4)
    assert (all_right == 1).float().mean() > 0.2, "where accuracies are often 1, an interval has to reach it"
    assert 0.85 <= held(ScoredTasks.of(tasks[large], accuracies[large]), (small, all_right)) <= 0.97


def test_intervals_are_wider_where_accuracies_differ_more() -> None:
    scored = ScoredTasks.of(*a_world(1200, 0))
    assert scored is not None

    def width(ways: float, certainty: float) -> float:
        expected = scored.expect(torch.tensor([ways, 0.5, certainty]))
        return expected.high - expected.low

    many, few = (float(torch.tensor(ways).log()) for ways in (30.0, 3.0))
    assert width(few, 0.5) > 2 * width(many, 0.5) and width(many, 0.95) > 1.15 * width(many, 0.05)
    easy, hard = (scored.expect(torch.tensor([many, harder, 0.05])) for harder in (0.1, 0.9))
    assert easy.low > hard.high and easy.tasks == 1200


def test_nothing_below_chance_is_expected() -> None:
    tasks, _ = a_world(60, 0, most=3)
    scored = ScoredTasks.of(tasks, torch.zeros(60))
    assert scored is not None
    for task in tasks:
        expected = scored.expect(task)
        assert expected.low == 0 and expected.high >= expected.mean == pytest.approx(1 / float(task[0].exp()))


def test_of_few_tasks_nothing_is_expected() -> None:
    assert ScoredTasks.of(*a_world(FEWEST - 1, 0)) is None and ScoredTasks.of(*a_world(FEWEST, 0)) is not None


def test_a_task_is_described_by_its_classes_and_their_distance_to_known_ones() -> None:
    known = functional.normalize(torch.randn(5, 4, generator=seeded(0)), dim=1)
    other = functional.normalize(torch.randn(4, generator=seeded(1)), dim=0)
    texts = torch.stack([torch.stack([known[0], known[3], other]), torch.stack([known[1], known[2], 9 * other])])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    ways, mean, most, unknown, crowding = described(texts, novelty_of(texts, known), mask).unbind(1)
    novelty = 1 - float((known @ other).max())
    torch.testing.assert_close(ways, torch.tensor([3.0, 2.0]).log())
    torch.testing.assert_close(mean, torch.tensor([novelty / 3, 0.0]), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(most, torch.tensor([novelty, 0.0]), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(unknown, torch.tensor([1 / 3, 0.0]))
    pair = float(known[1] @ known[2])
    nearest = [max(float(texts[0][i] @ texts[0][j]) for j in range(3) if j != i) for i in range(3)]
    torch.testing.assert_close(crowding, torch.tensor([sum(nearest) / 3, pair]), atol=1e-6, rtol=1e-5)
