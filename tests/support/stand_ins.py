"""A target, its group and a discriminator that are no plugin's: what tests of the core need of a kind that has no built-in."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional

from wspace.api import (
    AxisPermutations,
    Discriminator,
    Target,
    TokenLayout,
    WeightEntry,
    WeightSpec,
    affine,
    cosine_scores,
    uniform_by_fan_in,
)
from wspace.recipes.plugins import load_plugins
from wspace.recipes.registry import Component, Registry

ACTIVATIONS = {"gelu": functional.gelu, "tanh": torch.tanh, "none": nn.Identity()}


def registry(files: Iterable[Path] = ()) -> Registry:
    """What is installed, plugins of one file, and these."""
    components = load_plugins(files).registry
    components.add(
        Component("target", "adapter", f"{__name__}:Adapter", "tests", {"rank": 4}),
        Component("symmetry", "units", f"{__name__}:Units", "tests"),
        Component("discriminator", "judge", f"{__name__}:Judge", "tests"),
    )
    return components


class Adapter(Target):
    """temperature * cos(act(x w1 + b1) w2 + b2, texts): two layers, inputs first, and one axis that is free."""

    concurrent: ClassVar[bool] = True
    outputs: ClassVar[int] = 1

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
        entries = (
            WeightEntry("w1", (feature_dim, rank), ("feature", "hidden")),
            WeightEntry("b1", (rank,), ("hidden",)),
            WeightEntry("w2", (rank, text_dim), ("hidden", "text")),
            WeightEntry("b2", (text_dim,), ("text",)),
        )
        self.spec = WeightSpec(tuple(e for e in entries if bias or len(e.shape) == 2), free=("hidden",))

    def init(self, count: int, rng: torch.Generator) -> Tensor:
        fan_in = {name: self.spec.axis_size("feature" if name.endswith("1") else "hidden") for name in self.spec.slices}
        return self.spec.flatten(
            {e.name: uniform_by_fan_in(count, e.shape, fan_in[e.name], rng) for e in self.spec.entries}
        )

    def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:
        w = self.spec.unflatten(weights)
        hidden = ACTIVATIONS[self.activation](affine(features, w["w1"], w.get("b1")))  # (B, M, r)
        return cosine_scores(affine(hidden, w["w2"], w.get("b2")), texts, self.temperature)  # (B, M, K)


class Units(AxisPermutations):
    """S_n of each named axis, or of each that the target calls free."""

    def __init__(self, axes: tuple[str, ...] | None = None, *, spec: WeightSpec):
        super().__init__(spec, axes)


class Judge(Discriminator):
    """Three layers over all of a network's tokens."""

    def __init__(self, width: Annotated[int, Ge(1)] = 64, *, layout: TokenLayout):
        super().__init__()
        sizes = [(layout.mask.numel(), width), (width, width), (width, 1)]
        first, second, last = (nn.Linear(*size) for size in sizes)
        self.layers = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.layers(tokens.flatten(1))[:, 0]  # (B,)
