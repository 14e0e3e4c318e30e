"""A component's constructor, read from its source: importing it would import torch, and `wspace check` must not.

The constructor is the schema. Positional parameters are what a recipe may set; their annotations come from a closed list
(below), their defaults are literals, or a `Default` for a component. Keyword-only parameters are given by the run
(`wspace.recipes.registry.GIVEN`). The settings of a recipe import nothing, and are read as they are: dataclasses.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import annotated_types

from wspace.recipes.registry import GIVEN, GIVEN_TO, KINDS, Component
from wspace.support.elsewhere import Address
from wspace.support.parameters import Default, Since, is_default

MISSING: Any = object()


class Slot:
    """Base of the stand-ins for interfaces in annotations: `denoiser: Denoiser` takes a `{use: NAME, ...}` block."""

    kind: ClassVar[str]


SLOTS = {interface: type(interface, (Slot,), {"kind": kind}) for kind, interface in KINDS.items()}

VOCABULARY: dict[str, Any] = {
    **{t.__name__: t for t in (int, float, bool, str, list, tuple)},
    **{name: getattr(annotated_types, name) for name in ("Ge", "Gt", "Le", "Lt", "MinLen", "MaxLen")},
    **{"Annotated": Annotated, "Literal": Literal, "Path": Path, "Address": Address, "None": None, "Since": Since},
    **SLOTS,
}
"""Every name an annotation may use."""


class UnreadableSignature(Exception):
    """A component's own fault: the conformance checks report it."""


@dataclass(frozen=True)
class Parameter:
    name: str
    annotation: Any
    default: Any = MISSING  # of a component: its name
    given: bool = False
    since: str | None = None  # the version that it came in; at its default it is no part of a key

    @property
    def required(self) -> bool:
        return self.default is MISSING


@dataclass(frozen=True)
class Signature:
    name: str  # the class
    parameters: tuple[Parameter, ...]
    doc: str
    version: int
    samplers: tuple[str, ...]  # of a generator: what `generate.sampler` may be
    constants: Mapping[str, Any]  # class variables of the class itself that are literals
    file: Path
    line: int

    @property
    def settable(self) -> dict[str, Parameter]:
        return {p.name: p for p in self.parameters if not p.given}

    @property
    def given(self) -> list[str]:
        return [p.name for p in self.parameters if p.given]


def signature_of(component: Component) -> Signature:
    """Raises UnreadableSignature if the source is not there or steps outside the rules above."""
    signature = read_class(source_file(component.module), component.class_name)
    for name in signature.given:
        if name not in GIVEN_TO[component.kind]:
            may_ask = ", ".join(GIVEN_TO[component.kind]) or "nothing"
            raise UnreadableSignature(
                f"{signature.file}: a {component.kind} is not given {name!r}; it is given {may_ask}"
            )
    return signature


def source_file(module: str) -> Path:
    """The file of a module, which is not imported (its packages are)."""
    if module in sys.modules and getattr(sys.modules[module], "__file__", None):
        return Path(str(sys.modules[module].__file__))
    try:
        spec = importlib.util.find_spec(module)
    except Exception as error:  # its packages are imported, and may fail in any way
        raise UnreadableSignature(f"no module {module!r}: {error}") from error
    if spec is None or spec.origin is None:
        raise UnreadableSignature(f"no module {module!r}")
    return Path(spec.origin)


@cache
def read_class(file: Path, name: str) -> Signature:
    """The signature of class `name` in `file`: of its own `__init__`, or of its fields if it is a dataclass."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableSignature(f"{file}: cannot be read: {error}") from error
    node = next((n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name), None)
    if node is None:
        raise UnreadableSignature(f"{file}: no class {name!r}")
    if _is_dataclass(node):
        parameters = [_from_field(n, file) for n in node.body if _is_field(n)]
    else:
        init = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        others = [
            ast.unparse(base) for base in node.bases if ast.unparse(base).rpartition(".")[2] not in KINDS.values()
        ]
        if init is None and others:
            raise UnreadableSignature(
                f"{file}: {name} has no constructor, and one that it inherits of {others[0]} is not read; write one, if only "
                "`def __init__(self): pass`"
            )
        parameters = [] if init is None else _from_arguments(init.args, file)
    doc = ast.get_docstring(node) or ""
    return Signature(name, tuple(parameters), doc, _version(node), _samplers(node), _constants(node), file, node.lineno)


class _Named:
    """Stands for `Bound` in the annotations of a recipe's slots: `Bound[Dataset]` takes what `Dataset` does elsewhere."""

    def __class_getitem__(cls, slot: type[Slot]) -> type[Slot]:
        return slot


@cache
def settings_signature(settings: type) -> Signature:
    """Of a dataclass of settings, or of the recipe's own slots."""
    hints = get_type_hints(settings, localns={**SLOTS, "Bound": _Named}, include_extras=True)
    parameters = []
    for field in fields(settings):
        annotation, since = _dated(hints[field.name])
        default = MISSING if field.default is NO_DEFAULT else field.default
        default = _named(default)
        parameters.append(Parameter(field.name, annotation, default, since=since))
    file, doc = Path(inspect.getfile(settings)), inspect.getdoc(settings) or ""
    return Signature(settings.__name__, tuple(parameters), doc, 1, (), {}, file, 0)


def _named(default: Any) -> Any:
    """A `Default` as a recipe would write it: by its name."""
    if isinstance(default, tuple):
        return tuple(map(_named, default))
    return default.name if is_default(default) else default


def _dated(annotation: Any) -> tuple[Any, str | None]:
    """An annotation without its `Since`, and the version that one says."""
    if get_origin(annotation) is not Annotated:
        return annotation, None
    of, *metadata = get_args(annotation)
    since = next((one.version for one in metadata if isinstance(one, Since)), None)
    bounds = [one for one in metadata if not isinstance(one, Since)]
    return (Annotated[(of, *bounds)] if bounds else of), since


def _is_dataclass(node: ast.stmt) -> bool:
    return isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(d) for d in node.decorator_list)


def _is_field(node: ast.stmt) -> bool:
    return isinstance(node, ast.AnnAssign) and not ast.unparse(node.annotation).startswith("ClassVar")


def _from_field(node: ast.stmt, file: Path) -> Parameter:
    assert isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    return _parameter(node.target.id, node.annotation, node.value, file)


def _from_arguments(arguments: ast.arguments, file: Path) -> list[Parameter]:
    if arguments.vararg or arguments.kwarg:
        raise UnreadableSignature(f"{file}: a component's constructor takes no *args or **kwargs")
    if arguments.posonlyargs:
        raise UnreadableSignature(f"{file}: a component's constructor takes no positional-only parameters")
    for argument in arguments.kwonlyargs:
        if argument.arg not in GIVEN:
            raise UnreadableSignature(
                f"{file}: keyword-only parameter {argument.arg!r} is not among what the run gives: {', '.join(GIVEN)}"
            )
    positional = arguments.args[1:]
    padding = [None] * (len(positional) - len(arguments.defaults))
    return [
        _parameter(argument.arg, argument.annotation, default, file)
        for argument, default in zip(positional, [*padding, *arguments.defaults], strict=True)
    ] + [Parameter(argument.arg, None, given=True) for argument in arguments.kwonlyargs]


def _parameter(name: str, annotation: ast.expr | None, default: ast.expr | None, file: Path) -> Parameter:
    if annotation is None:
        raise UnreadableSignature(f"{file}: parameter {name!r} has no annotation")
    text = ast.unparse(annotation)
    unknown = {n.id for n in ast.walk(annotation) if isinstance(n, ast.Name)} - set(VOCABULARY)
    if unknown:
        raise UnreadableSignature(
            f"{file}: {name}: {text}: {', '.join(sorted(unknown))} is not among {', '.join(VOCABULARY)}"
        )
    if _is_quoted(annotation):
        raise UnreadableSignature(f"{file}: {name}: {text}: write the annotation without quotes")
    try:
        evaluated = eval(compile(ast.Expression(annotation), str(file), "eval"), {"__builtins__": {}}, VOCABULARY)
    except Exception as error:
        raise UnreadableSignature(f"{file}: {name}: {text}: not a type: {error}") from error
    evaluated, since = _dated(evaluated)
    value = MISSING if default is None else _literal(name, default, file)
    if since is not None and value is MISSING:
        raise UnreadableSignature(f"{file}: {name}: {text}: what came later has a default, that of before")
    if is_default(value):
        if not mentions_slot(evaluated):
            raise UnreadableSignature(f"{file}: the default of {name!r} names a component, and {name!r} takes none")
        value = value.name
    return Parameter(name, evaluated, value, since=since)


def _literal(name: str, default: ast.expr, file: Path) -> Any:
    """The value of a default, or its `Default`."""
    try:
        match default:
            case ast.Call(ast.Name("Default") | ast.Attribute(attr="Default"), [ast.Constant(str(component))], []):
                return Default(component)
        return ast.literal_eval(default)
    except ValueError as error:
        raise UnreadableSignature(
            f"{file}: the default of {name!r} is not a literal: {ast.unparse(default)}"
        ) from error


def mentions_slot(annotation: Any) -> bool:
    """Whether a component, or several, is what it takes."""
    if isinstance(annotation, type):
        return issubclass(annotation, Slot)
    return any(mentions_slot(inner) for inner in get_args(annotation) if inner is not annotation)


def _is_quoted(annotation: ast.AST) -> bool:
    """Whether a string other than a Literal's or a Since's is in it."""
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal":
        return False
    if isinstance(annotation, ast.Call) and ast.unparse(annotation.func) == Since.__name__:
        return False
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return True
    return any(_is_quoted(inner) for inner in ast.iter_child_nodes(annotation))


def _version(node: ast.ClassDef) -> int:
    value = _class_variable(node, "version")
    if not isinstance(value, ast.Constant):
        return 1
    if type(value.value) is not int:
        raise UnreadableSignature(f"class {node.name!r}: version {value.value!r} is not a whole number")
    return value.value


def _samplers(node: ast.ClassDef) -> tuple[str, ...]:
    value = _class_variable(node, "samplers")
    if value is None:
        return ()
    try:
        return tuple(ast.literal_eval(value))
    except (ValueError, TypeError) as error:
        raise UnreadableSignature(f"class {node.name!r}: samplers is not a tuple of names") from error


def _constants(node: ast.ClassDef) -> dict[str, Any]:
    constants = {}
    for n in node.body:
        target = n.target if isinstance(n, ast.AnnAssign) else n.targets[0] if isinstance(n, ast.Assign) else None
        if isinstance(n, ast.AnnAssign | ast.Assign) and isinstance(target, ast.Name) and n.value is not None:
            with contextlib.suppress(ValueError):
                constants[target.id] = ast.literal_eval(n.value)
    return constants


def _class_variable(node: ast.ClassDef, name: str) -> ast.expr | None:
    for n in node.body:
        if isinstance(n, ast.AnnAssign | ast.Assign):
            target = n.target if isinstance(n, ast.AnnAssign) else n.targets[0]
            if isinstance(target, ast.Name) and target.id == name:
                return n.value
    return None
