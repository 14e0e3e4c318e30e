"""Stage opponents: the methods trained on images that generated weights are set beside, `universal` and `oracle`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from wspace.data.tasks import Task
from wspace.learning.fitting import Schedule, fit_until_validated
from wspace.runs.artifacts import ORACLE, UNIVERSAL, Zoo, once
from wspace.runs.stages import Job
from wspace.support.errors import Diverged
from wspace.support.files import save_tensors
from wspace.support.seeding import stream

RATE_TASKS = 48  # held-out tasks on which the oracle's rate is chosen


def run(job: Job) -> None:
    zoo = Zoo(job.inputs["zoo"])
    zoo.check(job.bench.fingerprints)
    once(job.folder / UNIVERSAL, lambda: _universal(job, zoo.tasks.classes))
    _oracles(job, zoo)


def _universal(job: Job, classes: Task) -> Tensor:
    """One network for all classes that are not set apart, with rate and steps as validation images like best. (1, P)."""
    opponents, bench = job.recipe.opponents, job.bench

    def at(rate: float) -> tuple[Tensor, Tensor]:
        bar.advance()
        return fit_until_validated(
            bench.target,
            bench.target.init(1, stream(job.recipe.seed, "init")),
            [classes],
            bench.train,
            bench.val,
            bench.class_texts,
            Schedule(opponents.universal_steps, job.recipe.zoo.base_batch, rate),
            stream(job.recipe.seed, "universal", rate),
            check_every=5 * opponents.check_every,
            patience=opponents.patience,
        )

    with job.progress.bar("universal", len(opponents.rates)) as bar:
        return _best_rate(opponents.rates, at)[1]


def _best_rate(rates: Sequence[float], at: Callable[[float], tuple[Tensor, Tensor]]) -> tuple[float, Tensor]:
    """The rate with the highest mean validation accuracy, and its weights. A rate that diverges is no candidate."""
    found: list[tuple[float, float, Tensor]] = []
    for rate in rates:
        try:
            weights, accuracy = at(rate)
        except Diverged:
            continue
        found.append((float(accuracy.mean()), rate, weights))
    if not found:
        raise Diverged(f"training on images diverges at every one of opponents.rates, {', '.join(map(str, rates))}")
    _, rate, weights = max(found, key=lambda row: row[0])
    return rate, weights


def _oracles(job: Job, zoo: Zoo) -> None:
    """Networks trained for the very tasks that are scored, as well as validation images can tell."""
    settings, opponents, bench = job.recipe.zoo, job.recipe.opponents, job.bench
    schedule = Schedule(opponents.steps, settings.batch, opponents.rates[0])

    def trained(tasks: tuple[Task, ...], schedule: Schedule, name: str) -> tuple[Tensor, Tensor]:
        parts = []
        with job.progress.bar(name, len(tasks)) as bar:
            for first in range(0, len(tasks), settings.together):
                group = tasks[first : first + settings.together]
                rng = stream(job.recipe.seed, name, first)
                parts.append(
                    fit_until_validated(
                        bench.target,
                        zoo.base.expand(len(group), -1),
                        group,
                        bench.train,
                        bench.val,
                        bench.class_texts,
                        schedule,
                        rng,
                        check_every=opponents.check_every,
                        patience=opponents.patience,
                    )
                )
                bar.advance(len(group))
        return torch.cat([weights for weights, _ in parts]), torch.cat([accuracy for _, accuracy in parts])

    missing = [split for split in zoo.tasks.splits if not (job.folder / ORACLE.format(split)).is_file()]
    if not missing:
        return
    few = zoo.tasks.choosing[:RATE_TASKS]
    best, _ = _best_rate(opponents.rates, lambda rate: trained(few, replace(schedule, lr=rate), f"oracle rate {rate}"))
    for split in missing:
        weights, _ = trained(zoo.tasks.scored(split), replace(schedule, lr=best), f"oracle {split}")
        save_tensors(job.folder / ORACLE.format(split), {"weights": weights})
