"""A recipe's mapping against constructor signatures: a tree of Bound components, or every problem at once.

One rule: the constructor's signature is the schema. A parameter annotated with an interface takes `{use: NAME, ...}` (or
just NAME) from that interface's registry. Nothing is imported or built here.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from wspace.recipes.registry import Component, Registry
from wspace.recipes.signature import (
    SCHEMA_FILE,
    SETTINGS_FILE,
    Section,
    Signature,
    Slot,
    UnreadableSignature,
    read_class,
    signature_of,
)
from wspace.recipes.source import Source
from wspace.support import settings
from wspace.support.errors import Problem, RecipeError, UnknownComponent, did_you_mean


@dataclass(frozen=True)
class Bound:
    """A component and its arguments, checked; nested components are Bound themselves."""

    component: Component
    signature: Signature
    arguments: dict[str, Any]

    @property
    def name(self) -> str:
        return self.component.name

    def filled(self) -> dict[str, Any]:
        """As a recipe would write it, every default included."""
        return {"use": self.name} | {key: _as_written(value) for key, value in self.arguments.items()}

    def told(self) -> dict[str, Any]:
        """As `filled`, for others to read: files by their names, without where this machine keeps them."""
        return {"use": self.name} | {key: _told(value) for key, value in self.arguments.items()}

    def build(self, given: Mapping[str, Any]) -> Any:
        """Import the class and construct it, with those of the `given` values it asks for.

        Nested components are built first, from the same `given`.
        """
        built = {key: _built(value, given) for key, value in self.arguments.items()}
        return self.component.load()(**built, **{name: given[name] for name in self.signature.given})


@dataclass(frozen=True)
class Joined:
    """The joint training that a recipe's generator comes from, in place of one of its own (`wspace.runs.joint.file`)."""

    key: str
    folder: Path


@dataclass(frozen=True)
class BoundRecipe:
    """A checked recipe."""

    file: str
    dataset: Bound
    backbone: Bound
    text: Bound
    target: Bound
    tokenizer: Bound
    conditioner: Bound
    generator: Bound
    metrics: tuple[Bound, ...]
    symmetry: Bound | None
    wording: Bound
    discriminator: Bound
    tasks: settings.Tasks
    zoo: settings.Zoo
    opponents: settings.Opponents
    reconstruction: settings.Reconstruction
    train: settings.Train
    losses: settings.Losses
    adversary: settings.Adversary
    task_loss: settings.TaskLoss
    generate: settings.Generate
    evaluate: settings.Evaluate
    seed: int
    device: str
    precision: str
    filled: dict[str, Any]
    joined: Joined | None = None

    @property
    def name(self) -> str:
        return Path(self.file).stem

    def components(self, slots: Sequence[str]) -> list[Bound]:
        """Every Bound under these slots, outer ones first."""
        found: list[Bound] = []

        def walk(value: Any) -> None:
            if isinstance(value, Bound):
                found.append(value)
                walk(list(value.arguments.values()))
            elif isinstance(value, list | tuple):
                for inner in value:
                    walk(inner)

        walk([getattr(self, slot) for slot in slots])
        return found


def _as_written(value: Any) -> Any:
    if isinstance(value, Bound):
        return value.filled()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_as_written(inner) for inner in value]
    return value


def _told(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_told(inner) for inner in value]
    return value.told() if isinstance(value, Bound) else value.name if isinstance(value, Path) else value


def _built(value: Any, given: Mapping[str, Any]) -> Any:
    if isinstance(value, Bound):
        return value.build(given)
    if isinstance(value, list | tuple):
        return type(value)(_built(inner, given) for inner in value)
    return value


def bind(source: Source, registry: Registry) -> BoundRecipe:
    """Check a whole recipe. Raises RecipeError with every problem, each with its line."""
    binder = _Binder(source, registry)
    signature = read_class(SCHEMA_FILE, "Recipe")
    arguments = binder.arguments(signature, source.values, (), "a recipe")
    if not binder.problems and arguments["symmetry"] is None:
        binder.without_symmetry(arguments["train"], arguments["losses"])
    if not binder.problems:
        binder.sampler(arguments["generator"], arguments["generate"].sampler)
    if binder.problems:
        raise RecipeError(source.file, binder.problems)
    filled = {
        key: {k: _as_written(v) for k, v in vars(value).items()}
        if hasattr(settings, type(value).__name__)
        else _as_written(value)
        for key, value in arguments.items()
    }
    return BoundRecipe(source.file, **arguments, filled=filled)


def bind_example(component: Component, registry: Registry) -> Bound:
    """A component with the arguments it is registered with as an example. Raises RecipeError."""
    block = {**component.example, "use": component.name}
    return bind_one(component.kind, block, registry, f"the example of {component.kind} {component.name!r}")


def bind_one(kind: str, block: Any, registry: Registry, where: str) -> Bound:
    """A component as a recipe would name it, but `where` it stands. Raises RecipeError."""
    binder = _Binder(Source(where, {}), registry)
    bound = binder.component(kind, block, ())
    if bound is None or binder.problems:
        raise RecipeError(where, binder.problems)
    return bound


class _Binder:
    def __init__(self, source: Source, registry: Registry):
        self.source, self.registry = source, registry
        self.problems: list[Problem] = []

    def problem(self, path: tuple[str | int, ...], message: str) -> None:
        where = ".".join(str(key) for key in path)
        self.problems.append(Problem(self.source.line(path), where, message))

    def arguments(
        self, signature: Signature, values: Mapping[str, Any], path: tuple[str | int, ...], owner: str
    ) -> dict[str, Any]:
        known = signature.settable
        for key in values:
            if key in signature.given:
                self.problem((*path, key), "is set by the run; remove it from the recipe")
            elif key not in known:
                self.problem((*path, key), f"{owner} takes no {key!r}.{did_you_mean(key, list(known))}")
        bound = {}
        for name, parameter in known.items():
            if name in values:
                value = values[name]
                if isinstance(parameter.default, str) and isinstance(value, Mapping) and "use" not in value:
                    value = {"use": parameter.default, **value}  # `discriminator.width` of the default discriminator
                bound[name] = self.value(parameter.annotation, value, (*path, name))
            elif not parameter.required:
                # as if it were written out: 1 for a float is 1.0
                bound[name] = self.value(parameter.annotation, parameter.default, (*path, name))
            elif isinstance(parameter.annotation, type) and issubclass(parameter.annotation, Section):
                bound[name] = self.section(parameter.annotation, {}, (*path, name))
            else:
                self.problem((*path, name), f"missing; {owner} needs {name}: {parameter.text}")
        return bound

    def value(self, annotation: Any, value: Any, path: tuple[str | int, ...]) -> Any:
        if isinstance(annotation, type) and issubclass(annotation, Slot):
            return self.component(annotation.kind, value, path)
        if isinstance(annotation, type) and issubclass(annotation, Section):
            return self.section(annotation, value, path)
        if _mentions_slot(annotation):
            return self.composite(annotation, value, path)
        return self.leaf(annotation, value, path)

    def without_symmetry(self, train: settings.Train, losses: settings.Losses) -> None:
        """What a recipe without a symmetry may not ask for."""
        needed = {
            ("train", "augment"): train.augment > 0,
            ("train", "align"): train.align,
            ("losses", "symmetry"): losses.symmetry > 0,
        }
        for path in (path for path, asked in needed.items() if asked):
            name = ".".join(path)
            self.problem(path, f"the recipe names no symmetry; add `symmetry: permutation`, or leave {name} out")

    def sampler(self, generator: Bound, name: str | None) -> None:
        known = generator.signature.samplers
        if name is not None and name not in known:
            hint = did_you_mean(name, list(known)) if known else " It has none to choose from; leave this out."
            self.problem(("generate", "sampler"), f"generator {generator.name!r} has no sampler {name!r}.{hint}")

    def component(self, kind: str, value: Any, path: tuple[str | int, ...]) -> Bound | None:
        block = {"use": value} if isinstance(value, str) else value
        if not isinstance(block, Mapping) or not isinstance(block.get("use"), str):
            self.problem(path, f"expected a {kind}: a name, or {{use: NAME, ...}}, got {value!r}")
            return None
        try:
            component = self.registry.get(kind, block["use"])
            signature = signature_of(component)
        except UnknownComponent as error:
            self.problem((*path, "use"), str(error))
            return None
        except UnreadableSignature as error:
            self.problem((*path, "use"), f"{kind} {block['use']!r} is broken: {error}")
            return None
        arguments = {key: inner for key, inner in block.items() if key != "use"}
        return Bound(component, signature, self.arguments(signature, arguments, path, f"{kind} {component.name!r}"))

    def section(self, annotation: type[Section], value: Any, path: tuple[str | int, ...]) -> Any:
        if not isinstance(value, Mapping):
            self.problem(path, f"expected a mapping, got {value!r}")
            return None
        before = len(self.problems)
        arguments = self.arguments(read_class(SETTINGS_FILE, annotation.settings), value, path, f"{path[-1]!r}")
        return getattr(settings, annotation.settings)(**arguments) if len(self.problems) == before else None

    def composite(self, annotation: Any, value: Any, path: tuple[str | int, ...]) -> Any:
        """`X | None`, `list[X]`, `tuple[X, ...]` of interfaces, and Annotated[...] of these."""
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            inner = self.composite(arguments[0], value, path)
            if isinstance(inner, tuple | list) and not inner:
                self.problem(path, "name at least one")
            return inner
        if origin in (Union, types.UnionType):
            chosen = next(a for a in arguments if a is not type(None))
            return None if value is None else self.value(chosen, value, path)
        if not isinstance(value, list | tuple):
            self.problem(path, f"expected a list, got {value!r}")
            return None
        return tuple(self.value(arguments[0], inner, (*path, index)) for index, inner in enumerate(value))

    def leaf(self, annotation: Any, value: Any, path: tuple[str | int, ...]) -> Any:
        try:
            checked = TypeAdapter(annotation).validate_json(json.dumps(value, allow_nan=False), strict=True)
        except ValidationError as error:
            for inner, message in dict.fromkeys((_index(d), _explain(d)) for d in _relevant(error)):
                self.problem((*path, *inner), message)
            return None
        except (TypeError, ValueError):
            self.problem(path, f"expected a plain finite value, got {value!r}")
            return None
        return _absolute(checked)


def _absolute(value: Any) -> Any:
    """Paths made absolute, those in a list as well."""
    if isinstance(value, list | tuple):
        return type(value)(_absolute(inner) for inner in value)
    return value.expanduser().absolute() if isinstance(value, Path) else value


def _mentions_slot(annotation: Any) -> bool:
    if isinstance(annotation, type):
        return issubclass(annotation, Slot)
    return any(_mentions_slot(inner) for inner in get_args(annotation) if inner is not annotation)


def _relevant(error: ValidationError) -> list[Any]:
    """Of a union's failures, those of the alternatives that are not None."""
    details = error.errors()
    return [d for d in details if d["type"] != "none_required"] or details


_EXPECTED = {
    "int": "int",
    "float": "float",
    "bool": "bool",
    "string": "str",
    "path": "a path",
    "tuple": "a list",
    "list": "a list",
}

_LENGTHS = {
    "missing": "expected a longer list",  # a tuple of fixed length
    "too_short": "expected a list of {min_length} or more",
    "too_long": "expected a list of {max_length} or fewer",
}


def _index(detail: Any) -> tuple[int, ...]:
    """Which item of a list is wrong; () for the list itself, or where there is none."""
    index = tuple(key for key in detail["loc"] if isinstance(key, int))
    return index[:-1] if detail["type"] == "missing" else index


def _explain(detail: Any) -> str:
    got = detail["input"]
    if detail["type"] in _LENGTHS:
        return f"{_LENGTHS[detail['type']].format(**detail.get('ctx', {}))}, got {got!r}"
    if detail["type"] == "literal_error":
        return f"expected one of {detail['ctx']['expected'].replace(' or ', ', ')}, got {got!r}"
    kind = detail["type"].removesuffix("_type").removesuffix("_parsing").removesuffix("_from")
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, got {got!r}"
    message = detail["msg"].replace("Input should", "must")
    return f"{message[0].lower()}{message[1:]}, got {got!r}"
