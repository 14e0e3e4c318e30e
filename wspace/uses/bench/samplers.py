"""Time and accuracy of a generator's samplers, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import Tensor

from wspace.components.generators.diffusion import Diffusion
from wspace.data.splits import UNSEEN_TASKS
from wspace.interfaces import Generator
from wspace.recipes.schema import BoundRecipe
from wspace.runs.report.intervals import interval
from wspace.runs.run import Run
from wspace.support.errors import UserError
from wspace.support.seeding import stream

SAMPLERS = (
    ("ddpm", 1000), ("ddpm", 100), ("ddim", 50), ("ddim", 20), ("dpm-solver++", 20), ("dpm-solver++", 10),
    ("heun", 50), ("euler", 50), ("euler", 20), ("euler", 10), ("heun", 20), ("heun", 10),
)  # fmt: skip
"""Samplers and steps to compare. Of those that a generator has, the first is the finest, which the others are to match."""


TOGETHER = 25  # networks drawn at once: the samplers take turns, so that what else the machine does slows all of them


def samplers(
    run: Run,
    tasks: int | None,
    temperatures: Sequence[float],
    compared: Sequence[tuple[str, int]] = SAMPLERS,
    together: int = TOGETHER,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Time and accuracy of the generator's samplers: the same unseen tasks, test images and starting noise for all.

    At most so many `tasks`, of those that the run's report is about; None: all of these. Intervals are over tasks, those
    of differences paired. Seconds, by the `clock`, are the median over groups of so many networks drawn `together`,
    after a warm-up. Raises UserError for a generator that has none of the samplers `compared`.
    """
    zoo, bench, recipe, system = run.zoo, run.bench, run.recipe, run.system
    zoo.check(bench.accepted)
    contestants = _contestants(system.generator, compared)
    chosen = zoo.tasks.scored(UNSEEN_TASKS)[:tasks]
    prompts = run.prompts(chosen)
    groups = [slice(first, first + together) for first in range(0, len(chosen), together)]
    system.sample(
        prompts[groups[0]], replace(recipe.generate, sampler=contestants[0][0], steps=2), stream(0, "warm-up")
    )
    rows: list[dict[str, Any]] = []
    with bench.progress.bar(
        "samplers", len(temperatures) * len(chosen) * sum(steps for _, steps in contestants)
    ) as bar:
        for temperature in temperatures:
            drawn: dict[tuple[str, int], list[Tensor]] = {contestant: [] for contestant in contestants}
            seconds: dict[tuple[str, int], list[float]] = {contestant: [] for contestant in contestants}
            for group in groups:
                for contestant in contestants:
                    sampler, steps = contestant
                    how = replace(recipe.generate, sampler=sampler, steps=steps, temperature=temperature)
                    rng = stream(recipe.seed, "bench", temperature, group.start)
                    started = clock()
                    weights = system.sample(prompts[group], how, rng).cpu()
                    seconds[contestant].append((clock() - started) / len(weights))
                    drawn[contestant].append(weights)
                    bar.advance(steps * len(weights))
            finest: tuple[float, Tensor] | None = None
            for contestant in contestants:
                values = bench.accuracies(torch.cat(drawn[contestant]), chosen, bench.test)
                each = median(seconds[contestant])
                finest = finest or (each, values)
                rows.append(
                    {
                        "temperature": temperature,
                        "sampler": contestant[0],
                        "steps": contestant[1],
                        "seconds_per_network": each,
                        "accuracy": _summary(values, recipe),
                        "difference": _summary(values - finest[1], recipe),
                        "speedup": finest[0] / each,
                    }
                )
    return {
        "benchmark": "samplers",
        "run": str(run.folder),
        "split": UNSEEN_TASKS,
        "tasks": len(chosen),
        "confidence": recipe.evaluate.confidence,
        "device": str(bench.device),
        "threads": torch.get_num_threads(),
        "finest": dict(zip(("sampler", "steps"), contestants[0], strict=True)),
        "rows": rows,
    }


def _contestants(generator: Generator, compared: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    levels = generator.levels if isinstance(generator, Diffusion) else max(steps for _, steps in compared)
    contestants = [(name, min(steps, levels)) for name, steps in compared if name in generator.samplers]
    if not contestants:
        names = ", ".join(dict.fromkeys(name for name, _ in compared))
        raise UserError(f"bench samplers: this run's generator has none of the samplers {names}")
    return list(dict.fromkeys(contestants))


def _summary(values: Tensor, recipe: BoundRecipe) -> dict[str, float]:
    low, high = interval(values, recipe)
    return {"mean": float(values.mean()), "ci_low": low, "ci_high": high}
