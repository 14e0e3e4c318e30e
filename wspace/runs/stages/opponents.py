"""Stage opponents: those methods that generated weights are set beside which train on images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wspace.interfaces import Contest, Evidence, Opponent
from wspace.learning.fitting import fit_on
from wspace.recipes.schema import Bound
from wspace.runs.ahead import from_zoo, why_left_out
from wspace.runs.artifacts import Zoo, keep, kept
from wspace.runs.keys import takes_pictures, trains_on_images
from wspace.runs.stages import Job
from wspace.support.errors import WspaceError
from wspace.support.files import read_json, write_json
from wspace.support.names import CHOSEN, OPPONENT, OPPONENT_OF_ALL
from wspace.support.seeding import stream


def run(job: Job) -> None:
    zoo = zoo_of(job)
    zoo.check(job.bench.accepted)
    asked, _ = asked_and_not(job.recipe.against, zoo)
    names = [bound.name for bound in asked if trains_on_images(bound)]
    for _ in job.each(begin, names, "opponents"):
        pass
    left = [(name, split) for name in names for split in _unmade(job, zoo, name)]
    for _ in job.each(contest, left, "opponents"):
        pass


def begin(job: Job, name: str) -> None:
    """What an opponent chooses for all tasks, and its networks for the first split that has none.

    For all splits, where another process would have to choose again.
    """
    zoo, file = zoo_of(job), job.folder / CHOSEN.format(name)
    for split in _unmade(job, zoo, name):
        contest(job, (name, split))
        if file.is_file() and _bound(job, name).build({}).resume(read_json(file)):
            return


def contest(job: Job, part: Sequence[str]) -> None:
    """An opponent's networks for one split."""
    name, split = part
    zoo, of_all = zoo_of(job), job.folder / OPPONENT_OF_ALL.format(name)
    if kept(of_all):
        return
    trained = [bound for bound in job.recipe.against if trains_on_images(bound)]
    evidence = job.once("evidence", lambda: evidence_of(job, zoo, whole=any(map(from_zoo, trained))))
    opponent = job.once(f"opponent {name}", lambda: _ready(job, evidence, name))
    tasks = zoo.tasks.scored(split)
    asked = Contest(split, tasks, shots=job.bench.shots_of(zoo.tasks, split))
    weights = checked(opponent.weights(evidence, asked), name, len(tasks), evidence)
    if weights.ndim == 1:
        keep(of_all, {"weights": weights[None]})  # (1, P)
    else:
        keep(job.folder / OPPONENT.format(name, split), {"weights": weights})


def zoo_of(job: Job) -> Zoo:
    """The zoo of a stage after it, opened once for all of its parts."""
    return job.once("zoo", lambda: Zoo(job.inputs["zoo"]))


def _ready(job: Job, evidence: Evidence, name: str) -> Opponent:
    """Built, and with what it chose."""
    opponent, file = _bound(job, name).build({}), job.folder / CHOSEN.format(name)
    if not (file.is_file() and opponent.resume(read_json(file))) and (chosen := opponent.choose(evidence)):
        write_json(file, chosen)
    return opponent


def _bound(job: Job, name: str) -> Bound[Opponent]:
    return next(bound for bound in job.recipe.against if bound.name == name)


def _unmade(job: Job, zoo: Zoo, name: str) -> list[str]:
    """Splits that an opponent is asked for and that no interrupted attempt left whole; none if one network serves all."""
    if kept(job.folder / OPPONENT_OF_ALL.format(name)):
        return []
    splits = zoo.tasks.shown if takes_pictures(_bound(job, name)) else zoo.tasks.splits
    return [split for split in splits if not kept(job.folder / OPPONENT.format(name, split))]


def asked_and_not(against: Sequence[Bound], zoo: Zoo, *, in_parts: bool = False) -> tuple[list[Bound], dict[str, str]]:
    """Of opponents, those that have something to go by in this zoo; and name -> why not, of the others.

    `in_parts`: the zoo's networks are never in memory together.
    """
    here = {"in_parts": in_parts, "has_base": zoo.shares_base, "ordered": zoo.tasks.ordered}
    why = {bound.name: reason for bound in against if (reason := why_left_out(bound, **here)) is not None}
    return [bound for bound in against if bound.name not in why], why


def evidence_of(job: Job, zoo: Zoo, described: Tensor | None = None, *, whole: bool = True) -> Evidence:
    """What an opponent may go by; `described` (n, D) once there are prompts' texts; `whole`: with the zoo's networks."""
    bench, recipe = job.bench, job.recipe

    return Evidence(
        target=bench.target,
        shared_base=zoo.base if zoo.shares_base else None,
        weights=zoo.weights if whole else torch.empty(0, bench.target.spec.size),
        tasks=zoo.tasks.seen,
        held_out=zoo.tasks.held_out,
        classes=zoo.tasks.classes,
        class_texts=bench.class_texts,
        images=lambda task: bench.train.of_task(task),
        accuracy=lambda weights, tasks: bench.accuracies(weights, tasks, bench.val),
        fit=lambda *given, **effort: fit_on(bench.target, bench.train, bench.val, bench.class_texts)(*given, **effort),
        rng=lambda *names: stream(recipe.seed, *names),
        effort=recipe.opponents,
        zoo=recipe.zoo,
        progress=job.progress,
        described=described,
        shown=tuple(sorted({shown.pictures for shown in zoo.tasks.shown.values()})),
    )


def checked(weights: Tensor, name: str, count: int, evidence: Evidence) -> Tensor:
    """An opponent's networks, (B, P) or (P,). Raises WspaceError for another shape, or numbers that are not finite."""
    size = evidence.target.spec.size
    if tuple(weights.shape) not in ((count, size), (size,)):
        raise WspaceError(
            f"opponent {name!r} gave weights of shape {tuple(weights.shape)} for {count} tasks; ({count}, {size}) is right, "
            f"or ({size},) for one network"
        )
    if not torch.isfinite(weights).all():
        raise WspaceError(f"opponent {name!r} gave weights that are not finite numbers")
    return weights
