"""What other processes are worth to the training of a generator: steps by one alone, and by all together."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.nn import functional

from wspace.data.prompts import prompts_of
from wspace.learning.loop import TrainingLoop
from wspace.learning.phases import TrainingPairs, generator_parameters
from wspace.recipes.schema import BoundRecipe
from wspace.runs.assemble import build_system, generator_step
from wspace.runs.rates import blank_context
from wspace.runs.workbench import Workbench
from wspace.support.errors import UserError
from wspace.support.processes import ALONE, Processes
from wspace.support.progress import Progress
from wspace.support.seeding import stream
from wspace.support.threads import threaded

REPEATS = 5  # of each, in turn: a machine may be busy now and idle then


def training(recipe: BoundRecipe, processes: Processes, steps: int) -> dict[str, Any]:
    """Called by all of some connected `processes`, of one thread each: the recipe's batch by the first alone, while the others
    wait, and by all; in turn, and the median of it. What the first returns is of all, for each step: seconds, and seconds of
    processor time of the process that takes most. The others return the same without numbers of theirs.

    Networks are random, and there is no discriminator. Raises UserError for a generator that its own loss does not train.
    """
    with threaded(1):
        alone, together = (_steps(recipe, each, steps) for each in (ALONE, processes))
        if processes.rank:
            for number, _ in enumerate(processes.received()):
                processes.reply(f"{number} {processes.rank}", json.dumps(together()))
            return {}
        by_one, by_all = [], []
        for _ in range(REPEATS):
            by_one.append(alone())
            number = processes.send({})
            ours = together()
            others = [json.loads(processes.answer(f"{number} {rank}")) for rank in range(1, processes.count)]
            by_all.append((ours[0], max(spent for _, spent in (ours, *others))))
    wall = [median(seconds for seconds, _ in each) for each in (by_one, by_all)]
    spent = [median(seconds for _, seconds in each) for each in (by_one, by_all)]
    return {
        "recipe": recipe.name,
        "processes": processes.count,
        "batch": recipe.train.batch,
        "seconds": wall,
        "processor_seconds": spent,
        "speedup": wall[0] / wall[1],
        "speedup_by_processor_time": spent[0] / spent[1],
    }


def _steps(recipe: BoundRecipe, processes: Processes, steps: int) -> Callable[[], tuple[float, float]]:
    """What takes so many steps when it is called, and gives seconds and this process's processor time, of one step."""
    bench = Workbench(recipe, Progress())
    pairs = _on_noise(recipe, bench)
    trained = generator_parameters(pairs.system)
    if not trained:
        raise UserError(f"{recipe.source}: its generator has no loss that several processes would share")
    step = generator_step(recipe, bench, pairs, processes=processes)
    loop = TrainingLoop(pairs.system, recipe.train, Path(), trained, processes=processes)

    def take(count: int) -> None:
        for _ in range(count):
            loop.advance(step(loop.step, stream(0, "bench", loop.step)))

    def timed() -> tuple[float, float]:
        take(1)  # in which processes meet
        started, spent = time.perf_counter(), time.process_time()
        take(steps)
        return (time.perf_counter() - started) / steps, (time.process_time() - spent) / steps

    return timed


def _on_noise(recipe: BoundRecipe, bench: Workbench) -> TrainingPairs:
    """A batch of random networks of one task, and the recipe's system, which has been fitted to them."""
    rng, classes = stream(0, "bench"), recipe.tasks.classes[1]
    texts = functional.normalize(torch.randn(classes, bench.text.dim, generator=rng), dim=1)
    weights = bench.target.init(recipe.train.batch, rng)
    prompts = prompts_of([tuple(range(classes))] * len(weights), texts, [str(c) for c in range(classes)])
    system = build_system(recipe, bench.target, bench.text.dim)
    system.tell(blank_context(bench.text.dim, bench.backbone.dim))
    system.fit(weights, prompts, (weights, prompts))
    return TrainingPairs(system.to(bench.device), weights, prompts).to(bench.device)
