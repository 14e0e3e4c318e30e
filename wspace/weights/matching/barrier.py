"""The straight line between two networks: by how much the loss on the way is above that of its ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from wspace.support.errors import UserError
from wspace.weights.modules import copy_of

State = Mapping[str, Tensor]
"""Tensors by name: a module's state, or `WeightSpec.unflatten` of flat weights."""


@dataclass(frozen=True)
class Line:
    """Losses from one network, at alpha = 0, to another, at alpha = 1."""

    alphas: tuple[float, ...]  # from 0 to 1
    losses: tuple[float, ...]  # at each alpha

    @property
    def barrier(self) -> float:
        """The most by which a loss is above the mix of those at the ends; these count too, so it is never below 0.

        Frankle et al., 2020, "Linear Mode Connectivity", and Ainsworth et al., 2022, "Git Re-Basin", section 2, with the
        ends' losses mixed as the weights are.
        """
        first, last = self.losses[0], self.losses[-1]
        return max(loss - (1 - a) * first - a * last for a, loss in zip(self.alphas, self.losses, strict=True))


def straight_line(ours: State, theirs: State, loss: Callable[[State], float], points: int = 25) -> Line:
    """`loss` at so many evenly spaced points, ends included. What is no float (a counter) stays ours."""
    for name, tensor in ours.items():
        if name not in theirs or theirs[name].shape != tensor.shape:
            raise UserError(f"no straight line between these networks: they differ in the shape of {name!r}")
    if points < 3:
        raise UserError("a straight line needs 3 points or more: its ends say nothing of the way")
    alphas = tuple(point / (points - 1) for point in range(points))
    return Line(alphas, tuple(loss(_mixed(ours, theirs, alpha)) for alpha in alphas))


def _mixed(ours: State, theirs: State, alpha: float) -> dict[str, Tensor]:
    return {
        name: tensor.lerp(theirs[name], alpha) if tensor.is_floating_point() else tensor
        for name, tensor in ours.items()
    }


class MeanLoss:
    """Mean loss of a module over labelled batches, for any weights, on a copy of the module.

    Running statistics of batch norm fit no other weights than those they were taken from: for each they are taken anew
    (Jordan et al., 2022, "REPAIR", section 4), from `inputs`, or else from the batches' own. `criterion` gives the mean of a
    batch. Batches are gone through at each call, so no one-way iterator will do.
    """

    def __init__(
        self,
        module: nn.Module,
        batches: Iterable[tuple[Tensor, Tensor]],
        criterion: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy,
        inputs: Iterable[Tensor] | None = None,
    ):
        self._module, self._batches, self._criterion = copy_of(module), batches, criterion
        self._inputs = inputs

    def __call__(self, state: State) -> float:
        """Raises UserError for tensors that the module has not, or if there are no batches."""
        unknown = set(state) - set(self._module.state_dict())
        if unknown:
            raise UserError(f"the module has no tensor {min(unknown)!r}")
        self._module.load_state_dict(state, strict=False)
        take_statistics(self._module, (x for x, _ in self._batches) if self._inputs is None else self._inputs)
        total, count = 0.0, 0
        with torch.no_grad():
            for x, y in self._batches:
                total += float(self._criterion(self._module(x), y)) * len(y)
                count += len(y)
        if not count:
            raise UserError("there are no batches to take a loss over")
        return total / count


def take_statistics(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Running statistics of batch norm anew, each the plain mean over batches; no other layer leaves its mode.

    What torch.optim.swa_utils.update_bn does, but with dropout off where it was.
    """
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not norms:
        return
    before = [(norm.momentum, norm.training) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum, norm.training = None, True
    try:
        with torch.no_grad():
            for inputs in batches:
                module(inputs)
    finally:
        for norm, (momentum, training) in zip(norms, before, strict=True):
            norm.momentum, norm.training = momentum, training
