"""Networks trained and scored on a device that is not the CPU: nothing is mixed, and no loop waits for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.learning.test_fitting import TARGET, TASKS, pool_of, seeded, start, texts
from tests.support.pretended import DEVICE, pretended
from wspace.data.features import Pool
from wspace.data.shots import draw_shots
from wspace.data.tasks import Task
from wspace.learning.fitting import Schedule, accuracies, fit, fit_until_validated, losses, predict
from wspace.support.errors import Diverged


def trained(pool: Pool, steps: int = 9, rate: float = 0.02) -> Tensor:
    return fit(TARGET, start(), TASKS, pool, texts(), Schedule(steps, 4, rate, average=0.5), seeded(3))


def validated(pool: Pool) -> Tensor:
    schedule = Schedule(steps=40, batch=4, lr=0.05)
    val = pool_of(1).to(pool.device)
    weights, reached = fit_until_validated(
        TARGET, start(), TASKS, pool, val, texts(), schedule, seeded(3), check_every=5, patience=2
    )
    return torch.cat([weights, reached[:, None]], dim=1)


DONE: dict[str, Callable[[Pool], Tensor]] = {
    "trained": trained,
    "trained until validated": validated,
    "accuracies": lambda pool: accuracies(TARGET, start(), TASKS, pool, texts()),
    "losses": lambda pool: losses(TARGET, start(), TASKS, pool, texts()),
    "predictions": lambda pool: predict(TARGET, start(), TASKS[1], pool, texts())[0],
    "labels": lambda pool: predict(TARGET, start(), TASKS[1], pool, texts())[1],
    "on few images": lambda pool: trained(pool.few(2, seeded(5))),
    "pictures": lambda pool: draw_shots(pool, TASKS, 3, seeded(6)).features,
    "images of a task": lambda pool: pool.of_task(TASKS[1])[0],
    "rows": lambda pool: pool.rows_of(TASKS[2]),
}


@pytest.mark.parametrize("what", DONE)
def test_what_is_done_on_another_device_is_as_on_the_cpu_and_lies_where_it_was_asked_from(what: str) -> None:
    with pretended():
        there = DONE[what](pool_of().to(DEVICE))
    assert there.device.type == "cpu"
    assert torch.equal(there, DONE[what](pool_of()))


def counts(do: Callable[[], object]) -> tuple[int, int]:
    with pretended() as counted:
        do()
    return counted.waited, counted.copies


def test_more_steps_of_a_training_wait_for_the_device_at_intervals_alone() -> None:
    few, many, more = (counts(lambda steps=steps: trained(pool_of().to(DEVICE), steps)) for steps in (2, 60, 70))
    assert few == many
    assert (more[0] - many[0], more[1] - many[1]) == (1, 1)


def test_more_tasks_to_score_do_not_wait_for_the_device_more_often() -> None:
    def scored(times: int) -> tuple[int, int]:
        tasks: list[Task] = TASKS * times
        weights = start().repeat(times, 1)
        return counts(lambda: accuracies(TARGET, weights, tasks, pool_of().to(DEVICE), texts()))

    assert scored(1) == scored(4)


def test_a_training_that_diverges_there_says_at_which_step_it_did() -> None:
    for steps in (9, 70):
        with pytest.raises(Diverged) as on_cpu:
            trained(pool_of(), steps, 1e300)
        with pretended(), pytest.raises(Diverged) as there:
            trained(pool_of().to(DEVICE), steps, 1e300)
        assert str(there.value).partition("at step")[2] == str(on_cpu.value).partition("at step")[2]
