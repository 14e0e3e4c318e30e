"""The schema of a recipe: its slots, in the order of `wspace check --fill`, and what they are once they are checked.

A component becomes a `Bound`: it and its arguments, checked and not built yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

from annotated_types import Ge, MinLen

from wspace.recipes.registry import Component
from wspace.recipes.signature import Signature, settings_signature
from wspace.support import settings
from wspace.support.elsewhere import Address
from wspace.support.parameters import Default, Since

if TYPE_CHECKING:
    from wspace.interfaces import (
        Backbone,
        Conditioner,
        Dataset,
        Discriminator,
        Engine,
        Generator,
        Metric,
        Opponent,
        Symmetry,
        Target,
        Text,
        Tokenizer,
        Tracker,
        Wording,
    )


Interface = TypeVar("Interface")


@dataclass(frozen=True)
class Bound(Generic[Interface]):
    """A component and its arguments, checked; nested components are Bound themselves."""

    component: Component
    signature: Signature
    arguments: dict[str, Any]
    unkeyed: frozenset[str] = frozenset()  # arguments at their default that exist `Since` some version: in no key

    @property
    def name(self) -> str:
        return self.component.name

    def filled(self) -> dict[str, Any]:
        """As a recipe would write it, every default included."""
        return as_written(self)

    def keyed(self) -> dict[str, Any]:
        """As `filled`, without what artifacts made before it existed cannot know; paths stay paths."""
        return as_keyed(self)

    def told(self, *, later: bool = True) -> dict[str, Any]:
        """As `filled`, for others to read: files by their names, without where this machine keeps them.

        `later`: with arguments at their default that came after artifacts were first made.
        """
        return as_written(self, path=lambda path: path.name, later=later)

    def build(self, given: Mapping[str, Any]) -> Interface:
        """Import the class and construct it, with those of the `given` values it asks for.

        Nested components are built first, from the same `given`.
        """
        arguments = {key: _built(value, given) for key, value in self.arguments.items()}
        return self.component.load()(**arguments, **{name: given[name] for name in self.signature.given})


def as_written(value: Any, path: Callable[[Any], Any] = str, later: bool = True) -> Any:
    """An argument as a recipe would write it, paths and addresses as `path` has them.

    Of components, what `later` says in `Bound.told`.
    """
    if isinstance(value, Bound):
        kept = {key: inner for key, inner in value.arguments.items() if later or key not in value.unkeyed}
        return {"use": value.name} | {key: as_written(inner, path, later) for key, inner in kept.items()}
    if isinstance(value, list | tuple):
        return [as_written(inner, path, later) for inner in value]
    return path(value) if isinstance(value, Path | Address) else value


def as_keyed(value: Any) -> Any:
    """An argument as `as_written`, of components what `Bound.keyed` has of them; paths and addresses stay what they are."""
    return as_written(value, path=lambda path: path, later=False)


def _built(value: Any, given: Mapping[str, Any]) -> Any:
    if isinstance(value, Bound):
        return value.build(given)
    if isinstance(value, list | tuple):
        return type(value)(_built(inner, given) for inner in value)
    return value


@dataclass(frozen=True)
class Joined:
    """The joint training that a recipe's generator comes from, in place of one of its own (`wspace.runs.joint.file`)."""

    key: str
    folder: Path


@dataclass(frozen=True)
class Recipe:
    """Everything a run depends on. What the file writes as `{use: NAME, ...}` is a Bound, each section its settings.

    `wspace check RECIPE --fill` prints a recipe with every default written out.
    """

    dataset: Bound[Dataset]
    backbone: Bound[Backbone]
    text: Bound[Text]
    target: Bound[Target]
    tokenizer: Bound[Tokenizer]
    conditioner: Bound[Conditioner]
    generator: Bound[Generator]
    metrics: Annotated[tuple[Bound[Metric], ...], MinLen(1)]
    tasks: settings.Tasks
    zoo: settings.Zoo
    opponents: settings.Opponents
    reconstruction: Annotated[settings.Reconstruction, Since("0.1")]
    train: settings.Train
    losses: settings.Losses
    adversary: settings.Adversary
    task_loss: settings.TaskLoss
    generate: settings.Generate
    evaluate: settings.Evaluate
    symmetry: Bound[Symmetry] | None = None
    wording: Bound[Wording] = Default("template")
    auxiliary: Annotated[
        tuple[Bound[Dataset], ...], Since("0.2")
    ] = ()  # say how words and features go together: no more
    discriminator: Bound[Discriminator] | None = Default("mlp")  # None where nobody registered that one
    against: tuple[Bound[Opponent], ...] = tuple(
        map(
            Default,
            ("oracle", "universal", "base", "zoo-mean", "retrieval", "ridge", "noise", "random", "mismatched"),
        )
    )
    tracker: Annotated[
        tuple[Bound[Tracker], ...], Since("0.2")
    ] = ()  # who is given curves, tables and figures, besides the run's own files
    engine: Annotated[Bound[Engine] | None, Since("0.2")] = Default(
        "local"
    )  # where independent parts of stages are worked off; None: in this process
    seed: Annotated[int, Ge(0)] = 42
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = (
        "float32"  # of the generator's own loss; all else stays in float32. auto: what is faster on the device, measured once
    )


SLOTS = tuple(field.name for field in fields(Recipe))

ONLOOKERS = ("tracker", "engine")
"""Slots that no result depends on: they are in no key, and nothing that a run leaves has them."""

ONLOOKING_SETTINGS = {"train": ("shard_optimizer",)}
"""Slot -> settings of its section of which the same is true."""


@dataclass(frozen=True, kw_only=True)
class BoundRecipe(Recipe):
    """A checked recipe, under the name of its run."""

    name: str  # of the run, and of its folder
    source: str  # where the recipe was read
    joined: Joined | None = None
    unkeyed: frozenset[str] = frozenset()  # slots at their default that exist `Since` some version: in no key

    @cached_property
    def filled(self) -> dict[str, Any]:
        """Slot -> its value as a recipe would write it, every default included."""
        written = {}
        for slot in SLOTS:
            value = getattr(self, slot)
            if settings.is_section(value):
                written[slot] = {name: as_written(inner) for name, inner in vars(value).items()}
            else:
                written[slot] = as_written(value)
        return written

    @property
    def decisive(self) -> dict[str, Any]:
        """As `filled`, without what no result depends on: what a run writes down of its recipe."""
        kept = {slot: value for slot, value in self.filled.items() if slot not in ONLOOKERS}
        for slot, settings_of_it in ONLOOKING_SETTINGS.items():
            kept[slot] = {name: value for name, value in kept[slot].items() if name not in settings_of_it}
        return kept

    def keyed(self, slot: str) -> dict[str, Any]:
        """{slot: its value} as `filled`, without settings at their default that came `Since` artifacts were first made, and
        those that no result depends on. Paths stay paths.
        """
        value = getattr(self, slot)
        if not settings.is_section(value):
            return {} if slot in self.unkeyed else {slot: as_keyed(value)}
        of_all, onlooking = SCHEMA.settable[slot].since, ONLOOKING_SETTINGS.get(slot, ())
        kept = {
            name: as_keyed(getattr(value, name))
            for name, setting in settings_signature(type(value)).settable.items()
            if name not in onlooking and (not (of_all or setting.since) or getattr(value, name) != setting.default)
        }
        return {slot: kept}

    def components(self, slots: Sequence[str], keyed: bool = False) -> list[Bound[Any]]:
        """Every Bound under these slots, outer ones first; `keyed`: those that `keyed` knows."""
        listed: list[Bound[Any]] = []

        def walk(value: Any) -> None:
            if isinstance(value, Bound):
                listed.append(value)
                walk([inner for name, inner in value.arguments.items() if not keyed or name not in value.unkeyed])
            elif isinstance(value, list | tuple):
                for inner in value:
                    walk(inner)

        walk([getattr(self, slot) for slot in slots if not keyed or slot not in self.unkeyed])
        return listed


SCHEMA = settings_signature(Recipe)
