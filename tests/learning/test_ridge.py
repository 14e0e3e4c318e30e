"""Closed forms and intervals: ridge against a direct solve, baselines, the bootstrap's coverage."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wspace.learning import baselines
from wspace.learning.ridge_regression import PENALTIES, Ridge
from wspace.runs.report.summary import interval
from wspace.support.settings import Evaluate


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def direct(x: np.ndarray, y: np.ndarray, penalty: float, asked: np.ndarray) -> np.ndarray:
    """The normal equations of min |Y - X W - b|^2 / n + penalty s |W|^2, solved for W and b at once."""
    n, width = x.shape
    strength = penalty * np.trace(np.cov(x.T, bias=True).reshape(width, width)) / width
    design = np.hstack([x, np.ones((n, 1))])
    system = design.T @ design / n + strength * np.diag([1.0] * width + [0.0])
    return np.hstack([asked, np.ones((len(asked), 1))]) @ np.linalg.solve(system, design.T @ y / n)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    n=st.integers(3, 12), width=st.integers(1, 8), out=st.integers(1, 4), seed=st.integers(0, 99),
    penalty=st.sampled_from(PENALTIES), scale=st.sampled_from([1e-3, 1.0, 1e3]),
)  # fmt: skip
def test_ridge_is_the_solution_of_the_normal_equations(
    n: int, width: int, out: int, seed: int, penalty: float, scale: float
) -> None:
    x, y, asked = (
        (normal(n, width, seed=seed) + 2) * scale,
        normal(n, out, seed=seed + 1),
        normal(3, width, seed=seed + 2),
    )
    predicted = Ridge.fit(x, y).predict(asked * scale, penalty)
    expected = direct(x.numpy(), y.numpy(), penalty, (asked * scale).numpy())
    np.testing.assert_allclose(predicted.numpy(), expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_a_penalty_means_the_same_for_inputs_of_any_scale() -> None:
    x, y, asked = normal(9, 3, seed=0), normal(9, 2, seed=1), normal(4, 3, seed=2)
    for penalty in (0.01, 1.0):
        torch.testing.assert_close(
            Ridge.fit(x, y).predict(asked, penalty), Ridge.fit(100 * x, y).predict(100 * asked, penalty)
        )


def test_single_precision_is_near_double() -> None:
    x, y, asked = normal(40, 30, seed=0), normal(40, 5, seed=1), normal(4, 30, seed=2)
    for penalty in PENALTIES:
        single = Ridge.fit(x.float(), y.float()).predict(asked.float(), penalty)
        torch.testing.assert_close(single.double(), Ridge.fit(x, y).predict(asked, penalty), rtol=0.02, atol=0.02)


def test_one_network_or_equal_conditions_predict_the_mean() -> None:
    y = normal(4, 3, seed=1)
    for x in (torch.full((4, 2), 0.5, dtype=torch.float64), torch.zeros(4, 2, dtype=torch.float64)):
        torch.testing.assert_close(Ridge.fit(x, y).predict(x + 1, 1.0), y.mean(0).expand(4, -1))
    torch.testing.assert_close(Ridge.fit(y[:1], y[:1]).predict(y, 1.0), y[:1].expand(4, -1))


# ---------------------------------------------------------------- baselines


def test_retrieval_takes_the_weights_of_the_nearest_condition_by_angle() -> None:
    weights, pooled, asked = normal(7, 5, seed=0), normal(7, 3, seed=1), normal(4, 3, seed=2)
    found = baselines.retrieval(weights, pooled, asked)
    for b, a in enumerate(asked.numpy()):
        angles = [np.arccos(a @ p / np.linalg.norm(a) / np.linalg.norm(p)) for p in pooled.numpy()]
        assert torch.equal(found[b], weights[int(np.argmin(angles))])
    assert torch.equal(baselines.retrieval(weights, pooled, 1000 * pooled), weights)


def test_noise_has_the_zoos_own_spread_about_the_nearest_weights() -> None:
    weights = normal(50, 3, seed=0) * torch.tensor([0.1, 1.0, 10.0])
    nearest = weights[:1].expand(20_000, -1)
    drawn = baselines.noise(nearest, weights, seeded(0))
    assert torch.equal(drawn, baselines.noise(nearest, weights, seeded(0)))
    torch.testing.assert_close((drawn - nearest).std(0), weights.std(0), rtol=0.03, atol=0)
    assert ((drawn - nearest).mean(0).abs() < 0.03 * weights.std(0)).all()


def test_the_ridge_baseline_chooses_by_accuracy_without_the_held_out() -> None:
    weights, pooled = normal(12, 4, seed=0), normal(12, 3, seed=1)
    tried: list[Tensor] = []

    def accuracy(predicted: Tensor) -> float:
        tried.append(predicted)
        return -abs(len(tried) - 1 - 6)  # the seventh penalty is the best

    assert baselines.chosen_penalty(weights, pooled, slice(8, 12), accuracy) == PENALTIES[6]
    for predicted, p in zip(tried, PENALTIES, strict=True):
        expected = direct(pooled[:8].numpy(), weights[:8].numpy(), p, pooled[8:].numpy())
        np.testing.assert_allclose(predicted.numpy(), expected, rtol=1e-6, atol=1e-8)


# ---------------------------------------------------------------- intervals


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
    values = normal(200, seed=3)
    low, high = interval(values, recipe(bootstrap=2000))
    assert high - low == pytest.approx(2 * 1.96 * float(values.std()) / 200**0.5, rel=0.1)
    assert low < float(values.mean()) < high
    assert interval(values, recipe(bootstrap=2000)) == (low, high) != interval(values, recipe(1, 2000))


def test_the_interval_of_equal_values_is_a_point() -> None:
    assert interval(torch.full((5,), 0.25), recipe()) == (0.25, 0.25)
    assert interval(torch.tensor([0.5]), recipe()) == (0.5, 0.5)
