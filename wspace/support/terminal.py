"""What is printed for people: how much of it, and at the width they read it.

Names stay whole, and what does not fit goes on below.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from textwrap import fill

NARROWEST = 24  # columns that a text beside its name takes at least; with fewer it goes below


@dataclass
class Manner:
    """How a command was asked to speak."""

    quiet: bool = False  # no progress and no notes; warnings stay
    verbose: bool = False  # with an error, where in the code it came from
    goes_on: bool = False  # whether the command, given again after an interruption, goes on where it was


manner = Manner()
"""Of this process's command: `main` of `wspace.cli` sets it anew."""


def is_live() -> bool:
    """Whether standard error is a terminal that can draw over what it has shown: `TERM=dumb` says that it cannot."""
    return sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def tell(text: str) -> None:
    """A line on standard error, in one piece: other processes of a launcher write to the same pipe meanwhile."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


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
