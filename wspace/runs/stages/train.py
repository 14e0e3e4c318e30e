"""Stage train: the generator, on the zoo's pairs.

In phases: the tokenizer's code, if it has to learn one; closed forms; the task loss, where the recipe has one and the
generator takes it; the generator's own loss (of a generator that wants it so, the last two the other way round). Artifacts
are opened and written here; `wspace.learning.phases` trains.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from wspace.data.tasks import Task, fresh_tasks
from wspace.interfaces import Prompts, Symmetry, Target
from wspace.learning.adversary import Adversary
from wspace.learning.loop import Log, TrainingLoop
from wspace.learning.parts import PartStep, PartSystem, seeds_of
from wspace.learning.phases import (
    GeneratorTraining,
    TaskLossStep,
    TrainingPairs,
    TrainingSet,
    generator_parameters,
)
from wspace.learning.system import System
from wspace.recipes.schema import BoundRecipe
from wspace.runs.artifacts import Zoo
from wspace.runs.assemble import aligned, build_system, proven, symmetry_of
from wspace.runs.checking import check
from wspace.runs.stages import Job
from wspace.runs.telling import retell, tell
from wspace.runs.workbench import Workbench
from wspace.support.errors import UserError, WspaceError
from wspace.support.files import save_tensors, write_json
from wspace.support.names import CHECKPOINT, GENERATOR, LOG, PRECISION, PROMPT_TEXTS, SUMMARY, ZOO_DIRECTIONS, ZOO_MEAN
from wspace.support.processes import here
from wspace.support.quantities import counted
from wspace.support.seeding import seeded, stream
from wspace.support.settings import Generate
from wspace.weights.stretches import Stretches

VALIDATION_DRAW = Generate(steps=10, guidance=1.0, temperature=0.0)
"""How networks are drawn at a check: always so, for what a recipe says under `generate` must not change what was trained."""

VALIDATION_TASKS_IN_PARTS = 4  # of networks that are drawn one by one, which takes as long as they are large
VALIDATION_TASKS = 64  # held-out tasks whose networks are scored on validation images at every check
COLLAPSED = 0.005  # accuracy above the zoo's mean below which a condition is worth nothing
ALIKE = 0.01  # of how much the zoo's networks differ: below, networks of different tasks are one network


def run(job: Job) -> None:
    """Fill `job.folder` with the generator, its log and a summary.

    Raises Diverged, UserError for losses that the generator has not, and WspaceError for a tokenizer that loses too much.
    """
    recipe, bench, zoo = job.recipe, job.bench, Zoo(job.inputs["zoo"])
    zoo.check(bench.accepted)
    check(recipe, bench.target, bench.dims())  # as stage zoo has, which may have been of another recipe's run
    system = _new_system(job, zoo)
    if isinstance(system, PartSystem):
        return _run_in_parts(job, zoo, system)
    symmetry = proven(recipe, bench.target, bench.dims())
    networks = _Networks.of(job, zoo, symmetry)

    logs: dict[str, Log] = {}
    health: dict[str, Any] = {}
    if system.tokenizer.lossy:
        training = _training(job, networks.pairs(system).to(bench.device))
        logs["reconstruction"], health["reconstruction"] = _learn_code(job, zoo, training, networks.held_out)
    codes = system.fit(networks.training, networks.prompts, (networks.held_out, networks.held_out_prompts))
    system.to(bench.device).eval()
    if untold := _untold(job, zoo, system):
        health["untold"] = untold

    pairs = networks.pairs(system, codes).to(bench.device)
    validation = _Validation.of(bench, zoo, system, networks)
    if recipe.task_loss.steps and not system.generator.task_loss_last:
        logs |= _descend_task_loss(job, zoo, pairs, validation)
    adversary = None
    if not generator_parameters(system):
        _note_that_nothing_is_trained(job, system)
    elif recipe.train.steps:
        if recipe.train.shard_optimizer and here().count == 1:
            job.progress.say(
                "note: train.shard_optimizer: one process trains, which keeps all that the optimiser keeps"
            )
        adversary = adversary_of(job, system)
        health |= precision_chosen(bench, job.folder)  # before others look for it
        job.summon(job, join)
        logs["train"] = _descend_generator_loss(job, pairs, symmetry, adversary, validation)
    if recipe.task_loss.steps and system.generator.task_loss_last:
        logs |= _descend_task_loss(job, zoo, pairs, validation)

    if adversary is not None:
        health["discriminator_accuracy"] = float(adversary.accuracy)
    if symmetry is not None and not system.tokenizer.lossy:
        error = _equivariance_error(recipe, system, symmetry, networks.held_out, validation.prompts)
        if error is not None:
            health["equivariance_error"] = float(error.mean())
    zoo_mean = validation.score(networks.training.mean(0).expand(len(validation.tasks), -1))
    accuracies = _accuracies(zoo, validation.of_samples(), zoo_mean)
    write_trained(job.folder, system, logs, {**accuracies, "processes": here().count, **health})
    _warn_of_collapse(job, validation.whose, accuracies)
    if adversary is not None and adversary.wins_outright:
        job.progress.say(
            f"warning: the discriminator wins outright (it is right {float(adversary.accuracy):.1%} of the time), "
            "so the adversarial loss teaches the generator nothing: lower adversary.lr, or raise adversary.noise"
        )


def _run_in_parts(job: Job, zoo: Zoo, system: PartSystem) -> None:
    """As `run`, of networks that are never in memory together: statistics in one stream, then the generator's own loss."""
    recipe, bench, texts = job.recipe, job.bench, job.bench.prompt_texts
    if here().count > 1:
        raise UserError("train.tokens: one process alone trains on parts of networks: start no others")
    assert recipe.train.tokens is not None
    if recipe.train.tokens > (there := system.layout.count):
        job.progress.say(
            f"note: train.tokens: a network has {counted(there, 'token', form=',')}, and a step takes them all"
        )
    count, seen = len(zoo.tasks.training), zoo.tasks.seen
    networks = Stretches.of_zoo(zoo.stored, range(count), system.spec)
    prompts = zoo.prompts(zoo.tasks.training, texts)
    if system.generator.directions:
        others = Stretches.of_zoo(zoo.stored, range(count, len(seen)), system.spec)
        system.fit_parts(
            networks,
            prompts,
            job.folder / ZOO_MEAN,
            (others, zoo.prompts(zoo.tasks.choosing, texts)),
            job.folder / ZOO_DIRECTIONS,
            lambda weights, number: score_on_validation(bench, weights[None], [seen[number]]),
        )
    else:
        system.fit_parts(networks, prompts, job.folder / ZOO_MEAN)
    system.to(bench.device).eval()
    health: dict[str, Any] = {"untold": untold} if (untold := _untold(job, zoo, system)) else {}
    whose, tasks = "held-out", zoo.tasks.choosing
    if _why_unknown(system, zoo.prompts(tasks, texts)) is not None:
        whose, tasks = "seen", zoo.tasks.training
    tasks = tasks[:VALIDATION_TASKS_IN_PARTS]
    asked = zoo.prompts(tasks, texts).to(bench.device)

    def of_samples() -> float:
        seeds = seeds_of(len(tasks), stream(recipe.seed, "look"))
        drawn = (system.drawn(asked[n : n + 1], VALIDATION_DRAW, seed) for n, seed in enumerate(seeds))
        return _mean_of_each(drawn)

    def _mean_of_each(drawn: Iterable[Tensor]) -> float:
        each = [score_on_validation(bench, one[None], [task]) for one, task in zip(drawn, tasks, strict=True)]
        return sum(each) / len(each)

    logs: dict[str, Log] = {}
    if recipe.train.steps and not generator_parameters(system):
        job.progress.say("note: train.steps: all of this generator is in closed form, so it takes none")
    elif recipe.train.steps:
        loop = TrainingLoop(system, recipe.train, job.folder / CHECKPOINT.format("train"), generator_parameters(system))
        precision = bench.precision_in(job.folder)
        step = PartStep(system, networks, prompts, recipe.train, bench.device, precision)
        logs["train"] = loop.run(
            "train", step, of_samples, seed=recipe.seed, device=bench.device, progress=job.progress, watch=job.watch
        )
        health |= precision_chosen(bench, job.folder)
    assert system.mean is not None
    mean = system.mean.whole(0)
    accuracies = _accuracies(zoo, of_samples(), _mean_of_each(mean for _ in tasks))
    write_trained(job.folder, system, logs, {**accuracies, "processes": 1, **health})
    _warn_of_collapse(job, whose, accuracies)


def _new_system(job: Job, zoo: Zoo) -> System:
    """Built, and its conditioner told what it asks for; which is written down, with all classes' texts, for later stages."""
    system = build_system(job.recipe, job.bench.target, job.bench.text.dim)
    tell(system, job.folder, job.bench, zoo.tasks.classes)
    return system


def _note_that_nothing_is_trained(job: Job, system: System) -> None:
    """Where a task loss alone would train this generator, and the recipe takes no step of it."""
    if system.generator.task_parameters() and not job.recipe.task_loss.steps:
        job.progress.say(
            "note: task_loss.steps is 0: the generator writes the networks that its conditioner has in closed form"
            if system.conditioner.linear
            else "note: task_loss.steps is 0, and this generator learns by a task loss alone: it stays as it began"
        )


def _accuracies(zoo: Zoo, reached: float, zoo_mean: float) -> dict[str, Any]:
    """Of samples and of the zoo's mean network, on validation images; and whether the condition is worth nothing."""
    several_tasks = len(set(zoo.tasks.training)) > 1  # of one task there is one to ignore
    return {
        "validation_accuracy": reached,
        "validation_accuracy_of_zoo_mean": zoo_mean,
        "collapsed": ignores_condition(reached, zoo_mean) and several_tasks,
    }


def ignores_condition(reached: float, zoo_mean: float) -> bool:
    """Whether samples are no better than the zoo's mean, by accuracy. Of one that is all but perfect nobody can say."""
    return reached < min(zoo_mean + COLLAPSED, 1 - COLLAPSED)


def _warn_of_collapse(job: Job, whose: str, accuracies: Mapping[str, Any]) -> None:
    """Where the generator is no better than the zoo's mean on these tasks, in words."""
    if accuracies["collapsed"]:
        reached, zoo_mean = accuracies["validation_accuracy"], accuracies["validation_accuracy_of_zoo_mean"]
        worse = reached < zoo_mean - COLLAPSED
        what = "does worse than one that ignores its condition" if worse else "ignores its condition"
        job.progress.say(
            f"warning: the generator {what}: its networks for {whose} tasks reach {reached:.1%} on "
            f"validation images, the zoo's mean {zoo_mean:.1%}"
        )


def precision_chosen(bench: Workbench, folder: Path) -> dict[str, str]:
    """Of a training in `folder`, for the summary, where the recipe left it to the machine."""
    return {"precision": bench.precision_in(folder)} if bench.recipe.precision == "auto" else {}


def write_trained(folder: Path, system: System, logs: Mapping[str, Log], results: Mapping[str, Any]) -> None:
    """The generator, the log of each phase and the summary; the phases' checkpoints have had their time. Raises DiskError."""
    save_tensors(folder / GENERATOR, system.state_dict())
    lines = [json.dumps({"phase": phase, **entry}) for phase, log in logs.items() for entry in log]
    (folder / LOG).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    summary = {
        "parameters": sum(p.numel() for p in system.parameters()),
        "steps": {phase: len(log) for phase, log in logs.items()},
        **results,
    }
    write_json(folder / SUMMARY, summary)
    for begun in [*folder.glob(CHECKPOINT.format("*")), folder / PRECISION]:
        begun.unlink(missing_ok=True)


def score_on_validation(bench: Workbench, networks: Tensor, tasks: Sequence[Task]) -> float:
    """Mean accuracy of networks (B, P), each on its task's validation images."""
    return float(bench.accuracies(networks, tasks, bench.val).mean())


# ---------------------------------------------------------------- the zoo's networks


@dataclass(frozen=True)
class _Networks:
    """Of the zoo, those that are trained on and those held out: weights, aligned if the recipe says so, and prompts."""

    training: Tensor  # (n, P)
    prompts: Prompts  # of n tasks
    held_out: Tensor  # (m, P)
    held_out_prompts: Prompts  # of m tasks

    @classmethod
    def of(cls, job: Job, zoo: Zoo, symmetry: Symmetry | None) -> _Networks:
        count, texts = len(zoo.tasks.training), job.bench.prompt_texts
        return cls(
            aligned(job.recipe, zoo, zoo.weights[:count], symmetry, job.bench.device),
            zoo.prompts(zoo.tasks.training, texts),
            aligned(job.recipe, zoo, zoo.weights[count:], symmetry, job.bench.device),
            zoo.prompts(zoo.tasks.choosing, texts),
        )

    def pairs(self, system: System, codes: Tensor | None = None) -> TrainingPairs:
        """Those trained on, for this system; `codes` (n, N, D) are their tokens, if at hand."""
        return TrainingPairs(system, self.training, self.prompts, codes)


# ---------------------------------------------------------------- validation


@dataclass(frozen=True)
class _Validation:
    """The system's networks on validation images: of held-out tasks, or of tasks trained on."""

    bench: Workbench
    system: System
    whose: str  # in words
    tasks: Sequence[Task]
    prompts: Prompts
    differ: float  # how much the zoo's networks of different tasks do (`_difference`)
    differed: list[float] = field(default_factory=list)  # and the system's, at each check

    @classmethod
    def of(cls, bench: Workbench, zoo: Zoo, system: System, networks: _Networks) -> _Validation:
        whose, tasks, prompts = "held-out", zoo.tasks.choosing, networks.held_out_prompts
        if _why_unknown(system, prompts) is not None:  # then on images that the tasks trained on did not see
            whose, tasks, prompts = "seen", zoo.tasks.training, networks.prompts
        few = prompts[:VALIDATION_TASKS].to(bench.device)
        return cls(
            bench, system, whose, tasks[:VALIDATION_TASKS], few, _difference(networks.training[:VALIDATION_TASKS])
        )

    def score(self, networks: Tensor) -> float:
        return score_on_validation(self.bench, networks, self.tasks)

    def of_samples(self) -> float:
        rng = stream(self.bench.recipe.seed, "look")
        return self._looked_at(self.system.sample(self.prompts, VALIDATION_DRAW, rng))

    @torch.no_grad()
    def of_typical_networks(self) -> float:
        return self._looked_at(self.system.typical(self.prompts))

    def _looked_at(self, networks: Tensor) -> float:
        self.differed.append(_difference(networks))
        return self.score(networks)

    @property
    def alike(self) -> bool:
        """Whether, when last looked at, networks of different tasks were one network: the condition counts for nothing."""
        return len(set(self.tasks)) > 1 and bool(self.differed) and self.differed[-1] < ALIKE * self.differ


def _difference(networks: Tensor) -> float:
    """How much networks (n, P) differ from their mean, weight by weight: in the root of the mean square."""
    return float((networks - networks.mean(0)).square().mean().sqrt())


def _why_unknown(system: System, prompts: Prompts) -> str | None:
    """What a conditioner that knows nothing of one of these tasks says of it."""
    try:
        system.conditioner.check(prompts)
    except UserError as error:
        return str(error)
    return None


def _untold(job: Job, zoo: Zoo, system: System) -> dict[str, str]:
    """Split -> why its networks are not drawn for its tasks: the conditioner knows nothing of them."""
    reasons = {}
    for split in zoo.tasks.splits:
        why = _why_unknown(system, zoo.prompts(zoo.tasks.scored(split), job.bench.prompt_texts))
        if why is not None:
            reasons[split] = why
            job.progress.say(f"note: {split}: {why}; the report's networks are drawn for no task in particular")
    return reasons


# ---------------------------------------------------------------- phases


def _training(job: Job, pairs: TrainingPairs, validation: _Validation | None = None) -> GeneratorTraining:
    recipe, device, said = job.recipe, job.bench.device, set[str]()

    def watch(phase: str, log: Log) -> None:
        job.watch(phase, log)
        steps = {"task": recipe.task_loss.steps, "train": recipe.train.steps}.get(phase, 0)
        late = 2 * len(log) >= steps  # a network may begin as one that says the same to all
        if validation is not None and validation.alike and late and phase not in said:
            said.add(phase)
            job.progress.say(
                f"warning: {phase}: at step {len(log)} the networks of different tasks are one network: they differ by "
                f"{validation.differed[-1] / validation.differ:.1%} of what the zoo's do, so the condition counts for nothing"
            )

    return GeneratorTraining(TrainingSet((pairs,)), device, recipe.seed, job.folder, job.progress, here(), watch)


def _learn_code(job: Job, zoo: Zoo, training: GeneratorTraining, held_out: Tensor) -> tuple[Log, dict[str, float]]:
    """The tokenizer's code; and what a round trip costs networks held out (m, P).

    Raises WspaceError if that is more accuracy than the recipe allows.
    """
    settings, bench, system = job.recipe.reconstruction, job.bench, training.system
    tokenizer, tasks = system.tokenizer, zoo.tasks.choosing[:VALIDATION_TASKS]
    others = held_out[: len(tasks)].to(bench.device)
    tokenizer.fit(training.training_set.zoos[0].weights.cpu())
    system.to(bench.device).eval()

    @torch.no_grad()
    def after_round_trip() -> float:
        return score_on_validation(bench, tokenizer.detokenize(tokenizer.tokenize(others)), tasks)

    log = training.reconstruction(settings, after_round_trip) if settings.steps else []
    tokenizer.requires_grad_(False)
    before, after = score_on_validation(bench, others, tasks), after_round_trip()
    if before - after > settings.most_lost:
        raise WspaceError(
            f"the tokenizer loses too much: held-out networks reach {before:.1%} on validation images, and {after:.1%} after "
            f"a round trip, {before - after:.1%} less where reconstruction.most_lost allows {settings.most_lost:.1%}; train it "
            "longer (reconstruction.steps), give its code more room, or allow more"
        )
    system.cpu()
    return log, {"before": before, "after": after}


def _descend_task_loss(job: Job, zoo: Zoo, pairs: TrainingPairs, validation: _Validation) -> dict[str, Log]:
    """The phase's log by its name; none, with a note, for a generator that no task loss trains."""
    recipe, bench, settings = job.recipe, job.bench, job.recipe.task_loss
    if not pairs.system.generator.task_parameters():
        job.progress.say("note: task_loss: this generator has nothing that a task loss trains, so it is left out")
        return {}

    def draw_tasks(count: int, rng: torch.Generator) -> Sequence[Task]:
        if settings.fresh:
            return fresh_tasks(recipe.tasks, zoo.tasks, count, rng)
        rows = torch.randint(len(zoo.tasks.training), (count,), generator=rng)
        return [zoo.tasks.training[row] for row in rows.tolist()]

    prompt_texts = bench.prompt_texts.to(bench.device)
    step = TaskLossStep(
        pairs,
        settings,
        bench.target,
        bench.train,
        bench.class_texts.to(bench.device),
        draw_tasks,
        lambda tasks: zoo.prompts(tasks, prompt_texts),
        bench.device,
    )
    return {"task": _training(job, pairs, validation).task_loss(settings, step, validation.of_typical_networks)}


def _descend_generator_loss(
    job: Job,
    pairs: TrainingPairs,
    symmetry: Symmetry | None,
    adversary: Adversary | None,
    validation: _Validation | None,
) -> Log:
    """In every process at once; the first alone has a validation."""
    return _training(job, pairs, validation).generator(
        job.recipe.train,
        job.recipe.losses,
        (lambda: 0.0) if validation is None else validation.of_samples,
        symmetry=symmetry,
        adversary=adversary,
        precision=job.bench.precision_in(job.folder),
    )


def adversary_of(job: Job, system: System) -> Adversary | None:
    """The recipe's, on its device; None where `losses.adversarial` is 0."""
    recipe = job.recipe
    if not recipe.losses.adversarial or recipe.discriminator is None:
        return None
    with seeded(stream(recipe.seed, "discriminator").initial_seed()):
        discriminator = recipe.discriminator.build({"layout": system.tokenizer.layout})
    return Adversary(discriminator, recipe.adversary, recipe.train.steps, here()).to(job.bench.device)


def _equivariance_error(
    recipe: BoundRecipe, system: System, symmetry: Symmetry, networks: Tensor, prompts: Prompts
) -> Tensor | None:
    """`Generator.equivariance_error` at the first n of these networks (m, P), for n prompts: (n,)."""
    rng = stream(recipe.seed, "equivariance")
    moves = system.moves(symmetry, len(prompts.mask), rng, augment=0.0, penalty=False)
    few = networks[: len(prompts.mask)].to(prompts.mask.device)
    return system.generator.equivariance_error(system.pairs(few, prompts, moves), rng)


# ---------------------------------------------------------------- the other processes


def join(job: Job) -> None:
    """The last phase of another process's train stage: no images, no encoders, and nothing is written."""
    recipe, zoo = job.recipe, Zoo(job.inputs["zoo"])
    target: Target = recipe.target.build(zoo.dims)
    system = build_system(recipe, target, zoo.dims["text_dim"]).to(job.bench.device).eval()
    if system.needs_telling:
        retell(system, job.folder)
    symmetry = symmetry_of(recipe, target)  # the first has proven it
    weights = aligned(recipe, zoo, zoo.weights[: len(zoo.tasks.training)], symmetry, job.bench.device)
    prompts = zoo.prompts(zoo.tasks.training, load_file(job.folder / PROMPT_TEXTS)["texts"])
    system.tokenizer.requires_grad_(False)  # a code is learnt before
    pairs = TrainingPairs(system, weights, prompts).to(job.bench.device)
    _descend_generator_loss(job, pairs, symmetry, adversary_of(job, system), None)
