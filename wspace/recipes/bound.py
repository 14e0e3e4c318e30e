"""A component of a recipe with its arguments, checked and not built yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from wspace.recipes.registry import Component
from wspace.recipes.signature import Signature

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
        return {"use": self.name} | {key: as_written(value) for key, value in self.arguments.items()}

    def keyed(self) -> dict[str, Any]:
        """As `filled`, without what artifacts made before it existed cannot know; paths stay paths."""
        kept = {key: value for key, value in self.arguments.items() if key not in self.unkeyed}
        return {"use": self.name} | {key: as_keyed(value) for key, value in kept.items()}

    def told(self, *, later: bool = True) -> dict[str, Any]:
        """As `filled`, for others to read: files by their names, without where this machine keeps them.

        `later`: with arguments at their default that came after artifacts were first made.
        """
        kept = {key: value for key, value in self.arguments.items() if later or key not in self.unkeyed}
        return {"use": self.name} | {key: _told(value, later) for key, value in kept.items()}

    def build(self, given: Mapping[str, Any]) -> Interface:
        """Import the class and construct it, with those of the `given` values it asks for.

        Nested components are built first, from the same `given`.
        """
        arguments = {key: _built(value, given) for key, value in self.arguments.items()}
        return self.component.load()(**arguments, **{name: given[name] for name in self.signature.given})


@dataclass(frozen=True)
class Joined:
    """The joint training that a recipe's generator comes from, in place of one of its own (`wspace.runs.joint.file`)."""

    key: str
    folder: Path


def as_written(value: Any) -> Any:
    """An argument as a recipe would write it."""
    if isinstance(value, Bound):
        return value.filled()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [as_written(inner) for inner in value]
    return value


def as_keyed(value: Any) -> Any:
    """An argument as `as_written`, of components what `Bound.keyed` has of them; paths stay paths."""
    if isinstance(value, Bound):
        return value.keyed()
    if isinstance(value, Path):
        return value
    if isinstance(value, list | tuple):
        return [as_keyed(inner) for inner in value]
    return as_written(value)


def _told(value: Any, later: bool) -> Any:
    if isinstance(value, list | tuple):
        return [_told(inner, later) for inner in value]
    return value.told(later=later) if isinstance(value, Bound) else value.name if isinstance(value, Path) else value


def _built(value: Any, given: Mapping[str, Any]) -> Any:
    if isinstance(value, Bound):
        return value.build(given)
    if isinstance(value, list | tuple):
        return type(value)(_built(inner, given) for inner in value)
    return value
