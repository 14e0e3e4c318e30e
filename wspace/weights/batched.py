"""Many networks at once: each one's own linear maps on its own inputs, its scores, and fresh weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def affine(inputs: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W + b of each network: inputs (B, M, in), matrix (B, in, out), bias (B, out) -> (B, M, out)."""
    outputs = inputs @ matrix  # (B, M, out)
    return outputs if bias is None else outputs + bias[:, None]


def cosine_scores(outputs: Tensor, texts: Tensor, temperature: float) -> Tensor:
    """temperature · cos(output, text): (B, M, T), (B, K, T) -> (B, M, K), logits. Texts are taken to be unit vectors.

    temperature: what cosines are multiplied by, CLIP's logit scale (Radford et al., 2021), without a unit.
    An output of zero scores zero, and its gradient is finite.
    """
    norm = outputs.norm(dim=-1, keepdim=True).clamp_min(1e-6)  # (B, M, 1)
    return temperature * (outputs @ texts.mT) / norm  # (B, M, K)


def uniform_by_fan_in(count: int, shape: tuple[int, ...], fan_in: int, rng: torch.Generator) -> Tensor:
    """(count, *shape), uniform in +-1/sqrt(fan_in): how torch.nn.Linear initialises matrix and bias.

    count: networks. shape: of the tensor in one of them. fan_in: inputs of the layer, 1 or more.
    """
    bound = fan_in**-0.5
    return nn.init.uniform_(torch.empty(count, *shape), -bound, bound, generator=rng)
