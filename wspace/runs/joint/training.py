"""One generator learnt from several zoos, of different architectures and data sets; and each member's share of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wspace.interfaces import Prompts
from wspace.learning.loop import Log
from wspace.learning.phases import GeneratorTraining, TrainingPairs, TrainingSet
from wspace.recipes.schema import BoundRecipe
from wspace.runs.artifacts import Zoo
from wspace.runs.assemble import build_system, load_system
from wspace.runs.pieces import bound_of, check, told_of
from wspace.runs.stages import Job
from wspace.runs.stages.train import (
    VALIDATION_DRAW,
    ignores_condition,
    precision_chosen,
    score_on_validation,
    write_trained,
)
from wspace.runs.telling import context_for, tell
from wspace.runs.workbench import Workbench
from wspace.support.errors import UserError, WspaceError
from wspace.support.files import link_or_copy, read_json, write_json
from wspace.support.names import GENERATOR, LOG, SUMMARY
from wspace.support.processes import here
from wspace.support.progress import Progress
from wspace.support.seeding import stream
from wspace.support.settings import Reconstruction

VALIDATION_TASKS = 8  # held-out tasks of each member whose networks are scored at every check


@dataclass(frozen=True)
class MemberZoo:
    """A member's finished zoo."""

    name: str
    recipe: BoundRecipe
    folder: Path


class Pupil:
    """A member's zoo beside the shared system in its own shape."""

    def __init__(self, name: str, recipe: BoundRecipe, folder: Path, progress: Progress):
        self.name, self.bench, self.zoo = name, Workbench(recipe, progress), Zoo(folder)
        self.zoo.check(self.bench.accepted)
        self.system = build_system(recipe, self.bench.target, self.bench.text.dim).to(self.bench.device).eval()
        self.system.tell(context_for(self.system.conditioner, self.bench, self.zoo.tasks.classes))
        count = len(self.zoo.tasks.training)
        self.weights, self.held_out = self.zoo.weights[:count], self.zoo.weights[count:]
        self.tasks = self.zoo.tasks.choosing[:VALIDATION_TASKS]

    def _prompts(self, tasks: Sequence[tuple[int, ...]]) -> Prompts:
        return self.zoo.prompts(tasks, self.bench.prompt_texts)

    @cached_property
    def prompts(self) -> Prompts:
        """Of the tasks trained on."""
        return self._prompts(self.zoo.tasks.training)

    def score(self, networks: Tensor) -> float:
        """Mean accuracy on validation images, in [0, 1], of networks (B, P) of the held-out tasks."""
        return score_on_validation(self.bench, networks, self.tasks)

    @torch.no_grad()
    def after_round_trip(self) -> float:
        """Mean accuracy on validation images, in [0, 1], of held-out tasks' networks made tokens and weights again."""
        tokenizer, others = self.system.tokenizer, self.held_out[: len(self.tasks)].to(self.bench.device)
        return self.score(tokenizer.detokenize(tokenizer.tokenize(others)))

    def of_samples(self) -> float:
        """As `after_round_trip`, of networks drawn for those tasks."""
        prompts = self._prompts(self.tasks).to(self.bench.device)
        return self.score(self.system.sample(prompts, VALIDATION_DRAW, stream(self.bench.recipe.seed, "look")))


def run(zoos: Sequence[MemberZoo], folder: Path, progress: Progress) -> None:
    """Fill `folder` with the generator, its log and a summary.

    Raises UserError where a member's system is not of the first one's shapes, and as stage train does.
    """
    pupils = _sharing([Pupil(zoo.name, zoo.recipe, zoo.folder, progress) for zoo in zoos])
    first, recipe, training = pupils[0], zoos[0].recipe, _training(pupils, folder, progress)
    logs: dict[str, Log] = {}
    health: dict[str, Any] = {}
    for zoo in training.training_set.zoos:
        zoo.system.tokenizer.fit(zoo.weights)  # of a code: where it begins
    if first.system.tokenizer.lossy:
        logs["reconstruction"], health["reconstruction"] = _learn_code(training, recipe.reconstruction, pupils)
    first.system.conditioner.fit(_merged([pupil.prompts.to(first.bench.device) for pupil in pupils]))

    def validate() -> float:
        return _mean({pupil.name: pupil.of_samples() for pupil in pupils})

    logs["train"] = []
    if recipe.train.steps:
        members = [{"zoo": str(zoo.folder.absolute()), **told_of(zoo.recipe)} for zoo in zoos]
        precision = first.bench.precision_in(folder)  # before others look for it
        health |= precision_chosen(first.bench, folder)
        here().send({"joint": json.dumps({"folder": str(folder.absolute()), "members": members})})
        logs["train"] = training.generator(recipe.train, recipe.losses, validate, precision=precision)
    accuracies = {pupil.name: pupil.of_samples() for pupil in pupils}
    write_trained(
        folder, first.system, logs, {"validation_accuracies": accuracies, "processes": here().count, **health}
    )


def _sharing(pupils: Sequence[Pupil]) -> Sequence[Pupil]:
    """The same, whose systems now have one set of parameters."""
    first = pupils[0]
    for other in pupils[1:]:
        for name, component in other.system.named_children():
            share(getattr(first.system, name), component, other.name, f"{name}.")
    return pupils


def _training(pupils: Sequence[Pupil], folder: Path, progress: Progress) -> GeneratorTraining:
    bench = pupils[0].bench
    pairs = (TrainingPairs(p.system, p.weights, p.prompts).to(bench.device) for p in pupils)
    return GeneratorTraining(
        TrainingSet(tuple(pairs), joint=True), bench.device, bench.recipe.seed, folder, progress, here()
    )


def join(told: Mapping[str, Any]) -> None:
    """The last phase of another process's joint training, of which nothing is written."""
    pupils, progress = list[Pupil](), Progress()
    for member in told["members"]:
        check(member)
        pupils.append(Pupil(member["name"], bound_of(member), Path(member["zoo"]), progress))
    training = _training(_sharing(pupils), Path(told["folder"]), progress)
    training.system.tokenizer.requires_grad_(False)  # a code is learnt before
    bench = pupils[0].bench
    recipe, precision = bench.recipe, bench.precision_in(Path(told["folder"]))
    training.generator(recipe.train, recipe.losses, lambda: 0.0, precision=precision)


def member(job: Job) -> None:
    """A member's train stage: the joint generator, in the shape of its own networks."""
    bench, zoo, joint = job.bench, Zoo(job.inputs["zoo"]), job.inputs["joint"]
    zoo.check(bench.accepted)
    pupil = Pupil(job.recipe.name, job.recipe, job.inputs["zoo"], job.progress)
    tell(pupil.system, job.folder, bench, zoo.tasks.classes)
    for name in (GENERATOR, LOG):
        link_or_copy(joint / name, job.folder / name)
    load_system(pupil.system, job.folder / GENERATOR).to(bench.device)
    reached, mean = pupil.of_samples(), pupil.score(pupil.weights.mean(0).expand(len(pupil.tasks), -1))
    round_trip = {"before": pupil.score(pupil.held_out[: len(pupil.tasks)]), "after": pupil.after_round_trip()}
    results = {
        "validation_accuracy": reached,
        "validation_accuracy_of_zoo_mean": mean,
        "collapsed": ignores_condition(reached, mean),
        "reconstruction": round_trip,
    }
    write_json(job.folder / SUMMARY, read_json(joint / SUMMARY) | results)


def share(first: nn.Module, other: nn.Module, who: str, path: str = "") -> None:
    """Make parameters and buffers of a component `other` those of `first`. Raises UserError where a shape differs.

    What no state keeps, as the places of tokens, stays a member's own; inner modules that are alike but for their numbers
    become one.
    """
    for kind in ("_parameters", "_buffers"):
        mine, theirs = getattr(first, kind), getattr(other, kind)
        for name, tensor in theirs.items():
            if tensor is None or name in other._non_persistent_buffers_set:
                continue
            if mine[name].shape != tensor.shape:
                raise UserError(
                    f"member {who!r}: {path}{name} has shape {tuple(tensor.shape)} there, and {tuple(mine[name].shape)} in the "
                    "first member: a joint recipe needs a tokenizer, a conditioner and a generator that take any network"
                )
            theirs[name] = mine[name]
    for name, child in other.named_children():
        counterpart = getattr(first, name)
        if _shapes(child) == _shapes(counterpart) and _alike(
            _stateless_buffers(child), _stateless_buffers(counterpart)
        ):
            setattr(other, name, counterpart)
        else:
            share(counterpart, child, who, f"{path}{name}.")


def _stateless_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Buffers that no state keeps."""
    kept = module.state_dict()
    return {name: buffer for name, buffer in module.named_buffers() if name not in kept}


def _alike(mine: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return mine.keys() == other.keys() and all(torch.equal(mine[name], other[name]) for name in mine)


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def _merged(each: Sequence[Prompts]) -> Prompts:
    """Prompts of several members, one after the other."""
    most = max(prompts.mask.shape[1] for prompts in each)
    pads = [most - prompts.mask.shape[1] for prompts in each]
    texts = [functional.pad(p.texts, (0, 0, 0, pad)) for p, pad in zip(each, pads, strict=True)]
    return Prompts(
        torch.cat(texts), torch.cat([functional.pad(p.mask, (0, pad)) for p, pad in zip(each, pads, strict=True)])
    )


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)


def _learn_code(
    training: GeneratorTraining, settings: Reconstruction, pupils: Sequence[Pupil]
) -> tuple[Log, dict[str, Any]]:
    """The tokenizer's code, learnt from all zoos; and what a round trip costs each member's held-out networks.

    Raises WspaceError if that is, in the mean over members, more accuracy than the recipe allows.
    """

    def validate() -> float:
        return _mean({pupil.name: pupil.after_round_trip() for pupil in pupils})

    log = training.reconstruction(settings, validate) if settings.steps else []
    training.system.tokenizer.requires_grad_(False)
    for zoo in training.training_set.zoos:
        zoo.system.tokenizer.fit(zoo.weights)
    before = {pupil.name: pupil.score(pupil.held_out[: len(pupil.tasks)]) for pupil in pupils}
    after = {pupil.name: pupil.after_round_trip() for pupil in pupils}
    lost = _mean(before) - _mean(after)
    if lost > settings.most_lost:
        worst = max(before, key=lambda name: before[name] - after[name])
        raise WspaceError(
            f"the tokenizer loses too much: held-out networks reach {_mean(before):.1%} on validation images, and "
            f"{_mean(after):.1%} after a round trip (worst, {worst}: {before[worst]:.1%} and {after[worst]:.1%}), where "
            f"reconstruction.most_lost allows {settings.most_lost:.1%} less; train it longer (reconstruction.steps), give its "
            "code more room, or allow more"
        )
    return log, {"before": before, "after": after}
