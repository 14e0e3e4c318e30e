"""Ridge regression for every penalty at once, by one eigendecomposition."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PENALTIES = tuple(10.0**power for power in (-4, -3, -2.5, -2, -1.5, -1, -0.5, 0, 0.5, 1, 2))
"""Penalties to choose from."""


@dataclass(frozen=True)
class Ridge:
    """Least squares with an L2 penalty and a free intercept: min |Y - X W - b|^2 / n + penalty * s * |W|^2.

    s is the mean eigenvalue of X's covariance, so a penalty means the same for inputs of any scale.
    """

    mean_x: Tensor  # (C,)
    mean_y: Tensor  # (Q,)
    basis: Tensor  # (C, C), eigenvectors of the covariance of X
    eigenvalues: Tensor  # (C,)
    cross: Tensor  # (C, Q), covariance of (X basis) with Y

    @classmethod
    def fit(cls, x: Tensor, y: Tensor) -> Ridge:
        """(n, C), (n, Q)."""
        mean_x, mean_y = x.mean(0), y.mean(0)
        centered = x - mean_x
        eigenvalues, basis = torch.linalg.eigh((centered.T @ centered / len(x)).double())
        basis = basis.to(x.dtype)
        # mean_y needs no subtracting: centered inputs sum to zero
        cross = basis.T @ (centered.T @ y) / len(x)
        return cls(mean_x, mean_y, basis, eigenvalues.clamp_min(0).to(x.dtype), cross)

    def weight(self, penalty: float) -> Tensor:
        """(C, Q)."""
        return self.basis @ (self.cross / self._shrunk(penalty)[:, None])

    def _shrunk(self, penalty: float) -> Tensor:
        """(C,), what to divide by along each axis of the basis."""
        return (self.eigenvalues + penalty * self.eigenvalues.mean()).clamp_min(1e-12)

    def best_penalty(self, x: Tensor, y: Tensor) -> tuple[float, float]:
        """Of `PENALTIES`, the one of least mean squared error on pairs held out, (m, C) and (m, Q); and that error."""
        errors = {penalty: float((self.predict(x, penalty) - y).square().mean()) for penalty in PENALTIES}
        best = min(errors, key=errors.__getitem__)
        return best, errors[best]

    def predict(self, x: Tensor, penalty: float) -> Tensor:
        """(B, C) -> (B, Q). `weight` is not made for it, which takes as long as hundreds of rows do."""
        return self.mean_y + ((x - self.mean_x) @ self.basis / self._shrunk(penalty)) @ self.cross
