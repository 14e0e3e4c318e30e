"""What accuracy to expect: that intervals hold as often as they say, and what a task is described by."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from wspace.learning.expectation import FEWEST, ScoredTasks, described


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def a_world(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Tasks (n, 3) and accuracies (n,): harder along the first, and less certain along the second."""
    tasks = torch.rand(count, 3, generator=seeded(seed))
    noise = torch.randn(count, generator=seeded(seed + 1)) * (0.1 + 0.8 * tasks[:, 1])
    return tasks, (2 - 3 * tasks[:, 0] + noise).sigmoid()


@pytest.mark.parametrize("confidence", [0.9, 0.6])
def test_the_accuracy_of_a_new_task_is_in_the_interval_as_often_as_it_says(confidence: float) -> None:
    scored = ScoredTasks.of(*a_world(600, 0))
    assert scored is not None
    held = []
    for task, accuracy in zip(*a_world(800, 7), strict=True):
        expected = scored.expect(task, confidence)
        held.append(expected.low <= accuracy <= expected.high)
        assert 0 < expected.low < expected.mean < expected.high < 1
    assert sum(held) / len(held) == pytest.approx(confidence, abs=0.05)


def test_intervals_are_wider_where_accuracies_differ_more() -> None:
    scored = ScoredTasks.of(*a_world(600, 0))
    assert scored is not None
    sure, unsure = (scored.expect(torch.tensor([0.5, certainty, 0.5])) for certainty in (0.05, 0.95))
    assert unsure.high - unsure.low > 2 * (sure.high - sure.low) > 0
    easy, hard = (scored.expect(torch.tensor([harder, 0.05, 0.5])) for harder in (0.1, 0.9))
    assert easy.low > hard.high and easy.tasks == 600


def test_of_few_tasks_nothing_is_expected() -> None:
    assert ScoredTasks.of(*a_world(FEWEST - 1, 0)) is None and ScoredTasks.of(*a_world(FEWEST, 0)) is not None


def test_a_task_is_described_by_its_classes_and_their_distance_to_known_ones() -> None:
    known = functional.normalize(torch.randn(5, 4, generator=seeded(0)), dim=1)
    other = functional.normalize(torch.randn(4, generator=seeded(1)), dim=0)
    texts = torch.stack([torch.stack([known[0], known[3], other]), torch.stack([known[1], known[2], 9 * other])])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    ways, mean, most, unknown, crowding = described(texts, mask, known).unbind(1)
    novelty = 1 - float((known @ other).max())
    torch.testing.assert_close(ways, torch.tensor([3.0, 2.0]).log())
    torch.testing.assert_close(mean, torch.tensor([novelty / 3, 0.0]), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(most, torch.tensor([novelty, 0.0]), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(unknown, torch.tensor([1 / 3, 0.0]))
    pair = float(known[1] @ known[2])
    nearest = [max(float(texts[0][i] @ texts[0][j]) for j in range(3) if j != i) for i in range(3)]
    torch.testing.assert_close(crowding, torch.tensor([sum(nearest) / 3, pair]), atol=1e-6, rtol=1e-5)
