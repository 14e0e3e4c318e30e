"""A study: one recipe in several variants over several seeds, every member an ordinary run, and one table of them all.

study: t2w                                    # the recipe they all start from: a packaged one, or a file beside this
seeds: [42, 34, 3407]
variants:                                     # name -> what it sets, as `--set` would
  full: {}
  without adversarial: {losses.adversarial: 0}
splits: [seen, unseen-tasks]                  # the table's columns; all there are if left out
rows:                                         # its rows; `generated` of every variant if left out
  - {label: Universal Model, variant: full, method: universal, paper: {unseen-tasks: 56.74}}
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wspace import pipeline
from wspace.bind import BoundRecipe, bind
from wspace.errors import NotARun, Problem, RecipeError, UserError, did_you_mean
from wspace.progress import Progress
from wspace.recipe import Source, apply, find_recipe, read_recipe
from wspace.registry import Registry
from wspace.store import STUDY, Store, read_json, write_json

if TYPE_CHECKING:
    from torch import Tensor

KEY = "study"
REPORT = "report.json"
METRIC = "accuracy"
RESAMPLES, CONFIDENCE = 2000, 0.95
COMPARED = ("ridge", "universal", "oracle")  # with `generated`, in every variant


class Row(BaseModel):
    """One line of the table."""

    model_config = ConfigDict(extra="forbid")

    variant: str
    label: str | None = None
    method: str = "generated"
    paper: dict[str, float] = Field(default_factory=dict)  # split -> the figure printed beside ours, in %


class Schema(BaseModel):
    """What a study's file may say."""

    model_config = ConfigDict(extra="forbid")

    study: str
    seeds: list[int] = Field(min_length=1)
    variants: dict[str, dict[str, Any]] = Field(min_length=1)
    splits: list[str] = Field(default_factory=list)
    rows: list[Row] = Field(default_factory=list)


@dataclass(frozen=True)
class Member:
    variant: str
    seed: int
    recipe: BoundRecipe


@dataclass(frozen=True)
class Study:
    file: str
    name: str
    seeds: tuple[int, ...]
    splits: tuple[str, ...]
    rows: tuple[Row, ...]
    members: tuple[Member, ...] = field(repr=False)  # those of one seed side by side, since they share its zoo


def is_study(source: Source) -> bool:
    return KEY in source.values


def bind_study(source: Source, registry: Registry, settings: Sequence[str] = ()) -> Study:
    """Check a study and every recipe that is a member of it; `settings` are `--set`s of them all.

    Raises RecipeError with every problem, each with its line.
    """
    schema = _checked(source)
    base = _base(source, schema.study)
    problems: list[Problem] = []
    slugs: dict[str, str] = {}
    for variant in schema.variants:
        slug = _slug(variant)
        if slug in slugs:
            problems.append(
                Problem(
                    source.line(("variants", variant)), f"variants.{variant}", f"too like {slugs[slug]!r} for a folder"
                )
            )
        slugs[slug] = variant
    for number, row in enumerate(schema.rows):
        if row.variant not in schema.variants:
            hint = did_you_mean(row.variant, list(schema.variants))
            problems.append(
                Problem(source.line(("rows", number)), f"rows.{number}.variant", f"no {row.variant!r}.{hint}")
            )
    members = []
    for seed in schema.seeds:
        for variant, changes in schema.variants.items():
            recipe = read_recipe(base, settings)
            apply(recipe, {**changes, "seed": seed})
            try:
                bound = bind(recipe, registry)
            except RecipeError as error:
                line = source.line(("variants", variant))
                found = [Problem(line, f"variants.{variant}: {p.where}", p.message) for p in error.problems]
                problems += [problem for problem in found if problem not in problems]
                continue
            members.append(Member(variant, seed, replace(bound, file=f"{_slug(variant)}-{seed}")))
    if problems:
        raise RecipeError(source.file, problems)
    rows = tuple(schema.rows) or tuple(Row(variant=variant) for variant in schema.variants)
    return Study(source.file, Path(source.file).stem, tuple(schema.seeds), tuple(schema.splits), rows, tuple(members))


def _checked(source: Source) -> Schema:
    try:
        return Schema.model_validate(source.values)
    except ValidationError as error:
        problems = []
        for detail in error.errors():
            path = tuple(detail["loc"])
            message = detail["msg"][0].lower() + detail["msg"][1:]
            if detail["type"] == "extra_forbidden":
                known = list(Row.model_fields if path[0] == "rows" else Schema.model_fields)
                message = f"a study takes no {path[-1]!r}.{did_you_mean(str(path[-1]), known)}"
            elif detail["type"] == "missing":
                message = "missing"
            problems.append(Problem(source.line(path), ".".join(map(str, path)), message))
        raise RecipeError(source.file, problems) from error


def _base(source: Source, name: str) -> Path:
    beside = Path(source.file).parent / name
    return beside if beside.is_file() else find_recipe(name)


def _slug(variant: str) -> str:
    """As a folder's name."""
    return re.sub(r"[^a-z0-9]+", "-", variant.lower()).strip("-")


# ---------------------------------------------------------------- running


def plan(study: Study, runs: Path, force: Sequence[str] = ()) -> dict[str, list[pipeline.Step]]:
    """Member -> what a run would do about each stage, were it the first."""
    folder = runs / study.name
    return {m.recipe.name: pipeline.steps(m.recipe, Store(folder / m.recipe.name), force) for m in study.members}


def run(study: Study, runs: Path, progress: Progress, force: Sequence[str] = ()) -> Path:
    """Run every member, then compare them. Returns the study's folder; interrupted, the next call goes on."""
    folder = runs / study.name
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / STUDY, {"study": study.name, "members": [member.recipe.name for member in study.members]})
    for number, member in enumerate(study.members, start=1):
        progress.say(f"{member.variant}, seed {member.seed}: run {number} of {len(study.members)}")
        pipeline.run(member.recipe, folder, progress, force=force)
    write_json(folder / REPORT, _report(study, folder))
    return folder


def report_of(folder: Path) -> dict[str, Any] | None:
    """The report of a study's folder; None if it is not one. Raises NotARun for one that is not finished."""
    if not (folder / STUDY).is_file():
        return None
    if not (folder / REPORT).is_file():
        raise NotARun(f"{folder}: this study is not finished; run it again, and it goes on")
    report = read_json(folder / REPORT)
    return {"study": report["study"], "run": str(folder)} | report


# ---------------------------------------------------------------- comparing


def _report(study: Study, folder: Path) -> dict[str, Any]:
    scores: dict[str, list[Mapping[str, Tensor]]] = {}  # variant -> of each seed "split/metric/method" -> (B,)
    training: list[dict[str, Any]] = []
    splits = dict.fromkeys(study.splits)
    for member in study.members:
        report, per_task = _of_member(folder / member.recipe.name)
        scores.setdefault(member.variant, []).append(per_task)
        of_member = {"variant": member.variant, "seed": member.seed}
        training.append(of_member | report["training"] | {"seconds": report["seconds"]})
        if not study.splits:
            splits |= dict.fromkeys(score["split"] for score in report["scores"])

    def values(variant: str, method: str, split: str) -> list[Tensor]:
        name = f"{split}/{METRIC}/{method}"
        if any(name not in per_task for per_task in scores[variant]):
            raise UserError(f"{study.file}: the runs of {variant!r} have no {METRIC} of {method!r} on {split!r}")
        return [per_task[name] for per_task in scores[variant]]

    first, *others = study.rows
    asked = {(row.variant, row.method): row.label or row.variant for row in study.rows}
    pairs = [((first.variant, first.method), (row.variant, row.method)) for row in others]
    for variant in scores:
        own = (variant, "generated")
        pairs += [(own, (variant, method)) for method in COMPARED if (variant, method) not in asked]
    rows, differences = [], []
    for split in splits:
        for row in study.rows:
            about = {"label": row.label or row.variant, "variant": row.variant, "method": row.method, "split": split}
            summary = _summary(values(row.variant, row.method, split))
            rows.append(about | {"metric": METRIC} | summary | {"paper": row.paper.get(split)})
        for left, right in pairs:
            own, other = values(*left, split), values(*right, split)
            if all(a.shape == b.shape for a, b in zip(own, other, strict=True)):  # variants may draw other tasks
                names = {"label": asked.get(left, left[0]), "minus": asked.get(right, right[1])}
                summary = _summary([a - b for a, b in zip(own, other, strict=True)])
                differences.append(names | {"split": split, "metric": METRIC} | summary)
    return {
        "study": study.name,
        "seeds": list(study.seeds),
        "confidence": CONFIDENCE,
        "rows": rows,
        "differences": differences,
        "training": training,
    }


def _of_member(folder: Path) -> tuple[dict[str, Any], Mapping[str, Tensor]]:
    from safetensors.torch import load_file

    from wspace.run import report_of as report_of_run
    from wspace.run import stages_of

    return report_of_run(folder), load_file(folder / stages_of(folder)["evaluate"] / "per-task.safetensors")


def _summary(values: Sequence[Tensor]) -> dict[str, Any]:
    from wspace.intervals import over_seeds
    from wspace.seeding import stream

    means = [float(own.mean()) for own in values]
    low, high = over_seeds(values, RESAMPLES, CONFIDENCE, stream(0, "study"))
    return {"mean": sum(means) / len(means), "ci_low": low, "ci_high": high, "seeds": means, "n": len(values[0])}
