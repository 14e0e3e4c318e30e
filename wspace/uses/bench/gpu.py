"""What a device makes of a recipe at its real sizes, on random features: the zoo, a step of the generator, and every stage."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from wspace.data.features import FeatureScale
from wspace.data.prompts import prompts_of
from wspace.data.tasks import TaskSet, draw_tasks
from wspace.interfaces import TEST, TRAIN, VAL, Images, Text
from wspace.learning.fitting import Schedule, fit
from wspace.learning.loop import TrainingLoop
from wspace.learning.phases import TrainingPairs, generator_parameters
from wspace.recipes.schema import BoundRecipe
from wspace.runs.assemble import build_system, generator_step
from wspace.runs.pipeline import STAGES
from wspace.runs.stages import Job
from wspace.runs.stages.train import adversary_of
from wspace.runs.telling import context_for
from wspace.runs.workbench import Workbench
from wspace.support.devices import finish
from wspace.support.progress import Progress
from wspace.support.seeding import stream

SIDE = 8192  # of the square matrices whose product in bfloat16 is what a device can do
PRODUCTS = 20
SMALL = 32  # pixels along one side of a picture that nobody looks at

Clock = Callable[[], float]
"""Seconds, once the device has done all that it was asked for."""


def now() -> float:
    finish()
    return time.perf_counter()


class Clouds(Images):
    """Random features in place of images: so many of each class for training, and for the other splits what is usual."""

    fingerprint = "random"

    def __init__(self, classes: int, images: int):
        self.classes = tuple(f"class {number}" for number in range(classes))
        each = np.repeat(
            np.array([TRAIN, VAL, TEST], dtype=np.int8), (images, max(1, images // 9), max(1, images // 5))
        )
        self.labels, self.split = np.repeat(np.arange(classes), len(each)), np.tile(each, classes)

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Black, where somebody looks at pictures."""
        return np.zeros((len(indices), SMALL, SMALL, 3), np.uint8)


class Sentences(Text):
    """A random vector for each sentence, always the same one."""

    fingerprint = "random"

    def __init__(self, dim: int):
        self.dim = dim

    def encode(self, sentences: Sequence[str]) -> Tensor:
        rows = [torch.randn(self.dim, generator=stream(0, "sentence", sentence)) for sentence in sentences]
        return functional.normalize(torch.stack(rows), dim=1)


class Without(Workbench):
    """A recipe's workbench without its data set and encoders, which need not be there."""

    def __init__(
        self, recipe: BoundRecipe, progress: Progress, classes: int, images: int, feature_dim: int, text_dim: int
    ):
        super().__init__(recipe, progress, scale=FeatureScale(torch.ones(())))
        self.shape = classes, images, feature_dim, text_dim

    @cached_property
    def images(self) -> Images:
        return Clouds(*self.shape[:2])

    @cached_property
    def backbone(self) -> Any:
        return SimpleNamespace(dim=self.shape[2], fingerprint="random")

    @cached_property
    def text(self) -> Text:
        return Sentences(self.shape[3])

    @cached_property
    def extraction(self) -> Any:
        middles, rng = torch.randn(self.shape[0], self.shape[2], generator=stream(0, "middles")), stream(0, "noise")
        labels = torch.as_tensor(self.images.labels)
        return SimpleNamespace(load=lambda: middles[labels] + torch.randn(len(labels), self.shape[2], generator=rng))


def gpu(
    bench: Without,
    *,
    heads: int,
    together: Sequence[int],
    steps: int,
    share: float,
    clock: Clock = now,
    side: int = SIDE,
) -> dict[str, Any]:
    """Of the recipe's device: a large product in bfloat16; the zoo's training, so many heads `together`; the generator's; and
    every stage, at the recipe's sizes, with a `share` of its steps.

    `steps` are timed of the zoo's and of the generator's training. Hours are what `heads` heads, and the recipe's steps, would
    take at these rates. `waits_per_step` are operations for which the host waits, on a GPU; None elsewhere.
    """
    recipe = bench.recipe
    if bench.device.type == "cpu":
        bench.progress.say("note: this is measured on the CPU: torch sees no GPU, or the recipe asks for none")
    tasks = draw_tasks(
        recipe.tasks, len(bench.images.classes), stream(recipe.seed, "tasks"), ordered=bench.target.places > 0
    )
    able = _product(bench.device, side, clock)
    return {
        "benchmark": "gpu",
        "recipe": recipe.name,
        "device": torch.cuda.get_device_name(bench.device) if bench.device.type == "cuda" else str(bench.device),
        "weights": bench.target.spec.size,
        "tflops_of_a_product": able / 1e12,
        "zoo": [_zoo(bench, tasks, count, heads, steps, clock) for count in together],
        "train": _train(bench, tasks, steps, able, clock),
        "stages": _stages(bench, share, clock),
    }


def _product(device: torch.device, side: int, clock: Clock) -> float:
    """Operations a second."""
    left, right = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    torch.matmul(left, right)
    begun = clock()
    for _ in range(PRODUCTS):
        torch.matmul(left, right)
    return PRODUCTS * 2 * side**3 / (clock() - begun)


def _zoo(bench: Workbench, tasks: TaskSet, count: int, heads: int, steps: int, clock: Clock) -> dict[str, Any]:
    recipe = bench.recipe
    group = [tasks.training[row % len(tasks.training)] for row in range(count)]
    start = bench.target.init(1, stream(recipe.seed, "init")).expand(count, -1)

    def seconds(number: int) -> float:
        schedule, begun = Schedule(number, recipe.zoo.batch, recipe.zoo.lr, recipe.zoo.average), clock()
        fit(bench.target, start, group, bench.train, bench.class_texts, schedule, stream(0, "bench"))
        return clock() - begun

    seconds(2)
    short = seconds(2)
    head_steps = count * steps / max(seconds(steps + 2) - short, 1e-9)
    return {
        "together": count,
        "head_steps_per_second": head_steps,
        "heads_per_second": head_steps / recipe.zoo.steps,
        "hours": heads * recipe.zoo.steps / head_steps / 3600,
    }


def _train(bench: Workbench, tasks: TaskSet, steps: int, able: float, clock: Clock) -> dict[str, Any] | None:
    """None of a generator whose own loss trains nothing."""
    recipe, device = bench.recipe, bench.device
    system = build_system(recipe, bench.target, bench.text.dim)
    system.tell(context_for(system.conditioner, bench, tasks.classes))
    shown = tasks.training[: 4 * recipe.train.batch]
    prompts = prompts_of(shown, bench.prompt_texts, bench.images.classes, ordered=tasks.ordered)
    weights = bench.target.init(1, stream(0, "zoo")) + 0.1 * torch.randn(
        len(shown), bench.target.spec.size, generator=stream(0, "noise")
    )
    system.fit(weights, prompts, (weights, prompts))
    system.to(device)
    if not generator_parameters(system):
        return None
    adversary = adversary_of(Job(recipe, bench, Path(), {}, bench.progress), system)
    step = generator_step(recipe, bench, TrainingPairs(system, weights, prompts).to(device), adversary)
    loop = TrainingLoop(system, recipe.train, Path(), generator_parameters(system), adversary=adversary)
    turns = (recipe.train.steps, recipe.train.steps + recipe.adversary.turn)  # the discriminator's, and the generator's

    def advance() -> None:
        for number in turns:
            loop.advance(step(number, stream(0, "bench", loop.step)))

    advance()
    with FlopCounterMode(display=False) as counter:
        advance()
    flops, waits = counter.get_total_flops() / 2, _waits(advance, device)
    begun = clock()
    for _ in range(steps):
        advance()
    seconds = (clock() - begun) / (2 * steps)
    return {
        "seconds_per_step": seconds,
        "networks_per_second": recipe.train.batch / seconds,
        "gflop_per_step": flops / 1e9,
        "share_of_a_product": flops / seconds / able,
        "waits_per_step": None if waits is None else waits / 2,
        "hours": recipe.train.steps * seconds / 3600,
    }


def _waits(work: Callable[[], None], device: torch.device) -> int | None:
    """How often the host waits for a GPU meanwhile, as torch tells."""
    if device.type != "cuda":
        return None
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode(before)
    return sum("synchronizing" in str(warning.message) for warning in said)


def _stages(bench: Without, share: float, clock: Clock) -> dict[str, float]:
    """Seconds of each stage but the report, with a share of the steps and everything else as the recipe has it."""

    def some(steps: int, least: int = 2) -> int:
        return min(steps, max(least, round(share * steps)))

    recipe = bench.recipe
    zoo, opponents, train, task_loss = recipe.zoo, recipe.opponents, recipe.train, recipe.task_loss
    short = replace(
        recipe,
        zoo=replace(zoo, base_steps=some(zoo.base_steps), steps=some(zoo.steps)),
        opponents=replace(opponents, steps=some(opponents.steps), universal_steps=some(opponents.universal_steps)),
        train=replace(train, steps=some(train.steps)),
        task_loss=replace(task_loss, steps=some(task_loss.steps)),
        generate=replace(recipe.generate, steps=some(recipe.generate.steps)),
    )
    bench, seconds = Without(short, bench.progress, *bench.shape), dict[str, float]()
    with tempfile.TemporaryDirectory() as place:
        for stage in STAGES:
            if stage.name == "report":
                continue
            folder = Path(place) / stage.name
            folder.mkdir()
            inputs, begun = {name: Path(place) / name for name in stage.takes}, clock()
            stage.load()(Job(short, bench, folder, inputs, bench.progress))
            seconds[stage.name] = clock() - begun
    return seconds
