"""The device that is pretended: torch's rules for a second device hold on it, and what it would be waited for is counted."""

from __future__ import annotations

import pytest
import torch

from tests.support.pretended import DEVICE, pretended


def test_it_computes_as_the_cpu_does_gradients_views_and_optimisers_too() -> None:
    def descended(where: torch.device | str) -> torch.Tensor:
        weights = torch.arange(6.0).view(2, 3).to(where).requires_grad_()
        optimizer = torch.optim.Adam([weights], lr=0.1, fused=True)
        for _ in range(3):
            optimizer.zero_grad()
            (weights.mT @ weights).softmax(1)[:, 0].log().sum().backward()
            optimizer.step()
        weights.detach()[0].add_(1)
        return weights.detach().cpu()

    with pretended():
        there = descended(DEVICE)
    assert torch.equal(there, descended("cpu"))


def test_what_mixes_its_tensors_with_the_cpus_raises_but_not_for_a_number() -> None:
    with pretended():
        there = torch.zeros(2, 3, device=DEVICE)
        for mix in (
            lambda: there + torch.zeros(3),
            lambda: torch.zeros(2)[torch.zeros(1, dtype=torch.long).to(DEVICE)],
        ):
            with pytest.raises(RuntimeError, match="same device"):
                mix()
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(2, generator=torch.Generator(), device=DEVICE)
        assert (there + torch.ones(())).device == DEVICE


def test_what_has_to_wait_for_it_and_what_it_has_to_be_told_is_counted() -> None:
    with pretended() as counted:
        there = torch.arange(4.0).to(DEVICE)
        assert (counted.waited, counted.copies) == (0, 1)
        there[torch.tensor([0, 2])]  # told which ones
        assert (counted.waited, counted.copies) == (0, 2)
        (there * 2 + 1).lerp_(there, 0.5).sum()
        assert (counted.waited, counted.copies) == (0, 2)
        assert float(there.sum()) == 6
        there[there > 1]
        there.nonzero()
        assert there.cpu().tolist() == there.tolist()
    assert counted.waited == 5
    assert counted.waits["to the CPU"] == 2
