"""Many networks trained at once, against each trained alone in a plain loop; and which tasks are drawn."""

from __future__ import annotations

from math import comb, cos, pi

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from wspace import fitting
from wspace.errors import DataError, Diverged
from wspace.features import Pool
from wspace.fitting import Schedule, accuracies, fit, fit_until_validated, predict
from wspace.settings import Tasks
from wspace.targets.clip_adapter import ClipAdapter
from wspace.tasks import Task, TaskSet, draw_tasks

CLASSES, FEATURES, TEXTS = 6, 5, 4
TARGET = ClipAdapter(3, temperature=10.0, feature_dim=FEATURES, text_dim=TEXTS)
TASKS: list[Task] = [(0, 1), (2, 3, 5), (0, 2, 3, 4, 5)]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pool_of(seed: int = 0, spread: float = 1.0) -> Pool:
    """Classes of 4 to 9 images around a mean each, in a mixed order; in double."""
    rng = seeded(seed)
    labels = torch.repeat_interleave(torch.arange(CLASSES), torch.arange(4, 4 + CLASSES))
    labels = labels[torch.randperm(len(labels), generator=rng)]
    means = torch.randn(CLASSES, FEATURES, generator=seeded(99), dtype=torch.float64)
    noise = torch.randn(len(labels), FEATURES, generator=rng, dtype=torch.float64)
    return Pool.of(means[labels] + spread * noise, labels, CLASSES)


def texts() -> Tensor:
    return functional.normalize(torch.randn(CLASSES, TEXTS, generator=seeded(7), dtype=torch.float64), dim=1)


def start(count: int = 3) -> Tensor:
    return TARGET.init(count, seeded(1)).double()


def alone(number: int, schedule: Schedule, seed: int) -> Tensor:
    """TASKS[number] trained by itself with torch.optim.Adam, on the images that `fit` draws for it."""
    pool, task, rng = pool_of(), TASKS[number], seeded(seed)
    weights = start()[number : number + 1].clone().requires_grad_()
    optimizer = torch.optim.Adam([weights], lr=schedule.lr)
    iterates: list[Tensor] = []
    for step in range(schedule.steps):
        shape = (len(TASKS), schedule.batch)
        of_class, of_image = (
            torch.rand(shape, generator=rng)[number],
            torch.rand(shape, generator=rng)[number],
        )
        labels, images = [], []
        for u, v in zip(of_class.tolist(), of_image.tolist(), strict=True):
            labels.append(int(u * len(task)))
            of_label = [i for i, c in enumerate(pool.labels.tolist()) if c == task[labels[-1]]]
            images.append(of_label[int(v * len(of_label))])
        share = 0.55 + 0.45 * cos(pi * step / schedule.steps) if schedule.decay else 1.0
        optimizer.param_groups[0]["lr"] = share * schedule.lr
        logits = TARGET.logits(weights, pool.features[images][None], texts()[list(task)][None])[0]  # (m, k)
        loss = functional.cross_entropy(logits, torch.tensor(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        iterates.append(weights.detach().clone())
    kept = round(schedule.average * schedule.steps)
    return torch.stack(iterates[-kept:]).mean(0)[0] if kept else iterates[-1][0]


@pytest.mark.parametrize("average", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("decay", [True, False])
def test_networks_fitted_together_are_those_trained_one_by_one(average: float, decay: bool) -> None:
    schedule = Schedule(steps=9, batch=4, lr=0.02, average=average, decay=decay)
    before = start()
    together = fit(TARGET, before, TASKS, pool_of(), texts(), schedule, seeded(3))
    for number in range(3):
        torch.testing.assert_close(together[number], alone(number, schedule, 3), rtol=1e-7, atol=1e-9)
    assert torch.equal(before, start())  # the start is not written to
    assert (together - before).abs().max() > 0.01


def test_the_rate_decays_to_a_tenth() -> None:
    schedule = Schedule(steps=1000, batch=1, lr=1.0)
    assert fitting._decayed(0, schedule) == 1
    assert fitting._decayed(999, schedule) == pytest.approx(0.1, abs=1e-3)


def test_an_image_of_every_class_is_drawn_and_of_no_other() -> None:
    """Features tell the class, and labels the place within the task: seen by a target that records them."""
    pool = Pool.of(torch.arange(30.0)[:, None].expand(-1, FEATURES), torch.arange(30) % CLASSES, CLASSES)
    seen: list[Tensor] = []

    class Recording(ClipAdapter):
        def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:
            seen.append(features[:, :, 0].long())
            return super().logits(weights, features, texts)

    target = Recording(3, feature_dim=FEATURES, text_dim=TEXTS)
    schedule = Schedule(steps=30, batch=8, lr=1e-4)
    fit(target, start().float(), TASKS, pool, texts().float(), schedule, seeded(0))
    images = torch.cat(seen, dim=1)  # (3, 240)
    for number, task in enumerate(TASKS):
        assert set(images[number].tolist()) == {i for i in range(30) if i % CLASSES in task}


def test_a_pool_lists_each_classs_images() -> None:
    pool = pool_of()
    for task in TASKS:
        features, labels = pool.of_task(task)
        expected = [i for c in task for i in range(len(pool.labels)) if int(pool.labels[i]) == c]
        assert torch.equal(features, pool.features[expected])
        assert labels.tolist() == [task.index(int(pool.labels[i])) for i in expected]


def test_accuracies_are_counted_image_by_image_among_the_classes_of_the_task() -> None:
    pool, weights, expected = pool_of(5), start(), []
    for b, task in enumerate(TASKS):
        hits = []
        for image, c in zip(pool.features, pool.labels.tolist(), strict=True):
            if c in task:
                scores = TARGET.logits(weights[b : b + 1], image[None, None], texts()[list(task)][None])[0, 0]
                hits.append(task[int(scores.argmax())] == c)
        expected.append(sum(hits) / len(hits))
    assert accuracies(TARGET, weights, TASKS, pool, texts()).tolist() == pytest.approx(expected)
    assert len(set(expected)) > 1
    predicted, labels = predict(TARGET, weights, TASKS[1], pool, texts())
    assert predicted.shape == (3, len(labels)) and int(predicted.max()) < len(TASKS[1])
    assert float((predicted[1] == labels).float().mean()) == pytest.approx(expected[1])


def test_fitting_until_validated_keeps_the_best_of_each_network() -> None:
    train, val, schedule = pool_of(0), pool_of(1), Schedule(steps=24, batch=4, lr=0.3, decay=False)
    checked = [(start(), accuracies(TARGET, start(), TASKS, val, texts()))]

    averaged = start()

    def look(step: int, weights: Tensor) -> bool:
        nonlocal averaged
        decay = min(fitting.AVERAGED, step / (step + 10))
        averaged = decay * averaged + (1 - decay) * weights
        if step % 4 == 0:
            checked.append((averaged.clone(), accuracies(TARGET, averaged, TASKS, val, texts())))
        return False

    fit(TARGET, start(), TASKS, train, texts(), schedule, seeded(2), on_step=look)
    best, accuracy = fit_until_validated(
        TARGET, start(), TASKS, train, val, texts(), schedule, seeded(2), check_every=4, patience=100
    )
    history = torch.stack([a for _, a in checked])  # (checks, B)
    for b in range(3):
        first = history[:, b].tolist().index(float(history[:, b].max()))
        assert float(accuracy[b]) == float(history[first, b])
        torch.testing.assert_close(best[b], checked[first][0][b])
    assert len({history[:, b].tolist().index(float(history[:, b].max())) for b in range(3)}) > 1  # not all at once


def test_fitting_until_validated_stops_when_its_patience_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    means = iter([0.5, 0.4, 0.6, 0.6, 0.5, 0.9, 0.9, 0.9])
    counted: list[float] = []

    def scripted(*_: object) -> Tensor:
        counted.append(next(means))
        return torch.full((3,), counted[-1])

    monkeypatch.setattr(fitting, "accuracies", scripted)
    schedule = Schedule(steps=100, batch=2, lr=1e-3)
    _, accuracy = fit_until_validated(
        TARGET, start(), TASKS, pool_of(), pool_of(), texts(), schedule, seeded(0), check_every=2, patience=2
    )
    assert counted == [0.5, 0.4, 0.6, 0.6, 0.5]
    assert accuracy.tolist() == pytest.approx([0.6] * 3)


@pytest.mark.parametrize("average", [0.0, 0.5])
def test_an_absurd_rate_diverges_with_a_message(average: float) -> None:
    schedule = Schedule(steps=5, batch=4, lr=1e300, average=average)
    with pytest.raises(Diverged) as caught:
        fit(TARGET, start(), TASKS, pool_of(), texts(), schedule, seeded(0))
    assert str(caught.value) == ("training networks at rate 1e+300 gave weights that are not finite numbers: lower it")


# ---------------------------------------------------------------- tasks


def drawn(classes: int, low: int, high: int, seen: int = 60, unseen: int = 20, seed: int = 0) -> TaskSet:
    return draw_tasks(Tasks(seen, unseen, (low, high)), classes, seeded(seed))


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
    assert {c for task in tasks.seen for c in task} == set(range(30))


def test_the_number_of_classes_is_uniform_in_the_range() -> None:
    sizes = torch.tensor([len(task) for task in drawn(40, 8, 11, 3000, 1000).seen])
    assert all(abs(int((sizes == k).sum()) - 750) < 110 for k in range(8, 12))


def test_tasks_follow_the_seed() -> None:
    assert drawn(30, 3, 6) == drawn(30, 3, 6)
    assert drawn(30, 3, 6) != drawn(30, 3, 6, seed=1)


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
    assert str(caught.value) == "8 classes make 1 different tasks of 8 to 8 classes; 4 are the least"
    with pytest.raises(DataError) as caught:
        drawn(30, 6, 3)
    assert str(caught.value) == "tasks.classes: 6 to 3 is an empty range"


def test_scored_tasks_are_the_first_of_those_trained_on_and_of_the_unseen() -> None:
    tasks = draw_tasks(Tasks(10, 5, (3, 6), evaluate=3, held_out=0.2), 30, seeded(0))
    assert tasks.scored("seen") == tasks.seen[:3] and tasks.scored("unseen-tasks") == tasks.unseen[:3]
    tasks = draw_tasks(Tasks(10, 5, (3, 6), evaluate=99, held_out=0.2), 30, seeded(0))
    assert tasks.scored("seen") == tasks.seen[:8] and tasks.scored("unseen-tasks") == tasks.unseen
