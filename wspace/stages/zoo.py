"""Stage zoo: a shared base, a specialisation for each seen task, and the opponents that are trained on images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from wspace.errors import Diverged
from wspace.fitting import Schedule, fit, fit_until_validated
from wspace.seeding import stream
from wspace.stages import Job
from wspace.store import save_tensors, write_json
from wspace.tasks import SPLITS, Task, draw_tasks
from wspace.zoo import SHARD

RATE_TASKS = 48  # held-out tasks on which the oracle's rate is chosen


def run(job: Job) -> None:
    recipe, bench, seed = job.recipe, job.bench, job.recipe.seed
    classes = bench.images.classes
    tasks = draw_tasks(recipe.tasks, len(classes), stream(seed, "tasks"))
    for note in tasks.notes:
        job.progress.say(f"note: {note}")
    tasks.save(job.folder / "tasks.json")
    world = {
        "classes": list(classes),
        "feature_dim": bench.backbone.dim,
        "text_dim": bench.text.dim,
        "fingerprints": bench.fingerprints,
    }
    write_json(job.folder / "world.json", world)
    tensors = {"class_texts": bench.class_texts, "feature_rms": bench.scale.rms}
    save_tensors(job.folder / "world.safetensors", tensors)

    base = _once(job.folder / "base.safetensors", lambda: _base(job))
    _once(job.folder / "universal.safetensors", lambda: _universal(job))
    _specialise(job, base, tasks.seen)
    _oracles(job, base, tasks.choosing, {split: tasks.scored(split) for split in SPLITS})


def _once(file: Path, make: Callable[[], Tensor]) -> Tensor:
    """Weights of a file, made now unless an interrupted attempt left them whole."""
    if file.is_file():
        try:
            return load_file(file)["weights"]
        except (SafetensorError, KeyError):
            file.unlink()
    weights = make()
    save_tensors(file, {"weights": weights})
    return weights


def _everything(job: Job) -> list[Task]:
    return [tuple(range(len(job.bench.images.classes)))]


def _base(job: Job) -> Tensor:
    """T2W, algorithm 2, stage 1: briefly, on all classes. (1, P)."""
    settings, bench = job.recipe.zoo, job.bench
    start = bench.target.init(1, stream(job.recipe.seed, "init"))
    schedule = Schedule(settings.base_steps, settings.base_batch, settings.base_lr, decay=False)
    rng = stream(job.recipe.seed, "base")
    return fit(bench.target, start, _everything(job), bench.train, bench.class_texts, schedule, rng)


def _universal(job: Job) -> Tensor:
    """One network for all classes, at the rate and with the steps that validation images like best. (1, P)."""
    opponents, bench = job.recipe.opponents, job.bench

    def at(rate: float) -> tuple[Tensor, Tensor]:
        bar.advance()
        return fit_until_validated(
            bench.target,
            bench.target.init(1, stream(job.recipe.seed, "init")),
            _everything(job),
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


def _specialise(job: Job, base: Tensor, tasks: tuple[Task, ...]) -> None:
    """T2W, algorithm 2, stage 2, for every seen task: `together` networks at a time, a shard for each group."""
    settings, bench = job.recipe.zoo, job.bench
    schedule = Schedule(settings.steps, settings.batch, settings.lr, settings.average)
    with job.progress.bar("zoo", len(tasks)) as bar:
        for number, first in enumerate(range(0, len(tasks), settings.together)):
            group = tasks[first : first + settings.together]
            shard = job.folder / SHARD.format(number)
            if _whole(shard, len(group)):
                bar.resume(len(group))
                continue
            rng = stream(job.recipe.seed, "specialise", number)
            start = base.expand(len(group), -1)
            weights = fit(bench.target, start, group, bench.train, bench.class_texts, schedule, rng)
            save_tensors(shard, {"weights": weights})
            bar.advance(len(group))


def _whole(shard: Path, count: int) -> bool:
    if not shard.is_file():
        return False
    try:
        with safe_open(shard, "pt") as tensors:
            return tensors.get_slice("weights").get_shape()[0] == count
    except (SafetensorError, KeyError):
        return False


def _oracles(job: Job, base: Tensor, choosing: tuple[Task, ...], scored: dict[str, tuple[Task, ...]]) -> None:
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
                        base.expand(len(group), -1),
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

    files = {split: job.folder / f"oracle-{split}.safetensors" for split in scored}
    if all(_whole(file, len(scored[split])) for split, file in files.items()):
        return
    few = choosing[:RATE_TASKS]
    best, _ = _best_rate(opponents.rates, lambda rate: trained(few, replace(schedule, lr=rate), f"oracle rate {rate}"))
    for split, file in files.items():
        _once(file, lambda split=split: trained(scored[split], replace(schedule, lr=best), f"oracle {split}")[0])
