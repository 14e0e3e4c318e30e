"""Fine-tuning on a few pictures, and a last layer for all tasks: what each may look at, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from wspace.components.opponents.few_pictures import FewPictures
from wspace.components.opponents.last_layer import LastLayer, of_last_layer
from wspace.components.opponents.more_pictures import MorePictures
from wspace.interfaces import Contest, Evidence, Task
from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.learning import few_pictures
from wspace.support.errors import Diverged
from wspace.testing import opponents as toy

TASKS: tuple[Task, ...] = ((0, 1, 4), (2, 5))


def by(*tensors: tuple[str, int]) -> WeightSpec:
    return WeightSpec(tuple(WeightEntry(name, (size,), (str(size),)) for name, size in tensors))


def watched(evidence: Evidence) -> tuple[Evidence, list[Task]]:
    """And the tasks whose validation images are looked at."""
    looked: list[Task] = []

    def accuracy(weights: Tensor, tasks: Sequence[Task]) -> Tensor:
        looked.extend(tasks)
        return evidence.accuracy(weights, tasks)

    return replace(evidence, accuracy=accuracy), looked


def pools(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """Features and labels of each training from now on."""
    seen, fit = [], few_pictures.fit

    def noted(target, start, tasks, pool, *rest, **more):
        seen.append((pool.features, pool.labels))
        return fit(target, start, tasks, pool, *rest, **more)

    monkeypatch.setattr(few_pictures, "fit", noted)
    return seen


def test_it_is_trained_on_so_many_pictures_of_each_class_and_looks_at_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    found, seen = {}, pools(monkeypatch)
    for opponent in (FewPictures(2), MorePictures(3)):
        evidence, looked = watched(toy.evidence_of(opponent))
        chosen = opponent.choose(evidence)
        assert chosen["rate"] in evidence.effort.rates and chosen["steps"] in (2, 4)
        assert set(looked) == set(evidence.tasks[-evidence.held_out :])
        looked.clear()
        seen.clear()
        networks = opponent.weights(evidence, Contest("unseen-tasks", TASKS))
        assert not looked and networks.shape == (2, evidence.target.spec.size)
        assert all((network != evidence.base).any() for network in networks)
        for task, (features, labels) in zip(TASKS, seen, strict=True):
            of_task, classes = evidence.images(task)
            assert labels.bincount().tolist() == [opponent.pictures] * len(task)
            for picture, label in zip(features, labels, strict=True):
                assert (of_task[classes == label] == picture).all(1).any()
        found[opponent.pictures] = [*seen]
        resumed = type(opponent)(opponent.pictures)
        assert resumed.resume(chosen)
        assert torch.equal(resumed.weights(evidence, Contest("unseen-tasks", TASKS)), networks)
    for (few, _), (more, _) in zip(found[2], found[3], strict=True):
        assert all((more == picture).all(1).any() for picture in few)  # the same ones, and another


def test_the_steps_that_are_chosen_are_those_of_the_best_look() -> None:
    opponent, looks = FewPictures(2), list[float]()
    evidence = toy.evidence_of(opponent)

    def at_look(weights: Tensor, tasks: Sequence[Task]) -> Tensor:
        looks.append(float(weights.sum()))
        of_rate, step = divmod(len(looks) - 1, 2)  # two looks at each held-out task
        return torch.tensor([float(of_rate // evidence.held_out == 1 and step == 0)])

    assert opponent.choose(replace(evidence, accuracy=at_look)) == {"rate": 1e-2, "steps": 2.0}
    assert len(looks) == len(set(looks)) == 2 * 2 * evidence.held_out


def test_a_rate_at_which_it_diverges_is_no_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    opponent = FewPictures(2)
    evidence = toy.evidence_of(opponent)
    fit = few_pictures.fit

    def breaking(*given, **more):
        if given[5].lr >= worst:
            raise Diverged("too fast")
        return fit(*given, **more)

    monkeypatch.setattr(few_pictures, "fit", breaking)
    worst = 1e-2
    assert opponent.choose(evidence)["rate"] == 1e-3
    worst = 0.0
    with pytest.raises(Diverged) as caught:
        opponent.choose(evidence)
    assert (
        str(caught.value)
        == "2 pictures a class: training on images diverges at every one of opponents.rates, 0.001, 0.01: give a lower one"
    )


@pytest.mark.parametrize(
    ("spec", "trained"),
    [
        (by(("stem.weight", 2), ("stem.bias", 1), ("out.weight", 3), ("out.bias", 1)), [0, 0, 0, 1, 1, 1, 1]),
        (by(("stem.weight", 2), ("head.fc.weight", 2), ("fc.weight", 1)), [0, 0, 0, 0, 1]),
        (by(("a", 2), ("b", 1)), [0, 0, 1]),
        (
            WeightSpec(
                (
                    WeightEntry("w1", (1, 2), ("r", "i")),
                    WeightEntry("b1", (1,), ("r",)),
                    WeightEntry("w2", (2, 1), ("o", "r")),
                    WeightEntry("b2", (2,), ("o",)),
                )
            ),
            [0, 0, 0, 1, 1, 1, 1],
        ),
    ],
)
def test_the_last_layer_is_the_module_of_the_last_tensor(spec: WeightSpec, trained: list[int]) -> None:
    assert of_last_layer(spec).int().tolist() == trained


def test_of_a_frozen_network_the_last_layer_alone_is_trained_for_all_classes() -> None:
    opponent = LastLayer()
    evidence = toy.evidence_of(opponent)

    def fit(
        start: Tensor, tasks: Sequence[Task], rng: torch.Generator, *, lr: float, only: Tensor, **effort: int
    ) -> tuple[Tensor, Tensor]:
        assert tasks == [evidence.classes] and effort["steps"] == evidence.effort.universal_steps
        return start + 100 * lr * only, torch.tensor([lr])

    assert opponent.choose(replace(evidence, fit=fit)) == {"rate": 1e-2}
    begun = evidence.target.init(1, evidence.rng("init"))[0]
    trained = of_last_layer(evidence.target.spec)
    assert 0 < trained.sum() < len(trained)
    assert torch.equal(opponent.weights(evidence, Contest("seen", TASKS)), begun + trained.float())
