"""Stage train: the generator, on the zoo's pairs.

In phases: the tokenizer's code, if it has to learn one; closed forms; the task loss, where the recipe has one and the
generator takes it; the generator's own loss, with the terms that the recipe gives a weight (T2W, eq. 14).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from wspace.data.tasks import Task, fresh_tasks, prompts_of
from wspace.interfaces import Prompts, Symmetry
from wspace.interfaces.weights import WeightSpec
from wspace.learning.adversary import Adversary
from wspace.learning.denoising import Denoising
from wspace.learning.fitting import TaskBatches
from wspace.learning.loop import Loop
from wspace.learning.system import System
from wspace.recipes.bind import BoundRecipe
from wspace.runs.artifacts import Zoo
from wspace.runs.assemble import SAID, build_system, proven, read_told, write_said
from wspace.runs.stages import Job
from wspace.runs.workbench import Workbench
from wspace.support.errors import UserError, WspaceError
from wspace.support.files import save_tensors, write_json
from wspace.support.names import CHECKPOINT, GENERATOR, LOG, SUMMARY
from wspace.support.processes import ALONE, Processes, connected, here
from wspace.support.progress import Progress
from wspace.support.seeding import seeded, stream
from wspace.support.settings import Generate, Reconstruction, TaskLoss, Train
from wspace.weights.lowrank import squared_distance

LOOK = Generate(steps=10, guidance=1.0, temperature=0.0)
"""How networks are drawn at a check: always so, for what a recipe says under `generate` must not change what was trained."""

SPREAD_OF = 256  # networks of the zoo behind the unit of `losses.product`
LOOKED_AT = 64  # held-out tasks whose networks are scored on validation images at every check
COLLAPSED = 0.005  # accuracy above the zoo's mean below which a condition is worth nothing


def run(job: Job) -> None:
    recipe, bench = job.recipe, job.bench
    zoo = Zoo(job.inputs["zoo"])
    zoo.check(bench.fingerprints)
    system = build_system(recipe, bench.target.spec, bench.text.dim)
    told = bench.told(zoo.tasks.classes) if system.conditioner.asks else None
    write_said(job.folder / SAID, bench.said, told)
    if told is not None:
        system.conditioner.told(told)
    symmetry = proven(job.recipe, job.bench)
    count = len(zoo.tasks.training)
    weights, held_out = (_aligned(recipe, zoo, w, symmetry) for w in (zoo.weights[:count], zoo.weights[count:]))
    prompts = prompts_of(zoo.tasks.training, bench.said, zoo.classes)
    held_out_prompts = prompts_of(zoo.tasks.choosing, bench.said, zoo.classes)
    logs: dict[str, list[dict[str, Any]]] = {}
    health: dict[str, Any] = {}
    if system.tokenizer.lossy:
        logs["reconstruction"], health["reconstruction"] = _code(job, zoo, system, weights, held_out)
    codes = system.fit(weights, prompts, (held_out, held_out_prompts))
    system.to(bench.device).eval()
    if untold := _untold(job, zoo, system):
        health["untold"] = untold

    whose, looked_at, asked = "held-out", zoo.tasks.choosing[:LOOKED_AT], held_out_prompts[:LOOKED_AT].to(bench.device)
    if _refused(system, held_out_prompts) is not None:  # then on images that the tasks trained on were not trained on
        whose, looked_at, asked = "seen", zoo.tasks.training[:LOOKED_AT], prompts[:LOOKED_AT].to(bench.device)

    def on_validation(networks: Tensor) -> float:
        return score_on_validation(bench, networks, looked_at)

    def look() -> float:
        return on_validation(system.sample(asked, LOOK, stream(recipe.seed, "look")))

    def look_at_typical() -> float:
        with torch.no_grad():
            return on_validation(system.typical(asked))

    task_parameters = system.generator.task_parameters()
    if recipe.task_loss.steps and not task_parameters:
        job.progress.say("note: task_loss: this generator has nothing that a task loss trains, so it is left out")
    if recipe.task_loss.steps and task_parameters:
        step = _task_step(job, zoo, system, weights, prompts)
        logs["task"] = phase(job, "task", system, task_parameters, recipe.task_loss, step, look_at_typical)
    others = weight_parameters(system)
    if task_parameters and not recipe.task_loss.steps and not others:
        job.progress.say(
            "note: task_loss.steps is 0, and this generator learns by a task loss alone: it stays as it began"
        )
    adversary = adversary_of(job, system) if recipe.train.steps and others else None
    if recipe.train.steps and others:
        here().send({"folder": str(job.folder), "zoo": str(zoo.folder)})
        logs["train"] = _weight_phase(job, system, weights, codes, prompts, symmetry, others, adversary, look)
        if adversary is not None:
            health["discriminator_accuracy"] = float(adversary.accuracy)

    if symmetry is not None and isinstance(system.generator, Denoising) and not system.tokenizer.lossy:
        rng = stream(recipe.seed, "equivariance")
        moves = system.moves(symmetry, len(asked.mask), rng, augment=0.0, penalty=False)
        error = system.generator.equivariance_error(
            system.pairs(held_out[: len(asked.mask)].to(bench.device), asked, moves), rng
        )
        health["equivariance_error"] = float(error.mean())
    found = look()
    mean = on_validation(weights.mean(0).expand(len(looked_at), -1))
    save_tensors(job.folder / GENERATOR, system.state_dict())
    lines = [json.dumps({"phase": name, **entry}) for name, log in logs.items() for entry in log]
    (job.folder / LOG).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    summary = {
        "parameters": sum(p.numel() for p in system.parameters()),
        "steps": {name: len(log) for name, log in logs.items()},
        "validation_accuracy": found,
        "validation_accuracy_of_zoo_mean": mean,
        "collapsed": found < mean + COLLAPSED
        and len(set(zoo.tasks.training)) > 1,  # of one task there is one to ignore
        "processes": here().count,
        **health,
    }
    write_json(job.folder / SUMMARY, summary)
    for checkpoint in job.folder.glob(CHECKPOINT.format("*")):
        checkpoint.unlink()
    if summary["collapsed"]:
        job.progress.say(
            f"warning: the generator ignores its condition: its networks for {whose} tasks reach {found:.1%} on "
            f"validation images, the zoo's mean {mean:.1%}"
        )
    if adversary is not None and adversary.wins_outright:
        job.progress.say(
            f"warning: the discriminator wins outright (it is right {float(adversary.accuracy):.1%} of the time), "
            "so the adversarial loss teaches the generator nothing: lower adversary.lr, or raise adversary.noise"
        )


def score_on_validation(bench: Workbench, networks: Tensor, tasks: Sequence[Task]) -> float:
    """Mean accuracy of networks (B, P), each on its task's validation images."""
    return float(bench.accuracies(networks.cpu(), tasks, bench.val).mean())


def _refused(system: System, prompts: Prompts) -> str | None:
    """What a conditioner that knows nothing of one of these tasks says of it."""
    try:
        system.conditioner.check(prompts)
    except UserError as error:
        return str(error)
    return None


def _untold(job: Job, zoo: Zoo, system: System) -> dict[str, str]:
    """Split -> why its networks are not drawn for its tasks: the conditioner knows nothing of them."""
    found = {}
    for split in zoo.tasks.splits:
        why = _refused(system, prompts_of(zoo.tasks.scored(split), job.bench.said, zoo.classes))
        if why is not None:
            found[split] = why
            job.progress.say(f"note: {split}: {why}; the report's networks are drawn for no task in particular")
    return found


def _code(
    job: Job, zoo: Zoo, system: System, weights: Tensor, held_out: Tensor
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The tokenizer's code, learnt from networks (n, P) alone; and what a round trip costs networks held out.

    Raises WspaceError if that is more accuracy than the recipe allows.
    """
    settings, bench, tokenizer = job.recipe.reconstruction, job.bench, system.tokenizer
    tasks = zoo.tasks.choosing[:LOOKED_AT]
    others = held_out[: len(tasks)].to(bench.device)
    tokenizer.fit(weights)
    system.to(bench.device).eval()

    @torch.no_grad()
    def look() -> float:
        return score_on_validation(bench, tokenizer.detokenize(tokenizer.tokenize(others)), tasks)

    def step(number: int, rng: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        rows = torch.randint(len(weights), (settings.batch,), generator=rng)
        terms = tokenizer.loss(weights[rows].to(bench.device), rng)
        shown = {name: value.detach() for name, value in terms.items()} | tokenizer.figures()
        return sum(terms.values(), torch.zeros((), device=bench.device)), shown

    log: list[dict[str, Any]] = []
    if settings.steps:
        log = phase(job, "reconstruction", system, list(tokenizer.parameters()), settings, step, look)
    tokenizer.requires_grad_(False)
    before, after = score_on_validation(bench, others, tasks), look()
    if before - after > settings.most_lost:
        raise WspaceError(
            f"the tokenizer loses too much: held-out networks reach {before:.1%} on validation images, and {after:.1%} after "
            f"a round trip, {before - after:.1%} less where reconstruction.most_lost allows {settings.most_lost:.1%}; train it "
            "longer (reconstruction.steps), give its code more room, or allow more"
        )
    system.cpu()
    return log, {"before": before, "after": after}


def follow(recipe: BoundRecipe) -> None:
    """What every process but the first does: its share of the weight phase, when the first asks for it."""
    bench = Workbench(recipe, Progress())
    with connected(bench.device) as processes:
        for work in processes.received():
            _join(Job(recipe, bench, Path(work["folder"]), {"zoo": Path(work["zoo"])}, bench.progress))


def _join(job: Job) -> None:
    """The weight phase of another process's train stage: no images, no encoders, and nothing is written."""
    recipe, zoo = job.recipe, Zoo(job.inputs["zoo"])
    spec = recipe.target.build(zoo.dims).spec
    system = build_system(recipe, spec, zoo.dims["text_dim"]).to(job.bench.device).eval()
    if system.conditioner.asks:
        system.conditioner.told(read_told(job.folder / SAID))
    symmetry = None if recipe.symmetry is None else recipe.symmetry.build({"spec": spec})  # the first has proven it
    weights = _aligned(recipe, zoo, zoo.weights[: len(zoo.tasks.training)], symmetry)
    prompts = prompts_of(zoo.tasks.training, load_file(job.folder / SAID)["texts"], zoo.classes)
    system.tokenizer.requires_grad_(False)  # a code is learnt before
    others, adversary = weight_parameters(system), adversary_of(job, system)
    _weight_phase(job, system, weights, None, prompts, symmetry, others, adversary, lambda: 0.0)


def _aligned(recipe: BoundRecipe, zoo: Zoo, weights: Tensor, symmetry: Symmetry | None) -> Tensor:
    """(n, P), moved to be near the base if the recipe says so."""
    if not recipe.train.align:
        return weights
    assert symmetry is not None
    return symmetry.canonicalize(weights, zoo.base)


def weight_parameters(system: System) -> list[nn.Parameter]:
    """All that no task loss trains, and that is no tokenizer's code."""
    others = [*system.generator.task_parameters(), *system.tokenizer.parameters()]
    return [p for p in system.parameters() if not any(p is other for other in others)]


def _weight_phase(
    job: Job,
    system: System,
    weights: Tensor,
    codes: Tensor | None,
    prompts: Prompts,
    symmetry: Symmetry | None,
    parameters: Sequence[nn.Parameter],
    adversary: Adversary | None,
    look: Callable[[], float],
) -> list[dict[str, Any]]:
    """In every process at once, from the state of the first."""
    states = [system.state_dict(), {} if adversary is None else adversary.state_dict()]
    here().agree([tensor for state in states for tensor in state.values()])
    step = weight_step(job, system, weights, prompts, symmetry, adversary, codes)
    return phase(job, "train", system, parameters, job.recipe.train, step, look, adversary, here())


def adversary_of(job: Job, system: System) -> Adversary | None:
    recipe = job.recipe
    if not recipe.losses.adversarial:
        return None
    with seeded(stream(recipe.seed, "discriminator").initial_seed()):
        discriminator = recipe.discriminator.build({"layout": system.tokenizer.layout})
    return Adversary(discriminator, recipe.adversary, recipe.train.steps, here()).to(job.bench.device)


def _product_spread(spec: WeightSpec, weights: Tensor) -> float:
    """Mean squared distance of the zoo's low-rank products to their mean network's. Raises UserError if there are none."""
    if not spec.products:
        raise UserError("losses.product: the weights of this target are no low-rank products; set it to 0")
    few = weights[:SPREAD_OF]
    mean = weights.mean(0).expand(len(few), -1)
    return max(float(squared_distance(spec, few, mean).mean()), 1e-12)


Step = Callable[[int, torch.Generator], tuple[Tensor, Mapping[str, Tensor]]]
"""One batch's loss at a step, and figures for the log."""


def weight_step(
    job: Job,
    system: System,
    weights: Tensor,
    prompts: Prompts,
    symmetry: Symmetry | None,
    adversary: Adversary | None,
    codes: Tensor | None = None,
) -> Step:
    """The generator's own loss on networks of the zoo, and the terms that have a weight (T2W, eq. 14).

    `codes` are the networks' as `System.fit` returns them, made here if they are not at hand.

    With `precision: bfloat16` the generator computes by autocast, the discriminator and every sum in float32.
    """
    settings, losses, device = job.recipe.train, job.recipe.losses, job.bench.device
    half, batch = job.recipe.precision == "bfloat16", here().share(settings.batch)
    factors = {"symmetry": losses.symmetry, "adversarial": losses.adversarial, "product": losses.product}
    spread = _product_spread(system.spec, weights) if losses.product else 0.0
    if system.tokenizer.lossy:
        with torch.no_grad():
            codes = (system.tokenizer.tokenize(weights.to(device)) if codes is None else codes).to(device)

    def step(number: int, rng: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        rows = torch.randint(len(weights), (batch,), generator=rng)
        moves = None
        if symmetry is not None and (settings.augment or losses.symmetry):
            moves = system.moves(symmetry, batch, rng, augment=settings.augment, penalty=losses.symmetry > 0)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            if codes is None:
                pairs = system.pairs(weights[rows].to(device), prompts[rows].to(device), moves)
            else:
                pairs = system.pairs_of(codes[rows.to(device)], prompts[rows].to(device), moves)
            terms = system.generator.loss(pairs, rng)
        if losses.symmetry and "symmetry" not in terms:
            raise UserError("losses.symmetry: this generator has no such term; set it to 0")
        if losses.product:
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                estimated = system.generator.estimate(pairs, 1.0, rng).float()
            made = system.tokenizer.detokenize(estimated)
            terms["product"] = squared_distance(system.spec, made, weights[rows].to(device)).mean() / spread
        shown = {name: value.detach() for name, value in terms.items()}
        if adversary is not None:
            learning = adversary.learns_at(number)
            with torch.set_grad_enabled(not learning), torch.autocast(device.type, torch.bfloat16, enabled=half):
                generated = system.generator.estimate(pairs, job.recipe.adversary.noise, rng).float()
            if learning:
                shown |= adversary.learn(pairs.tokens, generated)
            else:
                terms["adversarial"] = adversary.judge(generated)
                shown["adversarial"] = terms["adversarial"].detach()
        total = sum((factors.get(name, 1.0) * value for name, value in terms.items()), torch.zeros((), device=device))
        return total, shown

    return step


def _task_step(job: Job, zoo: Zoo, system: System, weights: Tensor, prompts: Prompts) -> Step:
    """Cross-entropy of typical networks of seen tasks, on training images; and their distance to the zoo's (n, P)."""
    settings, bench = job.recipe.task_loss, job.bench
    unit = weights.var(0, correction=0).mean().clamp_min(1e-12)

    def step(number: int, rng: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        if settings.fresh:
            tasks = fresh_tasks(job.recipe.tasks, zoo.tasks, settings.batch, rng)
        else:
            rows = torch.randint(len(zoo.tasks.training), (settings.batch,), generator=rng)
            tasks = [zoo.tasks.training[row] for row in rows.tolist()]
        batches = TaskBatches(tasks, bench.train, bench.class_texts)
        features, label = batches.draw(settings.images, rng)
        kept = torch.rand(features.shape, generator=rng) >= settings.dropout
        networks = system.typical(prompts_of(tasks, bench.said, zoo.classes).to(bench.device)).cpu()
        features = features * kept / (1 - settings.dropout)
        loss = batches.losses(bench.target, networks, features, label).mean()
        if not settings.zoo:
            return loss, {}
        rows = torch.randint(len(weights), (settings.batch,), generator=rng)
        made = system.typical(prompts[rows].to(bench.device)).cpu()
        distance = (made - weights[rows]).square().mean() / unit
        return loss + settings.zoo * distance, {"tasks": loss.detach(), "zoo": distance.detach()}

    return step


def phase(
    job: Job,
    name: str,
    system: System,
    parameters: Sequence[nn.Parameter],
    settings: Train | TaskLoss | Reconstruction,
    step: Step,
    look: Callable[[], float],
    adversary: Adversary | None = None,
    processes: Processes = ALONE,
) -> list[dict[str, Any]]:
    """Train these parameters, and leave in `system` those averages that did best at a look. Returns the log.

    Of several processes, each draws by a random stream of its own, and the first alone looks and writes.
    """
    loop = Loop(system, settings, job.folder / CHECKPOINT.format(name), parameters, adversary, processes)
    loop.resume()
    with _alone(system, parameters), job.progress.bar(name, settings.steps) as bar:
        bar.resume(loop.step)
        while loop.step < settings.steps:
            rng = stream(job.recipe.seed, name, loop.step, *processes.own)
            with torch.random.fork_rng([job.bench.device] if job.bench.device.type == "cuda" else []):
                torch.manual_seed(rng.initial_seed())  # for dropout layers, which take no generator
                loop.advance(*step(loop.step, rng))
            bar.advance()
            due = loop.step % settings.check_every == 0 or loop.step == settings.steps
            if due and processes.rank == 0:
                with loop.averaged_parameters():
                    accuracy = look()
                loop.keep_if_best(accuracy)
                loop.save()
    return loop.finish()


@contextmanager
def _alone(system: System, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """No gradient is computed for any others, which nothing would descend."""
    others = [p for p in system.parameters() if p.requires_grad and not any(p is trained for trained in parameters)]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)
