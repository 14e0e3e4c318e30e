"""How time and memory grow with what there is more of: tasks, classes, tokens, width, batches. `wspace bench scaling`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit
from torch.autograd.profiler import profile

from wspace.learning.fitting import Schedule, accuracies, fit
from wspace.learning.phases import TrainingPairs
from wspace.learning.system import System
from wspace.recipes.schema import BoundRecipe
from wspace.runs.assemble import build_system, generator_step, symmetry_of
from wspace.runs.rates import World, blank_context, take_closed_forms
from wspace.runs.stages import Job
from wspace.runs.stages.train import adversary_of
from wspace.runs.workbench import Workbench
from wspace.support.progress import Progress
from wspace.support.seeding import stream
from wspace.weights.novelty import Neighbourhood

REPEATS = 3  # of all sizes of an axis, one after the other: what else the machine does then is not at one size alone
STEPS = 8  # that networks are trained for
DRAWN = 16  # networks at once
ENOUGH = 0.05  # seconds that one is done again and again, or once
CONFIDENCE = 0.95
LINEAR = 1.1  # a slope that is surely above is worse than linear


@dataclass(frozen=True)
class Axis:
    """What there is more of."""

    name: str
    setting: str  # of the recipe, with a place for the size
    sizes: tuple[int, ...]
    works: tuple[str, ...]  # that depend on it: names of WORKS


AXES = (
    Axis("tasks", "tasks.seen={}", (64, 128, 256, 512), ("networks trained", "closed forms", "nearest networks")),
    Axis(
        "classes",
        "tasks.classes=[{0}, {0}]",
        (4, 8, 16, 32),
        ("networks trained", "networks scored", "generator's step"),
    ),
    Axis("tokens", "target.rank={}", (4, 8, 16, 32), ("networks trained", "generator's step", "networks drawn")),
    Axis("width", "generator.denoiser.width={}", (16, 32, 64, 128), ("generator's step", "networks drawn")),
    Axis("batch", "train.batch={}", (8, 16, 32, 64), ("generator's step",)),
    Axis("images", "zoo.batch={}", (16, 32, 64, 128), ("networks trained",)),
)


def scaling(
    of: Callable[[str], BoundRecipe],
    progress: Progress,
    axes: Sequence[Axis] = AXES,
    bench_of: Callable[[BoundRecipe], Workbench] | None = None,
    repeats: int = REPEATS,
) -> dict[str, Any]:
    """Of each axis and each work that depends on it: time and memory at some sizes, and the slopes of their logarithms.

    `of` gives the recipe with a setting more. Seconds are of the processors where all is computed on them; bytes are the most
    that tensors made inside held at once. A slope of 1 is linear; intervals are those of least squares. `worse`: those that are
    surely worse than linear.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler, which sees what tensors hold, is no news
    first: Workbench | None = None
    rows, worse = list[dict[str, Any]](), list[str]()
    with progress.bar("scaling", sum(len(axis.sizes) for axis in axes)) as bar:
        for axis in axes:
            worlds = []
            for size in axis.sizes:
                recipe = of(axis.setting.format(size))
                bench = Workbench(recipe, progress) if bench_of is None else bench_of(recipe)
                if first is not None:
                    vars(bench).update(images=first.images, backbone=first.backbone, text=first.text)
                first = first or bench
                worlds.append(_Point(recipe, World.of(recipe, bench)))
            for work in axis.works:
                done = [WORKS[work](point) for point in worlds]
                memory = [_most_held(its) for its in done]  # and caches are warm
                rounds = [[_seconds(its) for its in done] for _ in range(repeats)]
                seconds = list(zip(*rounds, strict=True))  # of each size
                row = {
                    "axis": axis.name,
                    "work": work,
                    "sizes": list(axis.sizes),
                    "seconds": [min(times) for times in seconds],
                    "bytes": memory,
                    "time_slope": slope([(s, t) for s, times in zip(axis.sizes, seconds, strict=True) for t in times]),
                    "memory_slope": slope(list(zip(axis.sizes, memory, strict=True))),
                }
                rows.append(row)
                worse += [
                    f"{what} of {work!r} by {axis.name}"
                    for what in ("time", "memory")
                    if row[f"{what}_slope"]["low"] > LINEAR
                ]
            bar.advance(len(axis.sizes))
    return {
        "benchmark": "scaling",
        "threads": torch.get_num_threads(),
        "confidence": CONFIDENCE,
        "rows": rows,
        "worse": worse,
    }


def slope(points: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Of log y by log x, by least squares, with an interval."""
    x, y = (np.log(np.maximum(np.array(values, dtype=float), 1e-12)) for values in zip(*points, strict=True))
    x, free = x - x.mean(), len(points) - 2
    fitted = float(x @ y / (x @ x))
    left = y - y.mean() - fitted * x
    spread = (
        float(stdtrit(free, (1 + CONFIDENCE) / 2) * np.sqrt(left @ left / free / (x @ x))) if free else float("inf")
    )
    return {"slope": fitted, "low": fitted - spread, "high": fitted + spread}


def _seconds(work: Callable[[], Any]) -> float:
    """Of the processors: what others do does not count."""
    times, started, processor = 0, time.perf_counter(), time.process_time()
    while times == 0 or time.perf_counter() - started < ENOUGH:
        work()
        times += 1
    return (time.process_time() - processor) / times


def _most_held(work: Callable[[], Any]) -> int:
    """Bytes of tensors that work made and that were there at the same time, at the most."""
    seen: Any = profile(profile_memory=True, use_kineto=True)  # whose stubs know of no bytes
    with seen:
        work()
    held = most = 0
    for event in sorted(
        (e for e in seen.kineto_results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns()
    ):
        held += event.nbytes()
        most = max(most, held)
    return most


# ---------------------------------------------------------------- what is done


class _Point:
    """A recipe of some size, with what has to be there before its work can be."""

    def __init__(self, recipe: BoundRecipe, world: World):
        self.recipe, self.world, self.rng = recipe, world, stream(0, "scaling")

    @cached_property
    def system(self) -> System:
        bench = self.world.bench
        system = build_system(self.recipe, bench.target, bench.text.dim)
        system.tell(blank_context(bench.text.dim, bench.backbone.dim))
        take_closed_forms(self.world, system)
        return system.to(bench.device)


def _trained(point: _Point) -> Callable[[], Any]:
    bench, tasks, zoo = point.world.bench, point.world.zoo.tasks.seen, point.recipe.zoo
    schedule, start = Schedule(STEPS, zoo.batch, zoo.lr), point.world.starts(len(tasks))
    return lambda: fit(bench.target, start, tasks, bench.train, bench.class_texts, schedule, point.rng)


def _scored(point: _Point) -> Callable[[], Any]:
    bench, zoo = point.world.bench, point.world.zoo
    return lambda: accuracies(bench.target, zoo.weights, zoo.tasks.seen, bench.test, bench.class_texts)


def _closed(point: _Point) -> Callable[[], Any]:
    system = point.system
    return lambda: take_closed_forms(point.world, system)


def _nearest(point: _Point) -> Callable[[], Any]:
    zoo, symmetry = point.world.zoo, symmetry_of(point.recipe, point.world.target)

    def work() -> None:
        neighbourhood = Neighbourhood(zoo.weights, zoo.reference, symmetry, stream(0, "scaling"))
        neighbourhood.nearest(zoo.weights[:DRAWN] * 1.01)

    return work


def _step(point: _Point) -> Callable[[], Any]:
    world, system = point.world, point.system
    pairs = TrainingPairs(system, world.zoo.weights, world.prompts(world.zoo.tasks.seen))
    adversary = adversary_of(Job(point.recipe, world.bench, Path(), {}, Progress()), system)
    step = generator_step(point.recipe, world.bench, pairs, adversary)

    def work() -> None:
        system.zero_grad()
        for loss, _ in step(point.recipe.train.steps, point.rng):
            loss.backward()

    return work


def _drawn(point: _Point) -> Callable[[], Any]:
    system, world = point.system, point.world
    prompts = world.prompts(world.zoo.tasks.seen[:DRAWN]).to(world.bench.device)
    return lambda: system.sample(prompts, point.recipe.generate, point.rng)


WORKS: dict[str, Callable[[_Point], Callable[[], Any]]] = {
    "networks trained": _trained,
    "networks scored": _scored,
    "closed forms": _closed,
    "nearest networks": _nearest,
    "generator's step": _step,
    "networks drawn": _drawn,
}
