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
import time
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wspace import pipeline
from wspace.bind import BoundRecipe, bind
from wspace.errors import FileError, NotARun, Problem, RecipeError, UserError, did_you_mean
from wspace.pipeline import Step
from wspace.processes import launched
from wspace.progress import Progress
from wspace.recipe import Source, apply, find_recipe, read_recipe
from wspace.registry import Registry
from wspace.splits import AS_READ, UNSEEN_TASKS
from wspace.store import MANIFEST, STUDY, Store, disk_errors, read_json, write_json
from wspace.table import ORDER

if TYPE_CHECKING:
    from torch import Tensor

    from wspace.tasks import TaskSet

KEY = "study"
REPORT = "report.json"
METRIC = "accuracy"
RESAMPLES, CONFIDENCE = 2000, 0.95
COMPARED = ("ridge", "universal", "oracle")  # with `generated`, in every variant


class Row(BaseModel):
    """One line of the table."""

    model_config = ConfigDict(extra="forbid", strict=True)

    variant: str
    label: str | None = None
    method: str = "generated"
    paper: dict[str, float] = Field(default_factory=dict)  # split -> the figure printed beside ours, in %

    @property
    def title(self) -> str:
        return self.label or self.variant


class Schema(BaseModel):
    """What a study's file may say."""

    model_config = ConfigDict(extra="forbid", strict=True)

    study: str
    seeds: list[Annotated[int, Ge(0)]] = Field(min_length=1)
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


# ---------------------------------------------------------------- the file


def bind_study(source: Source, registry: Registry, settings: Sequence[str] = ()) -> Study:
    """Check a study and every recipe that is a member of it.

    `settings` are `--set`s: of the study's own keys, or else of the recipe that all variants start from. Raises
    RecipeError with every problem, each with its line.
    """
    own = [setting for setting in settings if _key(setting) in Schema.model_fields]
    others = [setting for setting in settings if setting not in own]
    if any(_key(setting) == "seed" for setting in others):
        raise UserError("--set seed: the seeds of a study are its own, as in --set seeds=[42]")
    if own:
        source = read_recipe(Path(source.file), own)
    reader = _Reader(source, registry, others)
    schema = reader.schema()
    bound = reader.recipes(schema)
    reader.names(schema)
    if reader.problems:
        raise RecipeError(source.file, reader.problems)
    members = [
        Member(
            variant,
            seed,
            replace(recipe, file=f"{_slug(variant)}-{seed}", seed=seed, filled=recipe.filled | {"seed": seed}),
        )
        for seed in schema.seeds
        for variant, recipe in bound.items()
    ]
    rows = tuple(schema.rows) or tuple(Row(variant=variant) for variant in schema.variants)
    return Study(source.file, Path(source.file).stem, tuple(schema.seeds), tuple(schema.splits), rows, tuple(members))


def _key(setting: str) -> str:
    return setting.partition("=")[0].strip().partition(".")[0]


def _slug(variant: str) -> str:
    """As a folder's name."""
    return re.sub(r"[\W_]+", "-", variant.lower()).strip("-")


class _Reader:
    """Collects a study's problems."""

    def __init__(self, source: Source, registry: Registry, settings: Sequence[str]):
        self.source, self.registry, self.settings = source, registry, settings
        self.problems: list[Problem] = []

    def problem(self, path: tuple[str | int, ...], message: str) -> None:
        self.problems.append(Problem(self.source.line(path), ".".join(map(str, path)), message))

    def schema(self) -> Schema:
        """What the file says, as far as it can be read. Raises RecipeError if that is not enough to look further."""
        values = self.source.values
        try:
            return Schema.model_validate(values)
        except ValidationError as error:
            wrong = {str(detail["loc"][0]) for detail in error.errors()}
            for detail in error.errors():
                self.problem(tuple(detail["loc"]), _explain(detail))
        if wrong & {KEY, "variants"}:
            raise RecipeError(self.source.file, self.problems)
        left = {key: value for key, value in values.items() if key not in wrong}
        return Schema.model_validate({"seeds": [0]} | left)

    def recipes(self, schema: Schema) -> dict[str, BoundRecipe]:
        """Of each variant, as far as they bind."""
        file = self.base(schema.study)
        if file is None:
            return {}
        _, inherited = self.bound(file, {})
        recipes: dict[str, BoundRecipe] = {}
        found: list[Problem] = []
        for variant, changes in schema.variants.items():
            if "seed" in changes:
                self.problem(("variants", variant, "seed"), "the seeds of a study are its own")
            recipe, problems = self.bound(file, changes)
            found += problems
            for problem in problems:
                if not any(_alike(problem, other) for other in inherited):
                    self.of_variant(variant, changes, problem)
            if recipe is None:
                continue
            if METRIC not in [metric.name for metric in recipe.metrics]:
                self.problem(("variants", variant), f"its runs would not measure {METRIC}, which the table is of")
            twin = next((name for name, other in recipes.items() if other.filled == recipe.filled), None)
            if twin is not None:
                self.problem(("variants", variant), f"is the same recipe as {twin!r}")
            recipes[variant] = recipe
        for problem in inherited:
            if any(_alike(problem, other) for other in found):
                self.problem((KEY,), problem.text(str(file)))
        return recipes

    def base(self, name: str) -> Path | None:
        beside = Path(self.source.file).parent / name
        try:
            file = beside if beside.is_file() else find_recipe(name)
            if not is_study(read_recipe(file)):
                return file
            self.problem((KEY,), f"{file} is a study itself; name a recipe")
        except (RecipeError, FileError) as error:
            for line in str(error).splitlines():
                self.problem((KEY,), line)
        return None

    def bound(self, file: Path, changes: Mapping[str, Any]) -> tuple[BoundRecipe | None, list[Problem]]:
        recipe = read_recipe(file, self.settings)
        apply(recipe, deepcopy(changes))
        try:
            return bind(recipe, self.registry), []
        except RecipeError as error:
            return None, error.problems

    def of_variant(self, variant: str, changes: Mapping[str, Any], problem: Problem) -> None:
        """At the line of the setting it comes from, or else of the variant."""
        at = next((path for path in changes if f"{problem.where}.".startswith(f"{path}.")), None)
        line = self.source.line(("variants", variant) if at is None else ("variants", variant, at))
        self.problems.append(Problem(line, f"variants.{variant}: {problem.where}", problem.message))

    def names(self, schema: Schema) -> None:
        """Of seeds, variants, splits and rows: none twice, and each of something that is there."""
        for number, seed in enumerate(schema.seeds):
            if seed in schema.seeds[:number]:
                self.problem(("seeds", number), f"{seed} is named twice")
        slugs: dict[str, str] = {}
        for variant in schema.variants:
            slug = _slug(variant)
            if not slug:
                self.problem(("variants", variant), "needs a letter or a digit, for a folder")
            elif slug in slugs:
                self.problem(("variants", variant), f"too like {slugs[slug]!r} for a folder")
            slugs[slug] = variant
        for number, split in enumerate(schema.splits):
            self.known(("splits", number), split, AS_READ)
        told: dict[tuple[str, str], str] = {}
        for number, row in enumerate(schema.rows):
            self.known(("rows", number, "variant"), row.variant, list(schema.variants))
            self.known(("rows", number, "method"), row.method, ORDER)
            for split in row.paper:
                self.known(("rows", number, "paper", split), split, schema.splits or AS_READ)
            if row.title in told.values():
                self.problem(("rows", number), f"two rows are called {row.title!r}; give this one another label")
            elif (row.variant, row.method) in told:
                self.problem(("rows", number), f"the same as row {told[row.variant, row.method]!r}")
            told[row.variant, row.method] = row.title

    def known(self, path: tuple[str | int, ...], name: str, names: Sequence[str]) -> None:
        if name not in names:
            self.problem(path, f"no {name!r}.{did_you_mean(name, names)}")


def _alike(problem: Problem, other: Problem) -> bool:
    return (problem.where, problem.message) == (other.where, other.message)


_EXPECTED = {
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "list_type": "a list",
    "string_type": "str",
    "int_type": "int",
    "float_type": "float",
}


def _explain(detail: Any) -> str:
    path, got = detail["loc"], detail["input"]
    if detail["type"] == "extra_forbidden":
        known = Row.model_fields if path[0] == "rows" else Schema.model_fields
        return f"a study takes no {path[-1]!r}.{did_you_mean(str(path[-1]), list(known))}"
    if detail["type"] == "missing":
        return "missing"
    if detail["type"] == "too_short":
        return "name at least one"
    if detail["type"] in _EXPECTED:
        return f"expected {_EXPECTED[detail['type']]}, got {got!r}"
    return f"{detail['msg'].replace('Input should', 'must')}, got {got!r}"


# ---------------------------------------------------------------- running


def plan(study: Study, runs: Path, force: Sequence[str] = ()) -> dict[str, list[Step]]:
    """Member -> what a run of the study would do about each stage, those before it done."""
    made: dict[str, Path] = {}
    plans: dict[str, list[Step]] = {}
    for member, store in _stores(study, runs):
        steps: list[Step] = []
        for step in pipeline.steps(member.recipe, store, force):
            if step.action == "run" and step.stage.shared and step.key in made:
                steps.append(replace(step, action="link", why=f"made in {made[step.key]}"))
            else:
                steps.append(step)
                made.setdefault(step.key, store.root)
        plans[member.recipe.name] = steps
    return plans


def run(study: Study, runs: Path, progress: Progress, force: Sequence[str] = ()) -> tuple[Path, list[Step]]:
    """Run every member, then compare them. Returns the study's folder and all steps; interrupted, the next call goes on.

    Raises UserError if another process runs it.
    """
    folder = runs / study.name
    pipeline.check_folder(runs)
    if launched().count > 1:
        raise UserError(f"{study.file}: the runs of a study take one process each; run it without a launcher")
    if (folder / pipeline.RUN).is_file():
        raise UserError(
            f"{folder}: a run is there already; give the study's file another name, or --runs another folder"
        )
    if force:
        plan(study, runs, force)  # what is wrong with `force` is said before a folder is made
    with Store(folder).locked():
        with disk_errors(folder):
            write_json(
                folder / STUDY, {"study": study.name, "members": [member.recipe.name for member in study.members]}
            )
        if force:
            mark = str(time.time_ns())
            for member, store in _stores(study, runs):
                pipeline.discard(member.recipe, store, force, mark)
        steps: list[Step] = []
        variants = list(dict.fromkeys(member.variant for member in study.members))
        for member in study.members:
            place = f"variant {variants.index(member.variant) + 1} of {len(variants)}"
            seed = f"seed {study.seeds.index(member.seed) + 1} of {len(study.seeds)}"
            progress.say(f"{member.variant}, seed {member.seed}: {place}, {seed}")
            steps += pipeline.run(member.recipe, folder, progress, all_runs=runs)[1]
        report = _report(study, folder)
        with disk_errors(folder):
            write_json(folder / REPORT, report)
    return folder, steps


def _stores(study: Study, runs: Path) -> list[tuple[Member, Store]]:
    return [(member, Store(runs / study.name / member.recipe.name, runs)) for member in study.members]


def report_of(folder: Path) -> dict[str, Any] | None:
    """The report of a study's folder; None if it is not one. Raises NotARun for one that is not finished."""
    if not (folder / STUDY).is_file():
        return None
    if not (folder / REPORT).is_file():
        raise NotARun(f"{folder}: this study is not finished; run it again, and it goes on")
    report = read_json(folder / REPORT)
    return {"study": report["study"], "run": str(folder)} | report


# ---------------------------------------------------------------- comparing


@dataclass(frozen=True)
class Result:
    """What a finished member left."""

    report: Mapping[str, Any]
    scores: Mapping[str, Tensor]  # "split/metric/method" -> (B,)
    tasks: TaskSet
    images: str  # fingerprint
    took: Mapping[str, tuple[str, float]]  # stage -> its artifact's folder, and seconds
    costs: Mapping[str, float]  # of its generator

    @classmethod
    def of(cls, folder: Path) -> Result:
        from safetensors.torch import load_file

        from wspace.run import report_of as report_of_run
        from wspace.run import stages_of
        from wspace.tasks import TaskSet

        stages = stages_of(folder)
        took = {
            stage: (artifact, read_json(folder / artifact / MANIFEST)["seconds"]) for stage, artifact in stages.items()
        }
        scores = load_file(folder / stages["evaluate"] / "per-task.safetensors")
        tasks = TaskSet.load(folder / stages["zoo"] / "tasks.json")
        images = read_json(folder / stages["zoo"] / "world.json")["fingerprints"]["images"]
        costs = {"train_seconds": took["train"][1]}
        trained, drawn = (
            folder / stages["train"] / "generator.safetensors",
            folder / stages["generate"] / "summary.json",
        )
        if trained.is_file():
            costs["bytes"] = trained.stat().st_size
        if drawn.is_file():  # those of earlier versions did not measure it
            costs["seconds_per_network"] = read_json(drawn)["seconds_per_network"]
        return cls(report_of_run(folder), scores, tasks, images, took, costs)

    def pairs_with(self, other: Result, split: str) -> bool:
        """Whether both were scored on the same tasks and images, in the same order."""
        return self.images == other.images and self.tasks.scored(split) == other.tasks.scored(split)


Scored = tuple[str, str]
"""A variant and a method."""


def _report(study: Study, folder: Path) -> dict[str, Any]:
    results = {(m.variant, m.seed): Result.of(folder / m.recipe.name) for m in study.members}
    measured = [{name.partition("/")[0] for name in result.scores} for result in results.values()]
    splits = study.splits or [split for split in AS_READ if all(split in own for own in measured)]

    def values(scored: Scored, split: str) -> list[Tensor]:
        variant, method = scored
        name = f"{split}/{METRIC}/{method}"
        own = [results[variant, seed].scores for seed in study.seeds]
        if any(name not in scores for scores in own):
            raise UserError(f"{study.file}: the runs of {variant!r} have no {METRIC} of {method!r} on {split!r}")
        return [scores[name] for scores in own]

    titles = {(row.variant, row.method): row.title for row in study.rows}
    rows, differences = [], []
    for split in splits:
        for row in study.rows:
            about = {"label": row.title, "variant": row.variant, "method": row.method, "split": split}
            summary = _summary(values((row.variant, row.method), split))
            rows.append(about | {"metric": METRIC} | summary | {"paper": row.paper.get(split)})
        for left, right in _compared(list(titles)):
            if all(results[left[0], seed].pairs_with(results[right[0], seed], split) for seed in study.seeds):
                own, other = values(left, split), values(right, split)
                names = {"label": titles[left], "minus": titles.get(right, f"its {right[1]}")}
                summary = _summary([a - b for a, b in zip(own, other, strict=True)])
                differences.append(names | {"split": split, "metric": METRIC} | summary)
    return {
        "study": study.name,
        "seeds": list(study.seeds),
        "confidence": CONFIDENCE,
        "rows": rows,
        "differences": differences,
        "training": [
            {"variant": variant, "seed": seed} | result.report["training"] | {"seconds": result.report["seconds"]}
            for (variant, seed), result in results.items()
        ],
        "generators": _generators(study, results, splits),
        "seconds": _seconds(results.values()),
    }


def _generators(study: Study, results: Mapping[tuple[str, int], Result], splits: Sequence[str]) -> list[dict[str, Any]]:
    """Of each row about what is generated: how new it is, what training and drawing took, and how large the file is."""
    rows = []
    about = next((split for split in (UNSEEN_TASKS, *splits) if split in splits), None)
    for row in (row for row in study.rows if row.method == "generated"):
        own = [results[row.variant, seed] for seed in study.seeds]
        found: dict[str, Any] = {"label": row.title, "variant": row.variant, "split": about}
        new = [result.scores[name] for result in own if (name := f"{about}/novelty/generated") in result.scores]
        found["novelty"] = _summary(new) if len(new) == len(own) else None
        for cost in ("train_seconds", "seconds_per_network", "bytes"):
            values = [result.costs[cost] for result in own if cost in result.costs]
            found[cost] = sum(values) / len(values) if values else None
        rows.append(found)
    return rows


def _compared(rows: Sequence[Scored]) -> list[tuple[Scored, Scored]]:
    """The first row with each other, and `generated` of each variant with its opponents; what is generated comes first."""
    first, *others = rows
    pairs = [(row, first) if row[1] == "generated" != first[1] else (first, row) for row in others]
    own = [(row, (row[0], method)) for row in rows if row[1] == "generated" for method in COMPARED]
    return list(dict.fromkeys([*pairs, *own]))


def _seconds(results: Iterable[Result]) -> dict[str, float]:
    """Stage -> what its artifacts took, those that several members share counted once."""
    seconds: dict[str, float] = {}
    for stage, (_, took) in dict.fromkeys(place for result in results for place in result.took.items()):
        seconds[stage] = seconds.get(stage, 0.0) + took
    return seconds


def _summary(values: Sequence[Tensor]) -> dict[str, Any]:
    from wspace.intervals import over_seeds
    from wspace.seeding import stream

    means = [float(own.mean()) for own in values]
    low, high = over_seeds(values, RESAMPLES, CONFIDENCE, stream(0, "study"))
    return {"mean": sum(means) / len(means), "ci_low": low, "ci_high": high, "seeds": means, "n": len(values[0])}
