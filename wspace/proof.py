"""Whether a symmetry is one: f(g·w) = f(w), tried on random weights and inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from wspace.errors import UserError
from wspace.interfaces import Symmetry, Target

TOLERANCE = 1e-4  # relative, float32: an order above rounding, orders below a wrong axis
ELEMENTS, IMAGES, CLASSES = 4, 8, 5


@torch.no_grad()
def symmetry_error(symmetry: Symmetry, target: Target, rng: torch.Generator) -> float:
    """max |f(g·w) - f(w)| / max |f(w)|, over random elements, weights and inputs."""
    weights = target.init(ELEMENTS, rng)
    features, texts = _inputs(target, rng)
    before = target.logits(weights, features, texts)
    after = target.logits(symmetry.act(symmetry.sample(ELEMENTS, rng), weights), features, texts)
    return float((after - before).abs().max() / before.abs().max().clamp_min(1e-12))


def prove(symmetry: Symmetry, target: Target, name: str, rng: torch.Generator) -> None:
    """Raise UserError unless the symmetry leaves the function of random networks of this target as it is."""
    error = symmetry_error(symmetry, target, rng)
    if not error < TOLERANCE:
        raise UserError(
            f"symmetry {name!r}: it changes what this target's networks compute, by {error:.1%} of the largest score"
        )


def _inputs(target: Target, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    features = torch.randn(ELEMENTS, IMAGES, target.spec.axis_size("feature"), generator=rng)
    texts = torch.randn(ELEMENTS, CLASSES, target.spec.axis_size("text"), generator=rng)
    return features, texts
