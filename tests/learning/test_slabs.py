"""AdamW some rows at a time, against torch's own on gradients that are written down whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from wspace.learning import slabs
from wspace.learning.lines import Line, product
from wspace.learning.loop import LogValues, TrainingLoop
from wspace.learning.slabs import Slabs, collected
from wspace.support.seeding import stream
from wspace.support.settings import TaskLoss
from wspace.support.threads import threaded

ROWS, COLUMNS = 70, 1333  # more than two slabs, the last of them smaller
SETTINGS: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.3, "betas": (0.8, 0.9), "fused": True}


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "LARGE", ROWS * COLUMNS)


def weight() -> nn.Parameter:
    return nn.Parameter(torch.randn(ROWS, COLUMNS, generator=stream(0, "weight")))


def loss_at(step: int, matrix: nn.Parameter, products: int, besides: bool) -> Tensor:
    rng = stream(step, "inputs")
    total = torch.zeros(())
    for _ in range(products):
        total = total + product(torch.randn(20, ROWS, generator=rng), matrix).square().mean()
    return total + matrix[::3].sin().mean() if besides else total


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("products", "besides"), [(1, False), (2, False), (1, True), (0, True)])
def test_steps_and_norms_are_adamws(threads: int, products: int, besides: bool) -> None:
    ours, plain = weight(), weight()
    by_slabs, whole = AdamW([ours], **SETTINGS), AdamW([plain], **SETTINGS)
    some = Slabs(by_slabs)
    with threaded(threads):
        for step in range(4):
            by_slabs.zero_grad()
            with some.collecting():
                loss = loss_at(step, ours, products, besides)
                loss.backward()
            norms = some.step(loss)
            by_slabs.step()
            whole.zero_grad()
            loss_at(step, plain, products, besides).backward()
            assert plain.grad is not None and len(norms) == min(products, 1)
            if norms:
                torch.testing.assert_close(norms[0], plain.grad.norm())
            whole.step()
            torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)
    there, here = whole.state_dict()["state"][0], by_slabs.state_dict()["state"][0]
    assert list(there) == list(here) and here["step"] == 4
    for name, value in there.items():
        torch.testing.assert_close(here[name], value, rtol=1e-4, atol=1e-6)


def test_a_loss_that_is_no_number_is_not_descended_and_its_gradient_is_there_to_be_looked_at() -> None:
    matrix, inputs = weight(), torch.ones(20, ROWS)
    before, some = matrix.detach().clone(), Slabs(AdamW([matrix], **SETTINGS))
    with some.collecting():
        (product(inputs, matrix).sum() + product(2 * inputs, matrix).sum()).backward()
    assert matrix.grad is None
    assert some.step(torch.tensor(float("nan"))) == []
    assert torch.equal(matrix.detach(), before)
    assert matrix.grad is not None and torch.equal(matrix.grad, torch.full_like(matrix, 60.0))


def test_outside_gradients_are_written_down_as_ever() -> None:
    matrix = weight()
    with Slabs(AdamW([matrix], **SETTINGS)).collecting():
        assert collected(matrix) == []
    assert collected(matrix) is None
    product(torch.ones(20, ROWS), matrix).sum().backward()
    assert matrix.grad is not None and torch.equal(matrix.grad, torch.full_like(matrix, 20.0))


def test_small_ones_vectors_other_types_and_no_optimiser_have_no_slabs() -> None:
    others = [nn.Parameter(torch.ones(ROWS - 1, COLUMNS)), nn.Parameter(torch.ones(ROWS * COLUMNS))]
    others.append(nn.Parameter(torch.ones(ROWS, COLUMNS, dtype=torch.float64)))
    assert not Slabs(AdamW(others, **SETTINGS)).factors
    assert not Slabs(None).factors


def loop_of(folder: Path, settings: TaskLoss) -> TrainingLoop:
    line = Line(ROWS, COLUMNS, ROWS)
    return TrainingLoop(line, settings, folder / "checkpoint.safetensors", list(line.parameters()))


def advance(loop: TrainingLoop, until: int) -> None:
    assert isinstance(loop.module, Line)
    none: LogValues = {}
    while loop.step < until:
        inputs = torch.randn(20, ROWS, generator=stream(loop.step, "inputs"))
        loop.advance([((loop.module.trained(inputs) - 1).square().mean(), none)])


def test_a_loop_logs_and_learns_the_same_with_them_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    settings = TaskLoss(steps=6, lr=0.1)
    ours, plain = loop_of(tmp_path, settings), loop_of(tmp_path, settings)
    assert len(ours.slabs.factors) == 1  # of the matrix, and not of the bias
    plain.slabs = Slabs(None)
    for loop in (ours, plain):
        advance(loop, 6)
    for name, value in plain.parameters.items():
        torch.testing.assert_close(ours.parameters[name], value, rtol=1e-4, atol=1e-5)
    for there, here in zip(plain.log, ours.log, strict=True):
        assert here == pytest.approx(there, rel=1e-4)

    stopped = loop_of(tmp_path, settings)
    advance(stopped, 3)
    stopped.save()
    resumed = loop_of(tmp_path, settings)
    assert resumed.resume()
    advance(resumed, 6)
    assert all(torch.equal(value, ours.parameters[name]) for name, value in resumed.parameters.items())


def test_where_gradients_are_clipped_all_are_written_down(tmp_path: Path) -> None:
    assert not loop_of(tmp_path, replace(TaskLoss(steps=6), clip=1.0)).slabs.factors
