"""CLIP adapter: a two-layer head on frozen image features, scored by cosine against the class texts."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional

from wspace.interfaces import Target
from wspace.interfaces.weights import WeightEntry, WeightSpec


class ClipAdapter(Target):
    """T2W's head (Tian et al., 2025, eq. 15 and listing 1): logits = temperature * cos(act(x W1 + b1) W2 + b2, texts).

    The paper's equation and listing differ: eq. 15 and section 4.1 have no activation, no bias and a plain dot product
    (`activation: none`, `bias: false`); listing 1 has GELU, biases and unit vectors, as here by default. Hidden width is
    16 in the text and 8 in the listing; we take 16. Neither names a temperature: with unit vectors and none, logits
    differ by at most 2 and no head trains, so CLIP's habit of a large fixed one stands here.

    What leaves the function as it is depends on the activation: hidden units may be permuted with any, may change sign
    with `tanh` (not the paper's), and with `none` every change of their basis is allowed (symmetry `gl`).
    """

    outputs: ClassVar[int] = 1  # as listing 1 multiplies, inputs first

    def __init__(
        self,
        rank: Annotated[int, Ge(1)] = 16,
        activation: Literal["gelu", "tanh", "none"] = "gelu",
        bias: bool = True,
        temperature: Annotated[float, Gt(0)] = 50.0,
        *,
        feature_dim: int,
        text_dim: int,
    ):
        self.activation, self.temperature = activation, temperature
        entries = [
            WeightEntry("w1", (feature_dim, rank), ("feature", "hidden")),
            WeightEntry("b1", (rank,), ("hidden",)),
            WeightEntry("w2", (rank, text_dim), ("hidden", "text")),
            WeightEntry("b2", (text_dim,), ("text",)),
        ]
        self.spec = WeightSpec(tuple(e for e in entries if bias or not e.name.startswith("b")), free=("hidden",))

    def init(self, count: int, rng: torch.Generator) -> Tensor:
        """torch.nn.Linear's own initialisation: uniform in +-1/sqrt(fan in)."""
        drawn = {}
        for entry in self.spec.entries:
            fan_in = self.spec.axis_size("feature" if entry.name.endswith("1") else "hidden")
            drawn[entry.name] = (torch.rand(count, *entry.shape, generator=rng) * 2 - 1) * fan_in**-0.5
        return self.spec.flatten(drawn)  # (count, P)

    def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:
        w = self.spec.unflatten(weights)
        hidden = features @ w["w1"]  # (B, M, r)
        if "b1" in w:
            hidden = hidden + w["b1"][:, None]
        if self.activation == "gelu":
            hidden = functional.gelu(hidden)
        elif self.activation == "tanh":
            hidden = hidden.tanh()
        projected = hidden @ w["w2"]  # (B, M, T)
        if "b2" in w:
            projected = projected + w["b2"][:, None]
        norm = projected.norm(dim=-1, keepdim=True).clamp_min(1e-6)  # (B, M, 1)
        return self.temperature * (projected @ texts.mT) / norm  # (B, M, K)
