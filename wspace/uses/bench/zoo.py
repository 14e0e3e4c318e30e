"""What the documentation claims of speed, measured side by side in one process: `wspace bench`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wspace.data.tasks import Task, draw_tasks
from wspace.interfaces import Target
from wspace.learning.fitting import Schedule, fit
from wspace.runs.workbench import Workbench
from wspace.support.seeding import stream


def zoo(bench: Workbench, heads: int, steps: int, clock: Callable[[], float] = time.perf_counter) -> dict[str, Any]:
    """Heads trained together against a plain loop over heads: the same cached features, tasks and number of steps.

    The loop is what one would write for a single head: an nn.Module (the target's `plain` one), torch.optim.Adam as it
    comes, a drawn batch, a step. `speedup_fused` is against the same loop with Adam's fused implementation. Each is
    timed twice, the faster counts; `clock` gives seconds.
    """
    recipe, target = bench.recipe, bench.target
    ordered, rng = target.places > 0, stream(recipe.seed, "tasks")
    tasks = draw_tasks(recipe.tasks, len(bench.images.classes), rng, ordered=ordered)
    chosen, pool, texts = tasks.training[:heads], bench.train, bench.class_texts
    start = target.init(1, stream(recipe.seed, "init")).expand(len(chosen), -1)
    schedule = Schedule(steps, recipe.zoo.batch, recipe.zoo.lr)
    seconds = {}
    contestants = {
        "together": lambda: fit(target, start, chosen, pool, texts, schedule, stream(0, "bench")),
        "loop": lambda: [_plain(target, start[0], task, bench, schedule, fused=False) for task in chosen],
        "loop_fused": lambda: [_plain(target, start[0], task, bench, schedule, fused=True) for task in chosen],
    }
    for name, contestant in contestants.items():
        times = []
        for _ in range(2):
            started = clock()
            contestant()
            times.append(clock() - started)
        seconds[name] = min(times)
    return {
        "benchmark": "zoo",
        "heads": len(chosen),
        "steps": steps,
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "head_steps_per_second": len(chosen) * steps / seconds["together"],
        "speedup": seconds["loop"] / seconds["together"],
        "speedup_fused": seconds["loop_fused"] / seconds["together"],
    }


def _plain(target: Target, start: Tensor, task: Task, bench: Workbench, schedule: Schedule, fused: bool) -> nn.Module:
    """One head, trained as one head is."""
    head = target.plain(start)
    optimizer = torch.optim.Adam(head.parameters(), lr=schedule.lr, fused=fused)
    features, labels = bench.train.of_task(task)
    texts, rng = bench.class_texts[list(task)], stream(0, "bench")
    for _ in range(schedule.steps):
        rows = torch.randint(len(labels), (schedule.batch,), generator=rng)
        loss = functional.cross_entropy(head(features[rows], texts), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head
