"""A target whose hidden units are products of two, and may be permuted."""

from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional

from wspace.api import Target, WeightEntry, WeightSpec


class Gated(Target):
    """Bilinear gates (Shazeer, 2020, "GLU Variants"): scale * cos((x U * x V) W, texts).

    A hidden unit is a column of U, one of V and a row of W: all three have the axis `hidden`, and it is free.
    """

    def __init__(
        self,
        rank: Annotated[int, Ge(1)] = 16,
        scale: Annotated[float, Gt(0)] = 50.0,
        *,
        feature_dim: int,
        text_dim: int,
    ):
        self.scale = scale
        shapes = {"u": ("feature", "hidden"), "v": ("feature", "hidden"), "w": ("hidden", "text")}
        sizes = {"feature": feature_dim, "hidden": rank, "text": text_dim}
        entries = [WeightEntry(name, tuple(sizes[axis] for axis in axes), axes) for name, axes in shapes.items()]
        self.spec = WeightSpec(tuple(entries), free=("hidden",))

    def init(self, count: int, rng: torch.Generator) -> Tensor:
        drawn = {e.name: torch.randn(count, *e.shape, generator=rng) / e.shape[0] ** 0.5 for e in self.spec.entries}
        return self.spec.flatten(drawn)  # (count, P)

    def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:
        tensors = self.spec.unflatten(weights)
        hidden = (features @ tensors["u"]) * (features @ tensors["v"])  # (B, M, rank)
        seen = functional.normalize(hidden @ tensors["w"], dim=2)  # (B, M, T)
        return self.scale * seen @ texts.mT  # (B, M, K)
