"""YAML that anybody may have written, read within bounds; and mappings to YAML that reads back to the same values."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

MOST_VALUES = 100_000
"""In one text, what aliases stand for counted each time. The recipes that come with wspace have under 200."""
DEEPEST = 100
"""Brackets open at once. ruamel's time grows with their square."""


def load(text: str, most: int = 1_000_000, *, with_lines: bool = False) -> Any:
    """The value of a text in YAML: of plain Python objects, or `with_lines` of ruamel's, which know where they stood.

    Raises YAMLError alone: for what is no YAML, longer than `most` characters, nested too deeply, or stands for too much by
    its aliases.
    """
    if len(text) > most:
        raise YAMLError(f"{len(text):,} characters long, where {most:,} are allowed")
    _check_brackets(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ReusedAnchorWarning)  # YAML allows it: the later anchor counts from there
            if "*" in text:
                _check_aliases(text)
            return YAML(typ="rt" if with_lines else "safe", pure=True).load(text)
    except YAMLError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError) as error:
        raise YAMLError(f"a value does not fit its tag or form: {error}") from error
    except RecursionError as error:
        raise YAMLError("nested too deeply") from error


def _check_brackets(text: str) -> None:
    depth = 0
    for letter in text:
        if letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        if depth > DEEPEST:
            raise YAMLError(f"nested too deeply: more than {DEEPEST} brackets are open at once")


def _check_aliases(text: str) -> None:
    """Raises YAMLError for an alias that stands within what it names, and for aliases that stand for too much.

    Asked of the nodes: of what they become, ruamel leaves a mapping within itself empty.
    """
    sizes: dict[Node, int] = {}  # of what is read to its end

    def size(node: Node, around: tuple[Node, ...]) -> int:
        if node in around:
            problem = f"the alias *{node.anchor} stands within what it names, which so has no end"
            raise MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        if node not in sizes:
            inner = node.value if isinstance(node, SequenceNode | MappingNode) else []
            parts = [part for item in inner for part in (item if isinstance(item, tuple) else (item,))]
            sizes[node] = 1 + sum(size(part, (*around, node)) for part in parts)
        return sizes[node]

    root = YAML(typ="rt", pure=True).compose(text)
    if root is not None and size(root, ()) > MOST_VALUES:
        raise YAMLError(f"its aliases (*NAME) stand for more than {MOST_VALUES:,} values")


def dump(values: Mapping[str, Any]) -> str:
    """YAML that `read_recipe` reads back to the same values."""
    yaml = YAML(typ="rt", pure=True)
    yaml.default_flow_style = None
    yaml.width = 110
    stream = io.StringIO()
    yaml.dump(_quoted(values), stream)
    return stream.getvalue()


def _quoted(value: Any) -> Any:
    """With quotes around the strings that ruamel would write bare, or folded, and not read back."""
    if isinstance(value, Mapping):
        return {key: _quoted(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_quoted(inner) for inner in value]
    if isinstance(value, str) and (value.startswith(("?", ":")) or not value.isprintable()):
        return DoubleQuotedScalarString(value)
    return value
