"""What the documentation claims of speed, measured side by side in one process: `wspace bench`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from wspace.data.features import Pool
from wspace.data.tasks import Task, draw_tasks
from wspace.interfaces import Target
from wspace.learning.fitting import Schedule, TaskBatches, fit
from wspace.runs.workbench import Workbench
from wspace.support.seeding import stream
from wspace.uses.bench.roof import Roof, measured

THROUGH_BACKBONE = 3  # batches that are timed through the backbone


def zoo(
    bench: Workbench,
    heads: int,
    steps: int,
    clock: Callable[[], float] = time.perf_counter,
    roof: Roof | None = None,
) -> dict[str, Any]:
    """Heads trained together against a plain loop over heads: the same cached features, tasks and number of steps.

    The loop is what one would write for a single head: an nn.Module (the target's `plain` one), torch.optim.Adam as it
    comes, a drawn batch, a step. `speedup_fused` is against the same loop with Adam's fused implementation. Each is
    timed twice, the faster counts; `clock` gives seconds.

    `speedup_through_backbone` is that of the recipe's whole zoo against heads that are each trained through the frozen
    backbone, whose features of a step's images are computed at every step and kept for none. Here they are computed once, of
    all images, and that is counted. It is scaled up from a few batches through the backbone and these few steps.

    `share_of_roof` is of what the machine (`roof`, measured if not given) could do at most if it only multiplied what a step
    multiplies, or only moved what a step reads and writes once: weights, gradient and Adam's two moments, and the images.
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
    head_steps = len(chosen) * steps
    a_head_step = {name: value / head_steps for name, value in seconds.items()}
    an_image = _through_backbone(bench, schedule.batch, clock)
    in_all = len(tasks.seen) * recipe.zoo.steps
    through = in_all * (schedule.batch * an_image + a_head_step["loop"])
    flops, moved = _counted(target, chosen, pool, texts, schedule)
    roof = roof or measured(clock)
    return {
        "benchmark": "zoo",
        "heads": len(chosen),
        "steps": steps,
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "head_steps_per_second": head_steps / seconds["together"],
        "speedup": seconds["loop"] / seconds["together"],
        "speedup_fused": seconds["loop_fused"] / seconds["together"],
        "seconds_per_image_through_backbone": an_image,
        "batches_through_backbone": THROUGH_BACKBONE,
        "speedup_through_backbone": through / (len(bench.images) * an_image + in_all * a_head_step["together"]),
        "flops_per_head_step": flops,
        "bytes_per_head_step": moved,
        "roof": {"flops_per_second": roof.flops, "bytes_per_second": roof.bytes},
        "share_of_roof": roof.seconds(flops, moved) / a_head_step["together"],
    }


def _through_backbone(bench: Workbench, batch: int, clock: Callable[[], float]) -> float:
    """Seconds an image takes, forward only, in batches of a step's size; the fastest batch counts."""
    times = []
    for number in range(1 + THROUGH_BACKBONE):  # the first one warms up
        first = number * batch % max(1, len(bench.images) - batch)
        pictures = bench.images.read(range(first, min(first + batch, len(bench.images))))
        started = clock()
        bench.backbone.encode(pictures)
        times.append((clock() - started) / len(pictures))
    return min(times[1:])


def _counted(
    target: Target, tasks: Sequence[Task], pool: Pool, class_texts: Tensor, schedule: Schedule
) -> tuple[float, float]:
    """Floating-point operations of the products of a head's step, and the bytes that it reads and writes once."""
    batches = TaskBatches(tasks, pool, class_texts)
    features, label = batches.draw(schedule.batch, stream(0, "bench"))
    weights = target.init(len(tasks), stream(0, "bench"))
    with FlopCounterMode(display=False) as counter:
        batches.descent(target, weights, features, label)
    numbers = 2 * 4 * weights.shape[1] + 2 * schedule.batch * features.shape[-1]  # each is read and written
    return counter.get_total_flops() / len(tasks), float(numbers * weights.element_size())


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
