"""AdamW on large matrices whose gradient is a product of two narrow ones: never written down whole, only some rows at a time.

The gradient of a linear map is of the map's own size, and memory is what a step waits for. Some rows of it are made, measured
and descended while they lie in the cache, by each thread for itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.utils.weak import WeakIdKeyDictionary

from wspace.support.slices import even
from wspace.support.threads import by_threads

LARGE = 1 << 20  # values of a matrix, below which its gradient stays in the cache anyway
ROWS = 32  # that are made at a time
Factors = list[tuple[Tensor, Tensor]]
"""Of a gradient (C, Q), each (B, C) and (B, Q): the sum of left.mT @ right."""

_collected: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""Matrix -> its `Factors`, while they are collected."""


def collected(matrix: Tensor) -> Factors | None:
    """Where the factors of this matrix's gradient are to be put, in place of their product; None if that is asked for."""
    return _collected.get(matrix)


class Slabs:
    """Those of an optimiser's parameters that are descended so, on a CPU alone; none without an optimiser."""

    def __init__(self, optimizer: AdamW | None):
        self.optimizer = optimizer
        self.factors: dict[nn.Parameter, Factors] = {
            p: []
            for group in self._groups()
            for p in group["params"]
            if p.ndim == 2 and p.numel() >= LARGE and p.device.type == "cpu" and p.dtype == torch.float32
        }
        self.scratch: dict[tuple[int, int], Tensor] = {}  # of a thread, and of a width

    def _groups(self) -> list[dict[str, Any]]:
        """As they are now: an optimiser that goes on from a state has others."""
        return [] if self.optimizer is None else self.optimizer.param_groups

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Gradients that come inside are collected as factors, where they come as such."""
        for parameter, factors in self.factors.items():
            factors.clear()
            _collected[parameter] = factors
        try:
            yield
        finally:
            for parameter in self.factors:
                del _collected[parameter]

    @torch.no_grad()
    def step(self, loss: Tensor) -> list[Tensor]:
        """AdamW's step on each parameter of which factors were collected; its gradient is then None. Returns their norms, ().

        Where the loss is not a finite number nothing is descended, and gradients are as they would be without this.
        """
        norms = list[Tensor]()
        for group in self._groups():
            for parameter in group["params"]:
                if not (factors := self.factors.get(parameter)):
                    continue
                if torch.isfinite(loss):
                    norms.append(self._descended(parameter, group))
                    parameter.grad = None
                else:
                    whole = torch.stack([left.mT @ right for left, right in factors]).sum(0)
                    parameter.grad = whole if parameter.grad is None else parameter.grad + whole
                factors.clear()
        return norms

    def _descended(self, parameter: nn.Parameter, group: dict[str, Any]) -> Tensor:
        """Returns the norm of its gradient, ()."""
        assert self.optimizer is not None
        state = self.optimizer.state[parameter]
        if not state:  # as AdamW begins, fused
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        lanes = even(len(parameter), min(torch.get_num_threads(), len(parameter)))
        parts = [partial(self._step, parameter, group, state, *each) for each in enumerate(lanes)]
        return torch.stack(by_threads(parts)).sum().sqrt().float()

    @torch.no_grad()
    def _step(
        self, parameter: nn.Parameter, group: dict[str, Any], state: dict[str, Any], number: int, lane: slice
    ) -> Tensor:
        """On some rows of a parameter. Returns the sum of squares of their gradient."""
        factors = self.factors[parameter]
        tensors = (parameter.data, state["exp_avg"], state["exp_avg_sq"])
        values, first, second = (tensor[lane].unbind() for tensor in tensors)
        scratch = self._scratch(number, parameter.shape[1])
        gradient = scratch[:, : parameter.shape[1]]
        gradients, square = gradient.unbind(), torch.zeros((), dtype=torch.double)
        for begin in range(lane.start, lane.stop, ROWS):
            end = min(begin + ROWS, lane.stop)
            count, some, of_lane = end - begin, slice(begin, end), slice(begin - lane.start, end - lane.start)
            for place, (left, right) in enumerate(factors):
                torch.addmm(gradient[:count], left[:, some].mT, right, beta=float(place > 0), out=gradient[:count])
            if parameter.grad is not None:
                gradient[:count].add_(parameter.grad[some])
            square += torch.linalg.vector_norm(scratch[:count]).double().square()
            torch._fused_adamw_(
                values[of_lane],
                gradients[:count],
                first[of_lane],
                second[of_lane],
                [],
                [state["step"]] * count,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )
        return square

    def _scratch(self, number: int, width: int) -> Tensor:
        """(ROWS, width or a little more): each row begins on a line of the cache, and what is beyond `width` is zero."""
        if (number, width) not in self.scratch:
            self.scratch[number, width] = torch.zeros(ROWS, -(-width // 16) * 16)
        return self.scratch[number, width]
