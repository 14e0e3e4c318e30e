"""Sizes and durations, as people write and read them."""

from __future__ import annotations

import re

from wspace.support.errors import UserError

BYTES = ("B", "KiB", "MiB", "GiB", "TiB")
SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*")


def counted(count: int, one: str, many: str | None = None, form: str = "") -> str:
    """1, 'step' -> '1 step'; 2, 'step' -> '2 steps'; 2, 'class', 'classes' -> '2 classes'. `form` is the number's, as ','."""
    return f"{count:{form}} {one if count == 1 else many or f'{one}s'}"


def in_bytes(count: float) -> str:
    """3_000_000_000 -> '2.8 GiB'."""
    size, unit = float(count), 0
    while size >= 1000 and unit < len(BYTES) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} {BYTES[unit]}" if unit == 0 or size >= 100 else f"{size:.1f} {BYTES[unit]}"


def in_words(seconds: float) -> str:
    """1 -> '1 second', 600 -> '10 minutes'."""
    if seconds < 100:
        return counted(round(seconds), "second")
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.3g} hours"


def duration(text: str, where: str) -> float:
    """'90 s', '10m', '1h 30m', '2 h' -> seconds. Raises UserError; `where` is what it was written for, as '--time'."""
    parts = DURATION.findall(text)
    whole = "".join(match.group() for match in DURATION.finditer(text))
    if not parts or whole != text or any(unit not in SECONDS for _, unit in parts):
        raise UserError(f"{where}: {text!r} is no time; write it as 90s, 10m or 1h 30m")
    return sum(float(number) * SECONDS[unit] for number, unit in parts)
