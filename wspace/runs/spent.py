"""What a stage takes: time, of the processors too, and memory; with what attempts before this one took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from wspace.support.errors import FileError
from wspace.support.files import read_json, write_json
from wspace.support.memory import forget_peak, peak_mib
from wspace.support.names import ELAPSED


@dataclass(frozen=True)
class Spent:
    """By the run's own process; what an engine has done elsewhere is in `seconds` alone."""

    seconds: float = 0.0
    processor_seconds: float = 0.0  # of all threads together
    peak_mib: float = 0.0  # the most memory that the process had, libraries included


SPENT = tuple(field.name for field in fields(Spent))


@contextmanager
def spending(folder: Path) -> Iterator[None]:
    """What is done inside is added to what a stage's folder says of earlier attempts, also when it is interrupted."""
    before = spent(folder)
    forget_peak()
    started, processor = time.monotonic(), time.process_time()
    try:
        yield
    finally:
        now = Spent(
            before.seconds + time.monotonic() - started,
            before.processor_seconds + time.process_time() - processor,
            max(before.peak_mib, peak_mib()),
        )
        write_json(folder / ELAPSED, asdict(now))


def spent(folder: Path) -> Spent:
    """What a power failure made of the file is no reason to end; earlier versions wrote seconds alone."""
    try:
        value = read_json(folder / ELAPSED)
        return Spent(**value) if isinstance(value, dict) else Spent(float(value))
    except (FileError, TypeError, ValueError):
        return Spent()


def told(manifest: dict[str, Any]) -> dict[str, float]:
    """Of what an artifact's manifest says: earlier versions said seconds alone."""
    return {name: manifest[name] for name in SPENT if name in manifest}
