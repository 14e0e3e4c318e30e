"""A recipe's mapping against constructor signatures: a tree of Bound components, or every problem at once.

One rule: the constructor's signature is the schema. A parameter annotated with an interface takes `{use: NAME, ...}` (or
just NAME) from that interface's registry. Nothing is imported or built here.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from wspace.recipes.catalogue import in_words
from wspace.recipes.plugins import who_has
from wspace.recipes.registry import Component, Registry
from wspace.recipes.schema import SCHEMA, Bound, BoundRecipe
from wspace.recipes.signature import (
    Parameter,
    Signature,
    Slot,
    UnreadableSignature,
    mentions_slot,
    settings_signature,
    signature_of,
)
from wspace.recipes.source import Source
from wspace.support import settings
from wspace.support.elsewhere import NO_ADDRESS
from wspace.support.errors import Problem, RecipeError, UnknownComponent, UserError, did_you_mean
from wspace.support.files import expanded
from wspace.support.methods import ORACLE, OURS

Section = TypeVar("Section")


def bind(source: Source, registry: Registry, name: str | None = None, *, look: bool = False) -> BoundRecipe:
    """Check a whole recipe. Raises RecipeError with every problem, each with its line.

    name: of its run; that of the file, if none is given. look: for the data, too, where the recipe says where they lie.
    """
    binder = _Binder(source, registry)
    arguments, unkeyed = binder.arguments(SCHEMA, source.values, (), "a recipe")
    if not binder.problems and arguments["symmetry"] is None:
        binder.without_symmetry(arguments["train"], arguments["losses"])
    if not binder.problems and arguments["discriminator"] is None:
        binder.without_discriminator(arguments["losses"])
    if not binder.problems:
        binder.parts(arguments["train"])
        binder.sampler(arguments["generator"], arguments["generate"].sampler)
        binder.opponents(arguments["against"])
        binder.trackers(arguments["tracker"])
        binder.classes(arguments["tasks"])
        binder.pictures(arguments["tasks"], arguments["conditioner"], arguments["against"])
        binder.auxiliary(arguments["auxiliary"], arguments["conditioner"])
        if look:
            binder.data(("dataset",), arguments["dataset"])
            for number, bound in enumerate(arguments["auxiliary"]):
                binder.data(("auxiliary", number), bound)
    if binder.problems:
        raise RecipeError(source.file, binder.problems)
    return BoundRecipe(**arguments, name=name or Path(source.file).stem, source=source.file, unkeyed=unkeyed)


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


def bind_section(section: type[Section], values: Mapping[str, Any], where: str) -> Section:
    """Settings as a recipe's section would have them. Raises UserError with all problems, as of `where`."""
    binder = _Binder(Source(where, {}), Registry())
    bound = binder.section(section, values, (where,))
    if binder.problems:
        raise UserError("\n".join(f"{problem.where}: {problem.message}" for problem in binder.problems))
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
    ) -> tuple[dict[str, Any], frozenset[str]]:
        """Name -> checked value; and those that came `Since` some version and are at their default."""
        parameters = signature.settable
        for key in values:
            if key in signature.given:
                self.problem((*path, key), "is set by the run; remove it from the recipe")
            elif key not in parameters:
                self.problem((*path, key), f"{owner} takes no {key!r}.{did_you_mean(key, list(parameters))}")
        bound, unkeyed = {}, set()
        for name, parameter in parameters.items():
            inner = (*path, name)
            if name in values:
                value = values[name]
                if isinstance(parameter.default, str) and isinstance(value, Mapping) and "use" not in value:
                    value = {"use": parameter.default, **value}  # `discriminator.width` of the default discriminator
                bound[name] = self.value(parameter.annotation, value, inner)
                dated = parameter.since is not None and not parameter.required
                if dated and bound[name] == self.value(parameter.annotation, self.default(parameter), inner):
                    unkeyed.add(name)
            elif not parameter.required:
                # as if it were written out: 1 for a float is 1.0
                bound[name] = self.value(parameter.annotation, self.default(parameter), inner)
                if parameter.since:
                    unkeyed.add(name)
            elif settings.is_section(parameter.annotation):
                bound[name] = self.section(parameter.annotation, {}, inner)
            else:
                self.problem(inner, f"missing; {owner} needs {name}: {in_words(parameter.annotation)}")
        return bound, frozenset(unkeyed)

    def default(self, parameter: Parameter) -> Any:
        """Of `X | None = "name"`: None where nobody registered that name."""
        kind = _optional_slot(parameter.annotation)
        unregistered = kind is not None and parameter.default not in self.registry.names(kind)
        return None if unregistered else parameter.default

    def value(self, annotation: Any, value: Any, path: tuple[str | int, ...]) -> Any:
        if isinstance(annotation, type) and issubclass(annotation, Slot):
            return self.component(annotation.kind, value, path)
        if settings.is_section(annotation):
            return self.section(annotation, value, path)
        if mentions_slot(annotation):
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
            self.lacking("symmetry", path)

    def without_discriminator(self, losses: settings.Losses) -> None:
        if losses.adversarial > 0:
            self.lacking("discriminator", ("losses", "adversarial"))

    def lacking(self, kind: str, path: tuple[str, ...]) -> None:
        """A setting needs a component of a kind that the recipe has none of."""
        names = ", ".join(self.registry.names(kind))
        add = (
            f"add `{kind}: NAME` (known: {names})"
            if names
            else "no plugin that is in use brings one: install one that does"
        )
        self.problem(path, f"the recipe names no {kind}; {add}, or leave {'.'.join(path)} out")

    def parts(self, train: settings.Train) -> None:
        if train.accumulate > train.batch:
            self.problem(
                ("train", "accumulate"),
                f"a batch of {train.batch} networks has no {train.accumulate} parts: set it to {train.batch} at most",
            )

    def sampler(self, generator: Bound, name: str | None) -> None:
        samplers = generator.signature.samplers
        if name is not None and name not in samplers:
            hint = did_you_mean(name, list(samplers)) if samplers else " It has none to choose from; leave this out."
            self.problem(("generate", "sampler"), f"generator {generator.name!r} has no sampler {name!r}.{hint}")

    def opponents(self, against: Sequence[Bound]) -> None:
        """Each has a line of the report to itself, and metrics measure from the oracle."""
        names = [bound.name for bound in against]
        for number, name in enumerate(names):
            if name in names[:number]:
                self.problem(("against", number), f"the opponent {name!r} is named twice")
            if name == OURS:
                self.problem(("against", number), f"{OURS!r} is what the report calls the recipe's own generator")
        if ORACLE not in names:
            self.problem(("against",), f"name {ORACLE!r} among them: metrics are measured from its networks")

    def trackers(self, trackers: Sequence[Bound]) -> None:
        """Each has a folder of the run to itself."""
        names = [bound.name for bound in trackers]
        for number, name in enumerate(names):
            if name in names[:number]:
                self.problem(("tracker", number), f"the tracker {name!r} is named twice")

    def classes(self, tasks: settings.Tasks) -> None:
        """How many a task has at least and at most."""
        least, most = tasks.classes
        if least > most:
            self.problem(("tasks", "classes"), f"{least} to {most} is an empty range")

    def pictures(self, tasks: settings.Tasks, conditioner: Bound, against: Sequence[Bound]) -> None:
        """Tasks with pictures are for who looks at these, and who looks at them is asked for no other tasks."""
        if tasks.pictures and not conditioner.signature.constants.get("takes_pictures"):
            self.problem(
                ("tasks", "pictures"),
                f"conditioner {conditioner.name!r} goes by words alone and takes no pictures; name one that does, as "
                "class-prototypes, or leave tasks.pictures out",
            )
        for number, bound in enumerate(against):
            if not tasks.pictures and bound.signature.constants.get("takes_pictures"):
                self.problem(
                    ("against", number),
                    f"the opponent {bound.name!r} goes by pictures, and no task comes with any; set tasks.pictures, or "
                    "leave it out",
                )

    def auxiliary(self, datasets: Sequence[Bound], conditioner: Bound) -> None:
        """They say something to a conditioner alone that looks at the features of classes."""
        if datasets and conditioner.signature.constants.get("looks_at") != "features":
            self.problem(
                ("auxiliary",),
                f"says nothing to conditioner {conditioner.name!r}, which looks at no features of classes as class-prototypes "
                "does; name that one, or leave auxiliary out",
            )

    def data(self, path: tuple[str | int, ...], dataset: Bound) -> None:
        """Files and folders of a data set are there, unless it may download them."""
        for name, value in dataset.arguments.items():
            if isinstance(value, Path) and not value.exists() and not dataset.arguments.get("download"):
                self.problem((*path, name), f"{value}: no such file or folder")

    def component(self, kind: str, value: Any, path: tuple[str | int, ...]) -> Bound | None:
        block = {"use": value} if isinstance(value, str) else value
        if not isinstance(block, Mapping) or not isinstance(block.get("use"), str):
            self.problem(path, f"expected a {kind}: a name, or {{use: NAME, ...}}, got {value!r}")
            return None
        try:
            component = self.registry.get(kind, block["use"])
            signature = signature_of(component)
        except UnknownComponent as error:
            folders = (Path(self.source.file).parent, Path())
            self.problem((*path, "use"), f"{error}{who_has(kind, block['use'], folders)}")
            return None
        except UnreadableSignature as error:
            self.problem((*path, "use"), f"{kind} {block['use']!r} is broken: {error}")
            return None
        arguments = {key: inner for key, inner in block.items() if key != "use"}
        return Bound(component, signature, *self.arguments(signature, arguments, path, f"{kind} {component.name!r}"))

    def section(self, annotation: type, value: Any, path: tuple[str | int, ...]) -> Any:
        signature = settings_signature(annotation)
        if not isinstance(value, Mapping):
            hint = _instead_of_null(signature, ".".join(map(str, path))) if value is None else ""
            self.problem(path, f"expected a mapping, got {value!r}{hint}")
            return None
        before = len(self.problems)
        arguments, _ = self.arguments(signature, value, path, f"{path[-1]!r}")
        return annotation(**arguments) if len(self.problems) == before else None

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
            # Strict JSON is what YAML may say: a list for a tuple, a string for a path, no True for 1, no NaN.
            checked = _adapter(annotation).validate_json(json.dumps(value, allow_nan=False), strict=True)
        except ValidationError as error:
            for inner, message in dict.fromkeys((_index(d), _explain(d)) for d in _relevant(error)):
                self.problem((*path, *inner), message)
            return None
        except (TypeError, ValueError):
            self.problem(path, f"expected a plain finite value, got {value!r}")
            return None
        try:
            return _absolute(checked)
        except UserError as error:
            self.problem(path, str(error))
            return None


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _absolute(value: Any) -> Any:
    """Paths made absolute, those in a list as well."""
    if isinstance(value, list | tuple):
        return type(value)(_absolute(inner) for inner in value)
    return expanded(value).absolute() if isinstance(value, Path) else value


def _instead_of_null(section: Signature, where: str) -> str:
    """What to write where somebody wrote `null` for a section: these are always there."""
    steps = section.settable.get("steps")
    none = steps is not None and any(getattr(bound, "ge", None) == 0 for bound in get_args(steps.annotation)[1:])
    return "; leave it out for its defaults" + (f", and to do without it set {where}.steps to 0" if none else "")


def _optional_slot(annotation: Any) -> str | None:
    """The kind K of `K | None`; None for any other annotation."""
    slots = [a for a in get_args(annotation) if isinstance(a, type) and issubclass(a, Slot)]
    return slots[0].kind if len(slots) == 1 and type(None) in get_args(annotation) else None


def _relevant(error: ValidationError) -> list[Any]:
    """Of a union's failures, those of the alternatives that are not None; what is no address may be a path."""
    details = error.errors()
    return [d for d in details if d["type"] not in ("none_required", NO_ADDRESS)] or details


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
    if detail["type"].startswith("float") and str(got).lower().lstrip("+-.") in ("nan", "inf", "infinity"):
        return f"expected a plain finite value, got {got!r}"
    kind = detail["type"].removesuffix("_type").removesuffix("_parsing").removesuffix("_from")
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, got {got!r}"
    message = detail["msg"].replace("Input should", "must")
    return f"{message[0].lower()}{message[1:]}, got {got!r}"
