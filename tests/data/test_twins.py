"""Class names of which a text encoder makes one vector."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional

from wspace.data.tasks import TaskSet
from wspace.data.twins import APART, held_together, listed, twins
from wspace.runs.stages.zoo import _tell_of_twins
from wspace.support.errors import DataError


def vectors(*numbers: int) -> torch.Tensor:
    """Equal numbers, equal vectors of unit length; others are far apart."""
    table = torch.randn(max(numbers) + 1, 16, generator=torch.Generator().manual_seed(0))
    return functional.normalize(table, dim=1)[list(numbers)]


@pytest.mark.parametrize(
    ("numbers", "groups"),
    [
        ((0, 1, 2), []),
        ((0, 1, 0), [(0, 2)]),
        ((0, 1, 1, 0, 0, 2), [(0, 3, 4), (1, 2)]),
        ((3, 3, 3, 3), [(0, 1, 2, 3)]),
        ((0,), []),
    ],
)
def test_twins_are_grouped(numbers: tuple[int, ...], groups: list[tuple[int, ...]]) -> None:
    rounding = 1e-6 * torch.randn(len(numbers), 16, generator=torch.Generator().manual_seed(1))
    assert twins(vectors(*numbers) + rounding) == groups


def test_twins_far_from_each_other_in_a_long_list_are_grouped() -> None:
    rows = functional.normalize(torch.randn(3000, 8, generator=torch.Generator().manual_seed(0)).double(), dim=1)
    rows[[1500, 2999]] = rows[[2, 1100]]
    assert twins(rows) == [(2, 1500), (1100, 2999)]


def test_zero_vectors_are_twins_and_neighbours_are_not() -> None:
    assert twins(torch.zeros(3, 4)) == [(0, 1, 2)]
    one = torch.tensor([1.0, 0.0])
    assert twins(torch.stack([one, functional.normalize(one + torch.tensor([0.0, 2 * APART]), dim=0)])) == []


def test_the_first_task_that_holds_two_is_told() -> None:
    groups = [(0, 3, 4), (1, 2)]
    assert held_together([(0, 1), (2, 3), (0, 2, 5)], groups) == ()
    assert held_together([(0, 1), (1, 3, 4), (1, 2)], groups) == (3, 4)
    assert held_together([(1, 2)], groups) == (1, 2) and held_together([(1, 2)], []) == ()


def test_names_in_a_sentence() -> None:
    assert listed(["a", "b"]) == "'a' and 'b'" and listed(["a", "b", "c"]) == "'a', 'b' and 'c'"
    assert listed(list("abcdefg")) == "'a', 'b', 'c', 'd' and 3 more"


def job_of(notes: list[str]) -> Any:
    images = SimpleNamespace(classes=("apple", "Apple", "lamp", "crab"))
    bench = SimpleNamespace(images=images, class_texts=vectors(0, 0, 1, 2))
    return SimpleNamespace(bench=bench, progress=SimpleNamespace(say=notes.append))


def test_a_run_whose_tasks_hold_no_twins_has_a_note() -> None:
    notes: list[str] = []
    tasks = TaskSet((0, 1, 2, 3), ((0, 2), (1, 2)), ((1, 3),), (), held_out=1, evaluate=9)
    _tell_of_twins(job_of(notes), tasks)
    sentence = "the text encoder makes one vector of 'apple' and 'Apple': they are one class to every network"
    assert notes == [f"note: {sentence}"]


@pytest.mark.parametrize("split", ["seen", "unseen", "novel"])
def test_a_run_with_a_task_that_holds_twins_is_refused(split: str) -> None:
    tasks = {"seen": ((0, 2),), "unseen": ((1, 3),), "novel": ()} | {split: ((0, 1, 2),)}
    with pytest.raises(DataError) as caught:
        _tell_of_twins(job_of([]), TaskSet((0, 1, 2, 3), **tasks, held_out=1, evaluate=9))
    assert str(caught.value) == (
        "a task would hold the classes 'apple' and 'Apple', and no network could tell them apart: the text encoder makes "
        "one vector of their names; rename or leave out all but one, or use another `text`"
    )
