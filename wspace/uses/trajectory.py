"""Accuracy along denoising (T2W, figure 3) on every split: what the report has of unseen tasks, and the others beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from wspace.errors import UserError
from wspace.run import Run
from wspace.stages.evaluate import along_steps
from wspace.uses import Figure, Row, Section, Table, percent, summary
from wspace.uses.plots import trajectories

Panel = tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]
"""Rows of a split, and its oracle."""


def study(run: Run, *, tasks: int = 32) -> Section:
    """On so many tasks of each split. Raises UserError for a generator that takes no steps."""
    run.zoo.check(run.bench)
    found = {split: _of_split(run, split, tasks) for split in run.zoo.tasks.splits}
    if not any(rows for rows, _ in found.values()):
        raise UserError("plot trajectory: this run's generator takes no steps that could be followed")
    tables, says = [], []
    for split, (rows, oracle) in found.items():
        lines = []
        for temperature in dict.fromkeys(row["temperature"] for row in rows):
            own = [row for row in rows if row["temperature"] == temperature]
            first, last = own[0], own[-1]
            lines.append(Row(f"temperature {temperature:g}", {"first step": first, "last step": last}))
            says.append(
                f"{split}, temperature {temperature:g}: {percent(first)} % after the first step, {percent(last)} % after "
                f"all {last['step']}; the oracle {percent(oracle)} %."
            )
        lines.append(Row("oracle", {"last step": oracle}))
        tables.append(Table(f"{split}: accuracy (%)", {"first step": "percent", "last step": "percent"}, lines))
    confidence = f"{100 * run.recipe.evaluate.confidence:g} %"
    caption = (
        "Accuracy on test images along the denoising steps: after each step, of the heads that would result were it the "
        f"last; mean over {tasks} tasks of each split at most, and its {confidence} interval. Dashed: the oracle."
    )
    figures = (Figure("steps", caption, trajectories(found)),)
    return Section("plot-trajectory", "Along denoising", says, {"tasks": tasks}, tables, figures)


def _of_split(run: Run, split: str, count: int) -> Panel:
    bench, tasks = run.bench, run.zoo.tasks.scored(split)[:count]

    def accuracy(weights: Tensor) -> Tensor:
        return bench.accuracies(weights.cpu(), tasks, bench.test)

    rows = along_steps(run.system, run.prompts(tasks), run.recipe, accuracy, bench.progress)
    return rows, summary(accuracy(run.opponents.oracle(split)[: len(tasks)]), run)
