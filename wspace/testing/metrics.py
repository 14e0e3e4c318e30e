"""Laws of metrics."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wspace.interfaces import Metric, Outcome
from wspace.testing.law import check
from wspace.testing.subject import HIDDEN, Subject, normal, twice

TASKS = 3


@check("metric")
def check_one_value_for_each_task(subject: Subject) -> None:
    values = _metric(subject).measure(_outcome(noise=1.0))
    subject.shaped("what it measures", values, (TASKS,))


@check("metric")
def check_measures_the_same_twice(subject: Subject) -> None:
    first, second = twice(lambda rng: _metric(subject).measure(_outcome(noise=1.0)))
    subject.equal("the same outcome measured a second time", second, first)


@check("metric")
def check_tasks_do_not_see_each_other(subject: Subject) -> None:
    metric, outcome = _metric(subject), _outcome(noise=1.0)
    together = metric.measure(outcome)
    for task in range(TASKS):
        alone = metric.measure(_outcome(noise=1.0, tasks=(task,)))
        subject.near(f"what it measures of task {task} by itself", alone[0], together[task], 1e-5)


@check("metric")
def check_it_has_a_name_and_a_direction(subject: Subject) -> None:
    metric = _metric(subject)
    name, higher = getattr(metric, "name", None), getattr(metric, "higher_is_better", None)
    subject.hold(isinstance(name, str) and name, f"its name should be that of a report's column, and is {name!r}")
    subject.hold(isinstance(higher, bool), f"higher_is_better should be true or false, and is {higher!r}")


@check("metric")
def check_oracles_are_better_than_noise(subject: Subject) -> None:
    metric = _metric(subject)
    best, worst = (float(metric.measure(_outcome(noise)).mean()) for noise in (0.0, 10.0))
    better = best > worst if metric.higher_is_better else best < worst
    direction = "higher" if metric.higher_is_better else "lower"
    subject.hold(
        better,
        f"{direction} is better, it says, and gives {best:.3g} to the oracle's networks and {worst:.3g} to noise",
    )


def _metric(subject: Subject) -> Metric:
    return subject.instances[0].made


def _outcome(noise: float, tasks: Sequence[int] = range(TASKS)) -> Outcome:
    """Networks and predictions that are the oracle's but for so much noise."""
    oracle = normal(TASKS, HIDDEN.size, seed=60)
    labels = [torch.arange(8 + task) % 4 for task in range(TASKS)]
    predictions = [_wrong(true, noise, task) for task, true in enumerate(labels)]
    weights = oracle + noise * normal(*oracle.shape, seed=61)
    rows = list(tasks)
    return Outcome(weights[rows], oracle[rows], [predictions[task] for task in rows], [labels[task] for task in rows])


def _wrong(labels: Tensor, noise: float, task: int) -> Tensor:
    """So many tenths of the predictions, and one more for each task, are another class."""
    count = min(len(labels), round(noise * len(labels) / 10) + task) if noise else 0
    return torch.where(torch.arange(len(labels)) < count, (labels + 1) % 4, labels)
