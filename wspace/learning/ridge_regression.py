"""Ridge regression for every penalty at once, by one eigendecomposition."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PENALTIES = tuple(10.0**power for power in (-4, -3, -2.5, -2, -1.5, -1, -0.5, 0, 0.5, 1, 2))
"""Penalties to choose from."""

LARGE = 1 << 28
"""Values of a matrix from inputs to outputs, 1 GiB, above which it is kept on the axes that the pairs span alone."""


@dataclass(frozen=True)
class Ridge:
    """Least squares with an L2 penalty and a free intercept: min |Y - X W - b|^2 / n + penalty * s * |W|^2.

    s is the mean eigenvalue of X's covariance, so a penalty means the same for inputs of any scale. A is C; of outputs so many
    that a matrix of C x Q values is `LARGE`, it is at most n - 1: along other axes the pairs do not vary, and the line is flat.
    """

    mean_x: Tensor  # (C,)
    mean_y: Tensor  # (Q,)
    basis: Tensor  # (C, A), eigenvectors of the covariance of X
    eigenvalues: Tensor  # (A,), ascending
    mean_eigenvalue: Tensor  # (), of all C
    cross: Tensor  # (A, Q), covariance of (X basis) with Y

    @classmethod
    def fit(cls, x: Tensor, y: Tensor) -> Ridge:
        """(n, C), (n, Q)."""
        mean_x, mean_y = x.mean(0), y.mean(0)
        centered = x - mean_x
        if is_large(x.shape[1], y.shape[1]):
            _, lengths, axes = torch.linalg.svd(centered.double(), full_matrices=False)
            spanned = slice(max(1, min(len(x) - 1, x.shape[1])))  # descending: the last of n is what centring took
            basis, eigenvalues = axes[spanned].flip(0).mT.to(x.dtype), lengths[spanned].flip(0).square() / len(x)
            cross = (centered @ basis).T @ y / len(x)
            return cls(
                mean_x, mean_y, basis, eigenvalues.to(x.dtype), (eigenvalues.sum() / x.shape[1]).to(x.dtype), cross
            )
        eigenvalues, basis = torch.linalg.eigh((centered.T @ centered / len(x)).double())
        basis = basis.to(x.dtype)
        # mean_y needs no subtracting: centered inputs sum to zero
        cross = basis.T @ (centered.T @ y) / len(x)
        eigenvalues = eigenvalues.clamp_min(0).to(x.dtype)
        return cls(mean_x, mean_y, basis, eigenvalues, eigenvalues.mean(), cross)

    def weight(self, penalty: float) -> Tensor:
        """(C, Q)."""
        return self.basis @ self.on_axes(penalty)

    def on_axes(self, penalty: float) -> Tensor:
        """(A, Q), the same of inputs along the axes of the basis."""
        return self.cross / self._shrunk(penalty)[:, None]

    def _shrunk(self, penalty: float) -> Tensor:
        """(A,), what to divide by along each axis of the basis."""
        return (self.eigenvalues + penalty * self.mean_eigenvalue).clamp_min(1e-12)

    def best_penalty(self, x: Tensor, y: Tensor) -> tuple[float, float]:
        """Of `PENALTIES`, the one of least mean squared error on pairs held out, (m, C) and (m, Q); and that error."""
        errors = {penalty: float((self.predict(x, penalty) - y).square().mean()) for penalty in PENALTIES}
        best = min(errors, key=errors.__getitem__)
        return best, errors[best]

    def predict(self, x: Tensor, penalty: float) -> Tensor:
        """(B, C) -> (B, Q). `weight` is not made for it, which takes as long as hundreds of rows do."""
        return self.mean_y + ((x - self.mean_x) @ self.basis / self._shrunk(penalty)) @ self.cross


def is_large(inputs: int, outputs: int) -> bool:
    """Whether a matrix from so many inputs to so many outputs is."""
    return inputs * outputs > LARGE
