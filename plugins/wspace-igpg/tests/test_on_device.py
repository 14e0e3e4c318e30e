"""A code that is learnt on a device that is not the CPU."""

from __future__ import annotations

import pytest
import torch
from wspace_igpg.weight_codes import WeightCodes

from tests.support.pretended import DEVICE, pretended
from wspace.components.architectures.mlp import MLP
from wspace.components.targets.module import Module
from wspace.support.seeding import on_device, seeded, stream

TARGET = Module(MLP((4,)), feature_dim=5, text_dim=6)


@pytest.mark.parametrize("begin", ["means", "clusters"])
def test_codebooks_shown_networks_on_the_cpu_begin_and_learn_there(begin: str) -> None:
    networks = TARGET.init(1, stream(0, "init")) + torch.randn(12, TARGET.spec.size, generator=stream(0, "noise"))
    with seeded(0):
        code = WeightCodes(8, codebook=16, levels=2, hidden=8, pieces=20, begin=begin, spec=TARGET.spec)  # type: ignore[arg-type]
    with pretended():
        code.fit(networks)
        code.to(DEVICE).train()
        terms = code.loss(networks[:4].to(DEVICE), on_device(DEVICE, stream(0, "loss")))
        sum(terms.values(), torch.zeros((), device=DEVICE)).backward()
        tokens = code.eval().tokenize(networks.to(DEVICE))
        made = code.detokenize(tokens)
    assert made.device == DEVICE and made.shape == networks.shape
