"""Processes that a launcher started: the first one runs the recipe, and the others do a share of what it asks of them.

They see the run's folder under the same path. Of parts that do not depend on each other each process does every n-th, whatever
that takes; of training each has a part of the batch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from wspace.interfaces import Engine
from wspace.recipes.schema import BoundRecipe
from wspace.runs.pieces import do_part
from wspace.runs.stages import Job
from wspace.runs.stages.train import join
from wspace.runs.workbench import Workbench
from wspace.support.processes import connected, here
from wspace.support.progress import Progress


class Launched(Engine):
    """The first process, and those that follow it."""

    def work(self, do: Callable[[str], str], pieces: Sequence[str]) -> Iterator[tuple[int, str]]:
        processes = here()
        batch = processes.send({"pieces": json.dumps(list(pieces))})
        for number in range(0, len(pieces), processes.count):
            yield number, do(pieces[number])
        for number in range(len(pieces)):
            if number % processes.count:
                yield number, processes.answer(f"{batch} {number}")


def follow(recipe: BoundRecipe) -> None:
    """What every process but the first does, until that one has nothing more to ask."""
    bench = Workbench(recipe, Progress())
    with connected(bench.device) as processes:
        for number, work in enumerate(processes.received()):
            if "pieces" in work:
                pieces = json.loads(work["pieces"])
                for piece in range(processes.rank, len(pieces), processes.count):
                    processes.reply(f"{number} {piece}", do_part(pieces[piece]))
            else:
                join(Job(recipe, bench, Path(work["train"]), {"zoo": Path(work["zoo"])}, bench.progress))
