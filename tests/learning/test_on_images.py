"""The loss of networks on images, with gradients that targets write out, against torch's differentiation of all of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.support.stand_ins import Adapter
from wspace.data.features import Pool
from wspace.data.tasks import Task
from wspace.interfaces import cross_entropy
from wspace.learning.fitting import TaskBatches
from wspace.learning.on_images import kept, loss_on_images
from wspace.support.seeding import stream
from wspace.support.threads import threaded

TARGET = Adapter(3, feature_dim=6, text_dim=5)
CLASSES, IMAGES = 7, 5
TASKS: list[Task] = [
    (0, 1),
    (1, 2, 3),
    (3, 4, 5, 6),
    (2, 6),
    (0, 5),
    (1, 4),
    (0, 2, 4),
    (5, 6),
    (3, 6),
]  # more than one part


class OneByOne(Adapter):
    concurrent = False


def batches() -> TaskBatches:
    rng = stream(0, "images")
    pool = Pool.of(torch.randn(60, 6, generator=rng), torch.arange(60) % CLASSES, CLASSES)
    return TaskBatches(TASKS, pool, torch.nn.functional.normalize(torch.randn(CLASSES, 5, generator=rng), dim=1))


def networks() -> Tensor:
    return TARGET.init(len(TASKS), stream(0, "networks")).requires_grad_()


def test_loss_and_gradient_are_those_of_autograd_on_the_same_images() -> None:
    given, there = networks(), batches()
    (slope,) = torch.autograd.grad(3 * loss_on_images(TARGET, given, there, IMAGES, 0.0, stream(1, "step")), [given])
    loss = loss_on_images(TARGET, given, there, IMAGES, 0.0, stream(1, "step"))
    row, label = next(there.draws(1, IMAGES, stream(1, "step")))
    expected = cross_entropy(TARGET.logits(given, there.features(row), there.texts), there.hidden, label).mean()
    (expected_slope,) = torch.autograd.grad(3 * expected, [given])
    assert torch.allclose(loss, expected, rtol=1e-5)
    assert torch.allclose(slope, expected_slope, rtol=1e-4, atol=1e-6) and expected_slope.abs().max() > 0.01


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_neither_loss_nor_gradient_depends_on_the_number_of_threads(dropout: float) -> None:
    found = []
    for threads in (1, 3):
        given = networks()
        with threaded(threads):
            loss = loss_on_images(TARGET, given, batches(), IMAGES, dropout, stream(1, "step"))
        found.append((loss, *torch.autograd.grad(loss, [given])))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_dropout_changes_images_and_each_step_differently() -> None:
    losses = {
        float(loss_on_images(TARGET, networks().detach(), batches(), IMAGES, dropout, stream(step, "step")))
        for dropout, step in ((0.0, 1), (0.4, 1), (0.4, 2), (0.5, 1))
    }
    assert len(losses) == 4


def test_a_target_that_no_two_threads_may_call_is_given_all_networks_at_once() -> None:
    target, sizes = OneByOne(3, feature_dim=6, text_dim=5), list[int]()
    plain = target.descent

    def descent(weights: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
        sizes.append(len(weights))
        return plain(weights, *given)

    target.descent = descent  # type: ignore[method-assign]
    with threaded(2):
        loss_on_images(target, networks(), batches(), IMAGES, 0.0, stream(1, "step"))
    assert sizes == [len(TASKS)]


@pytest.mark.parametrize(("dropout", "share"), [(0.2, 51 / 256), (0.3, 77 / 256), (0.999, 255 / 256), (0.001, 0.0)])
def test_a_share_of_features_is_left_out_and_the_mean_stays(dropout: float, share: float) -> None:
    factors = kept(torch.empty(333, 1001), dropout, stream(0, "dropout"))
    values = factors.unique().tolist()
    assert values == ([1.0] if share == 0 else [0.0, pytest.approx(1 / (1 - share))])
    assert float((factors == 0).float().mean()) == pytest.approx(share, abs=0.003)
    assert torch.equal(factors, kept(torch.empty(333, 1001), dropout, stream(0, "dropout")))
