"""Stage generate: weights for the scored tasks, from their texts; and, where tasks come with pictures, from both.

What a target has of statistics of images (batch norm) is taken from training images of the task, whose labels nobody reads.
"""

from __future__ import annotations

import time

import torch
from safetensors.torch import load_file
from torch import Tensor

from wspace.interfaces import Prompts
from wspace.learning.system import System
from wspace.runs.artifacts import Zoo
from wspace.runs.assemble import build_system, load_system
from wspace.runs.stages import Job
from wspace.support.files import save_tensors, write_json
from wspace.support.names import GENERATED, GENERATOR, MISMATCHED, PROMPT_TEXTS, SUMMARY
from wspace.support.seeding import stream


def run(job: Job) -> None:
    recipe, zoo = job.recipe, Zoo(job.inputs["zoo"])
    system, texts = trained_system(job, zoo)
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


def trained_system(job: Job, zoo: Zoo) -> tuple[System, Tensor]:
    """What stage train left: the generator, on the run's device, and the prompts' texts (n, T) of all classes."""
    trained, target = job.inputs["train"], job.bench.target
    system = load_system(build_system(job.recipe, target, zoo.dims["text_dim"]), trained / GENERATOR)
    return system.to(job.bench.device), load_file(trained / PROMPT_TEXTS)["texts"]
