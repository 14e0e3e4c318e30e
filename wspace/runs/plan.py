"""What a recipe will take, before it runs: shapes exactly, memory and disk by count, time by trying a few steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wspace.components.opponents.oracle import RATE_TASKS
from wspace.data.encoders.timm import fresh
from wspace.data.features import Pool
from wspace.data.prompts import prompts_of
from wspace.data.tasks import Task
from wspace.interfaces import PICTURE, TokenLayout, Told
from wspace.interfaces.weights import plain_spec
from wspace.learning.fitting import Schedule, fit
from wspace.learning.loop import LogValues
from wspace.learning.phases import GeneratorStep, TrainingPairs, TrainingSet, generator_parameters
from wspace.learning.system import System
from wspace.recipes.schema import BoundRecipe
from wspace.runs.assemble import build_system, proven
from wspace.runs.stages import Job
from wspace.runs.stages.train import adversary_of
from wspace.runs.workbench import Workbench
from wspace.support.progress import Progress
from wspace.support.seeding import stream
from wspace.support.settings import Generate

FLOAT = 4  # bytes
TORCH = 600 * 2**20  # what python, torch and the encoders take before any data
ADAM = 4  # copies of a parameter while it is trained: itself, gradient, two moments


@dataclass(frozen=True)
class StagePlan:
    stage: str
    memory: int  # bytes, at the most
    disk: int  # bytes left behind
    seconds: float


def plan(recipe: BoundRecipe, bench: Workbench | None = None) -> dict[str, Any]:
    """Tokens, parameters, and memory, disk and time of each stage; and how many networks more take a GiB more of memory, in
    the stages that hold the zoo twice. Builds the encoders; reads no data set.

    Time is that of a few steps on random numbers, on this machine, as busy as it is now. Rendering, extracting features
    and the universal opponent are not in it; the oracle, which stops when validation images say so, is at its longest.
    """
    bench = bench or Workbench(recipe, Progress())
    target, settings, opponents = bench.target, recipe.zoo, recipe.opponents
    size, features = target.spec.size, bench.backbone.dim
    system = build_system(recipe, target, bench.text.dim)
    system.tell(_blank_context(bench.text.dim, features))
    trained = sum(p.numel() for p in system.parameters())
    state = sum(t.numel() for t in system.state_dict().values())
    layout = system.tokenizer.layout

    classes, rng = recipe.tasks.classes[1], stream(0, "plan")
    pool = Pool.of(torch.randn(4 * classes, features, generator=rng), torch.arange(4 * classes) % classes, classes)
    texts = torch.nn.functional.normalize(torch.randn(classes, bench.text.dim, generator=rng), dim=1)
    task: Task = tuple(range(classes))

    def fitting(heads: int, steps: int) -> float:
        schedule = Schedule(steps, settings.batch, settings.lr)
        start = target.init(1, rng).expand(heads, -1)
        return _seconds(lambda: fit(target, start, [task] * heads, pool, texts, schedule, rng)) / (heads * steps)

    a_head_step = fitting(settings.together, 4)
    names = [str(c) for c in task]
    prompts, eight = prompts_of([task] * recipe.train.batch, texts, names), prompts_of([task] * 8, texts, names)
    some = target.init(8, rng)
    system.fit(some, eight, (some, eight))

    system.to(bench.device)

    job = Job(recipe, bench, Path(), {}, Progress())
    weights, adversary = target.init(recipe.train.batch, rng), adversary_of(job, system)
    step = GeneratorStep(
        TrainingSet((TrainingPairs(system, weights, prompts),)),
        recipe.train,
        recipe.losses,
        bench.device,
        symmetry=proven(recipe, target, bench.dims()),
        adversary=adversary,
        precision=recipe.precision,
    )
    turns = (recipe.train.steps, recipe.train.steps + recipe.adversary.turn)  # the discriminator's, and the generator's
    a_step = 0.0  # of a generator whose own loss trains nothing
    if generator_parameters(system):
        a_step = sum(_seconds(lambda number=number: _descend(step(number, rng))) for number in turns) / 2
    prompts = prompts.to(bench.device)
    two, four = (_seconds(lambda n=n: system.sample(prompts, Generate(steps=n), rng)) for n in (2, 4))
    a_sample = two + (recipe.generate.steps - 2) * max(0.0, four - two) / 2  # a generator may take no steps
    side = recipe.dataset.arguments.get("size", 96)
    an_image = _seconds(lambda: bench.backbone.encode(np.zeros((64, side, side, 3), np.uint8))) / 64

    seen, scored = (
        recipe.tasks.seen * recipe.zoo.copies,
        (2 + bool(recipe.tasks.unseen_classes) * (1 + 3 * len(recipe.tasks.unseen_ways))) * recipe.tasks.evaluate,
    )
    with_pictures = len(set(recipe.tasks.pictures)) * max(1, len(recipe.tasks.unseen_ways)) * recipe.tasks.evaluate
    drawn = 2 * scored + bool(recipe.tasks.unseen_classes) * with_pictures
    oracle_steps = opponents.steps * (scored + RATE_TASKS * len(opponents.rates))
    zoo_bytes = seen * size * FLOAT
    group = settings.together * (size * (ADAM + 2) + 2 * settings.batch * features) * FLOAT
    closed = 2 * zoo_bytes + 2 * state * FLOAT
    loop = zoo_bytes + (trained * (ADAM + 2) + state) * FLOAT
    task_steps = recipe.task_loss.steps * recipe.task_loss.batch * recipe.task_loss.images / settings.batch
    stages = [
        StagePlan("zoo", TORCH + group, zoo_bytes, a_head_step * seen * settings.steps),
        StagePlan("opponents", TORCH + zoo_bytes + group, scored * size * FLOAT, a_head_step * oracle_steps),
        StagePlan(
            "train", TORCH + max(closed, loop), state * FLOAT, recipe.train.steps * a_step + task_steps * a_head_step
        ),
        StagePlan(
            "generate",
            TORCH + state * FLOAT,
            drawn * size * FLOAT,
            drawn / recipe.train.batch * a_sample,
        ),
        StagePlan("evaluate", TORCH + 2 * zoo_bytes + 10 * scored * size * FLOAT, 0, scored * 0.03),
    ]
    return {
        "recipe": recipe.name,
        "weights": size,
        "tokens": layout.count,
        "token_width": layout.width,
        "parameters": trained,
        "images_per_second": 1 / an_image,
        "networks_per_gib": 2**30 // (2 * size * FLOAT),
        "stages": [asdict(stage) for stage in stages],
    }


def _blank_context(text_dim: int, feature_dim: int) -> Told:
    """Two classes with a blank picture each, in the shapes of what a conditioner may ask for."""
    texts = torch.eye(2, text_dim)
    means = torch.eye(2, feature_dim)
    return Told(texts, torch.zeros(2, 1, PICTURE), texts[0], means, torch.eye(feature_dim))


def _descend(parts: Iterable[tuple[Tensor, LogValues]]) -> None:
    for loss, _ in parts:
        loss.backward()


def _seconds(work: Callable[[], Any]) -> float:
    """The second time round: the first warms caches."""
    work()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


TRIED = (
    64,
    320,
)  # tokens whose drawing is timed; a whole network's are as many times as long as the later ones of these


def plan_of_model(recipe: BoundRecipe, model: str, bench: Workbench | None = None) -> dict[str, Any]:
    """A model of timm under a recipe's tokenizer and generator: tokens, memory and time. Of it there are only shapes.

    Time is that of the last of a few hundred tokens, on this machine; where later tokens look further back, it is more.
    """
    with torch.device("meta"):
        network = fresh("plan --model", model, 1000)
    shapes = {n: tuple(t.shape) for n, t in network.state_dict().items() if t.is_floating_point() and t.numel()}
    spec, bench = plain_spec(shapes), bench or Workbench(recipe, Progress())
    given: dict[str, Any] = {"spec": spec, "text_dim": bench.text.dim, "target": bench.target}
    tokenizer, conditioner = recipe.tokenizer.build(given), recipe.conditioner.build(given)
    layout: TokenLayout = tokenizer.layout
    prompts = prompts_of([(0, 1)], torch.eye(2, bench.text.dim), ["0", "1"])
    seconds, state = {}, 0
    for count in TRIED:
        part = replace(
            layout, mask=layout.mask[:count], places=None if layout.places is None else layout.places[:count]
        )
        widths = {"condition_width": conditioner.width, "pooled_width": conditioner.pooled_width}
        system = System(spec, tokenizer, conditioner, recipe.generator.build(given | {"layout": part} | widths)).eval()
        system.tell(_blank_context(bench.text.dim, bench.backbone.dim))
        with torch.no_grad():
            condition = system.condition(prompts)
            null = conditioner.null(condition)
            seconds[count] = _seconds(
                lambda g=system.generator, c=condition, n=null: g.sample(c, n, recipe.generate, stream(0, "plan"))
            )
        state = sum(t.numel() for t in system.state_dict().values())
    a_token = (seconds[TRIED[1]] - seconds[TRIED[0]]) / (TRIED[1] - TRIED[0])
    largest = max(entry.size for entry in spec.entries)
    return {
        "model": model,
        "weights": spec.size,
        "tokens": layout.count,
        "token_width": layout.width,
        "parameters": state,
        "memory": TORCH + state * FLOAT + layout.count * layout.width * 8 + 4 * largest * FLOAT,
        "seconds": a_token * layout.count,
        "tokens_per_second": 1 / a_token,
    }
