"""Runs that an engine has done whole, or a stage of each: the members of a study, or of a joint recipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from wspace.interfaces import Engine
from wspace.recipes.schema import BoundRecipe
from wspace.runs import pipeline
from wspace.runs.pieces import Noted, answered, bound_of, told_of, work_off
from wspace.runs.pipeline import Workshop
from wspace.runs.store import Store
from wspace.support.progress import Progress
from wspace.support.threads import threaded


def run_elsewhere(
    members: Sequence[BoundRecipe],
    folder: Path,
    runs: Path,
    engine: Engine,
    progress: Progress,
    only: str | None = None,
) -> None:
    """Every member's run, in other processes, which do all of one member's: or its stage `only`.

    Their folders are in `folder`; artifacts are shared with the runs in `runs`.
    """
    threads = torch.get_num_threads()  # what is trained depends on their number
    pieces = [
        told_of(member)
        | {"runs": str(folder.absolute()), "all_runs": str(runs.absolute()), "only": only, "threads": threads}
        for member in members
    ]
    for _ in work_off(engine, do_run, pieces, progress, only or "runs"):
        pass


def run_stage_by_stage(
    members: Sequence[BoundRecipe], folder: Path, runs: Path, engine: Engine, progress: Progress, workshop: Workshop
) -> None:
    """Every artifact that members share once, by whichever has it first; the others link it when they run."""
    for stage in workshop.stages:
        first: dict[str, BoundRecipe] = {}  # by the key of what it makes
        for member in members:
            steps = pipeline.steps(member, Store(folder / member.name, runs), workshop=workshop)
            for step in steps:
                if step.stage.name == stage.name and step.action == "run":
                    first.setdefault(step.key if stage.shared else f"{member.name} {step.key}", member)
        if first:
            run_elsewhere(list(first.values()), folder, runs, engine, progress, stage.name)


def do_run(piece: str) -> str:
    """In another process: the run of a member, or one stage of it."""
    told = json.loads(piece)

    def work(notes: list[str]) -> None:
        with threaded(told["threads"]):
            recipe, runs = bound_of(told), Path(told["runs"])
            pipeline.run(recipe, runs, Noted(notes, recipe.name), only=told["only"], all_runs=Path(told["all_runs"]))

    return answered(told, work)
