"""What other processes are worth: a zoo by one worker, and by several."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wspace.interfaces import Engine
from wspace.recipes.schema import Bound, BoundRecipe
from wspace.runs.pieces import spread_by
from wspace.runs.stages import Job, Spread
from wspace.runs.stages import zoo as stage
from wspace.runs.workbench import Workbench
from wspace.support.progress import Progress
from wspace.support.threads import threaded

EMPTY = 50  # pieces that do nothing, by which the overhead of one is measured
SHARDS = 6  # for each worker, after one that is not timed


def engines(
    recipe: BoundRecipe, of: Callable[[int], Bound[Engine]], workers: int, networks: int, progress: Progress
) -> dict[str, Any]:
    """Networks a second by one worker and by `workers`, each with one thread, in shards of `networks`; and what a piece costs.

    `of` gives the engine with so many workers.
    """
    rows = [_measured(recipe, of(count), count, SHARDS * workers, networks, progress) for count in (1, workers)]
    one, several = (row["networks_per_second"] for row in rows)
    return {"engine": of(1).name, "recipe": recipe.name, "speedup": several / one, "rows": rows}


def _measured(
    recipe: BoundRecipe, bound: Bound[Engine], workers: int, shards: int, networks: int, progress: Progress
) -> dict[str, Any]:
    count = (shards + workers) * networks  # a shard for each worker is not timed: with it, workers open the data
    recipe = replace(
        recipe,
        tasks=replace(recipe.tasks, seen=count),
        zoo=replace(recipe.zoo, together=networks),
    )
    engine, watch = bound.build({}), _Watch(workers)
    with threaded(1), tempfile.TemporaryDirectory() as folder:
        engine.open()
        try:
            bench = Workbench(recipe, progress)
            job = Job(recipe, bench, Path(folder), {}, progress, spread=watch.over(spread_by(engine)))
            stage.run(job)
            list(engine.work(json.dumps, [""] * workers))
            started = time.monotonic()
            list(engine.work(json.dumps, [""] * EMPTY))
            overhead = (time.monotonic() - started) / EMPTY
        finally:
            engine.close()
    seconds = watch.seconds / shards
    return {
        "workers": workers,
        "networks_per_second": networks / seconds,
        "seconds_per_shard": seconds,
        "seconds_per_empty_piece": overhead,
        "overhead": overhead / (seconds * workers),
    }


class _Watch:
    """Times shards, but for the first of each worker."""

    def __init__(self, workers: int):
        self.workers, self.seconds = workers, 0.0

    def over(self, spread: Spread) -> Spread:
        def timed(job: Job, function: Any, parts: Sequence[Any], label: str) -> Iterator[tuple[Any, Any]]:
            if function is not stage.shard:
                yield from spread(job, function, parts, label)
                return
            yield from spread(job, function, parts[: self.workers], label)
            started = time.monotonic()
            yield from spread(job, function, parts[self.workers :], label)
            self.seconds = time.monotonic() - started

        return timed
