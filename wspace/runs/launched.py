"""Processes that a launcher started: the first one runs the recipe, and the others do a share of what it asks of them.

They see the run's folder under the same path. Of parts that do not depend on each other each process does every n-th, whatever
that takes; of training each has a part of the batch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from wspace.interfaces import Engine
from wspace.runs.pieces import do_beside, do_part, piece_of
from wspace.runs.stages import Job
from wspace.support.processes import connected, here


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


def summon(job: Job, function: Callable[[Job], None]) -> None:
    """The others do it with this job, beside the first."""
    here().send({"beside": json.dumps(piece_of(job, function))})


def follow(joint: Callable[[Mapping[str, Any]], None]) -> None:
    """What every process but the first does, until that one has nothing more to ask.

    It reads no recipe: what is wrong with one is the first's to say, and what is asked comes with the recipes that it takes.
    `joint` does what a joint training asks.
    """
    with connected() as processes:
        for number, work in enumerate(processes.received()):
            if "pieces" in work:
                pieces = json.loads(work["pieces"])
                for piece in range(processes.rank, len(pieces), processes.count):
                    processes.reply(f"{number} {piece}", do_part(pieces[piece]))
            elif "beside" in work:
                do_beside(work["beside"])
            else:
                joint(json.loads(work["joint"]))
