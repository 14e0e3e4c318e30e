"""Confidence intervals: their coverage, and those over seeds against naive draws."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from wspace.runs.report import intervals
from wspace.runs.report.intervals import interval
from wspace.support.settings import Evaluate


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------- over tasks


def recipe(seed: int = 0, bootstrap: int = 400, confidence: float = 0.95) -> Any:
    return SimpleNamespace(seed=seed, evaluate=Evaluate(bootstrap, confidence))


@pytest.mark.parametrize("confidence", [0.95, 0.6])
def test_the_interval_covers_the_true_mean_as_often_as_it_says(confidence: float) -> None:
    rng, covered = seeded(0), 0
    for trial in range(400):
        values = torch.rand(60, generator=rng) ** 2  # of mean 1/3
        low, high = interval(values, recipe(seed=trial, confidence=confidence))
        covered += low <= 1 / 3 <= high
    assert covered / 400 == pytest.approx(confidence, abs=0.06 if confidence < 0.9 else 0.035)


def test_the_interval_is_as_wide_as_the_normal_one_and_follows_the_seed() -> None:
    values = torch.randn(200, generator=seeded(3), dtype=torch.float64)
    low, high = interval(values, recipe(bootstrap=2000))
    assert high - low == pytest.approx(2 * 1.96 * float(values.std()) / 200**0.5, rel=0.1)
    assert low < float(values.mean()) < high
    assert interval(values, recipe(bootstrap=2000)) == (low, high) != interval(values, recipe(1, 2000))


def test_the_interval_of_equal_values_is_a_point() -> None:
    assert interval(torch.full((5,), 0.25), recipe()) == (0.25, 0.25)
    assert interval(torch.tensor([0.5]), recipe()) == (0.5, 0.5)


# ---------------------------------------------------------------- over seeds


def naive_over_seeds(values: list[Tensor], resamples: int, rng: torch.Generator) -> np.ndarray:
    """The same draws, one at a time."""
    total = np.zeros(resamples)
    for _ in values:
        tasks = [torch.randint(len(own), (resamples, len(own)), generator=rng) for own in values]
        seeds = torch.randint(len(values), (1, resamples), generator=rng)[0]
        for r in range(resamples):
            own = values[int(seeds[r])]
            total[r] += float(np.mean([float(own[int(i)]) for i in tasks[int(seeds[r])][r]]))
    return total / len(values)


def test_the_boundsover_seeds_is_that_of_naive_draws() -> None:
    values = [torch.rand(n, generator=seeded(n)) for n in (5, 7, 6)]
    means = naive_over_seeds(values, 200, seeded(1))
    bounds = intervals.over_seeds(values, 200, 0.9, seeded(1))
    assert bounds == pytest.approx(tuple(np.quantile(means, [0.05, 0.95])), abs=1e-6)


def test_of_one_seed_it_is_the_boundsover_tasks() -> None:
    values = torch.rand(30, generator=seeded(0))
    assert intervals.over_seeds([values], 300, 0.9, seeded(1)) == intervals.over_tasks(values, 300, 0.9, seeded(1))


def test_seeds_that_differ_widen_the_interval() -> None:
    rng = seeded(0)
    alike = [torch.full((50,), 0.5) + 0.01 * torch.randn(50, generator=rng) for _ in range(3)]
    apart = [own + shift for own, shift in zip(alike, (-0.1, 0.0, 0.1), strict=True)]
    narrow = intervals.over_seeds(alike, 1000, 0.95, seeded(0))
    wide = intervals.over_seeds(apart, 1000, 0.95, seeded(0))
    assert narrow[1] - narrow[0] < 0.01 and wide[1] - wide[0] > 0.1


@pytest.mark.parametrize(("of_seeds", "low", "high"), [(0.0, 0.93, 1.0), (1.0, 0.80, 0.95)])
@pytest.mark.slow
def test_intervals_hold_the_truth_about_as_often_as_they_say(of_seeds: float, low: float, high: float) -> None:
    """Six seeds: too wide where seeds do not differ (tasks are drawn twice), too narrow where they alone do."""
    held, rng = 0, seeded(3)
    for _ in range(300):
        means = of_seeds * torch.randn(6, generator=rng)
        values = [mean + torch.randn(20, generator=rng) for mean in means]
        below, above = intervals.over_seeds(values, 200, 0.95, rng)
        held += below <= 0 <= above
    assert low <= held / 300 <= high
