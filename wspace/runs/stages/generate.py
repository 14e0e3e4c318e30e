"""Stage generate: weights for the scored tasks, from their texts; and, where tasks come with pictures, from both.

What a target has of statistics of images (batch norm) is taken from training images of the task, whose labels nobody reads.

At temperature 0 a network follows from its prompt alone. What `mismatched` is to have for a task was drawn for another of the
split, then, and is not drawn again.
"""

from __future__ import annotations

import time

import torch
from safetensors.torch import load_file
from torch import Tensor

from wspace.interfaces import Prompts
from wspace.learning.parts import PartSystem, seeds_of
from wspace.learning.system import System
from wspace.runs.artifacts import Zoo
from wspace.runs.assemble import build_system, load_system
from wspace.runs.stages import Job
from wspace.support.files import replacing, save_tensors, write_json
from wspace.support.names import GENERATED, GENERATOR, MISMATCHED, PROMPT_TEXTS, SUMMARY
from wspace.support.seeding import stream
from wspace.weights.stretches import Stretches


def run(job: Job) -> None:
    recipe, zoo = job.recipe, Zoo(job.inputs["zoo"])
    system, texts = trained_system(job, zoo)
    if isinstance(system, PartSystem):
        return _run_in_parts(job, zoo, system, texts)
    drawing, count, typical = 0.0, 0, recipe.generate.temperature == 0
    with job.progress.bar("generate", 2 * len(zoo.tasks.splits) + len(zoo.tasks.shown)) as bar:

        def draw(prompts: Prompts, drawn_as: str) -> Tensor:
            nonlocal drawing, count
            rng = stream(recipe.seed, "generate", drawn_as)
            started = time.perf_counter()
            drawn = system.sample(prompts.to(job.bench.device), recipe.generate, rng)
            drawing, count = drawing + time.perf_counter() - started, count + len(drawn)
            return drawn

        def keep(file: str, split: str, drawn: Tensor) -> None:
            weights = job.bench.calibrated(drawn.to(torch.float32), zoo.tasks.scored(split))
            save_tensors(job.folder / file.format(split), {"weights": weights})
            bar.advance()

        for split in zoo.tasks.splits:
            tasks = zoo.tasks.scored(split)
            prompts, after = zoo.prompts(tasks, texts), _after(len(tasks))
            drawn = draw(prompts, split)
            keep(GENERATED, split, drawn)
            keep(MISMATCHED, split, drawn[after] if typical else draw(prompts[after], split))
        for split, shown in zoo.tasks.shown.items():  # of the same random numbers as without pictures
            shots = job.bench.shots_of(zoo.tasks, split)
            keep(GENERATED, split, draw(zoo.prompts(zoo.tasks.scored(split), texts, shots), shown.split))
    write_json(job.folder / SUMMARY, {"seconds_per_network": drawing / count})


def _after(count: int) -> Tensor:
    """Of each of a split's tasks (n,) the number of the next, whose words `mismatched` is told in its place."""
    return torch.arange(count).roll(-1)


def _run_in_parts(job: Job, zoo: Zoo, system: PartSystem, texts: Tensor) -> None:
    """As `run`, one network after the other, each shard by shard into its file."""
    recipe, bench, drawing, count = job.recipe, job.bench, 0.0, 0
    target, spec = bench.target, bench.target.spec
    files = [(split, file) for split in zoo.tasks.splits for file in (GENERATED, MISMATCHED)]
    with job.progress.bar("generate", sum(len(zoo.tasks.scored(split)) for split, _ in files)) as bar:
        for split, file in files:
            tasks = zoo.tasks.scored(split)
            prompts, after = zoo.prompts(tasks, texts).to(bench.device), _after(len(tasks))
            drawn_already = None
            if file == MISMATCHED:
                prompts = prompts[after]
                if recipe.generate.temperature == 0:
                    drawn_already = Stretches.of_rows(job.folder / GENERATED.format(split))
            with replacing(job.folder / file.format(split)) as begun:
                networks = Stretches.create_rows(begun, len(tasks), spec.size)
                for number, seed in enumerate(seeds_of(len(tasks), stream(recipe.seed, "generate", split))):
                    if drawn_already is not None:  # but for statistics of images, which follow
                        networks.copy(number, drawn_already, int(after[number]))
                    else:
                        started = time.perf_counter()
                        system.draw_into(networks, number, prompts[number : number + 1], recipe.generate, seed)
                        drawing, count = drawing + time.perf_counter() - started, count + 1
                    if target.statistics:  # what takes calling the network, and is a small part of it
                        ready = bench.calibrated(networks.whole(number)[None], tasks[number : number + 1])[0]
                        for name in target.statistics:
                            networks.put(number, spec.slices[name].start, ready[spec.slices[name]])
                    bar.advance()
    write_json(job.folder / SUMMARY, {"seconds_per_network": drawing / count})


def trained_system(job: Job, zoo: Zoo) -> tuple[System, Tensor]:
    """What stage train left: the generator, on the run's device, and the prompts' texts (n, T) of all classes."""
    trained, target = job.inputs["train"], job.bench.target
    system = load_system(build_system(job.recipe, target, zoo.dims["text_dim"]), trained / GENERATOR)
    return system.to(job.bench.device), load_file(trained / PROMPT_TEXTS)["texts"]
