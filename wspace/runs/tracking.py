"""What the trackers of a recipe are given of a run: each thing once, however often the run is interrupted.

They look on: whatever becomes of them, the run and its bytes are the same.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from wspace.recipes.schema import BoundRecipe
from wspace.support.errors import reason
from wspace.support.files import read_json, write_json
from wspace.support.names import LOG, PAGE, REPORT, TRACKING
from wspace.support.progress import Progress

if TYPE_CHECKING:
    from wspace.interfaces import Tracker

TABLES = {
    "scores": ("split", "method", "metric", "mean", "ci_low", "ci_high", "n"),
    "differences": ("split", "method", "metric", "mean", "ci_low", "ci_high"),
}
"""Lists of a report -> the columns of each as a table."""


@dataclass
class _Audience:
    """A tracker, and how much of each part it has: so many steps of a phase of training, or the report."""

    name: str
    tracker: Tracker
    kept: dict[str, int]  # what it has even if this process is killed
    known: bool  # whether an attempt before this one started it
    has: dict[str, int] = field(init=False)
    state: str = "waiting"  # then "started"; "failed" after the first error

    def __post_init__(self) -> None:
        self.has = dict(self.kept)


class Tracking:
    """The trackers of one run, each started when there is something to give it, and let go of at the end of the block.

    `trackers` are the recipe's, by name; `key` is the same in every attempt at the run, as is the identity that the run has in
    each tracker, which is kept in its folder.
    """

    def __init__(self, recipe: BoundRecipe, trackers: Mapping[str, Tracker], run: Path, key: str, progress: Progress):
        self.recipe, self.progress = recipe, progress
        self.folder = run / TRACKING
        self.file = self.folder / f"{key}.json"
        record = read_json(self.file) if trackers and self.file.is_file() else {}
        self.identity = record.get("identity", f"{recipe.name}-{secrets.token_hex(4)}")
        self.given: dict[str, dict[str, int]] = record.get("given", {})  # tracker -> `_Audience.kept`
        self.audience = [
            _Audience(name, tracker, self.given.get(name, {}), name in self.given) for name, tracker in trackers.items()
        ]

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for one in self.audience:
            if one.state == "started":
                with self._guarded(one):
                    one.tracker.finish(error is None)
                    self._keep(one)
            elif one.state == "failed":
                with suppress(Exception):
                    one.tracker.finish(False)

    # ------------------------------------------------------------ what they are given

    def curves(self, phase: str, log: Sequence[Mapping[str, Any]]) -> None:
        """The log of a phase of training, as far as it has come: `wspace.learning.loop.Log`."""

        def give(tracker: Tracker, begin: int) -> None:
            for entry in log[begin:]:
                rate = self._learning_rate(phase, entry["step"])
                tracker.scalars(phase, entry["step"], {"learning_rate": rate} | dict(_flat(entry)))

        self._to_each(phase, len(log), give)

    def training(self, folder: Path) -> None:
        """The curves of a finished training, from its artifact."""
        if not self.audience or not (folder / LOG).is_file():
            return
        by_phase: dict[str, list[dict[str, Any]]] = {}
        for line in (folder / LOG).read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            by_phase.setdefault(entry.pop("phase"), []).append(entry)
        for phase, log in by_phase.items():
            self.curves(phase, log)

    def report(self, folder: Path) -> None:
        """The tables and figures of a finished report, from its artifact."""
        if not self.audience or not (folder / REPORT).is_file():
            return
        from wspace.runs.report.page import figures_in

        def give(tracker: Tracker, begin: int) -> None:
            report = read_json(folder / REPORT)
            for name, columns in TABLES.items():
                tracker.table(name, columns, [[row[column] for column in columns] for row in report[name]])
            for figure in figures_in((folder / PAGE).read_text(encoding="utf-8")):
                tracker.figure(figure.name, base64.b64decode(figure.uri.partition(",")[2]), figure.caption)

        self._to_each("report", 1, give)

    def _learning_rate(self, phase: str, step: int) -> float:
        """That a step (from 1) was taken with."""
        from wspace.learning.loop import warmup_cosine

        recipe = self.recipe
        settings = {"reconstruction": recipe.reconstruction, "task": recipe.task_loss, "train": recipe.train}[phase]
        return settings.lr * warmup_cosine(step - 1, settings.steps, settings.warmup)

    # ------------------------------------------------------------ to whom

    def _to_each(self, part: str, count: int, give: Callable[[Tracker, int], None]) -> None:
        """`give` each tracker what it lacks of a part that has come to `count`, from how much it has."""
        for one in self.audience:
            begin = one.has.get(part, 0)
            if one.state == "failed" or begin >= count:
                continue
            with self._guarded(one):
                if one.state == "waiting":
                    self._start(one)
                give(one.tracker, begin)
                one.has[part] = count
                if one.tracker.flush():
                    self._keep(one)

    def _start(self, one: _Audience) -> None:
        folder = self.folder / one.name
        folder.mkdir(parents=True, exist_ok=True)
        one.tracker.start(self.recipe.name, self.identity, self.recipe.decisive, folder, one.known)
        one.state = "started"
        self.progress.say(f"tracker {one.name!r}: what it is given is in {folder}, or where its own settings say")
        self._record(one)

    def _keep(self, one: _Audience) -> None:
        one.kept = dict(one.has)
        self._record(one)

    def _record(self, one: _Audience) -> None:
        self.given[one.name] = one.kept
        write_json(self.file, {"identity": self.identity, "given": self.given})

    @contextmanager
    def _guarded(self, one: _Audience) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            one.state = "failed"
            self.progress.say(
                f"warning: tracker {one.name!r} failed, and is given no more for now; the run goes on without: {reason(error)}"
            )


def _flat(entry: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Numbers of a log's entry, those of a group as `terms/denoising`; not its step."""
    for name, value in entry.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}/{inner}", number) for inner, number in value.items())
        elif name != "step":
            yield name, value
