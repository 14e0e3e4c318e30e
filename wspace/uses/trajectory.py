"""Accuracy along denoising (T2W, figure 3) on every split: what the report has of unseen tasks, and the others beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from wspace.runs.report.drawing import INK, TEXT, encoded, new_figure
from wspace.runs.report.figures import TITLES, draw_along_steps
from wspace.runs.report.intervals import summary
from wspace.runs.report.section import Figure, Row, Section, Table, percent
from wspace.runs.run import Run
from wspace.runs.stages.evaluate import along_steps
from wspace.support.errors import UserError
from wspace.support.methods import ORACLE
from wspace.support.quantities import counted

Panel = tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]
"""Rows of a split, and its oracle."""


def study(run: Run, *, tasks: int = 32) -> Section:
    """Accuracy after each denoising step, of the networks that would result were it the last; and the oracle's.

    On at most `tasks` tasks of each split, on test images, in percent.

    Raises UserError for a generator that takes no steps, WspaceError if the run's data are no longer those of its zoo.
    """
    run.zoo.check(run.bench.accepted)
    of_splits = {split: _of_split(run, split, tasks) for split in run.zoo.tasks.splits}
    if not any(rows for rows, _ in of_splits.values()):
        raise UserError("plot trajectory: this run's generator takes no steps that could be followed")
    tables, says = [], []
    for split, (rows, oracle) in of_splits.items():
        lines = []
        for temperature in dict.fromkeys(row["temperature"] for row in rows):
            steps = [row for row in rows if row["temperature"] == temperature]
            first, last = steps[0], steps[-1]
            lines.append(Row(f"temperature {temperature:g}", {"first step": first, "last step": last}))
            says.append(
                f"{split}, temperature {temperature:g}: {percent(first)} % after the first step, {percent(last)} % after "
                f"all {last['step']}; the oracle {percent(oracle)} %."
            )
        lines.append(Row(ORACLE, {"last step": oracle}))
        tables.append(Table(f"{split}: accuracy (%)", {"first step": "percent", "last step": "percent"}, lines))
    confidence = f"{100 * run.recipe.evaluate.confidence:g} %"
    caption = (
        "Accuracy on test images along the denoising steps: after each step, of the heads that would result were it the "
        f"last; mean over {counted(tasks, 'task')} of each split at most, and its {confidence} interval. Dashed: the oracle."
    )
    figures = (Figure("steps", caption, trajectories(of_splits)),)
    return Section("plot-trajectory", "Along denoising", says, {"tasks": tasks}, tables, figures)


def _of_split(run: Run, split: str, count: int) -> Panel:
    bench, tasks = run.bench, run.zoo.tasks.scored(split)[:count]

    def accuracy(weights: Tensor) -> Tensor:
        return bench.accuracies(weights.cpu(), tasks, bench.test)

    rows = along_steps(run.system, run.prompts(tasks), run.recipe, accuracy, bench.progress)
    return rows, summary(accuracy(run.opponents.oracle(split)[: len(tasks)]), run.recipe)


# ---------------------------------------------------------------- drawing


def trajectories(panels: Mapping[str, tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]]) -> str:
    """Accuracy along the denoising steps, a panel for each split: rows and the oracle, as `along_steps` has them."""
    figure = new_figure(3.3, width=7.0)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for panel, (split, (rows, oracle)) in zip(axes, panels.items(), strict=True):
        draw_along_steps(panel, rows, oracle)
        panel.set_title(TITLES.get(split, split), fontsize=TEXT, color=INK, parse_math=False)
    axes[0].set_ylabel("accuracy (%)", fontsize=TEXT, color=INK)
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, frameon=False, fontsize=TEXT)
    return encoded(figure)
