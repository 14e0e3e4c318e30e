"""Stage train: the generator, on the zoo's pairs.

Three phases: closed forms; the task loss, where the recipe has one and the generator takes it; the generator's own loss,
with the terms that the recipe gives a weight (T2W, eq. 14).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wspace.adversary import OUTRIGHT, Adversary
from wspace.denoising import Denoising
from wspace.errors import UserError
from wspace.fitting import TaskBatches, accuracies
from wspace.interfaces import Prompts, Symmetry
from wspace.proof import prove
from wspace.seeding import seeded, stream
from wspace.settings import Generate, TaskLoss, Train
from wspace.stages import Job
from wspace.store import save_tensors, write_json
from wspace.system import System
from wspace.tasks import fresh_tasks, prompts_of
from wspace.training import Loop
from wspace.zoo import Zoo

CHECKPOINT = "{}.checkpoint.safetensors"
LOOK = Generate(steps=10, guidance=1.0, temperature=0.0)
"""How networks are drawn at a check: always so, for what a recipe says under `generate` must not change what was trained."""

LOOKED_AT = 64  # held-out tasks whose networks are scored on validation images at every check
COLLAPSED = 0.005  # accuracy above the zoo's mean below which a condition is worth nothing


def run(job: Job) -> None:
    recipe, bench = job.recipe, job.bench
    zoo = Zoo(job.inputs["zoo"])
    zoo.check(bench)
    save_tensors(job.folder / "said.safetensors", {"texts": bench.said})
    system = System.build(recipe, bench.target.spec, bench.text.dim)
    symmetry = _symmetry(job)
    count = len(zoo.tasks.training)
    weights, held_out = zoo.weights[:count], zoo.weights[count:]
    if recipe.train.align:
        assert symmetry is not None
        weights, held_out = (symmetry.canonicalize(w, zoo.base) for w in (weights, held_out))
    prompts = prompts_of(zoo.tasks.training, bench.said)
    held_out_prompts = prompts_of(zoo.tasks.choosing, bench.said)
    system.fit(weights, prompts, (held_out, held_out_prompts))
    system.to(bench.device)

    looked_at = zoo.tasks.choosing[:LOOKED_AT]
    asked = held_out_prompts[: len(looked_at)].to(bench.device)

    def on_validation(networks: Tensor) -> float:
        return float(accuracies(bench.target, networks.cpu(), looked_at, bench.val, bench.class_texts).mean())

    def look() -> float:
        return on_validation(system.sample(asked, LOOK, stream(recipe.seed, "look")))

    def look_at_typical() -> float:
        with torch.no_grad():
            return on_validation(system.typical(asked))

    logs: dict[str, list[dict[str, Any]]] = {}
    health: dict[str, Any] = {}
    task_parameters = system.generator.task_parameters()
    if recipe.task_loss.steps and task_parameters:
        step = _task_step(job, zoo, system)
        logs["task"] = _phase(job, "task", system, task_parameters, recipe.task_loss, step, look_at_typical)
    others = [p for p in system.parameters() if not any(p is t for t in task_parameters)]
    if recipe.train.steps and others:
        adversary = _adversary(job, system)
        step = _weight_step(job, system, weights, prompts, symmetry, adversary)
        logs["train"] = _phase(job, "train", system, others, recipe.train, step, look, adversary)
        if adversary is not None:
            health["discriminator_accuracy"] = float(adversary.accuracy)

    if symmetry is not None and isinstance(system.generator, Denoising):
        rng = stream(recipe.seed, "equivariance")
        moves = system.moves(symmetry, len(asked.mask), rng, augment=0.0, penalty=False)
        error = system.generator.equivariance_error(
            system.pairs(held_out[: len(asked.mask)].to(bench.device), asked, moves), rng
        )
        health["equivariance_error"] = float(error.mean())
    found = look()
    mean = on_validation(weights.mean(0).expand(len(looked_at), -1))
    save_tensors(job.folder / "generator.safetensors", system.state_dict())
    lines = [json.dumps({"phase": name, **entry}) for name, log in logs.items() for entry in log]
    (job.folder / "log.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    summary = {
        "parameters": sum(p.numel() for p in system.parameters()),
        "steps": {name: len(log) for name, log in logs.items()},
        "validation_accuracy": found,
        "validation_accuracy_of_zoo_mean": mean,
        "collapsed": found < mean + COLLAPSED,
        **health,
    }
    write_json(job.folder / "summary.json", summary)
    for checkpoint in job.folder.glob(CHECKPOINT.format("*")):
        checkpoint.unlink()
    if summary["collapsed"]:
        job.progress.say(
            f"warning: the generator ignores its condition: its networks for held-out tasks reach {found:.1%} on "
            f"validation images, the zoo's mean {mean:.1%}"
        )
    if health.get("discriminator_accuracy", 0) > OUTRIGHT:
        job.progress.say(
            f"warning: the discriminator wins outright (it is right {health['discriminator_accuracy']:.1%} of the time), "
            "so the adversarial loss teaches the generator nothing: lower adversary.lr, or raise adversary.noise"
        )


def _symmetry(job: Job) -> Symmetry | None:
    """The recipe's symmetry, proven. Raises UserError if something in the recipe needs one that is not there."""
    recipe, spec = job.recipe, job.bench.target.spec
    if recipe.symmetry is None:
        needs = {
            "losses.symmetry": recipe.losses.symmetry > 0,
            "train.augment": recipe.train.augment > 0,
            "train.align": recipe.train.align,
        }
        for name in (name for name, needed in needs.items() if needed):
            raise UserError(f"{name}: the recipe names no symmetry; add `symmetry: permutation`, or leave {name} out")
        return None
    symmetry: Symmetry = recipe.symmetry.build({"spec": spec})
    prove(symmetry, job.bench.target, recipe.symmetry.name, stream(recipe.seed, "proof"))
    return symmetry


def _adversary(job: Job, system: System) -> Adversary | None:
    recipe = job.recipe
    if not recipe.losses.adversarial:
        return None
    with seeded(stream(recipe.seed, "discriminator").initial_seed()):
        discriminator = recipe.discriminator.build({"layout": system.tokenizer.layout})
    return Adversary(discriminator, recipe.adversary, recipe.train.steps).to(job.bench.device)


Step = Callable[[int, torch.Generator], tuple[Tensor, Mapping[str, Tensor]]]
"""One batch's loss at a step, and figures for the log."""


def _weight_step(
    job: Job,
    system: System,
    weights: Tensor,
    prompts: Prompts,
    symmetry: Symmetry | None,
    adversary: Adversary | None,
) -> Step:
    """The generator's own loss on networks of the zoo, and the terms that have a weight (T2W, eq. 14)."""
    settings, losses, device = job.recipe.train, job.recipe.losses, job.bench.device
    factors = {"symmetry": losses.symmetry, "adversarial": losses.adversarial}

    def step(number: int, rng: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        rows = torch.randint(len(weights), (settings.batch,), generator=rng)
        moves = None
        if symmetry is not None and (settings.augment or losses.symmetry):
            moves = system.moves(symmetry, settings.batch, rng, augment=settings.augment, penalty=losses.symmetry > 0)
        pairs = system.pairs(weights[rows].to(device), prompts[rows].to(device), moves)
        terms = system.generator.loss(pairs, rng)
        shown = {name: value.detach() for name, value in terms.items()}
        if adversary is not None:
            generated = system.generator.estimate(pairs, job.recipe.adversary.noise, rng)
            if adversary.learns_at(number):
                shown |= adversary.learn(pairs.tokens, generated)
            else:
                terms["adversarial"] = adversary.judge(generated)
                shown["adversarial"] = terms["adversarial"].detach()
        total = sum((factors.get(name, 1.0) * value for name, value in terms.items()), torch.zeros((), device=device))
        return total, shown

    return step


def _task_step(job: Job, zoo: Zoo, system: System) -> Step:
    """Cross-entropy of typical networks of seen tasks, on training images."""
    settings, bench = job.recipe.task_loss, job.bench

    def step(number: int, rng: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        if settings.fresh:
            tasks = fresh_tasks(job.recipe.tasks, zoo.tasks, settings.batch, rng)
        else:
            rows = torch.randint(len(zoo.tasks.training), (settings.batch,), generator=rng)
            tasks = [zoo.tasks.training[row] for row in rows.tolist()]
        batches = TaskBatches(tasks, bench.train, bench.class_texts)
        features, label = batches.draw(settings.images, rng)
        kept = torch.rand(features.shape, generator=rng) >= settings.dropout
        networks = system.typical(prompts_of(tasks, bench.said).to(bench.device)).cpu()
        features = features * kept / (1 - settings.dropout)
        return batches.losses(bench.target, networks, features, label).mean(), {}

    return step


def _phase(
    job: Job,
    name: str,
    system: System,
    parameters: Sequence[nn.Parameter],
    settings: Train | TaskLoss,
    step: Step,
    look: Callable[[], float],
    adversary: Adversary | None = None,
) -> list[dict[str, Any]]:
    """Train these parameters, and leave in `system` those averages that did best at a look. Returns the log."""
    loop = Loop(system, settings, job.folder / CHECKPOINT.format(name), parameters, adversary)
    loop.resume()
    with job.progress.bar(name, settings.steps) as bar:
        bar.resume(loop.step)
        while loop.step < settings.steps:
            rng = stream(job.recipe.seed, name, loop.step)
            with torch.random.fork_rng([job.bench.device] if job.bench.device.type == "cuda" else []):
                torch.manual_seed(rng.initial_seed())  # for dropout layers, which take no generator
                loop.advance(*step(loop.step, rng))
            bar.advance()
            if loop.step % settings.check_every == 0 or loop.step == settings.steps:
                with loop.averaged_parameters():
                    accuracy = look()
                loop.keep_if_best(accuracy)
                loop.save()
    return loop.finish()
