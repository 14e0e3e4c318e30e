"""A joint recipe run: the members' zoos, one training, then an ordinary run of each member."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wspace.recipes.schema import BoundRecipe, Joined
from wspace.runs import pipeline
from wspace.runs.joint.comparing import compared
from wspace.runs.joint.file import Joint
from wspace.runs.keys import keys
from wspace.runs.pipeline import STAGES, WORKSHOP, Step, Workshop
from wspace.runs.report.study import study_page
from wspace.runs.store import Store, write_manifest
from wspace.support.errors import UserError
from wspace.support.files import disk_errors, write_json, write_text
from wspace.support.names import PAGE, REPORT, RUN, STUDY
from wspace.support.progress import Progress
from wspace.support.quantities import counted


def plan(
    joint: Joint, runs: Path, force: Sequence[str] = (), *, workshop: Workshop = WORKSHOP
) -> dict[str, list[Step]]:
    """Member -> what a run would do about each stage, were it the first."""
    folder = runs / joint.name
    return {
        m.name: pipeline.steps(m, Store(folder / m.name, runs), force, workshop=workshop)
        for m in _joined(joint, folder)
    }


def run(
    joint: Joint, runs: Path, progress: Progress, force: Sequence[str] = (), *, workshop: Workshop = WORKSHOP
) -> tuple[Path, list[Step]]:
    """The members' zoos, the training, then all else of each.

    Returns the folder and the members' steps; interrupted, the next call goes on. Raises UserError if another process runs it
    and, before anything is trained, for a member that would be refused.
    """
    folder = runs / joint.name
    pipeline.check_folder(runs)
    if (folder / RUN).is_file():
        raise UserError(
            f"{folder}: a run is there already; give the recipe's file another name, or --runs another folder"
        )
    plans = plan(joint, runs, force, workshop=workshop)  # what is wrong with `force` is said before a folder is made
    everyone = _joined(joint, folder)
    pipeline.check_untrained({f"member {m.name!r}": (m, plans[m.name]) for m in everyone}, progress, workshop)
    with Store(folder).locked():
        steps: list[Step] = []
        # Nothing is written and nothing thrown away before it is known who does the work.
        with pipeline.opened_for(everyone, folder, runs, force, workshop) as engine:
            with disk_errors(folder):
                write_json(folder / STUDY, {"study": joint.name, "members": [member.name for member in everyone]})
            if force:
                mark = str(time.time_ns())
                for member in everyone:
                    pipeline.discard(member, Store(folder / member.name, runs), force, mark, workshop=workshop)
                if {"zoo", "train"} & set(force):
                    Store(folder).discard("train", joint.key, mark)
            trained_on = everyone[: len(joint.members)]
            if engine is not None:
                from wspace.runs.members import run_elsewhere

                run_elsewhere(trained_on, folder, runs, engine, progress, "zoo")
            for member in trained_on:
                progress.say(f"{member.name}: zoo")
                steps += pipeline.run(member, folder, progress, only="zoo", all_runs=runs, workshop=workshop)[1]
            _train(joint, folder, progress)
            if engine is not None:
                from wspace.runs.members import run_elsewhere

                run_elsewhere(everyone, folder, runs, engine, progress)
        for number, member in enumerate(everyone, start=1):
            progress.say(f"{member.name}: run {number} of {len(everyone)}")
            steps += pipeline.run(member, folder, progress, all_runs=runs, workshop=workshop)[1]
        report = compared(joint, folder)
        with disk_errors(folder):
            write_json(folder / REPORT, report)
            write_text(folder / PAGE, study_page(report))
    return folder, steps


def _joined(joint: Joint, folder: Path) -> list[BoundRecipe]:
    """Every member, whose train stage takes the joint training's generator."""
    joined = Joined(joint.key, Store(folder).folder("train", joint.key))
    return [replace(member, joined=joined) for member in (*joint.members, *joint.held_out)]


def _train(joint: Joint, folder: Path, progress: Progress) -> None:
    store, key = Store(folder), joint.key
    damage = store.damage("train", key, by_hash=True)
    if store.manifest("train", key) is not None and damage is None:
        return
    from wspace.runs.joint import training

    progress.say(f"train: {counted(len(joint.members), 'zoo')}" + (f": damaged: {damage}" if damage else ""))
    zoos = [
        training.MemberZoo(m.name, m, Store(folder / m.name).folder("zoo", keys(m, STAGES)["zoo"]))
        for m in joint.members
    ]
    with disk_errors(folder), store.making("train", key) as made:
        started = time.monotonic()
        training.run(zoos, made, progress)
        manifest: dict[str, Any] = {"stage": "train", "key": key, "members": [zoo.name for zoo in zoos]}
        manifest |= {"seconds": time.monotonic() - started, "made": time.strftime("%Y-%m-%d %H:%M:%S")}
        write_manifest(made, manifest | {"sources": {}, "machine": {"system": platform.platform()}})
