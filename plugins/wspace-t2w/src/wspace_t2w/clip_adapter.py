"""CLIP adapter: a two-layer head on frozen image features, scored by cosine against the class texts."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional

from wspace.api import Target, WeightEntry, WeightSpec, affine, cosine_scores, uniform_by_fan_in

ACTIVATIONS = {"gelu": functional.gelu, "tanh": torch.tanh, "none": nn.Identity()}


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
            drawn[entry.name] = uniform_by_fan_in(count, entry.shape, fan_in, rng)
        return self.spec.flatten(drawn)  # (count, P)

    def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:
        w = self.spec.unflatten(weights)
        hidden = ACTIVATIONS[self.activation](affine(features, w["w1"], w.get("b1")))  # (B, M, r)
        projected = affine(hidden, w["w2"], w.get("b2"))  # (B, M, T)
        return cosine_scores(projected, texts, self.temperature)  # (B, M, K)

    def plain(self, weights: Tensor) -> nn.Module:
        return Head(self, weights)


class Head(nn.Module):
    """A single adapter, as one writes a single adapter."""

    def __init__(self, target: ClipAdapter, weights: Tensor):
        super().__init__()
        w, bias = target.spec.unflatten(weights), "b1" in target.spec.slices
        self.down, self.up = (nn.Linear(*w[name].shape, bias=bias) for name in ("w1", "w2"))
        self.activation, self.temperature = ACTIVATIONS[target.activation], target.temperature
        state = {"down.weight": w["w1"].mT, "up.weight": w["w2"].mT}
        self.load_state_dict(state | ({"down.bias": w["b1"], "up.bias": w["b2"]} if bias else {}))

    def forward(self, features: Tensor, texts: Tensor) -> Tensor:
        projected = functional.normalize(self.up(self.activation(self.down(features))), dim=1)  # (M, T)
        return self.temperature * projected @ texts.T  # (M, K)
