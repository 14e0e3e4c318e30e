"""What a component's parameter, or a setting, says beside its type: `Since` when it exists, its `Default` component."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from wspace.support.errors import WspaceError

T = TypeVar("T")


@dataclass(frozen=True)
class Since:
    """`copies: Annotated[int, Ge(1), Since("0.1")] = 1`: artifacts made before this version knew no such setting.

    At its default it is therefore no part of an artifact's key, and what was made before stays valid: the default has to be
    what was computed before. Where it ever becomes something else, the component's or the stage's `version` is raised. On a
    section of a recipe it holds for each of the section's settings.

    """

    version: str  # of the package that the setting is in, wspace or a plugin


@dataclass(frozen=True)
class _Default:
    name: str


def Default(name: str) -> Any:
    """`predictor: Predictor | None = Default("linear")`: the component of this name, with its own defaults.

    A recipe that leaves the parameter out gets it built. In plain Python the constructor gets this mark, which `built` turns
    into the component. `Any`, so that it is of the parameter's type to a type checker.
    """
    return _Default(name)


def is_default(value: object) -> bool:
    """Whether a value is the mark of a `Default`, yet to be built."""
    return isinstance(value, _Default)


@overload
def built(kind: str, value: str, **given: Any) -> Any: ...
@overload
def built(kind: str, value: T, **given: Any) -> T: ...
def built(kind: str, value: Any, **given: Any) -> Any:
    """A parameter's value, as it was passed; the component that a `Default` names, if none was.

    A string names a component as well, with its own defaults: `built("tokenizer", "chunk", spec=spec, text_dim=8)`.
    given: what the run would give that component (`wspace.recipes.registry.GIVEN`); it takes what it asks for.
    Raises UserError for something it asks for and is not `given`, RecipeError for a name that nothing is registered by: of
    a plugin of one file, which only a command line knows, pass the component.
    """
    name = value.name if isinstance(value, _Default) else value
    return _builder(kind, name, given) if isinstance(name, str) else value


Builder = Callable[[str, str, Mapping[str, Any]], Any]  # kind, name, given -> the component


def _unset(kind: str, name: str, given: Mapping[str, Any]) -> Any:
    raise WspaceError(f"nobody said how to build the {kind} {name!r}")


_builder: Builder = _unset


def build_defaults_with(builder: Builder) -> None:
    """Who knows all components says how one is built; this room knows none of them."""
    global _builder
    _builder = builder
