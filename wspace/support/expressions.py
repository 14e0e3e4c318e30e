"""Regular expressions that anybody may have written, matched within a time: some would take longer than the world lasts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache

SECONDS = 5.0
"""That all expressions of one call may take."""
LONG = 120  # characters of a text that even a cheap expression is not trusted with
REPEATS = 3  # in a cheap expression

Expression = tuple[str, bool]
"""What `re` compiles, and whether it is to match all of a text, or the beginning of it."""

_PROGRAM = """
import json, re, sys
expressions, texts = json.load(sys.stdin)
ways = [re.compile(text).fullmatch if whole else re.compile(text).match for text, whole in expressions]
print(json.dumps([[number for number, text in enumerate(texts) if way(text)] for way in ways]))
"""


@lru_cache(8)  # adapters of one training have the same expressions and layers
def matches(expressions: tuple[Expression, ...], texts: tuple[str, ...]) -> list[frozenset[str]]:
    """Of each expression, the texts that it matches.

    Python's matching cannot be stopped, so expressions that might take long are matched by a process of their own, which
    can. Raises TimeoutError after `SECONDS`, and re.error for what is no expression.
    """
    short, found = all(len(text) <= LONG for text in texts), dict[Expression, frozenset[str]]()
    for expression in expressions:
        if short and _is_cheap(expression[0]):
            compiled = re.compile(expression[0])
            way = compiled.fullmatch if expression[1] else compiled.match
            found[expression] = frozenset(text for text in texts if way(text))
    others = [expression for expression in expressions if expression not in found]
    found |= zip(others, _matched_apart(others, texts), strict=True)
    return [found[expression] for expression in expressions]


def _is_cheap(text: str) -> bool:
    """Whether matching takes a time that no one notices: few repetitions, and none of a group."""
    repeats = re.findall(r"(?<!\()[*+?{]\??", text)
    return len(repeats) <= REPEATS and not re.search(r"\)[*+{]", text)


def _matched_apart(expressions: Sequence[Expression], texts: Sequence[str]) -> list[frozenset[str]]:
    if not expressions:
        return []
    for text, _ in expressions:
        re.compile(text)
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM]
    try:
        done = subprocess.run(
            command, input=json.dumps([expressions, texts]), capture_output=True, text=True, timeout=SECONDS, check=True
        )
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:  # or it took all memory
        raise TimeoutError(f"they take longer than {SECONDS:.0f} s to match") from error
    matched: list[list[int]] = json.loads(done.stdout)
    return [frozenset(texts[number] for number in numbers) for numbers in matched]
