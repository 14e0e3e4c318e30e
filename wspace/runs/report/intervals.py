"""Confidence intervals by bootstrap: over the tasks of one run, and over seeds and tasks of several."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wspace.recipes.schema import BoundRecipe
from wspace.support.seeding import stream


def interval(values: Tensor, recipe: BoundRecipe) -> tuple[float, float]:
    """Of the mean over tasks (B,), as the recipe's section `evaluate` has it: low, high."""
    settings = recipe.evaluate
    return over_tasks(values, settings.bootstrap, settings.confidence, stream(recipe.seed, "bootstrap"))


def summary(values: Tensor, recipe: BoundRecipe) -> dict[str, float]:
    """Mean over tasks (B,), and its interval."""
    low, high = interval(values, recipe)
    return {"mean": float(values.mean()), "ci_low": low, "ci_high": high, "n": len(values)}


def over_tasks(values: Tensor, resamples: int, confidence: float, rng: torch.Generator) -> tuple[float, float]:
    """Percentile interval of the mean (Efron and Tibshirani, 1993, chapter 13): (B,) -> low, high."""
    return _percentiles(_resampled_means(values, resamples, rng), confidence)


def over_seeds(
    values: Sequence[Tensor], resamples: int, confidence: float, rng: torch.Generator
) -> tuple[float, float]:
    """Of the mean of seeds' means, seeds drawn first and then tasks within each (Davison and Hinkley, 1997, section 3.8).

    (B_s,) of each seed s -> low, high.
    """
    total = torch.zeros(resamples, dtype=torch.float64)
    for _ in values:
        of_seed = torch.stack([_resampled_means(of_one_seed, resamples, rng) for of_one_seed in values])  # (S, R)
        drawn = torch.randint(len(values), (1, resamples), generator=rng)
        total += of_seed.gather(0, drawn)[0]
    return _percentiles(total / len(values), confidence)


def _resampled_means(values: Tensor, resamples: int, rng: torch.Generator) -> Tensor:
    """(B,) -> (R,)."""
    return values.double()[torch.randint(len(values), (resamples, len(values)), generator=rng)].mean(1)


def _percentiles(means: Tensor, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = means.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high
