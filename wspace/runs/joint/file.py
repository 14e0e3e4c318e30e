"""One generator for several architectures and data sets: members with a zoo each, one training, and an ordinary run of each.

joint: igpg-member                            # the recipe they all start from: a packaged one, or a file beside this
each: {tasks.evaluate: 32}                    # what all of them set
members:                                      # name -> what it sets, as `--set` would; the generator learns from their zoos
  digits-mlp: {target.architecture.of.hidden: [32]}
held_out:                                     # generated and evaluated alike, and never trained on
  digits-deep: {target.architecture.of.hidden: [32, 32, 32]}
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wspace.recipes.bind import bind
from wspace.recipes.registry import Registry
from wspace.recipes.schema import BoundRecipe
from wspace.recipes.source import Source, apply, find_recipe, read_recipe
from wspace.runs.keys import keys
from wspace.runs.pipeline import STAGES
from wspace.support import fingerprint
from wspace.support.errors import Problem, RecipeError
from wspace.support.invalid import explain_key

KEY = "joint"
VERSION = 1  # raised when the joint training computes something else
TRAIN = next(stage for stage in STAGES if stage.name == "train")


class Schema(BaseModel):
    """What a joint recipe's file may say."""

    model_config = ConfigDict(extra="forbid")

    joint: str
    each: dict[str, Any] = Field(default_factory=dict)
    members: dict[str, dict[str, Any]] = Field(min_length=1)
    held_out: dict[str, dict[str, Any]] = Field(default_factory=dict)


@dataclass(frozen=True)
class Joint:
    source: str  # where its file was read
    name: str
    members: tuple[BoundRecipe, ...] = field(repr=False)
    held_out: tuple[BoundRecipe, ...] = field(repr=False)

    @property
    def key(self) -> str:
        """Of the training: of all members' zoos, and of what a train stage reads."""
        first = keys(self.members[0], STAGES)["train"]
        zoos = {member.name: keys(member, STAGES)["zoo"] for member in self.members}
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
    common = read_recipe(base, settings)
    problems: list[Problem] = []
    bound: dict[str, list[BoundRecipe]] = {"members": [], "held_out": []}
    names: set[str] = set()
    for part, members in bound.items():
        for name, changes in getattr(schema, part).items():
            where, line = f"{part}.{name}", source.line((part, name))
            if name in names:
                problems.append(Problem(line, where, "there is a member of this name already"))
            if not re.fullmatch("[a-z0-9][a-z0-9-]*", name):
                problems.append(Problem(line, where, "names a folder: small letters, digits and hyphens"))
            names.add(name)
            recipe = deepcopy(common)
            apply(recipe, deepcopy({**schema.each, **changes}))
            try:
                member = bind(recipe, registry, name)
            except RecipeError as error:
                problems_of_member = [Problem(line, f"{where}: {p.where}", p.message) for p in error.problems]
                problems += [problem for problem in problems_of_member if problem not in problems]
                continue
            first = next(iter([*bound["members"], member]))
            problems += [Problem(line, where, message) for message in _unlike(first, member)]
            members.append(member)
    if problems:
        raise RecipeError(source.file, problems)
    return Joint(source.file, Path(source.file).stem, tuple(bound["members"]), tuple(bound["held_out"]))


def _checked(source: Source) -> Schema:
    try:
        return Schema.model_validate(source.values)
    except ValidationError as error:
        problems = []
        for detail in error.errors():
            path, message = detail["loc"], explain_key(detail, "a joint recipe", list(Schema.model_fields))
            problems.append(Problem(source.line(path), ".".join(map(str, path)), message))
        raise RecipeError(source.file, problems) from error


def _unlike(first: BoundRecipe, member: BoundRecipe) -> list[str]:
    """Why these two cannot have one training."""
    slots = (*TRAIN.reads, "text", "seed", "device")
    differing = [
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
    return differing + [f"{name}: a joint training knows none; leave it out" for name, asked in needed.items() if asked]
