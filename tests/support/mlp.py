"""A target with several hidden layers, one of them square, small enough to go through every permutation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from wspace.interfaces import Target
from wspace.interfaces.weights import WeightEntry, WeightSpec

FEATURES, FIRST, SECOND, TEXTS = 11, 3, 4, 9
DIMS = (FEATURES, TEXTS)
SPEC = WeightSpec(
    (
        WeightEntry("w1", (FEATURES, FIRST), ("feature", "first")),
        WeightEntry("b1", (FIRST,), ("first",)),
        WeightEntry("mix", (FIRST, FIRST), ("first", "first")),
        WeightEntry("w2", (FIRST, SECOND), ("first", "second")),
        WeightEntry("b2", (SECOND,), ("second",)),
        WeightEntry("w3", (SECOND, TEXTS), ("second", "text")),
        WeightEntry("b3", (TEXTS,), ("text",)),
    ),
    free=("first", "second"),
)


def without(name: str, spec: WeightSpec = SPEC) -> WeightSpec:
    return replace(spec, entries=tuple(entry for entry in spec.entries if entry.name != name))


def declared(axes: Mapping[str, tuple[str, ...]], free: tuple[str, ...] = SPEC.free) -> WeightSpec:
    """SPEC with other axes said of some tensors."""
    return WeightSpec(tuple(replace(e, axes=axes.get(e.name, e.axes)) for e in SPEC.entries), free)


class MLP(Target):
    """h = a(x w1 + b1); h = h + a(h mix); scores are those of a(h w2 + b2) w3 + b3 against the texts."""

    def __init__(self, activation: Callable[[Tensor], Tensor] = torch.tanh, spec: WeightSpec = SPEC):
        self.activation, self.spec = activation, spec

    def init(self, count: int, rng: torch.Generator) -> Tensor:
        """Biases start at 0, as many architectures have it."""
        drawn = {e.name: torch.randn(count, *e.shape, generator=rng) / e.shape[0] ** 0.5 for e in self.spec.entries}
        return self.spec.flatten({n: t * 0 if n.startswith("b") else t for n, t in drawn.items()})

    def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:
        w = self.spec.unflatten(weights)
        hidden = self.activation(features @ w["w1"] + w["b1"][:, None])
        if "mix" in w:
            hidden = hidden + self.activation(hidden @ w["mix"])
        hidden = self.activation(hidden @ w["w2"] + w["b2"][:, None])
        return (hidden @ w["w3"] + w["b3"][:, None]) @ texts.mT
