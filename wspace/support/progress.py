"""Progress with the time left, on standard error: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from wspace.support import terminal

if TYPE_CHECKING:
    from rich.console import Console

LINE_EVERY = 10.0  # seconds between lines where there is no terminal


@dataclass
class Bar:
    name: str
    total: int
    done: int = 0
    resumed: int = 0
    started: float = field(default_factory=time.monotonic)

    def advance(self, amount: int = 1) -> None:
        self.done += amount

    def resume(self, amount: int) -> None:
        """Work done by an earlier, interrupted run: it says nothing of the speed."""
        self.done += amount
        self.resumed += amount

    @property
    def left(self) -> str:
        worked = self.done - self.resumed
        if worked <= 0:
            return "?"
        seconds = (time.monotonic() - self.started) / worked * (self.total - self.done)
        return str(timedelta(seconds=round(seconds)))


class Progress:
    """Says nothing: for library use and tests."""

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Bar]:
        yield Bar(name, total)

    def say(self, text: str) -> None:
        pass


class QuietProgress(Progress):
    """Warnings alone."""

    def say(self, text: str) -> None:
        if text.startswith("warning:"):
            terminal.tell(text)


class LineProgress(Progress):
    """A line every ten seconds: for logs."""

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Bar]:
        bar = _LineBar(name, total)
        yield bar
        seconds = time.monotonic() - bar.started
        if seconds > 2:
            self.say(f"{name}: done in {seconds:.0f} s")

    def say(self, text: str) -> None:
        terminal.tell(text)


@dataclass
class _LineBar(Bar):
    last: float = field(default_factory=time.monotonic)

    def advance(self, amount: int = 1) -> None:
        super().advance(amount)
        if time.monotonic() - self.last > LINE_EVERY:
            self.last = time.monotonic()
            terminal.tell(f"{self.name}: {self.done}/{self.total}, {self.left} left")


class RichProgress(Progress):
    """A live bar."""

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Bar]:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Display

        columns = (TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Display(*columns, console=_console()) as display:
            yield _RichBar(name, total, display=display, task=display.add_task(name, total=total))

    def say(self, text: str) -> None:
        _console().print(text, markup=False, highlight=False)


@dataclass
class _RichBar(Bar):
    display: Any = None
    task: Any = None

    def advance(self, amount: int = 1) -> None:
        super().advance(amount)
        self.display.update(self.task, completed=self.done)


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def for_terminal() -> Progress:
    """As the command was asked to speak, and as standard error can show it."""
    if terminal.manner.quiet:
        return QuietProgress()
    return RichProgress() if terminal.is_live() else LineProgress()
