"""Many networks trained at once, against each trained alone in a plain loop."""

from __future__ import annotations

import threading
from math import cos, pi

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.support.stand_ins import Adapter
from wspace.data.features import Pool
from wspace.data.tasks import Task
from wspace.learning import fitting
from wspace.learning.fitting import Schedule, accuracies, fit, fit_until_validated, predict
from wspace.support.errors import Diverged
from wspace.support.threads import threaded

CLASSES, FEATURES, TEXTS = 6, 5, 4
TARGET = Adapter(3, temperature=10.0, feature_dim=FEATURES, text_dim=TEXTS)
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


@pytest.mark.parametrize("threads", [1, 2])
def test_networks_are_the_same_in_whatever_slices_and_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def trained() -> Tensor:
        schedule = Schedule(steps=fitting.AHEAD + 3, batch=4, lr=0.02, average=0.5)
        best, _ = fit_until_validated(
            TARGET, start(), TASKS, pool_of(), pool_of(1), texts(), schedule, seeded(3), check_every=30, patience=3
        )
        return torch.stack([fit(TARGET, start(), TASKS, pool_of(), texts(), schedule, seeded(3)), best])

    together = trained()
    with threaded(threads):
        assert fitting._slices(start(), 4 * FEATURES) == 1
        monkeypatch.setattr(fitting, "CACHED", 1)
        assert fitting._slices(start(), 4 * FEATURES) == 3
        torch.testing.assert_close(trained(), together, rtol=1e-7, atol=1e-9)
        assert torch.get_num_threads() == threads


@pytest.mark.parametrize(("cached", "slices"), [(64, 1), (32, 2), (31, 4), (17, 4), (15, 6), (1, 64)])
def test_slices_stay_in_the_cache_and_keep_every_thread_busy(
    cached: int, slices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 networks of 6 weights, which take 5 x 6 + 2 numbers each."""
    monkeypatch.setattr(fitting, "CACHED", cached * 32 * 4)
    with threaded(2):
        assert fitting._slices(torch.zeros(64, 6), 2) == slices


def test_networks_that_diverge_in_another_thread_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "CACHED", 1)
    with threaded(2), pytest.raises(Diverged, match=r"gave a loss that is not a finite number \(at step 1\)"):
        fit(TARGET, start(), TASKS, pool_of(), texts(), Schedule(steps=5, batch=4, lr=1e300), seeded(0))


def test_the_rate_decays_to_a_tenth() -> None:
    schedule = Schedule(steps=1000, batch=1, lr=1.0)
    assert fitting._decayed(0, schedule) == 1
    assert fitting._decayed(999, schedule) == pytest.approx(0.1, abs=1e-3)


def test_an_image_of_every_class_is_drawn_and_of_no_other() -> None:
    """Features tell the class, and labels the place within the task: seen by a target that records them."""
    pool = Pool.of(torch.arange(30.0)[:, None].expand(-1, FEATURES), torch.arange(30) % CLASSES, CLASSES)
    seen: list[Tensor] = []

    class Recording(Adapter):
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


def test_fitting_tells_how_far_it_is() -> None:
    told = list[int]()
    steps = 2 * fitting.AHEAD + 3
    fit(TARGET, start(), TASKS, pool_of(0), texts(), Schedule(steps, batch=2, lr=0.1), seeded(2), advanced=told.append)
    assert told == [fitting.AHEAD, fitting.AHEAD, 3]


def test_fitting_until_validated_keeps_the_best_of_each_network() -> None:
    train, val, schedule = pool_of(0), pool_of(1), Schedule(steps=24, batch=4, lr=0.3, decay=False)
    checked = [(start(), accuracies(TARGET, start(), TASKS, val, texts()))]

    averaged = start()

    def look(step: int, weights: Tensor) -> None:
        nonlocal averaged
        decay = min(fitting.AVERAGED, step / (step + 10))
        averaged = decay * averaged + (1 - decay) * weights
        if step % 4 == 0:
            checked.append((averaged.clone(), accuracies(TARGET, averaged, TASKS, val, texts())))

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


def test_some_weights_alone_are_trained_where_the_others_are_to_stay() -> None:
    only, schedule = torch.arange(TARGET.spec.size) % 3 == 0, Schedule(steps=9, batch=4, lr=0.02)

    def trained(only: Tensor | None) -> Tensor:
        best, _ = fit_until_validated(
            TARGET,
            start(),
            TASKS,
            pool_of(),
            pool_of(1),
            texts(),
            schedule,
            seeded(2),
            check_every=3,
            patience=9,
            only=only,
        )
        return best

    partly = trained(only)
    assert torch.equal(partly[:, ~only], start()[:, ~only]) and (partly[:, only] != start()[:, only]).any()
    assert torch.equal(trained(torch.ones_like(only)), trained(None))


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
    assert (
        str(caught.value)
        == "training networks at rate 1e+300 gave a loss that is not a finite number (at step 1): lower it"
    )


def test_a_setting_that_diverges_is_named() -> None:
    schedule = Schedule(steps=5, batch=4, lr=1e300, setting="zoo.lr")
    with pytest.raises(Diverged) as caught:
        fit(TARGET, start(), TASKS, pool_of(), texts(), schedule, seeded(0))
    said = "training networks at rate 1e+300 (zoo.lr) gave a loss that is not a finite number (at step 1): lower it"
    assert str(caught.value) == said


def test_weights_that_diverge_are_told_with_tensor_and_step() -> None:
    begin = start()
    name, part = list(TARGET.spec.slices.items())[-1]
    begin[1, part] = float("nan")
    with pytest.raises(Diverged) as caught:
        fit(TARGET, begin, TASKS, pool_of(), texts(), Schedule(steps=5, batch=4, lr=1e-3), seeded(0))
    assert str(caught.value) == (
        f"training networks at rate 0.001 gave weights that are not finite numbers (tensor {name}, at step 0): lower it"
    )


def test_accuracies_are_the_same_by_whatever_threads() -> None:
    weights, tasks = start().repeat(3, 1), TASKS * 3
    alone = accuracies(TARGET, weights, tasks, pool_of(5), texts())
    for threads in (2, 4):
        with threaded(threads):
            assert torch.equal(accuracies(TARGET, weights.requires_grad_(), tasks, pool_of(5), texts()), alone)


@pytest.mark.parametrize("concurrent", [False, True])
def test_threads_call_a_target_at_once_only_if_it_says_that_they_may(
    concurrent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they may not call one that puts weights into a module for as long as a call takes."""
    monkeypatch.setattr(fitting, "CACHED", 1)
    callers = set[int]()

    class Seen(Adapter):
        def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:
            callers.add(threading.get_ident())
            return super().logits(weights, features, texts)

    target = Seen(3, feature_dim=FEATURES, text_dim=TEXTS)
    monkeypatch.setattr(Seen, "concurrent", concurrent)
    with threaded(2):
        fit(target, start(), TASKS, pool_of(), texts(), Schedule(steps=5, batch=4, lr=1e-3), seeded(0))
        accuracies(target, start(), TASKS, pool_of(), texts())
    assert (callers == {threading.get_ident()}) is not concurrent
