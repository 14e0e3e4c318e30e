"""Closed forms: ridge against a direct solve, baselines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wspace.learning import baselines, ridge_regression
from wspace.learning.ridge_regression import PENALTIES, Ridge


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

    assert baselines.chosen_penalty(weights, pooled, slice(8, 12), 3, accuracy) == PENALTIES[6]
    for predicted, p in zip(tried, PENALTIES, strict=True):
        expected = direct(pooled[:8].numpy(), weights[:8].numpy(), p, pooled[8:11].numpy())
        np.testing.assert_allclose(predicted.numpy(), expected, rtol=1e-6, atol=1e-8)


def test_of_very_many_outputs_only_the_axes_that_the_pairs_span_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = normal(3, 12, seed=2)
    for n in (2, 5, 30):
        x, y = normal(n, 12, seed=n) + 2, normal(n, 4, seed=1)
        monkeypatch.setattr(ridge_regression, "LARGE", 12 * 4)
        whole = Ridge.fit(x, y)
        monkeypatch.setattr(ridge_regression, "LARGE", 12 * 4 - 1)
        thin = Ridge.fit(x, y)
        assert whole.cross.shape == (12, 4) and thin.cross.shape == (min(n - 1, 12), 4)
        for penalty in PENALTIES:
            torch.testing.assert_close(thin.predict(asked, penalty), whole.predict(asked, penalty))
            torch.testing.assert_close(thin.weight(penalty), whole.weight(penalty))
        assert thin.best_penalty(asked, y[:1].expand(3, -1))[0] == whole.best_penalty(asked, y[:1].expand(3, -1))[0]
