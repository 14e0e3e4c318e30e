"""A few pictures of each class: different ones, of the right class, the fewer among the more."""

from __future__ import annotations

import torch

from wspace.data.features import Pool
from wspace.data.prompts import prompts_of
from wspace.data.shots import draw_shots
from wspace.interfaces import Shots

COUNTS = (5, 3, 1, 4)  # images of each class
TASKS = ((0, 1, 3), (2, 3))


def pool() -> Pool:
    """Of class c, image i: features (c, i)."""
    rows = [(c, i) for c, count in enumerate(COUNTS) for i in range(count)]
    return Pool.of(torch.tensor(rows).float(), torch.tensor([c for c, _ in rows]), len(COUNTS))


def drawn(count: int, seed: int = 0) -> Shots:
    return draw_shots(pool(), TASKS, count, torch.Generator().manual_seed(seed))


def pictures(shots: Shots, row: int, place: int) -> list[tuple[float, ...]]:
    return [tuple(one.tolist()) for one in shots.features[row, place, : int(shots.counts[row, place])]]


def test_pictures_are_different_ones_of_their_class_and_as_many_as_there_are() -> None:
    shots = drawn(4)
    assert shots.features.shape == (2, 3, 4, 2) and shots.counts.tolist() == [[4, 3, 4], [1, 4, 0]]
    for row, task in enumerate(TASKS):
        for place, number in enumerate(task):
            shown = pictures(shots, row, place)
            assert len(set(shown)) == min(4, COUNTS[number]) and {c for c, _ in shown} == {number}
    assert not shots.features[~shots.there].any() and shots.there.sum() == shots.counts.sum()


def test_one_picture_is_among_two_and_these_among_more() -> None:
    one, two, many = (drawn(count) for count in (1, 2, 9))
    assert many.features.shape == (2, 3, 9, 2)
    for row, task in enumerate(TASKS):
        for place in range(len(task)):
            shown = pictures(many, row, place)
            assert pictures(one, row, place) == shown[:1] and pictures(two, row, place) == shown[:2]


def test_each_task_has_pictures_of_its_own_and_every_image_may_come() -> None:
    shots = draw_shots(pool(), ((0, 1),) * 200, 2, torch.Generator().manual_seed(0))
    first = [pictures(shots, row, 0) for row in range(200)]
    assert {one for shown in first for one in shown} == {(0.0, float(i)) for i in range(COUNTS[0])}
    assert len({tuple(sorted(shown)) for shown in first}) == 10  # pairs of five


def test_prompts_have_the_mean_of_the_pictures_and_how_many_they_are() -> None:
    shots, texts = drawn(4), torch.eye(4)
    prompts = prompts_of(TASKS, texts, shots=shots)
    assert prompts.pictures is not None and prompts.shots is not None
    for row, task in enumerate(TASKS):
        for place in range(len(task)):
            expected = torch.tensor(pictures(shots, row, place)).mean(0)
            torch.testing.assert_close(prompts.pictures[row, place], expected)
    assert torch.equal(prompts.shots, shots.counts) and not prompts.pictures[1, 2].any()
    assert prompts_of(TASKS, texts).pictures is None
