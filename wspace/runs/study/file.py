"""A study: one recipe in several variants over several seeds, every member an ordinary run, and one table of them all.

study: t2w                                    # the recipe they all start from: a packaged one, or a file beside this
seeds: [42, 34, 3407]
variants:                                     # name -> what it sets, as `--set` would
  full: {}
  without adversarial: {losses.adversarial: 0}
splits: [seen, unseen-tasks]                  # the table's columns; all there are if left out
rows:                                         # its rows; `methods` of every variant if left out
  - {label: Universal Model, variant: full, method: universal, paper: {unseen-tasks: 56.74}}
methods: [generated, ridge]                   # `generated` if left out
along: train.steps                            # a number that variants set: the page draws accuracy against it

A variant that says `each: {train.steps: [100, 400]}` is one for each value, called `full, 100` and `full, 400`, and the page
draws a line through them. `along: parameters` is how many the generator has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wspace.data.splits import AS_READ, of_ways
from wspace.recipes.bind import bind
from wspace.recipes.registry import Registry
from wspace.recipes.schema import BoundRecipe
from wspace.recipes.source import Source, apply, change, find_recipe, read_recipe
from wspace.runs.report.methods import METRIC, methods_of
from wspace.support.errors import FileError, Problem, RecipeError, UserError, did_you_mean
from wspace.support.invalid import explain_key
from wspace.support.methods import OURS

KEY = "study"
EACH = "each"
PARAMETERS = "parameters"  # of the generator: what accuracy can be drawn against beside settings


class Row(BaseModel):
    """One line of the table."""

    model_config = ConfigDict(extra="forbid", strict=True)

    variant: str
    label: str | None = None
    method: str = OURS
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
    methods: list[str] = Field(default_factory=list)
    along: str | None = None

    def all_rows(self, variants: Iterable[str]) -> list[Row]:
        """The table's, written out for these variants."""
        if self.rows or not self.methods:
            return self.rows or [Row(variant=variant) for variant in variants]
        return [
            Row(variant=variant, method=method, label=f"{method}, {variant}")
            for method in self.methods
            for variant in variants
        ]


@dataclass(frozen=True)
class Variant:
    changes: Mapping[str, Any]
    line: str  # what the file calls it; several are one line where the file gives a setting several values
    setting: str | None = None  # that setting


@dataclass(frozen=True)
class Member:
    variant: str
    seed: int
    recipe: BoundRecipe


@dataclass(frozen=True)
class Along:
    """What a study's variants have different numbers of."""

    path: str  # in a recipe: tasks.known; or PARAMETERS
    values: dict[str, float | None]  # of each variant; None: no limit. None at all for PARAMETERS, which runs tell


@dataclass(frozen=True)
class Study:
    source: str  # where its file was read
    name: str
    seeds: tuple[int, ...]
    splits: tuple[str, ...]
    rows: tuple[Row, ...]
    methods: tuple[str, ...]  # of every variant, if that is what the rows are
    along: Along | None
    lines: dict[str, str]  # of each variant the line it is a point of; none where no line has several
    each: dict[str, str]  # of lines with several: the setting whose value their variants' names end with
    members: tuple[Member, ...] = field(repr=False)  # those of one seed side by side, since they share its zoo


def is_study(source: Source) -> bool:
    return KEY in source.values


# ---------------------------------------------------------------- the file


def bind_study(source: Source, registry: Registry, settings: Sequence[str] = ()) -> Study:
    """Check a study and every recipe that is a member of it.

    `settings` are `--set`s: of the study's own keys, or else of the recipe that all variants start from. Raises
    RecipeError with every problem, each with its line.
    """
    of_study = [setting for setting in settings if _key(setting) in Schema.model_fields]
    others = [setting for setting in settings if setting not in of_study]
    if any(_key(setting) == "seed" for setting in others):
        raise UserError("--set seed: the seeds of a study are its own, as in --set seeds=[42]")
    if of_study:
        source = deepcopy(source)
        change(source, of_study)
    reader = _Reader(source, registry, others)
    schema = reader.schema()
    variants = reader.written_out(schema)
    bound = reader.recipes(schema, variants)
    reader.names(schema, bound, variants)
    reader.opponents(schema, bound)
    along = reader.along(schema, bound, variants)
    if reader.problems:
        raise RecipeError(source.file, reader.problems)
    members = [
        Member(name, seed, reader.member(name, variant.changes, seed))
        for seed in schema.seeds
        for name, variant in variants.items()
    ]
    return Study(
        source.file,
        Path(source.file).stem,
        tuple(schema.seeds),
        tuple(schema.splits),
        tuple(schema.all_rows(variants)),
        tuple(schema.methods),
        along,
        _lines(variants),
        {variant.line: variant.setting for variant in variants.values() if variant.setting is not None},
        tuple(members),
    )


def _lines(variants: Mapping[str, Variant]) -> dict[str, str]:
    """Of each variant the line that it is a point of; {} where no line has several points."""
    lines = {name: variant.line for name, variant in variants.items()}
    return lines if len(set(lines.values())) < len(lines) else {}


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
        self.common: Source | None = None  # the recipe that all variants start from

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

    def written_out(self, schema: Schema) -> dict[str, Variant]:
        """Every variant by name: those of the file, and one for each value where it says `each`."""
        variants: dict[str, Variant] = {}
        for line, changes in schema.variants.items():
            if EACH not in changes:
                variants[line] = Variant(changes, line)
                continue
            each = changes[EACH]
            values = next(iter(each.values())) if isinstance(each, Mapping) and len(each) == 1 else None
            if not isinstance(values, list) or not values:
                self.problem(
                    ("variants", line, EACH),
                    "expected one setting alone, and a list of its values: {train.steps: [10, 20]}",
                )
                continue
            (setting,) = each
            shared = {path: value for path, value in changes.items() if path != EACH}
            for value in values:
                name = f"{line}, {value}"
                if name in variants:
                    self.problem(("variants", line, EACH), f"{setting} is {value!r} twice")
                variants[name] = Variant(shared | {setting: value}, line, setting)
        return variants

    def recipes(self, schema: Schema, variants: Mapping[str, Variant]) -> dict[str, BoundRecipe]:
        """Each variant's, of those that bind; what is wrong with the others is a problem."""
        base = self.base(schema.study)
        if base is None:
            return {}
        self.common = base
        _, inherited = self.bound({})
        recipes: dict[str, BoundRecipe] = {}
        problems_of_variants: list[Problem] = []
        for name, variant in variants.items():
            if "seed" in variant.changes:
                self.problem(("variants", variant.line, "seed"), "the seeds of a study are its own")
            recipe, problems = self.bound(variant.changes)
            problems_of_variants += problems
            for problem in problems:
                if not any(_alike(problem, other) for other in inherited):
                    self.of_variant(name, variant, problem)
            if recipe is None:
                continue
            if METRIC not in [metric.name for metric in recipe.metrics]:
                self.problem(("variants", variant.line), f"its runs would not measure {METRIC}, which the table is of")
            twin = next((other for other, theirs in recipes.items() if theirs.filled == recipe.filled), None)
            if twin is not None:
                self.problem(("variants", variant.line), f"is the same recipe as {twin!r}")
            recipes[name] = recipe
        for problem in inherited:
            if any(_alike(problem, other) for other in problems_of_variants):
                self.problem((KEY,), problem.text(base.file))
        return recipes

    def base(self, name: str) -> Source | None:
        """The recipe that all variants start from, `--set`s applied."""
        beside = Path(self.source.file).parent / name
        try:
            base = read_recipe(beside if beside.is_file() else find_recipe(name))
        except (RecipeError, FileError) as error:
            for line in str(error).splitlines():
                self.problem((KEY,), line)
            return None
        if is_study(base):
            self.problem((KEY,), f"{base.file} is a study itself; name a recipe")
            return None
        change(base, self.settings)
        return base

    def bound(self, changes: Mapping[str, Any]) -> tuple[BoundRecipe | None, list[Problem]]:
        try:
            return bind(self.changed(changes), self.registry), []
        except RecipeError as error:
            return None, error.problems

    def changed(self, changes: Mapping[str, Any]) -> Source:
        """The common recipe, as a variant has it."""
        assert self.common is not None
        recipe = deepcopy(self.common)
        apply(recipe, deepcopy(changes))
        return recipe

    def member(self, variant: str, changes: Mapping[str, Any], seed: int) -> BoundRecipe:
        """A variant's recipe under one seed. Raises RecipeError."""
        recipe = self.changed(changes)
        apply(recipe, {"seed": seed})
        return bind(recipe, self.registry, f"{_slug(variant)}-{seed}")

    def of_variant(self, name: str, variant: Variant, problem: Problem) -> None:
        """At the line of the setting it comes from, or else of the variant."""
        at = next((path for path in variant.changes if f"{problem.where}.".startswith(f"{path}.")), None)
        place = ("variants", variant.line)
        if at is not None:
            place = (*place, at) if at in self.source.values["variants"][variant.line] else (*place, EACH)
        self.problems.append(Problem(self.source.line(place), f"variants.{name}: {problem.where}", problem.message))

    def names(self, schema: Schema, recipes: Mapping[str, BoundRecipe], variants: Mapping[str, Variant]) -> None:
        """Of seeds, variants, splits, methods and rows: none twice, and each of something that is there."""
        for number, seed in enumerate(schema.seeds):
            if seed in schema.seeds[:number]:
                self.problem(("seeds", number), f"{seed} is named twice")
        slugs: dict[str, str] = {}
        for name, variant in variants.items():
            slug = _slug(name)
            if not slug:
                self.problem(("variants", variant.line), "needs a letter or a digit, for a folder")
            elif slug in slugs:
                self.problem(("variants", variant.line), f"too like {slugs[slug]!r} for a folder")
            slugs[slug] = name
        ways = dict.fromkeys(ways for recipe in recipes.values() for ways in recipe.tasks.unseen_ways)
        splits = [*AS_READ, *(split for count in ways for split in of_ways(count))]
        for number, split in enumerate(schema.splits):
            self.check_name(("splits", number), split, splits)
        titles: dict[tuple[str, str], str] = {}
        methods = methods_of(self.registry.all("opponent")).order
        if schema.methods and schema.rows:
            self.problem(
                ("methods",), "these are rows of every variant, and `rows` says itself which there are; leave out one"
            )
        for number, method in enumerate(schema.methods):
            self.check_name(("methods", number), method, methods)
            if method in schema.methods[:number]:
                self.problem(("methods", number), f"{method} is named twice")
        for number, row in enumerate(schema.rows):
            self.check_name(("rows", number, "variant"), row.variant, list(variants))
            self.check_name(("rows", number, "method"), row.method, methods)
            for split in row.paper:
                self.check_name(("rows", number, "paper", split), split, schema.splits or splits)
            if row.title in titles.values():
                self.problem(("rows", number), f"two rows are called {row.title!r}; give this one another label")
            elif (row.variant, row.method) in titles:
                self.problem(("rows", number), f"the same as row {titles[row.variant, row.method]!r}")
            titles[row.variant, row.method] = row.title

    def opponents(self, schema: Schema, recipes: Mapping[str, BoundRecipe]) -> None:
        """Each that a row is about is one of its variant's."""
        known = methods_of(self.registry.all("opponent")).order
        of_rows = [(("rows", number, "method"), row.variant, row.method) for number, row in enumerate(schema.rows)]
        of_all = [(("methods", n), variant, method) for n, method in enumerate(schema.methods) for variant in recipes]
        for path, variant, method in (*of_rows, *of_all):
            if variant in recipes and method in known:
                against = [OURS, *(bound.name for bound in recipes[variant].against)]
                if method not in against:
                    self.problem(path, f"variant {variant!r} does not name {method!r} in its `against`")

    def along(
        self, schema: Schema, recipes: Mapping[str, BoundRecipe], variants: Mapping[str, Variant]
    ) -> Along | None:
        """What accuracy is drawn against: a number above 0 that differs between the variants of a line.

        One of each may have none.
        """
        if schema.along is None:
            return None
        if schema.along == PARAMETERS:
            return Along(PARAMETERS, {})
        lines = _lines(variants)
        values: dict[str, float | None] = {}
        for variant, recipe in recipes.items():
            value: Any = recipe.filled
            for key in schema.along.split("."):
                if not isinstance(value, Mapping) or key not in value:
                    others = (
                        [*value, *([PARAMETERS] if value is recipe.filled else [])]
                        if isinstance(value, Mapping)
                        else []
                    )
                    hint = did_you_mean(key, others)
                    part = "" if key == schema.along else f": no {key!r}"
                    self.problem(("along",), f"the recipe of {variant!r} has no {schema.along!r}{part}.{hint}")
                    return None
                value = value[key]
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value <= 0):
                self.problem(
                    ("along",), f"{schema.along} is {value!r} in {variant!r}, and has to be a number above 0, or null"
                )
                return None
            others = [other for other in values if lines.get(other) == lines.get(variant)]
            twin = next((other for other in others if values[other] == value), None)
            if twin is not None:
                self.problem(("along",), f"{schema.along} is {value!r} in {variant!r}, as in {twin!r}")
                return None
            values[variant] = value
        return Along(schema.along, values)

    def check_name(self, path: tuple[str | int, ...], name: str, names: Sequence[str]) -> None:
        if name not in names:
            self.problem(path, f"no {name!r}.{did_you_mean(name, names)}")


def _alike(problem: Problem, other: Problem) -> bool:
    return (problem.where, problem.message) == (other.where, other.message)


def _explain(detail: Any) -> str:
    return explain_key(detail, "a study", list((Row if detail["loc"][0] == "rows" else Schema).model_fields))
