"""A mean over tasks and its interval, as reports have them."""

from __future__ import annotations

from torch import Tensor

from wspace.learning.intervals import over_tasks
from wspace.recipes.bind import BoundRecipe
from wspace.support.seeding import stream


def interval(values: Tensor, recipe: BoundRecipe) -> tuple[float, float]:
    settings = recipe.evaluate
    return over_tasks(values, settings.bootstrap, settings.confidence, stream(recipe.seed, "bootstrap"))


def summary(values: Tensor, recipe: BoundRecipe) -> dict[str, float]:
    """Mean over tasks (B,), and its interval."""
    low, high = interval(values, recipe)
    return {"mean": float(values.mean()), "ci_low": low, "ci_high": high, "n": len(values)}
