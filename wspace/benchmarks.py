"""What the documentation claims of speed, measured side by side in one process: `wspace bench`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wspace.bind import BoundRecipe
from wspace.errors import UserError
from wspace.fitting import Schedule, fit
from wspace.generators.diffusion import Diffusion
from wspace.interfaces import Generator
from wspace.matching.benchmark import peak_mib
from wspace.progress import Progress
from wspace.run import Run
from wspace.seeding import seeded, stream
from wspace.splits import UNSEEN_TASKS
from wspace.stages.evaluate import interval
from wspace.targets.clip_adapter import ClipAdapter
from wspace.tasks import Task, draw_tasks
from wspace.timm_models import fresh
from wspace.weights import plain_spec
from wspace.workbench import Workbench

SAMPLERS = (
    ("ddpm", 1000), ("ddpm", 100), ("ddim", 50), ("ddim", 20), ("dpm-solver++", 20), ("dpm-solver++", 10),
    ("heun", 50), ("euler", 50), ("euler", 20), ("euler", 10), ("heun", 20), ("heun", 10),
)  # fmt: skip
"""Samplers and steps to compare. Of those that a generator has, the first is the finest, which the others are to match."""

TOGETHER = 25  # networks drawn at once: the samplers take turns, so that what else the machine does slows all of them


def zoo(recipe: BoundRecipe, progress: Progress, heads: int, steps: int) -> dict[str, Any]:
    """Heads trained together against a plain loop over heads: the same cached features, tasks and number of steps.

    The loop is what one would write for a single head: an nn.Module, torch.optim.Adam as it comes, a drawn batch, a
    step. `speedup_fused` is against the same loop with Adam's fused implementation. Each is timed twice, the faster
    counts. Raises UserError for a target other than the CLIP adapter, which the loop is written for.
    """
    bench = Workbench(recipe, progress)
    target = bench.target
    if not isinstance(target, ClipAdapter):
        raise UserError("bench zoo: the plain loop knows the target 'clip-adapter' only")
    tasks = draw_tasks(recipe.tasks, len(bench.images.classes), stream(recipe.seed, "tasks"))
    chosen, pool, texts = tasks.training[:heads], bench.train, bench.class_texts
    start = target.init(1, stream(recipe.seed, "init")).expand(len(chosen), -1)
    schedule = Schedule(steps, recipe.zoo.batch, recipe.zoo.lr)
    seconds = {}
    contestants = {
        "together": lambda: fit(target, start, chosen, pool, texts, schedule, stream(0, "bench")),
        "loop": lambda: [_plain(target, task, bench, schedule, fused=False) for task in chosen],
        "loop_fused": lambda: [_plain(target, task, bench, schedule, fused=True) for task in chosen],
    }
    for name, contestant in contestants.items():
        times = []
        for _ in range(2):
            started = time.perf_counter()
            contestant()
            times.append(time.perf_counter() - started)
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


def _plain(target: ClipAdapter, task: Task, bench: Workbench, schedule: Schedule, fused: bool) -> nn.Module:
    """One head, trained as one head is."""
    features_in, rank, texts_out = (target.spec.axis_size(axis) for axis in ("feature", "hidden", "text"))
    head = nn.Sequential(nn.Linear(features_in, rank), nn.GELU(), nn.Linear(rank, texts_out))
    optimizer = torch.optim.Adam(head.parameters(), lr=schedule.lr, fused=fused)
    features, labels = bench.train.of_task(task)
    texts, rng = bench.class_texts[list(task)], stream(0, "bench")
    for _ in range(schedule.steps):
        rows = torch.randint(len(labels), (schedule.batch,), generator=rng)
        projected = functional.normalize(head(features[rows]), dim=1)
        loss = functional.cross_entropy(target.temperature * projected @ texts.T, labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head


def samplers(run: Run, tasks: int | None, temperatures: Sequence[float]) -> dict[str, Any]:
    """Time and accuracy of the generator's samplers: the same unseen tasks, test images and starting noise for all.

    At most so many `tasks`, of those that the run's report is about; None: all of these. Intervals are over tasks, those
    of differences paired. Seconds are the median over groups of networks drawn together, after a warm-up. Raises
    UserError for a generator of other samplers.
    """
    zoo, bench, recipe, system = run.zoo, run.bench, run.recipe, run.system
    zoo.check(bench)
    contestants = _contestants(system.generator)
    chosen = zoo.tasks.scored(UNSEEN_TASKS)[:tasks]
    prompts = run.prompts(chosen)
    groups = [slice(first, first + TOGETHER) for first in range(0, len(chosen), TOGETHER)]
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
                    started = time.perf_counter()
                    weights = system.sample(prompts[group], how, rng).cpu()
                    seconds[contestant].append((time.perf_counter() - started) / len(weights))
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


def _contestants(generator: Generator) -> list[tuple[str, int]]:
    levels = generator.levels if isinstance(generator, Diffusion) else max(steps for _, steps in SAMPLERS)
    found = [(name, min(steps, levels)) for name, steps in SAMPLERS if name in generator.samplers]
    if not found:
        known = ", ".join(dict.fromkeys(name for name, _ in SAMPLERS))
        raise UserError(f"bench samplers: this run's generator has none of the samplers {known}")
    return list(dict.fromkeys(found))


def _summary(values: Tensor, recipe: BoundRecipe) -> dict[str, float]:
    low, high = interval(values, recipe)
    return {"mean": float(values.mean()), "ci_low": low, "ci_high": high}


def roundtrip(run: Run, model: str) -> dict[str, Any]:
    """A model of timm, of random weights, through a run's trained tokenizer and back, tensor by tensor.

    `mib_peak` is the most memory that this process has had, `mib_before` that before the first tensor was taken, with the
    model in it. `error` is the root mean square of what was lost, over that of the weights. Raises UserError for a tokenizer
    that cannot take one tensor at a time.
    """
    with seeded(0):
        network = fresh("bench roundtrip", model, 1000)
    state = {name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()}
    spec = plain_spec({name: tuple(tensor.shape) for name, tensor in state.items()})
    tokenizer = run.recipe.tokenizer.build({"spec": spec, "text_dim": run.zoo.dims["text_dim"]})
    tokenizer.load_state_dict(run.system.tokenizer.state_dict())
    tokenizer.eval()
    before, started = peak_mib(), time.perf_counter()
    tokens, lost, size = 0, 0.0, 0.0
    for name, tensor in state.items():
        made, back = tokenizer.through(name, tensor.reshape(1, -1))
        tokens += made.shape[1]
        lost += float((back - tensor.reshape(1, -1)).square().sum())
        size += float(tensor.square().sum())
    return {
        "benchmark": "roundtrip",
        "model": model,
        "parameters": spec.size,
        "tokens": tokens,
        "token_width": tokenizer.layout.width,
        "error": (lost / size) ** 0.5,
        "seconds": time.perf_counter() - started,
        "mib_before": before,
        "mib_peak": peak_mib(),
    }
