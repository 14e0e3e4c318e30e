"""What is printed for people, at the width they read it: names stay whole, and what does not fit goes on below."""

from __future__ import annotations

import os
import shutil
import sys
from textwrap import fill

NARROWEST = 24  # columns that a text beside its name takes at least; with fewer it goes below


def width() -> int | None:
    """Columns of the terminal, or as COLUMNS says; None where output is no terminal's, and is as wide as it comes."""
    if "COLUMNS" in os.environ or sys.stdout.isatty():
        return shutil.get_terminal_size().columns
    return None


def beside(name: str, text: str) -> str:
    """A name, padded as its column is, and a text that goes on below where the terminal ends."""
    columns = width()
    if columns is None or len(name) + len(text) <= columns:
        return name + text
    if columns - len(name) >= NARROWEST:
        return _filled(text, columns, name, " " * len(name))
    return f"{name.rstrip()}\n{_filled(text, columns, '    ', '    ')}"


def _filled(text: str, columns: int, first: str, others: str) -> str:
    return fill(
        text,
        columns,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )
