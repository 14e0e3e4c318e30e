"""One generator for several architectures and data sets: members with a zoo each, one training, and an ordinary run of each.

joint: igpg-member                            # the recipe they all start from: a packaged one, or a file beside this
each: {tasks.evaluate: 32}                    # what all of them set
members:                                      # name -> what it sets, as `--set` would; the generator learns from their zoos
  digits-mlp: {target.architecture.of.hidden: [32]}
held_out:                                     # generated and evaluated alike, and never trained on
  digits-deep: {target.architecture.of.hidden: [32, 32, 32]}
"""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wspace import fingerprint, pipeline
from wspace.bind import BoundRecipe, Joined, bind
from wspace.errors import Problem, RecipeError, UserError, did_you_mean
from wspace.progress import Progress
from wspace.recipe import Source, apply, find_recipe, read_recipe
from wspace.registry import Registry
from wspace.store import MANIFEST, STUDY, Store, disk_errors, write_json

KEY = "joint"
REPORT = "report.json"
VERSION = 1  # raised when the joint training computes something else
TRAIN = next(stage for stage in pipeline.STAGES if stage.name == "train")


class Schema(BaseModel):
    """What a joint recipe's file may say."""

    model_config = ConfigDict(extra="forbid")

    joint: str
    each: dict[str, Any] = Field(default_factory=dict)
    members: dict[str, dict[str, Any]] = Field(min_length=1)
    held_out: dict[str, dict[str, Any]] = Field(default_factory=dict)


@dataclass(frozen=True)
class Joint:
    file: str
    name: str
    members: tuple[BoundRecipe, ...] = field(repr=False)
    held_out: tuple[BoundRecipe, ...] = field(repr=False)

    @property
    def key(self) -> str:
        """Of the training: of all members' zoos, and of what a train stage reads."""
        first = pipeline.keys(self.members[0])["train"]
        zoos = {member.name: pipeline.keys(member)["zoo"] for member in self.members}
        return fingerprint.of_json(["joint", VERSION, first, zoos])


def is_joint(source: Source) -> bool:
    return KEY in source.values


def bind_joint(source: Source, registry: Registry, settings: Sequence[str] = ()) -> Joint:
    """Check a joint recipe and every member; `settings` are `--set`s of them all.

    Raises RecipeError with every problem, each with its line.
    """
    schema = _checked(source)
    near = Path(source.file).parent / schema.joint
    base = near if near.is_file() else find_recipe(schema.joint)
    problems: list[Problem] = []
    bound: dict[str, list[BoundRecipe]] = {"members": [], "held_out": []}
    names: set[str] = set()
    for part, own in bound.items():
        for name, changes in getattr(schema, part).items():
            where, line = f"{part}.{name}", source.line((part, name))
            if name in names:
                problems.append(Problem(line, where, "there is a member of this name already"))
            if not re.fullmatch("[a-z0-9][a-z0-9-]*", name):
                problems.append(Problem(line, where, "names a folder: small letters, digits and hyphens"))
            names.add(name)
            recipe = read_recipe(base, settings)
            apply(recipe, deepcopy({**schema.each, **changes}))
            try:
                member = replace(bind(recipe, registry), file=name)
            except RecipeError as error:
                found = [Problem(line, f"{where}: {p.where}", p.message) for p in error.problems]
                problems += [problem for problem in found if problem not in problems]
                continue
            first = next(iter([*bound["members"], member]))
            problems += [Problem(line, where, message) for message in _unlike(first, member)]
            own.append(member)
    if problems:
        raise RecipeError(source.file, problems)
    return Joint(source.file, Path(source.file).stem, tuple(bound["members"]), tuple(bound["held_out"]))


def _checked(source: Source) -> Schema:
    try:
        return Schema.model_validate(source.values)
    except ValidationError as error:
        problems = []
        for detail in error.errors():
            path, message = tuple(detail["loc"]), detail["msg"][0].lower() + detail["msg"][1:]
            if detail["type"] == "extra_forbidden":
                hint = did_you_mean(str(path[-1]), list(Schema.model_fields))
                message = f"a joint recipe takes no {path[-1]!r}.{hint}"
            elif detail["type"] == "missing":
                message = "missing"
            problems.append(Problem(source.line(path), ".".join(map(str, path)), message))
        raise RecipeError(source.file, problems) from error


def _unlike(first: BoundRecipe, member: BoundRecipe) -> list[str]:
    """Why these two cannot have one training."""
    slots = (*TRAIN.reads, "text", "seed", "device")
    found = [
        f"{slot} differs from that of member {first.name!r}: a joint recipe has one generator, and one training of it"
        for slot in slots
        if member.filled[slot] != first.filled[slot]
    ]
    needed = {
        "symmetry": member.symmetry is not None,
        "task_loss.steps": member.task_loss.steps > 0,
        "losses": any(vars(member.losses).values()),
        "train.align": member.train.align,
    }
    return found + [f"{name}: a joint training knows none; leave it out" for name, asked in needed.items() if asked]


# ---------------------------------------------------------------- running


def plan(joint: Joint, runs: Path, force: Sequence[str] = ()) -> dict[str, list[pipeline.Step]]:
    """Member -> what a run would do about each stage, were it the first."""
    folder = runs / joint.name
    return {m.name: pipeline.steps(m, Store(folder / m.name, runs), force) for m in _joined(joint, folder)}


def run(joint: Joint, runs: Path, progress: Progress, force: Sequence[str] = ()) -> tuple[Path, list[pipeline.Step]]:
    """The members' zoos, the training, then all else of each.

    Returns the folder and the members' steps; interrupted, the next call goes on. Raises UserError if another process runs it.
    """
    folder = runs / joint.name
    pipeline.check_folder(runs)
    if (folder / pipeline.RUN).is_file():
        raise UserError(
            f"{folder}: a run is there already; give the recipe's file another name, or --runs another folder"
        )
    plan(joint, runs, force)  # what is wrong with `force` is said before a folder is made
    everyone = _joined(joint, folder)
    with Store(folder).locked():
        with disk_errors(folder):
            write_json(folder / STUDY, {"study": joint.name, "members": [member.name for member in everyone]})
        if force:
            mark = str(time.time_ns())
            for member in everyone:
                pipeline.discard(member, Store(folder / member.name, runs), force, mark)
            if {"zoo", "train"} & set(force):
                Store(folder).discard("train", joint.key, mark)
        steps: list[pipeline.Step] = []
        for member in everyone[: len(joint.members)]:
            progress.say(f"{member.name}: zoo")
            steps += pipeline.run(member, folder, progress, only="zoo", all_runs=runs)[1]
        _train(joint, folder, progress)
        for number, member in enumerate(everyone, start=1):
            progress.say(f"{member.name}: run {number} of {len(everyone)}")
            steps += pipeline.run(member, folder, progress, all_runs=runs)[1]
        report = _report(joint, folder)
        with disk_errors(folder):
            write_json(folder / REPORT, report)
    return folder, steps


def _joined(joint: Joint, folder: Path) -> list[BoundRecipe]:
    """Every member, whose train stage takes the joint training's generator."""
    joined = Joined(joint.key, Store(folder).folder("train", joint.key))
    return [replace(member, joined=joined) for member in (*joint.members, *joint.held_out)]


def _train(joint: Joint, folder: Path, progress: Progress) -> None:
    store, key = Store(folder), joint.key
    if store.manifest("train", key) is not None:
        return
    from wspace.stages.joint import MemberZoo, run

    progress.say(f"train: {len(joint.members)} zoos")
    zoos = [MemberZoo(m.name, m, Store(folder / m.name).folder("zoo", pipeline.keys(m)["zoo"])) for m in joint.members]
    with disk_errors(folder), store.making("train", key) as made:
        started = time.monotonic()
        run(zoos, made, progress)
        manifest: dict[str, Any] = {"stage": "train", "key": key, "members": [zoo.name for zoo in zoos]}
        manifest |= {"seconds": time.monotonic() - started, "made": time.strftime("%Y-%m-%d %H:%M:%S")}
        write_json(made / MANIFEST, manifest | {"sources": {}, "machine": {"system": platform.platform()}})


# ---------------------------------------------------------------- comparing

SHOWN = ("generated", "oracle", "retrieval", "zoo-mean", "ridge", "universal", "random")


def _report(joint: Joint, folder: Path) -> dict[str, Any]:
    """Every member's methods, as the report of a study has them."""
    from wspace.run import report_of
    from wspace.study import CONFIDENCE, METRIC

    rows, differences, training = [], [], []
    for member in (*joint.members, *joint.held_out):
        report = report_of(folder / member.name)
        label = member.name + (" (held out)" if member in joint.held_out else "")
        scores: dict[tuple[str, str], Mapping[str, Any]] = {
            (score["split"], score["method"]): score for score in report["scores"] if score["metric"] == METRIC
        }
        for (split, method), score in scores.items():
            if method in SHOWN:
                about = {"label": f"{label}: {method}", "variant": member.name, "method": method, "split": split}
                rows.append(about | {"metric": METRIC, "paper": None} | _figures(score))
        for row in report["differences"]:
            if row["metric"] == METRIC and row["method"] in SHOWN:
                about = {"label": label, "minus": row["method"], "split": row["split"], "metric": METRIC}
                differences.append(about | _figures(row))
        own = {"variant": member.name, "seed": member.seed} | report["training"]
        training.append(own | {"seconds": report["seconds"]})
    return {
        "study": joint.name,
        "seeds": sorted({member.seed for member in joint.members}),
        "confidence": CONFIDENCE,
        "rows": rows,
        "differences": differences,
        "training": training,
    }


def _figures(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("mean", "ci_low", "ci_high", "n")} | {"seeds": [row["mean"]]}
