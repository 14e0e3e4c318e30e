"""Trackers: programs that show the curves of runs, beside what wspace writes itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar


class Tracker(ABC):
    """Where curves, tables and figures of a run go besides its own files. Nothing that is computed depends on one.

    Methods are called in the order `start`, the others in any, `finish`. What one of them raises ends the tracking, never the
    run.
    """

    version: ClassVar[int] = 1  # raise it when the class writes something else

    @abstractmethod
    def start(self, name: str, identity: str, config: Mapping[str, Any], folder: Path, resumed: bool) -> None:
        """Begin the run `name`, or go on with it where an attempt at it was interrupted (`resumed`).

        identity: letters, digits and hyphens, of this run alone, and the same in each attempt.
        config: the recipe with every default filled in, as JSON.
        folder: for files, of this tracker alone. It is there, and is the same in each attempt.
        """

    @abstractmethod
    def scalars(self, phase: str, step: int, values: Mapping[str, float]) -> None:
        """Numbers by their names, such as `loss` and `terms/denoising`, at a step of a phase of the training.

        Steps rise within a phase, from 1; each phase counts its own.
        """

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str | float]]) -> None:
        """A table of the report: a value for each column in each row. A tracker that shows none leaves this out."""
        return

    def figure(self, name: str, png: bytes, caption: str) -> None:
        """A figure of the report, as a PNG file. A tracker that shows none leaves this out."""
        return

    def flush(self) -> bool:
        """Whether what was given so far outlasts this process, even if it is killed.

        If not, and it is killed before `finish`, the next attempt gives it again.
        """
        return False

    @abstractmethod
    def finish(self, done: bool) -> None:
        """Let go of files and processes. Not `done`: the run was interrupted, and may go on in another process."""
