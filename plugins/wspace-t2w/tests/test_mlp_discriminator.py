"""The discriminator against the paper's words."""

from __future__ import annotations

import torch
from wspace_t2w.mlp_discriminator import MLP

from wspace.api import TokenLayout


def test_the_mlp_has_the_papers_four_layers_and_a_logit_for_each_network() -> None:
    torch.manual_seed(0)
    layout = TokenLayout(torch.tensor([[True] * 4, [True, True, False, False]]))  # (N, D)
    discriminator = MLP(6, layout=layout)
    layers = [type(layer).__name__ for layer in discriminator.layers]
    assert layers == ["Linear", "ReLU"] * 3 + ["Linear"]
    assert [tuple(layer.weight.shape) for layer in discriminator.layers[::2]] == [(6, 8), (6, 6), (6, 6), (1, 6)]
    logits = discriminator(50 * torch.randn(6, 2, 4) * layout.mask)
    assert logits.shape == (6,) and bool((logits.abs() > 1).any())  # no sigmoid of its own
