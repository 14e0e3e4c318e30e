"""The members of a study, run one after the other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wspace.runs import pipeline
from wspace.runs.pipeline import WORKSHOP, Step, Workshop
from wspace.runs.report.study import study_page
from wspace.runs.store import Store
from wspace.runs.study.comparing import compared
from wspace.runs.study.file import Member, Study
from wspace.support.errors import UserError
from wspace.support.files import disk_errors, write_json, write_text
from wspace.support.names import PAGE, REPORT, RUN, STUDY
from wspace.support.progress import Progress


def plan(
    study: Study, runs: Path, force: Sequence[str] = (), *, workshop: Workshop = WORKSHOP
) -> dict[str, list[Step]]:
    """Member -> what a run of the study would do about each stage, those before it done."""
    made: dict[str, Path] = {}
    plans: dict[str, list[Step]] = {}
    for member, store in _stores(study, runs):
        steps: list[Step] = []
        for step in pipeline.steps(member.recipe, store, force, workshop=workshop):
            if step.action == "run" and step.stage.shared and step.key in made:
                steps.append(replace(step, action="link", why=f"made in {made[step.key]}"))
            else:
                steps.append(step)
                made.setdefault(step.key, store.root)
        plans[member.recipe.name] = steps
    return plans


def run(
    study: Study, runs: Path, progress: Progress, force: Sequence[str] = (), *, workshop: Workshop = WORKSHOP
) -> tuple[Path, list[Step]]:
    """Run every member, then compare them. Returns the study's folder and all steps; interrupted, the next call goes on.

    Raises UserError if another process runs it and, before anything is trained, for a variant that would be refused.
    """
    folder = runs / study.name
    pipeline.check_folder(runs)
    if (folder / RUN).is_file():
        raise UserError(
            f"{folder}: a run is there already; give the study's file another name, or --runs another folder"
        )
    plans = plan(study, runs, force, workshop=workshop)  # what is wrong with `force` is said before a folder is made
    members = {f"variant {m.variant!r}": (m.recipe, plans[m.recipe.name]) for m in study.members}
    pipeline.check_untrained(members, progress, workshop)  # a variant once, whatever its seeds
    recipes = [member.recipe for member in study.members]
    with Store(folder).locked():
        # Nothing is written and nothing thrown away before it is known who does the work.
        with pipeline.opened_for(recipes, folder, runs, force, workshop) as engine:
            with disk_errors(folder):
                write_json(folder / STUDY, {"study": study.name, "members": [recipe.name for recipe in recipes]})
            if force:
                mark = str(time.time_ns())
                for member, store in _stores(study, runs):
                    pipeline.discard(member.recipe, store, force, mark, workshop=workshop)
            if engine is not None:
                from wspace.runs.members import run_stage_by_stage  # with torch: not for a study that is done

                run_stage_by_stage(recipes, folder, runs, engine, progress, workshop)
        steps: list[Step] = []
        variants = list(dict.fromkeys(member.variant for member in study.members))
        for member in study.members:
            place = f"variant {variants.index(member.variant) + 1} of {len(variants)}"
            seed = f"seed {study.seeds.index(member.seed) + 1} of {len(study.seeds)}"
            progress.say(f"{member.variant}, seed {member.seed}: {place}, {seed}")
            steps += pipeline.run(member.recipe, folder, progress, all_runs=runs, workshop=workshop)[1]
        report = compared(study, folder)
        with disk_errors(folder):
            write_json(folder / REPORT, report)
            write_text(folder / PAGE, study_page(report))
    return folder, steps


def _stores(study: Study, runs: Path) -> list[tuple[Member, Store]]:
    return [(member, Store(runs / study.name / member.recipe.name, runs)) for member in study.members]
