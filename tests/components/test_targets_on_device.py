"""Networks of each target scored and trained on a device that is not the CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.support.pretended import DEVICE, pretended
from wspace.components.architectures.mlp import MLP
from wspace.components.targets.lora import Lora
from wspace.components.targets.module import Module
from wspace.interfaces import Target

DIMS = {"feature_dim": 12, "text_dim": 6}
TARGETS: dict[str, Target] = {
    "module": Module(MLP((5,), norm="batch"), **DIMS),
    "module with outputs": Module(MLP((5,)), outputs=3, **DIMS),
    "lora": Lora(rank=2, width=4, depth=1, heads=2, **DIMS),
}


def made(target: Target, device: torch.device) -> list[Tensor]:
    """Scores of two networks on three images each, in use and in training; the gradient; and weights calibrated."""
    rng = torch.Generator().manual_seed(0)
    weights = (target.init(2, rng) + 0.1 * torch.randn(2, target.spec.size, generator=rng)).to(device).requires_grad_()
    features, texts = (
        torch.randn(2, n, DIMS[d], generator=rng).to(device) for n, d in ((5, "feature_dim"), (3, "text_dim"))
    )
    scores = target.training_logits(weights, features, texts)
    (gradient,) = torch.autograd.grad(scores.square().sum(), weights)
    weights = weights.detach()
    values = [target.logits(weights, features, texts), scores.detach(), gradient, target.calibrated(weights, features)]
    return [tensor.cpu() for tensor in values]


@pytest.mark.parametrize("name", TARGETS)
def test_networks_compute_there_as_on_the_cpu(name: str) -> None:
    with pretended():
        there = made(TARGETS[name], DEVICE)
    for ours, theirs in zip(there, made(TARGETS[name], torch.device("cpu")), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", TARGETS)
def test_what_networks_share_is_there_from_the_first_step_on(name: str) -> None:
    target, rng = TARGETS[name], torch.Generator().manual_seed(0)
    weights, features, texts = (
        target.init(2, rng),
        torch.randn(2, 5, 12, generator=rng),
        torch.randn(2, 3, 6, generator=rng),
    )
    with pretended() as counts:
        given = [tensor.to(DEVICE) for tensor in (weights, features, texts)]
        target.training_logits(*given)
        before = counts.copies, counts.waited
        target.training_logits(*given)
        target.logits(*given)
    assert (counts.copies, counts.waited) == before
