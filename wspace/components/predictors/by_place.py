"""A linear map that knows which weights are whose: what serves one class is a function of that class's text."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional

from wspace.interfaces import Condition, Predictor, TokenLayout
from wspace.learning.lines import Line
from wspace.learning.ridge_regression import Ridge
from wspace.support.errors import UserError

WHO = "predictor 'by-place'"


class ByPlace(Predictor):
    """For targets whose outputs stand for a task's classes in order: to exchange two classes exchanges two rows.

    Weights that serve one output alone, as a row of the last layer, are linear in that class's token and the mean token of the
    task, by one map for all outputs. The other weights are linear in the mean token. So nothing has to be learnt once for each
    place, as by `linear`, and an order that nobody trained is no harder than one that somebody did. The conditioner's tokens
    are to be the classes', in order, as those of `text-list`, which say the place as well: a place's own part is a bias.

    `of_zoo` is ridge regression, its penalties chosen on held-out tasks; `forward` starts there. Tokens are seen along their
    first `axes` principal axes (n classes at k places span no more than n + k).

    task: whether weights follow the task's mean token, too. If not, all tasks share one network with a row for each class, of
    which a task's are taken in its order.
    """

    def __init__(
        self, axes: Annotated[int, Ge(1)] = 256, task: bool = True, *, layout: TokenLayout, condition_width: int
    ):
        super().__init__()
        self.task = task
        if layout.serves is None or int(layout.serves.max()) < 0:
            raise UserError(
                f"{WHO}: no weight is known to serve one class alone, as in a target with outputs and a tokenizer that is not "
                "lossy; use predictor 'linear'"
            )
        serves, values = layout.serves.flatten(), torch.arange(layout.mask.numel())
        rows = [values[serves == place] for place in range(int(serves.max()) + 1)]
        if len({len(row) for row in rows}) > 1:
            counts = ", ".join(str(len(row)) for row in rows)
            raise UserError(
                f"{WHO}: outputs have unlike numbers of weights of their own ({counts}): use predictor 'linear'"
            )
        axes = min(axes, condition_width)
        shared = values[layout.mask.flatten() & (serves < 0)]
        self.center: Tensor
        self.axes: Tensor
        self.mask: Tensor
        self.rows: Tensor
        self.others: Tensor
        self.register_buffer("mask", layout.mask, persistent=False)  # (N, D)
        self.register_buffer("rows", torch.stack(rows), persistent=False)  # (places, R): token values, flat
        self.register_buffer("others", shared, persistent=False)  # (S,)
        self.register_buffer("center", torch.zeros(condition_width))
        self.register_buffer("axes", torch.eye(condition_width, axes))
        self.register_buffer("spread", torch.ones(()))
        self.of_class = Line(2 * axes + 1, self.rows.shape[1], 2 * axes + 1)
        self.of_task = Line(axes + 1, len(shared), axes + 1)

    @torch.no_grad()
    def fit(self, tokens: Tensor, condition: Condition, held_out: tuple[Tensor, Condition]) -> None:
        self._fit_axes(condition)
        (task, classes), (others_task, others_classes) = self._inputs(condition), self._inputs(held_out[1])
        there, others_there = self._there(condition), self._there(held_out[1])  # (B, places)
        values, others = tokens.flatten(1), held_out[0].flatten(1)
        ridge = Ridge.fit(task, values[:, self.others])
        self.of_task.take(ridge, ridge.best_penalty(others_task, others[:, self.others])[0])
        ridge = Ridge.fit(classes[there], values[:, self.rows][there])
        self.of_class.take(
            ridge, ridge.best_penalty(others_classes[others_there], others[:, self.rows][others_there])[0]
        )
        left = (held_out[0] - self.of_zoo(held_out[1]))[:, self.mask].square().mean().sqrt()
        self.spread.fill_(max(float(left), 1e-6))  # networks all alike leave nothing

    def _fit_axes(self, condition: Condition) -> None:
        tokens = condition.tokens[condition.mask]
        self.center.copy_(tokens.mean(0))
        centered = (tokens - self.center).double()
        basis = torch.linalg.eigh(centered.T @ centered / len(tokens)).eigenvectors  # ascending
        self.axes.copy_(basis[:, -self.axes.shape[1] :])

    def _there(self, condition: Condition) -> Tensor:
        """(B, places): at which places a task has a class."""
        return functional.pad(condition.mask, (0, len(self.rows) - condition.mask.shape[1]))

    def _inputs(self, condition: Condition) -> tuple[Tensor, Tensor]:
        """What the maps see: of each task (B, axes + 1), and of each place (B, places, 2 axes + 1)."""
        count = condition.mask.sum(1, keepdim=True)  # (B, 1)
        along = ((condition.tokens - self.center) @ self.axes) * condition.mask[..., None]  # (B, L, axes)
        task = torch.cat([along.sum(1) / count, 1 / count], dim=1) * self.task
        own = functional.pad(along, (0, 0, 0, len(self.rows) - along.shape[1]))
        return task, torch.cat([own, task[:, None].expand(-1, len(self.rows), -1)], dim=2)

    def _tokens(self, of_task: Tensor, of_class: Tensor) -> Tensor:
        """(B, S), (B, places, R) -> (B, N, D)."""
        flat = of_task.new_zeros(len(of_task), self.mask.numel())
        flat = flat.index_copy(1, self.others, of_task).index_copy(1, self.rows.flatten(), of_class.flatten(1))
        return flat.unflatten(1, self.mask.shape)

    def of_zoo(self, condition: Condition) -> Tensor:
        task, classes = self._inputs(condition)
        return self._tokens(self.of_task.fitted(task), self.of_class.fitted(classes))

    def forward(self, condition: Condition) -> Tensor:
        task, classes = self._inputs(condition)
        return self._tokens(self.of_task.trained(task), self.of_class.trained(classes))
