"""Which tasks are drawn: distinct, seen and unseen ones apart, and none of a class set apart but those made of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import comb
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from wspace.data.splits import SEEN, UNSEEN_CLASSES, UNSEEN_ORDERS, UNSEEN_TASKS
from wspace.data.tasks import (
    Shown,
    TaskSet,
    draw_tasks,
    fresh_tasks,
    near_and_far,
    tasks_around,
    with_pictures,
    with_ways,
)
from wspace.interfaces import Task
from wspace.support.errors import DataError
from wspace.support.settings import Tasks


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(
    classes: int, low: int, high: int, seen: int = 60, unseen: int = 20, seed: int = 0, apart: float = 0.0
) -> TaskSet:
    return draw_tasks(Tasks(seen, unseen, (low, high), unseen_classes=apart), classes, seeded(seed))


def assert_proper(tasks: TaskSet, classes: int, low: int, high: int) -> None:
    every = tasks.seen + tasks.unseen
    assert len(set(every)) == len(every)
    for task in every:
        assert list(task) == sorted(set(task)) and low <= len(task) <= high and set(task) <= set(range(classes))
    assert len(tasks.training) >= 1 and len(tasks.choosing) >= 1
    assert tasks.training + tasks.choosing == tasks.seen


def test_tasks_are_distinct_sets_of_classes_within_the_range() -> None:
    tasks = drawn(30, 3, 6)
    assert_proper(tasks, 30, 3, 6)
    assert (len(tasks.seen), len(tasks.unseen), tasks.held_out, tasks.notes) == (60, 20, 6, ())
    assert {len(task) for task in tasks.seen} == {3, 4, 5, 6}
    assert {c for task in tasks.seen for c in task} == set(range(30)) == set(tasks.classes)


def test_the_number_of_classes_is_uniform_in_the_range() -> None:
    sizes = torch.tensor([len(task) for task in drawn(40, 8, 11, 3000, 1000).seen])
    assert all(abs(int((sizes == k).sum()) - 750) < 110 for k in range(8, 12))


def test_tasks_follow_the_seed() -> None:
    for apart in (0.0, 0.3):
        assert drawn(30, 3, 6, apart=apart) == drawn(30, 3, 6, apart=apart)
        assert drawn(30, 3, 6, apart=apart) != drawn(30, 3, 6, seed=1, apart=apart)


def test_fewer_classes_than_asked_for_narrow_the_range_and_say_so() -> None:
    tasks = drawn(12, 8, 32)
    assert tasks.notes == ("12 classes: tasks have 3 to 12 classes, not 8 to 32",)
    assert_proper(tasks, 12, 3, 12)
    assert len(tasks.seen) == 60


def test_fewer_different_sets_than_asked_for_make_fewer_tasks_and_say_so() -> None:
    tasks = drawn(6, 2, 3)
    assert comb(6, 2) + comb(6, 3) == 35
    assert tasks.notes == ("6 classes: 17 tasks, not 80; more would repeat",)
    assert (len(tasks.seen), len(tasks.unseen)) == (13, 4)
    assert_proper(tasks, 6, 2, 3)


@pytest.mark.parametrize("unseen", [1, 2, 20, 500])
@pytest.mark.parametrize("seen", [2, 60])
@pytest.mark.parametrize(("low", "high"), [(2, 2), (2, 4), (3, 3), (4, 32), (8, 32)])
@pytest.mark.parametrize("classes", [4, 5, 7])
def test_however_few_the_classes_there_are_tasks_to_train_on_to_choose_on_and_to_score(
    classes: int, low: int, high: int, seen: int, unseen: int
) -> None:
    tasks = drawn(classes, low, high, seen, unseen)
    assert_proper(tasks, classes, 2, classes)
    assert len(tasks.seen) >= 2 and len(tasks.unseen) >= min(2, unseen)
    assert len(tasks.seen + tasks.unseen) <= max(4, seen + unseen)


@pytest.mark.parametrize("held_out", [0.001, 0.5, 0.999])
def test_some_seen_tasks_are_always_held_out_and_some_never(held_out: float) -> None:
    tasks = draw_tasks(Tasks(10, 5, (3, 6), held_out=held_out), 30, seeded(0))
    assert tasks.held_out == {0.001: 1, 0.5: 5, 0.999: 9}[held_out]


def test_too_few_classes_are_an_error() -> None:
    with pytest.raises(DataError) as caught:
        drawn(3, 2, 3)
    assert str(caught.value) == "3 classes are too few to make seen and unseen tasks of; 4 are the least"
    with pytest.raises(DataError) as caught:
        drawn(8, 8, 8)
    assert str(caught.value) == "8 classes make 1 different task of 8 to 8 classes; 4 are the least"
    with pytest.raises(DataError) as caught:
        drawn(30, 6, 3)
    assert str(caught.value) == "tasks.classes: 6 to 3 is an empty range"


# ---------------------------------------------------------------- classes set apart


@examples(max_examples=150, deadline=None, derandomize=True)
@given(
    classes=st.integers(8, 60), apart=st.floats(0, 0.99), low=st.integers(2, 6), extra=st.integers(0, 30),
    evaluate=st.integers(2, 20), seed=st.integers(0, 99),
)  # fmt: skip
def test_classes_set_apart_are_in_no_task_but_those_made_of_them_alone(
    classes: int, apart: float, low: int, extra: int, evaluate: int, seed: int
) -> None:
    settings = Tasks(30, 10, (low, low + extra), evaluate=evaluate, unseen_classes=apart)
    tasks = draw_tasks(settings, classes, seeded(seed))
    others = set(range(classes)) - set(tasks.classes)
    asked = round(apart * classes)
    assert len(others) == (asked if 4 <= asked <= classes - 4 else 0)
    assert list(tasks.classes) == sorted(set(tasks.classes))
    assert all(set(task) <= set(tasks.classes) for task in tasks.seen + tasks.unseen)
    assert all(set(task) <= others and list(task) == sorted(set(task)) for task in tasks.novel)
    assert len(set(tasks.novel)) == len(tasks.novel) <= evaluate
    assert (len(tasks.novel) >= 2) == bool(others)
    assert all(2 <= len(task) <= low + extra for task in tasks.novel)
    assert_proper(tasks, classes, 2, classes)
    assert tasks == draw_tasks(settings, classes, seeded(seed))


def test_the_splits_are_those_that_have_tasks() -> None:
    tasks = drawn(30, 3, 6, apart=0.3)
    assert (len(tasks.classes), len(tasks.novel), tasks.notes) == (21, 200, ())
    assert tasks.splits == (SEEN, UNSEEN_TASKS, UNSEEN_CLASSES)
    assert tasks.scored(UNSEEN_CLASSES) == tasks.novel
    assert {len(task) for task in tasks.novel} == {3, 4, 5, 6}
    assert {c for task in tasks.novel for c in task} == set(range(30)) - set(tasks.classes)
    for none in (drawn(30, 3, 6), drawn(30, 3, 6, apart=0.1)):
        assert none.splits == (SEEN, UNSEEN_TASKS) and none.novel == () and len(none.classes) == 30


def test_which_classes_are_set_apart_follows_the_seed() -> None:
    assert len({drawn(30, 3, 6, apart=0.3, seed=seed).classes for seed in range(5)}) == 5


@pytest.mark.parametrize(
    ("classes", "apart", "beside"), [(12, 0.15, (2, 10)), (12, 0.01, (0, 12)), (12, 0.8, (10, 2)), (26, 0.13, (3, 23))]
)
def test_too_few_classes_to_set_any_apart_say_so(classes: int, apart: float, beside: tuple[int, int]) -> None:
    tasks = drawn(classes, 2, 4, apart=apart)
    assert tasks.notes == (
        f"{classes} classes: none is set apart as unseen; it would be {beside[0]} beside {beside[1]}, "
        "and 4 are the least of either",
    )
    assert tasks.classes == tuple(range(classes)) and tasks.novel == ()
    assert drawn(classes, 2, 4).notes == ()


def test_few_classes_set_apart_narrow_the_range_of_their_own_tasks_and_say_so() -> None:
    tasks = drawn(30, 5, 20, apart=0.2)
    assert tasks.notes == (
        "6 unseen classes: tasks have 2 to 6 classes, not 5 to 20",
        "6 unseen classes: 29 tasks, not 200; more would repeat",
    )
    assert {len(task) for task in tasks.seen} > {5, 20}
    whole = drawn(30, 6, 6, apart=0.2)  # the one set of all six has no other to be mismatched with
    assert whole.notes[0] == "6 unseen classes: tasks have 5 to 6 classes, not 6 to 6" and len(whole.novel) == 4


NAMES = [*(f"red {n}" for n in range(10)), *(f"blue {n}" for n in range(10)), *"abcdefghij"]


def test_unseen_classes_are_near_if_they_share_a_word_with_a_known_one() -> None:
    near, far = near_and_far(["Red ball", "red Box", "blue box", "green", "BALL game", "ballgame"], [0, 2])
    assert (near, far) == ((1, 4), (3, 5))


def test_further_splits_are_of_so_many_near_far_or_any_unseen_classes() -> None:
    settings = Tasks(20, 5, (3, 6), evaluate=7, unseen_classes=0.5, unseen_ways=(2, 4))
    plain = draw_tasks(settings, len(NAMES), seeded(0))
    tasks = with_ways(settings, plain, NAMES, seeded(1))
    assert (tasks.seen, tasks.unseen, tasks.novel) == (plain.seen, plain.unseen, plain.novel)
    assert tasks.splits == (
        SEEN, UNSEEN_TASKS, UNSEEN_CLASSES, "unseen-classes-2", "unseen-near-2", "unseen-far-2",
        "unseen-classes-4", "unseen-near-4", "unseen-far-4",
    )  # fmt: skip
    near, far = near_and_far(NAMES, tasks.classes)
    for group, classes in (("classes", {*near, *far}), ("near", {*near}), ("far", {*far})):
        for ways in (2, 4):
            scored = tasks.scored(f"unseen-{group}-{ways}")
            assert len(scored) == len(set(scored)) and all(len(task) == ways for task in scored)
            assert len(scored) > 1 and {number for task in scored for number in task} <= classes


def test_a_further_split_of_too_few_classes_is_left_out_and_named() -> None:
    settings = Tasks(20, 5, (3, 6), evaluate=7, unseen_classes=0.5, unseen_ways=(12,))
    tasks = with_ways(settings, draw_tasks(settings, len(NAMES), seeded(0)), NAMES, seeded(1))
    near, far = near_and_far(NAMES, tasks.classes)
    assert tasks.splits == (SEEN, UNSEEN_TASKS, UNSEEN_CLASSES, "unseen-classes-12")
    assert tasks.notes[-2:] == (
        f"no split unseen-near-12: it needs more than 12 such classes, and there are {len(near)}",
        f"no split unseen-far-12: it needs more than 12 such classes, and there are {len(far)}",
    )


def pictured(*pictures: int, ways: tuple[int, ...] = (2,), unseen: float = 0.5, images: int = 9) -> TaskSet:
    settings = Tasks(20, 5, (3, 6), evaluate=7, unseen_classes=unseen, unseen_ways=ways, pictures=pictures)
    plain = with_ways(settings, draw_tasks(settings, len(NAMES), seeded(0)), NAMES, seeded(1))
    tasks = with_pictures(settings, plain, [images] * len(NAMES))
    assert (tasks.splits, tasks.further, tasks.seen) == (plain.splits, plain.further, plain.seen)
    return tasks


def test_splits_with_pictures_are_of_the_tasks_of_unseen_classes_by_ways_or_without_these_of_any() -> None:
    tasks = pictured(4, 1, 4, ways=(2, 3))
    assert tasks.shown == {
        "unseen-classes-2-pictures-1": Shown("unseen-classes-2", 1),
        "unseen-classes-2-pictures-4": Shown("unseen-classes-2", 4),
        "unseen-classes-3-pictures-1": Shown("unseen-classes-3", 1),
        "unseen-classes-3-pictures-4": Shown("unseen-classes-3", 4),
    }
    assert tasks.scored("unseen-classes-3-pictures-4") == tasks.scored("unseen-classes-3")
    assert list(pictured(2, ways=()).shown) == ["unseen-classes-pictures-2"]
    assert pictured(ways=()).shown == {}


def test_classes_with_too_few_pictures_and_splits_that_are_not_there_are_named() -> None:
    tasks = pictured(1, 3, images=2)
    count = len({number for task in tasks.scored("unseen-classes-2") for number in task})
    assert tasks.notes[-1] == (
        f"{count} of {count} unseen classes have fewer than 3 training images, and come with all they have where tasks show so "
        "many"
    )
    for tasks in (pictured(1, unseen=0.0), pictured(1, ways=(29,))):
        assert tasks.shown == {} and tasks.notes[-1] == (
            "no task comes with pictures: there is no split of unseen classes that they would be of"
        )


def known_of(known: int | None, seed: int = 0, of_classes: float = 0.4) -> TaskSet:
    settings = Tasks(40, 10, (3, 6), evaluate=7, unseen_classes=of_classes, unseen_ways=(2, 4), known=known)
    return with_ways(settings, draw_tasks(settings, len(NAMES), seeded(seed)), NAMES, seeded(seed + 100))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_unseen_classes_and_their_tasks_are_the_same_however_many_classes_are_known(seed: int) -> None:
    everything = known_of(None, seed)
    assert len(everything.classes) == 18 and not everything.left_out
    others = {*range(len(NAMES))} - {*everything.classes}
    larger: set[int] = {*everything.classes}
    for count in (12, 8, 4):
        tasks = known_of(count, seed)
        assert len(tasks.classes) == count and {*tasks.classes} < larger, "the few are among the many"
        larger = {*tasks.classes}
        assert {*tasks.left_out} == {*everything.classes} - larger
        assert {number for task in (*tasks.seen, *tasks.unseen) for number in task} <= larger
        assert tasks.novel == everything.novel
        near, far = near_and_far(NAMES, tasks.classes)
        for ways in (2, 4):
            assert tasks.scored(f"unseen-classes-{ways}") == everything.scored(f"unseen-classes-{ways}")
            for group, classes in (("near", near), ("far", far)):
                of_group = tasks.further.get(f"unseen-{group}-{ways}", ())
                assert {number for task in of_group for number in task} <= {*classes} & others
    assert known_of(4, seed + 1).classes != known_of(4, seed).classes


def test_more_known_classes_than_there_are_are_all_and_a_note_says_so(tmp_path: Path) -> None:
    everything, more = known_of(None), known_of(19)
    assert more == replace(everything, notes=more.notes) and not known_of(18).notes
    assert more.notes == ("tasks.known: all 18 classes that are not set apart are known, not 19",)
    few = known_of(8)
    few.save(tmp_path / "tasks.json")
    assert TaskSet.load(tmp_path / "tasks.json") == few


def test_a_zoo_that_is_there_says_itself_which_classes_are_known() -> None:
    with pytest.raises(
        DataError, match=r"^tasks\.known: with zoo\.source, known are the classes of the zoo's networks"
    ):
        tasks_around(Tasks(4, 2, (2, 3), known=5), [(0, 1), (2, 3), (4, 5)], 9, seeded(0))


# ---------------------------------------------------------------- scored, kept, drawn anew


def test_scored_tasks_are_the_first_of_those_trained_on_and_of_the_unseen() -> None:
    tasks = draw_tasks(Tasks(10, 5, (3, 6), evaluate=3, held_out=0.2, unseen_classes=0.3), 30, seeded(0))
    assert tasks.scored(SEEN) == tasks.seen[:3] and tasks.scored(UNSEEN_TASKS) == tasks.unseen[:3]
    assert tasks.scored(UNSEEN_CLASSES) == tasks.novel and len(tasks.novel) == 3
    tasks = draw_tasks(Tasks(10, 5, (3, 6), evaluate=99, held_out=0.2), 30, seeded(0))
    assert tasks.scored(SEEN) == tasks.seen[:8] and tasks.scored(UNSEEN_TASKS) == tasks.unseen


def test_tasks_saved_and_loaded_are_the_same(tmp_path: Path) -> None:
    ways = Tasks(20, 5, (3, 6), unseen_classes=0.5, unseen_ways=(4,))
    further = with_ways(ways, draw_tasks(ways, len(NAMES), seeded(0)), NAMES, seeded(1))
    for tasks in (drawn(30, 3, 6, apart=0.3), drawn(12, 8, 32), further, pictured(1, 2)):
        tasks.save(tmp_path / "tasks.json")
        assert TaskSet.load(tmp_path / "tasks.json") == tasks


def test_fresh_tasks_are_drawn_as_the_seen_ones_and_none_of_them_is_kept_back() -> None:
    settings = Tasks(12, 8, (2, 3), held_out=0.5, unseen_classes=0.4)
    tasks = draw_tasks(settings, 11, seeded(0))
    fresh = fresh_tasks(settings, tasks, 2000, seeded(1))
    possible = comb(7, 2) + comb(7, 3)
    assert len(fresh) == 2000 and len(tasks.choosing) == 6 and len(tasks.unseen) == 8
    assert set(fresh) & set(tasks.choosing + tasks.unseen) == set()
    assert len(set(fresh)) == possible - 14 and set(tasks.training) < set(fresh)
    assert {c for task in fresh for c in task} == set(tasks.classes)
    assert all(list(task) == sorted(set(task)) for task in fresh)
    assert fresh == fresh_tasks(settings, tasks, 2000, seeded(1)) != fresh_tasks(settings, tasks, 2000, seeded(2))


def test_fresh_tasks_have_every_number_of_classes_equally_often() -> None:
    settings = Tasks(60, 20, (8, 11))
    sizes = torch.tensor([len(t) for t in fresh_tasks(settings, draw_tasks(settings, 40, seeded(0)), 4000, seeded(1))])
    assert all(abs(int((sizes == k).sum()) - 1000) < 110 for k in range(8, 12))


# ---------------------------------------------------------------- orders

ORDERS = Tasks(60, 20, (3, 5), unseen_classes=0, unseen_orders=30)


def sets(tasks: Iterable[Task]) -> set[frozenset[int]]:
    return {frozenset(task) for task in tasks}


def assert_orders_apart(tasks: TaskSet) -> None:
    """Unseen orders are of trained sets, unseen tasks of none; nothing unseen is trained on or drawn for a task loss."""
    orders = tasks.scored(UNSEEN_ORDERS)
    assert sets(orders) <= sets(tasks.training) and not set(orders) & set(tasks.seen)
    assert not sets(tasks.unseen) & sets(tasks.seen) and len(sets(tasks.unseen)) == len(tasks.unseen)
    fresh = fresh_tasks(ORDERS, tasks, 2000, seeded(3))
    assert not set(fresh) & set(orders) and not sets(fresh) & sets(tasks.unseen)
    assert set(fresh) - set(tasks.training)


def test_unseen_orders_are_of_sets_that_are_trained_and_unseen_tasks_of_sets_that_are_not() -> None:
    tasks = draw_tasks(ORDERS, 8, seeded(0), ordered=True)
    assert tasks.splits == (SEEN, UNSEEN_TASKS, UNSEEN_ORDERS) and tasks.notes == ()
    assert (len(tasks.seen), len(tasks.unseen), len(tasks.scored(UNSEEN_ORDERS))) == (60, 20, 30)
    assert_orders_apart(tasks)


def test_without_unseen_orders_nothing_is_drawn_otherwise() -> None:
    plain = draw_tasks(replace(ORDERS, unseen_orders=0), 8, seeded(0), ordered=True)
    assert plain.splits == (SEEN, UNSEEN_TASKS) and plain.kept_back_sets == frozenset()


def test_unseen_orders_go_through_a_file(tmp_path: Path) -> None:
    tasks = draw_tasks(ORDERS, 8, seeded(0), ordered=True)
    tasks.save(tmp_path / "tasks.json")
    assert TaskSet.load(tmp_path / "tasks.json") == tasks


def test_around_networks_that_are_there_orders_are_kept_apart_too() -> None:
    given = draw_tasks(ORDERS, 8, seeded(0), ordered=True).seen
    tasks, _ = tasks_around(ORDERS, given, 8, seeded(1), ordered=True)
    assert set(tasks.seen) == set(given)
    assert_orders_apart(tasks)


def test_too_few_sets_or_orders_make_fewer_tasks_and_say_so() -> None:
    asked = Tasks(20, 20, (2, 2), unseen_classes=0, unseen_orders=30)
    tasks = draw_tasks(asked, 6, seeded(0), ordered=True)
    assert tasks.notes == (
        "6 classes: 15 tasks, not 40; more would repeat",
        "6 classes: 3 unseen sets, not 8; the others are for seen tasks",
        f"{len(tasks.scored(UNSEEN_ORDERS))} unseen orders, not 30: one at most is drawn for each trained task",
    )
    assert len(tasks.unseen) == 3 and not sets(tasks.unseen) & sets(tasks.seen)


def test_unseen_orders_are_refused_where_tasks_are_sets() -> None:
    with pytest.raises(DataError) as caught:
        draw_tasks(ORDERS, 8, seeded(0))
    assert str(caught.value) == (
        "tasks.unseen_orders: the order of a task's classes means something only where outputs stand for them "
        "(target.outputs); leave it out"
    )
