"""What pydantic finds wrong with a file, in the words that all our messages use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wspace.support.errors import did_you_mean

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

EXPECTED = {
    "int": "int",
    "float": "float",
    "bool": "bool",
    "string": "str",
    "path": "a path",
    "tuple": "a list",
    "list": "a list",
    "dict": "a mapping",
    "model": "a mapping",
}
"""What pydantic calls a type in its errors, and what we do."""


def explain(detail: ErrorDetails | Any) -> str:
    """One of `ValidationError.errors()`: `expected int, got 'x'`, `must be greater than 0, got -1`."""
    kind = detail["type"].removesuffix("_type").removesuffix("_parsing").removesuffix("_from")
    message = f"expected {EXPECTED[kind]}" if kind in EXPECTED else _must(detail)
    return f"{message}, got {detail['input']!r}"


def explain_key(detail: ErrorDetails | Any, owner: str, keys: Sequence[str]) -> str:
    """The same of a mapping that takes these keys and no others: `a study takes no 'seedz'. Did you mean 'seeds'?`"""
    name = str(detail["loc"][-1])
    if detail["type"] == "extra_forbidden":
        return f"{owner} takes no {name!r}.{did_you_mean(name, keys)}"
    if detail["type"] == "missing":
        return "missing"
    if detail["type"] == "too_short":
        return "name at least one"
    return explain(detail)


def first(error: ValidationError) -> str:
    """The first thing wrong and where, for files that nobody writes by hand: what stands there may be long."""
    detail = error.errors()[0]
    where = ".".join(map(str, detail["loc"]))
    return f"{where}: {_must(detail)}" if where else detail["msg"].replace("Input should", "must")


def lowered(message: str) -> str:
    """As the rest of a sentence."""
    return message[0].lower() + message[1:]


def _must(detail: ErrorDetails | Any) -> str:
    return lowered(detail["msg"].replace("Input should", "must"))
