"""What components there are, in words: `wspace show`, and the page docs/components.md. Nothing is imported but source."""

from __future__ import annotations

import ast
import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types

from wspace.recipes import hookspecs
from wspace.recipes.plugins import HOOKS
from wspace.recipes.registry import GIVEN, GIVEN_TO, KINDS, Component, Registry
from wspace.recipes.signature import Parameter, Signature, Slot, signature_of
from wspace.support.yaml import dump

PACKAGE = Path(__file__).parent.parent
ROOT = PACKAGE.parent
INTERFACES = PACKAGE / "interfaces"
PLURALS = {"symmetry": "symmetries"}
LISTED = {"metric": "metrics", "opponent": "against", "tracker": "tracker"}
"""Kind -> the slot of a recipe that takes a list of them."""

_BOUNDS = {
    annotated_types.Ge: "at least {.ge}",
    annotated_types.Gt: "above {.gt}",
    annotated_types.Le: "at most {.le}",
    annotated_types.Lt: "below {.lt}",
    annotated_types.MinLen: "{.min_length} or more",
    annotated_types.MaxLen: "{.max_length} or fewer",
}
_NAME = r"[A-Z][\w’'-]+"
_CITED = re.compile(rf"({_NAME}(?: et al\.|(?:, {_NAME})*(?:,? and {_NAME})?)),? \(?((?:19|20)\d\d)\b")


def in_words(annotation: Any) -> str:
    """A parameter's type: 'int, at least 1', 'gelu, tanh or none', 'a denoiser'."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, Slot):
        return f"{'an' if annotation.kind[0] in 'aeiou' else 'a'} {annotation.kind}"
    if origin is Annotated:
        bounds = [_BOUNDS[type(bound)].format(bound) for bound in arguments[1:]]
        return ", ".join([in_words(arguments[0]), *bounds])
    if origin is Literal:
        return _either([_value(choice) for choice in arguments])
    if origin in (Union, types.UnionType):
        return _either([in_words(one) for one in arguments])
    if origin in (tuple, list):
        if origin is list or arguments[-1] is ...:
            inner = in_words(arguments[0])
            return f"list of ({inner})" if "," in inner else f"list of {inner}"
        return f"list of {len(arguments)}: {'; '.join(in_words(one) for one in arguments)}"
    return "path" if annotation is Path else annotation.__name__


def default_of(parameter: Parameter) -> str:
    """As a recipe would write it; nothing if there is none."""
    return "" if parameter.required else _value(parameter.default)


def sources_of(doc: str) -> list[str]:
    """The papers that a docstring cites: 'Ho et al. (2020)'."""
    return list(dict.fromkeys(f"{names} ({year})" for names, year in _CITED.findall(" ".join(doc.split()))))


def described(component: Component) -> str:
    """All about a component. Raises UnreadableSignature."""
    signature = signature_of(component)
    head = f"{component.kind} {component.name}   ({signature.name}, plugin {component.plugin}, version {signature.version})"
    lines = [head, f"{signature.file}:{signature.line}", "", signature.doc, ""]
    for parameter in signature.settable.values():
        default = " (required)" if parameter.required else f" = {default_of(parameter)}"
        lines.append(f"  {parameter.name}: {in_words(parameter.annotation)}{default}")
    lines += [f"  {given}: given by the run: {GIVEN[given]}" for given in signature.given]
    if sources := sources_of(signature.doc):
        lines += ["", f"papers: {'; '.join(sources)}"]
    return "\n".join([*lines, "", example_of(component)])


def example_of(component: Component) -> str:
    """Its tiny instance, as a recipe would have it."""
    block: Any = {"use": component.name, **component.example}
    if component.kind in LISTED:
        return dump({LISTED[component.kind]: [block]})
    return dump({component.kind: block})


# ---------------------------------------------------------------- the page


def page(registry: Registry) -> str:
    """Every kind, component and hook, in Markdown. Raises UnreadableSignature."""
    return "\n".join([*_head(registry), *_kinds(registry), *_hooks()])


def _head(registry: Registry) -> Iterator[str]:
    count = len(registry.all())
    yield "# Components"
    yield ""
    yield f"The {count} components of wspace and of the plugins that come with it, by kind, in the order of the data flow."
    yield "Generated from the registry: `wspace list --markdown` prints this page, `wspace show KIND NAME` a part of it."
    yield "What a recipe may set stands in the tables; what is *given* is known to the run alone. An example is the tiny"
    yield "instance that the [conformance checks](writing-plugins.md) build."
    yield ""


def _kinds(registry: Registry) -> Iterator[str]:
    meanings = _meanings()
    for kind, interface in KINDS.items():
        yield f"## {PLURALS.get(kind, f'{kind}s').capitalize()}"
        yield ""
        yield f"`{interface}`: {meanings[interface]}"
        if GIVEN_TO[kind]:
            yield f"Given to those that ask: {', '.join(f'`{name}`' for name in GIVEN_TO[kind])}."
        yield ""
        for component in registry.all(kind):
            yield from _component(component, signature_of(component))


def _component(component: Component, signature: Signature) -> Iterator[str]:
    yield f"### {component.kind} `{component.name}`"
    yield ""
    yield _paragraphs(signature.doc)
    yield ""
    if signature.settable:
        yield "| parameter | type | default |"
        yield "|---|---|---|"
        for parameter in signature.settable.values():
            default = "required" if parameter.required else f"`{default_of(parameter)}`"
            yield f"| `{parameter.name}` | {in_words(parameter.annotation)} | {default} |"
        yield ""
    yield f"```yaml\n{example_of(component)}```"
    yield ""
    facts = [f"Plugin {component.plugin}, version {signature.version}, `{_relative(signature.file, component.module)}`"]
    if signature.given:
        facts.append(f"given {', '.join(f'`{name}`' for name in signature.given)}")
    if sources := sources_of(signature.doc):
        facts.append(f"papers: {', '.join(sources)}")
    yield f"{'; '.join(facts)}."
    yield ""


def _hooks() -> Iterator[str]:
    yield "## Hooks"
    yield ""
    yield "What a plugin's module may implement, each marked `@wspace.hookimpl`."
    for name in HOOKS:
        hook = getattr(hookspecs, name)
        yield ""
        yield f"### `{name}({', '.join(inspect.signature(hook).parameters)})`"
        yield ""
        yield _paragraphs(inspect.getdoc(hook) or "")
        for parameter in inspect.signature(hook).parameters.values():
            call = getattr(hookspecs, str(parameter.annotation)).__call__
            call_signature = str(inspect.signature(call)).replace("(self, ", "(").replace("'", "")
            yield ""
            yield f"`{parameter.name}{call_signature}`"
            yield ""
            yield _paragraphs(inspect.getdoc(call) or "")
    yield ""


def _meanings() -> dict[str, str]:
    """Interface -> the first paragraph of its docstring."""
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in sorted(INTERFACES.glob("*.py"))]
    classes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    return {node.name: (ast.get_docstring(node) or "").split("\n\n")[0] for node in classes}


def _paragraphs(doc: str) -> str:
    """A docstring in Markdown: what is said of a parameter begins a line of its own."""
    return re.sub(r"(?<!\n)\n(?=[a-z_, ]+: )", "\\\\\n", doc)


def _relative(file: Path, module: str) -> str:
    """A component's file within the repository, or within the package that it came in."""
    if file.is_relative_to(ROOT):
        return file.relative_to(ROOT).as_posix()
    return f"{module.replace('.', '/')}.py"


def _either(options: list[str]) -> str:
    *others, last = options
    if any("," in option for option in others):
        return f"{'; '.join(others)}; or {last}"
    return f"{', '.join(others)} or {last}" if others else last


def _value(value: Any) -> str:
    """In YAML, on one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(inner) for inner in value)}]"
    return '""' if value == "" else str(value)
