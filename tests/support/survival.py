"""Runs that are ended at a given moment, and what they left compared with that of a run which was not.

A moment is a place in an undisturbed run: so long after a line that it printed. There a disturbed run is ended, or at the
next line that it prints, if it has come further by then: what an attempt before it left is not done again.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wspace.runs.spent import SPENT
from wspace.support.names import ELAPSED, KEPT, LOCK, MANIFEST

ROOT = Path(__file__).parent.parent.parent
STARTS = re.compile(r"(\w+)(?: starts|: \d+ zoos)")
LONGEST = 900  # seconds that one command may take


SMALL = """dataset: {use: digits, size: 16}
backbone: {use: pixels, side: 8}
text: minilm
target: {use: module, architecture: {use: mlp, hidden: [8]}}
tasks: {seen: 48, unseen: 8, classes: [3, 5], evaluate: 8, unseen_classes: 0}
zoo: {base_steps: 60, base_batch: 32, steps: 30, batch: 16, together: 8}
opponents: {steps: 30, universal_steps: 60, rates: [3e-3]}
tokenizer: {use: neuron, axis: hidden1}
conditioner: text-set
generator: {use: diffusion, denoiser: {use: mlp, width: 32, depth: 1}}
train: {steps: 30, batch: 8, check_every: 10}
task_loss: {steps: 20, batch: 8, images: 8, check_every: 10}
generate: {steps: 5}
metrics: [accuracy]
evaluate: {bootstrap: 100}
"""

STUDY = """study: small.yaml
seeds: [1]
variants:
  short: {train.steps: 20}
  long: {train.steps: 30}
"""


@dataclass(frozen=True)
class Mark:
    """A stage that starts."""

    member: str  # the line before that says whose run it is; none in an ordinary run
    stage: str
    at: float  # seconds from the start of the command
    lasts: float = 0.0  # seconds until the next


@dataclass(frozen=True)
class Moment:
    mark: Mark
    after: float  # seconds


class Command:
    """A `wspace run` in a session of its own, and the stages that it says it starts."""

    def __init__(
        self,
        recipe: str | Path,
        runs: Path,
        cache: Path | None = None,
        prepare: Callable[[], object] = lambda: None,  # in the process, before it is a wspace
    ):
        code = "from wspace.__main__ import run; run()"
        command = [sys.executable, "-c", code, "run", str(recipe), "--runs", str(runs)]
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
            preexec_fn=lambda: (signal.signal(signal.SIGINT, signal.SIG_DFL), prepare()),  # background jobs ignore it
            env=os.environ | ({"WSPACE_CACHE": str(cache)} if cache else {}),
        )  # fmt: skip
        self.lines: list[str] = []
        self.marks: queue.Queue[Mark | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        member = ""
        for line in self.process.stderr:
            self.lines.append(line.rstrip())
            if found := STARTS.match(line):
                self.marks.put(Mark(member, found[1], time.monotonic() - self.started))
            elif re.search(r": (variant|run) \d|: zoo$", line.rstrip()):
                member = line.partition(":")[0]
        self.process.stderr.close()
        self.marks.put(None)

    def whole(self) -> list[Mark]:
        """To the end; the stages that started."""
        marks = []
        while (mark := self.marks.get(timeout=LONGEST)) is not None:
            marks.append(mark)
        assert self.process.wait(LONGEST) == 0, self.lines
        ends = [mark.at for mark in marks[1:]] + [time.monotonic() - self.started]
        return [Mark(m.member, m.stage, m.at, end - m.at) for m, end in zip(marks, ends, strict=True)]

    def refused(self) -> tuple[int, str]:
        """Exit status, and the last line that it printed."""
        while self.marks.get(timeout=LONGEST) is not None:
            pass
        return self.process.wait(LONGEST), self.lines[-1]

    def end_at(self, moment: Moment, how: signal.Signals, order: Sequence[tuple[str, str]]) -> bool:
        """Send a signal to the whole process group. Returns whether there still was a process."""
        place = order.index((moment.mark.member, moment.mark.stage)) if moment.mark.stage else -1
        wait: float | None = moment.after if place < 0 else None  # else once the stage has started
        while True:
            try:
                mark = self.marks.get(timeout=LONGEST if wait is None else wait)
            except queue.Empty:
                break
            if mark is None:
                return False
            at = order.index((mark.member, mark.stage))
            if at > place:
                break
            if at == place:
                wait = moment.after
        os.killpg(self.process.pid, how)
        self.process.wait(LONGEST)
        return True


def moments(marks: Sequence[Mark], count: int, seed: int) -> list[Moment]:
    """One in each stage, the rest anywhere from the start of the command on: in order."""
    rng = random.Random(seed)
    start = Mark("", "", 0.0, marks[0].at)
    by_stage: dict[str, list[Mark]] = {}
    for mark in marks:
        by_stage.setdefault(mark.stage, []).append(mark)
    chosen = [rng.choice(those) for those in by_stage.values()]
    chosen += rng.choices([start, *marks], [m.lasts for m in (start, *marks)], k=count - len(chosen))
    drawn = [Moment(mark, rng.uniform(0, 0.7) * mark.lasts) for mark in chosen]
    return sorted(drawn, key=lambda moment: moment.mark.at + moment.after)


def ended_often(
    recipe: str | Path, runs: Path, marks: Sequence[Mark], when: Sequence[Moment], how: Sequence[signal.Signals]
) -> Iterator[Command]:
    """Run a recipe, end it at each of these moments, and go on each time, to the end; each command that was ended."""
    order = [(mark.member, mark.stage) for mark in marks]
    for moment, by in zip(when, how, strict=True):
        command = Command(recipe, runs)
        while not command.end_at(
            moment, by, order
        ):  # it was done: the machine is faster than when moments were measured
            moment = replace(moment, after=moment.after / 2)
            for folder in runs.rglob(f"{marks[-1].stage}-*"):
                shutil.rmtree(folder)
            command = Command(recipe, runs)
        yield command
    Command(recipe, runs).whole()


# ---------------------------------------------------------------- what is compared

TIMES = (*SPENT, "seconds_per_network", "train_seconds", "made")


def contents(run: Path) -> dict[str, str]:
    """Of every file below a folder a hash of what it holds, times apart; of locks and manifests' times nothing."""
    names = sorted(
        f.relative_to(run).as_posix() for f in run.rglob("*") if f.is_file() and f.name not in (ELAPSED, LOCK)
    )
    return {name: hashlib.sha256(_timeless(run / name)).hexdigest() for name in names}


def _timeless(file: Path) -> bytes:
    content = file.read_bytes()
    if file.suffix == ".json":
        value = _without_times(json.loads(content))
        if file.name == MANIFEST:  # hashes of files with times in them, and of all this
            value["hashes"] = {
                name: digest for name, digest in value["hashes"].items() if name.endswith(".safetensors")
            }
            del value["files"], value["sha256"]
        return json.dumps(value).encode()
    if file.suffix == ".html":
        content = re.sub(rb"<table(?:(?!</table>).)*drawing one, ms.*?</table>", b"", content, flags=re.DOTALL)
        return re.sub(rb"<td>[\d.]+ (s|min|h|MiB)</td>", b"", content)
    return content


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_times(inner) for name, inner in value.items() if name not in TIMES}
    return [_without_times(inner) for inner in value] if isinstance(value, list) else value


def left_behind(run: Path) -> list[str]:
    """Files that only a process which is still at work has: temporary ones, and folders that are not finished."""
    return [p.relative_to(run).as_posix() for p in run.rglob("*") if ".wspace-" in p.name or p.name == KEPT
            or p.suffix in (".partial", ".linking", ".forced")]  # fmt: skip
