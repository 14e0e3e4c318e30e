"""The learning rate that opponents choose."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import pytest
import torch
from torch import Tensor

from tests.learning.test_fitting import TARGET, TASKS, pool_of, seeded, start, texts
from wspace.learning.fitting import Schedule, fit
from wspace.learning.rates import best_rate
from wspace.support.errors import Diverged
from wspace.support.threads import threaded

ACCURACY = {1e-3: 0.2, 1e-2: 0.7, 1e-1: 0.7}


def at(rate: float) -> tuple[Tensor, Tensor]:
    if rate not in ACCURACY:
        raise Diverged("too high")
    return torch.tensor([[rate]]), torch.tensor([ACCURACY[rate]])


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_first_of_the_best_rates_is_chosen_and_one_that_diverges_is_none(at_once: bool, threads: int) -> None:
    with threaded(threads):
        rate, weights = best_rate((1.0, 1e-3, 1e-2, 1e-1), at, at_once=at_once)
        assert (rate, weights.tolist()) == (1e-2, torch.tensor([[1e-2]]).tolist())
        with pytest.raises(Diverged) as caught:
            best_rate((1.0, 2.0), at, at_once=at_once)
    assert str(caught.value) == "training on images diverges at every one of opponents.rates, 1.0, 2.0"


def test_rates_that_are_tried_at_once_are_each_tried_by_a_thread_that_does_without_torchs_others() -> None:
    both = threading.Barrier(2, timeout=600)

    def meeting(rate: float) -> tuple[Tensor, Tensor]:
        both.wait()
        assert torch.get_num_threads() == 1
        return at(rate)

    with threaded(2):
        assert best_rate((1e-3, 1e-2), meeting, at_once=True)[0] == 1e-2
        assert torch.get_num_threads() == 2


def test_an_interruption_ends_the_trainings_of_the_other_rates() -> None:
    """The second would take an hour; it ends when the first, which began after it did, is interrupted."""
    begun, ended = threading.Event(), list[type[BaseException]]()

    def interrupted(rate: float) -> tuple[Tensor, Tensor]:
        if rate == 1e-3:
            assert begun.wait(600)
            raise KeyboardInterrupt
        begun.set()
        try:
            weights = fit(TARGET, start(), TASKS, pool_of(), texts(), Schedule(3_000_000, 4, rate), seeded(3))
        except BaseException as error:
            ended.append(type(error))
            raise
        return weights, torch.ones(3)

    with threaded(2), pytest.raises(KeyboardInterrupt):
        best_rate((1e-3, 1e-2), interrupted, at_once=True)
    assert ended == [CancelledError]
