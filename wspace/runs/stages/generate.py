"""Stage generate: weights for the scored tasks, from their texts; and, where tasks come with pictures, from both.

What a target has of statistics of images (batch norm) is taken from training images of the task, whose labels nobody reads.
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
    drawing, count = 0.0, 0
    with job.progress.bar("generate", 2 * len(zoo.tasks.splits) + len(zoo.tasks.shown)) as bar:

        def draw(file: str, split: str, prompts: Prompts, drawn_as: str) -> None:
            nonlocal drawing, count
            rng = stream(recipe.seed, "generate", drawn_as)
            started = time.perf_counter()
            drawn = system.sample(prompts.to(job.bench.device), recipe.generate, rng)
            drawing, count = drawing + time.perf_counter() - started, count + len(drawn)
            weights = job.bench.calibrated(drawn.to(torch.float32), zoo.tasks.scored(split))
            save_tensors(job.folder / file.format(split), {"weights": weights})
            bar.advance()

        for split in zoo.tasks.splits:
            tasks = zoo.tasks.scored(split)
            for file, asked in ((GENERATED, tasks), (MISMATCHED, tasks[1:] + tasks[:1])):
                draw(file, split, zoo.prompts(asked, texts), split)
        for split, shown in zoo.tasks.shown.items():  # of the same random numbers as without pictures
            shots = job.bench.shots_of(zoo.tasks, split)
            draw(GENERATED, split, zoo.prompts(zoo.tasks.scored(split), texts, shots), shown.split)
    write_json(job.folder / SUMMARY, {"seconds_per_network": drawing / count})


def _run_in_parts(job: Job, zoo: Zoo, system: PartSystem, texts: Tensor) -> None:
    """As `run`, one network after the other, each shard by shard into its file."""
    recipe, bench, drawing, count = job.recipe, job.bench, 0.0, 0
    target, spec = bench.target, bench.target.spec
    files = [(file, split) for split in zoo.tasks.splits for file in (GENERATED, MISMATCHED)]
    with job.progress.bar("generate", sum(len(zoo.tasks.scored(split)) for _, split in files)) as bar:
        for file, split in files:
            tasks = zoo.tasks.scored(split)
            asked = tasks if file == GENERATED else tasks[1:] + tasks[:1]
            prompts = zoo.prompts(asked, texts).to(bench.device)
            with replacing(job.folder / file.format(split)) as begun:
                networks = Stretches.create_rows(begun, len(tasks), spec.size)
                for number, seed in enumerate(seeds_of(len(tasks), stream(recipe.seed, "generate", split))):
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
