"""Stage generate: weights for the scored tasks, from their texts alone."""

from __future__ import annotations

import torch

from wspace.seeding import stream
from wspace.stages import Job
from wspace.store import save_tensors
from wspace.system import System
from wspace.tasks import SPLITS, prompts_of
from wspace.zoo import Zoo

MISMATCHED = "mismatched-{}.safetensors"
GENERATED = "generated-{}.safetensors"


def run(job: Job) -> None:
    recipe, settings, device = job.recipe, job.recipe.generate, job.bench.device
    zoo = Zoo(job.inputs["zoo"])
    target = recipe.target.build(zoo.dims)
    system = System.build(recipe, target.spec, zoo.dims["text_dim"]).load(job.inputs["train"] / "generator.safetensors")
    system.to(device)
    with job.progress.bar("generate", 2 * len(SPLITS)) as bar:
        for split in SPLITS:
            tasks = zoo.tasks.scored(split)
            for file, asked in ((GENERATED, tasks), (MISMATCHED, tasks[1:] + tasks[:1])):
                weights = system.sample(
                    prompts_of(asked, zoo.class_texts).to(device),
                    stream(recipe.seed, "generate", split),
                    steps=settings.steps,
                    guidance=settings.guidance,
                    temperature=settings.temperature,
                )
                save_tensors(job.folder / file.format(split), {"weights": weights.to(torch.float32)})
                bar.advance()
