"""The task that pictures are about, and the networks seen in them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from wspace.data.splits import UNSEEN_TASKS
from wspace.data.tasks import Task
from wspace.runs.run import Run
from wspace.runs.store import intact
from wspace.support.files import read_json
from wspace.support.names import REPORT
from wspace.support.seeding import stream
from wspace.uses.ensemble import oracles


def task_shown(run: Run, classes: Sequence[str] | None) -> Task:
    """Of these classes; else the unseen task whose test pictures are in the report. Raises UserError."""
    if classes is not None:
        return run.task_of(classes)
    number = read_json(intact(run.artifacts["report"], REPORT))["pictures"]["task"]
    return run.zoo.tasks.scored(UNSEEN_TASKS)[number]


def trained(run: Run, task: Task, seed: int) -> Tensor:
    """A network (P,) trained on the task's images: the report's oracle, or one made now as that was."""
    scored = run.zoo.tasks.scored(UNSEEN_TASKS)
    if task in scored:
        return run.opponents.oracle(UNSEEN_TASKS)[scored.index(task)]
    return oracles(run, [task], 1, seed)[0, 0]


def generated(run: Run, task: Task, seed: int) -> Tensor:
    """A network (P,), drawn as the recipe draws."""
    return run.sample([task], stream(seed, "plot"))[0]


def names(run: Run, task: Task) -> str:
    return ", ".join(run.names_of(task))
