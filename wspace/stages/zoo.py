"""Stage zoo: the tasks, a shared base, and a specialisation for each seen task."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from wspace.fitting import Schedule, fit
from wspace.seeding import stream
from wspace.stages import Job
from wspace.store import save_tensors, write_json
from wspace.tasks import Task, draw_tasks
from wspace.zoo import SHARD, once


def run(job: Job) -> None:
    recipe, bench = job.recipe, job.bench
    classes = bench.images.classes
    tasks = draw_tasks(recipe.tasks, len(classes), stream(recipe.seed, "tasks"))
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

    base = once(job.folder / "base.safetensors", lambda: _base(job, tasks.classes))
    _specialise(job, base, tasks.seen)


def _base(job: Job, classes: Task) -> Tensor:
    """T2W, algorithm 2, stage 1: briefly, on all classes that are not set apart. (1, P)."""
    settings, bench = job.recipe.zoo, job.bench
    start = bench.target.init(1, stream(job.recipe.seed, "init"))
    schedule = Schedule(settings.base_steps, settings.base_batch, settings.base_lr, decay=False)
    rng = stream(job.recipe.seed, "base")
    return fit(bench.target, start, [classes], bench.train, bench.class_texts, schedule, rng)


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
