"""Stage zoo: the tasks, a base if networks share one, and a network for each seen task: trained, or of a zoo that is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from wspace.data.tasks import Task, TaskSet, draw_tasks, task_of, tasks_around, with_pictures, with_ways
from wspace.data.twins import held_together, listed, twins
from wspace.interfaces import TRAIN
from wspace.learning.fitting import Schedule, accuracies, fit
from wspace.runs.artifacts import keep, kept
from wspace.runs.checking import check
from wspace.runs.stages import Job
from wspace.support.classes import class_meant
from wspace.support.elsewhere import Address
from wspace.support.errors import DataError, FileError, UserError
from wspace.support.files import link_or_copy, save_tensors, write_json
from wspace.support.names import TASKS, WORLD, WORLD_TENSORS
from wspace.support.seeding import stream
from wspace.weights.zoo.format import BASE, SHARD, Entry, Header, Parent, StoredZoo, seal, sha256_of, stored


def run(job: Job) -> None:
    recipe, bench = job.recipe, job.bench
    source = None if recipe.zoo.source is None else _checked_source(job, recipe.zoo.source)
    check(recipe, bench.target, bench.dims())
    bench.encode_images(lambda blocks: (block for block, _ in job.each(features, blocks)))
    classes, rng, ordered = bench.images.classes, stream(recipe.seed, "tasks"), bench.target.places > 0
    rows: list[int] = []
    if source is None:
        tasks = draw_tasks(recipe.tasks, len(classes), rng, recipe.zoo.copies, ordered=ordered)
    else:
        given = _tasks_of(source, classes, ordered)
        tasks, rows = tasks_around(recipe.tasks, given, len(classes), rng, ordered=ordered)
    tasks = with_ways(recipe.tasks, tasks, classes, stream(recipe.seed, "unseen ways"))
    of_training = bench.images.labels[bench.images.split == TRAIN]
    tasks = with_pictures(recipe.tasks, tasks, np.bincount(of_training, minlength=len(classes)).tolist())
    for note in (*bench.target.notes, *tasks.notes):
        job.progress.say(f"note: {note}")
    _tell_of_twins(job, tasks)
    tasks.save(job.folder / TASKS)
    world = {
        "classes": list(classes),
        "feature_dim": bench.backbone.dim,
        "text_dim": bench.text.dim,
        "fingerprints": bench.fingerprints,
    }
    write_json(job.folder / WORLD, world)
    tensors = {"class_texts": bench.class_texts, "feature_rms": bench.scale.rms}
    save_tensors(job.folder / WORLD_TENSORS, tensors)

    shares_base = recipe.zoo.start == "base"
    if source is None:
        base = _base(job, tasks.classes) if shares_base else None
        _specialise(job, tasks.seen)
        parent = None if base is None else _parent(job, base)
        seal(job.folder, _header(job, parent), _entries(job, tasks, parent))
    else:
        parents = source.header.parents
        if shares_base and not _has_base(source):
            parents = (*parents, _parent(job, _base(job, tasks.classes)))
        _take(job, source, rows, parents)


def features(job: Job, block: int) -> None:
    """Of a block of images, into the cache."""
    job.bench.extraction.encode(block)


def _tell_of_twins(job: Job, tasks: TaskSet) -> None:
    """A note on each group of classes whose names are one to the text encoder. Raises DataError if a task holds two."""
    classes, groups = job.bench.images.classes, twins(job.bench.class_texts)
    for group in groups:
        names = listed([classes[number] for number in group])
        job.progress.say(f"note: the text encoder makes one vector of {names}: they are one class to every network")
    if both := held_together(chain(tasks.seen, tasks.unseen, tasks.novel, *tasks.further.values()), groups):
        names = listed([classes[number] for number in both])
        raise DataError(
            f"a task would hold the classes {names}, and no network could tell them apart: the text encoder makes one "
            "vector of their names; rename or leave out all but one, or use another `text`"
        )


# ---------------------------------------------------------------- trained here


def _base(job: Job, classes: Task) -> Tensor:
    """T2W, algorithm 2, stage 1: briefly, on all classes that are not set apart. (1, P).

    Where outputs stand for a task's classes, on the first of these: as many as it has outputs, in one order.
    """
    settings, bench, file = job.recipe.zoo, job.bench, job.folder / BASE
    if kept(file):
        return bench.target.spec.flatten(load_file(file))[None]
    start = bench.target.init(1, stream(job.recipe.seed, "init"))
    schedule = Schedule(settings.base_steps, settings.base_batch, settings.base_lr, decay=False, setting="zoo.base_lr")
    rng = stream(job.recipe.seed, "base")
    shared = classes[: bench.target.places or None]
    with job.progress.bar("base", schedule.steps) as bar:
        base = fit(bench.target, start, [shared], bench.train, bench.class_texts, schedule, rng, advanced=bar.advance)
    keep(file, bench.target.spec.unflatten(base[0]))
    return base


def _specialise(job: Job, tasks: tuple[Task, ...]) -> None:
    """T2W, algorithm 2, stage 2, for every seen task: `together` networks at a time, a shard for each group."""
    groups = range(_shards(job, tasks))
    with job.progress.bar("zoo", len(tasks)) as bar:
        left = [number for number in groups if not kept(job.folder / SHARD.format(number))]
        bar.resume(sum(len(_group(job, tasks, number)) for number in groups if number not in left))
        for number, _ in job.each(shard, left):
            bar.advance(len(_group(job, tasks, number)))


def shard(job: Job, number: int) -> None:
    """One shard: networks from the base, or each from weights of its own, which are the same whatever `together` is."""
    settings, bench = job.recipe.zoo, job.bench
    tasks = _task_set(job)
    group = _group(job, tasks.seen, number)
    if settings.start == "base":
        start = job.once("base", lambda: _base(job, tasks.classes)).expand(len(group), -1)
    else:
        start = _fresh(job, number * settings.together, len(group))
    schedule = Schedule(settings.steps, settings.batch, settings.lr, settings.average, setting="zoo.lr")
    rng = stream(job.recipe.seed, "specialise", number)
    weights = fit(bench.target, start, group, bench.train, bench.class_texts, schedule, rng)
    keep(job.folder / SHARD.format(number), bench.target.spec.unflatten(weights))


def validation(job: Job, number: int) -> list[float]:
    """Accuracy of each network of a shard on validation images."""
    bench, tasks = job.bench, _task_set(job)
    weights = bench.target.spec.flatten(load_file(job.folder / SHARD.format(number)))
    return accuracies(bench.target, weights, _group(job, tasks.seen, number), bench.val, bench.class_texts).tolist()


def _task_set(job: Job) -> TaskSet:
    return job.once("tasks", lambda: TaskSet.load(job.folder / TASKS))


def _shards(job: Job, tasks: Sequence[Task]) -> int:
    return -(-len(tasks) // job.recipe.zoo.together)


def _group(job: Job, tasks: Sequence[Task], number: int) -> Sequence[Task]:
    """Whose networks are in a shard."""
    together = job.recipe.zoo.together
    return tasks[number * together : (number + 1) * together]


def _fresh(job: Job, first: int, count: int) -> Tensor:
    """(count, P), what the networks of these numbers begin at."""
    numbers, init = range(first, first + count), job.bench.target.init
    return torch.cat([init(1, stream(job.recipe.seed, "fresh", number)) for number in numbers])


def _parent(job: Job, base: Tensor) -> Parent:
    return Parent("base", BASE, sha256_of(job.bench.target.spec.unflatten(base[0])))


def _entries(job: Job, tasks: TaskSet, parent: Parent | None) -> list[Entry]:
    """What the index says of each network, its accuracy on validation images among it."""
    bench, together = job.bench, job.recipe.zoo.together
    sentences, entries = bench.templated(bench.images.classes), list[Entry]()
    values = dict[int, list[float]]()  # of each shard
    with job.progress.bar("validate", len(tasks.seen)) as bar:
        for number, of_shard in job.each(validation, range(_shards(job, tasks.seen))):
            values[number] = of_shard
            bar.advance(len(of_shard))
    for place, task in enumerate(tasks.seen):
        number, row = divmod(place, together)
        seen = bench.val.count(task)
        entries.append(
            Entry(
                name=f"task-{place:05}",
                texts=tuple(sentences[c] for c in task),
                classes=tuple(bench.images.classes[c] for c in task),
                shard=SHARD.format(number),
                row=row,
                metrics={"val_accuracy": values[number][row]} if seen else {},
                seed=job.recipe.seed,
                parent=None if parent is None else parent.sha256,
            )
        )
    return entries


def _header(job: Job, parent: Parent | None) -> Header:
    recipe, bench = job.recipe, job.bench
    spec = bench.target.spec
    made_with = {
        "dataset": recipe.dataset.told(),
        "backbone": recipe.backbone.told(),
        "text": recipe.text.told(),
        "template": recipe.tasks.template,
        "feature_dim": bench.backbone.dim,
        "text_dim": bench.text.dim,
        "feature_rms": float(bench.scale.rms),
        "fingerprints": bench.fingerprints,
    }
    if bench.target.base_model:
        made_with["base_model"] = bench.target.base_model
    return Header(
        name=recipe.name,
        source=f"recipe {recipe.name}, seed {recipe.seed}",
        target=recipe.target.told(),
        made_with=made_with,
        tensors=stored(spec),
        free=spec.free,
        products=spec.products,
        parents=() if parent is None else (parent,),
    )


# ---------------------------------------------------------------- taken from a zoo


def _checked_source(job: Job, where: Path | Address) -> StoredZoo:
    """Raises FileError if the zoo is damaged, UserError if its networks are not such as this recipe trains."""
    source = StoredZoo.open(where)
    if source.fetched is not None:
        shards = len(source.header.shards)
        come = "file comes into {}, unless it is" if shards == 1 else f"{shards} files come into {{}}, unless they are"
        job.progress.say(f"zoo.source: {where}: its {come.format(source.folder)} there")
    problems = source.problems()
    if problems:
        raise FileError(f"{where}: {problems[0]}")
    if job.recipe.zoo.start == "fresh" and _has_base(source):
        raise UserError(f"zoo.start: {where}: its networks began at a base, which is there; leave zoo.start out")
    header, target, spec = source.header, job.recipe.target.told(), job.bench.target.spec

    def differs(what: str, there: Any, here: Any) -> UserError:
        return UserError(f"zoo.source: {where}: {what} is {there} there, and {here} in this recipe")

    for key, there in (header.target or {}).items():
        if target.get(key) != there:
            raise differs("target" if key == "use" else f"target.{key}", there, target.get(key, "absent"))
    shapes, expected = (
        {e.name: e.shape for e in either.entries if e.name not in spec.aside} for either in (header.spec, spec)
    )
    for name in sorted(set(shapes) ^ set(expected)):
        has, lack = ("have a", "have none") if name in shapes else ("have no", "have one")
        raise UserError(f"zoo.source: {where}: its networks {has} tensor {name!r}; those of this recipe {lack}")
    for name, shape in expected.items():
        if shapes[name] != shape:
            raise differs(f"the shape of {name}", shapes[name], shape)
    scales, expected = ({p.layer: p.scale for p in either.products} for either in (header.spec, spec))
    for layer in sorted(scales.keys() & expected.keys()):
        if scales[layer] != expected[layer]:
            raise differs(f"the scale of the product at {layer}", scales[layer], expected[layer])
    for name, there in header.made_with.get("fingerprints", {}).items():
        if there not in job.bench.accepted.get(name, ()):
            raise UserError(f"zoo.source: {where}: its networks were trained with other {name} than this recipe's")
    return source


def _has_base(source: StoredZoo) -> bool:
    return any(parent.name == "base" for parent in source.header.parents)


def _tasks_of(source: StoredZoo, classes: tuple[str, ...], ordered: bool) -> list[Task]:
    """Of each network. Raises UserError unless all are about classes of the data set, each named once."""
    tasks, numbers = [], {name: number for number, name in enumerate(classes)}
    for entry in source.entries:
        who = f"zoo.source: {source.where}: network {entry.name!r}"
        if len(entry.classes) < 2:
            raise UserError(f"{who} does not say the classes it tells apart")
        unknown = [name for name in entry.classes if name not in numbers]
        if unknown:
            hint = class_meant(unknown[0], classes)
            raise UserError(f"{who} is about {unknown[0]!r}, of which the data set has no images.{hint}")
        if twice := [name for number, name in enumerate(entry.classes) if name in entry.classes[:number]]:
            raise UserError(f"{who} names the class {twice[0]!r} twice")
        tasks.append(task_of([numbers[name] for name in entry.classes], ordered))
    return tasks


def _take(job: Job, source: StoredZoo, rows: list[int], parents: tuple[Parent, ...]) -> None:
    """The source's files under this folder too, and an index of those networks that are used, held-out ones last."""
    entries, spec = [source.entries[row] for row in rows], job.bench.target.spec
    for name in {*(entry.shard for entry in entries), *(parent.file for parent in source.header.parents)}:
        link_or_copy(source.file(name), job.folder / name)
    theirs = {t.name: t for t in source.header.tensors}
    ours = tuple(replace(theirs.pop(entry.name), axes=entry.axes) for entry in spec.entries)  # in our order
    tensors = (*ours, *theirs.values())
    header = replace(source.header, tensors=tensors, free=spec.free, products=spec.products, parents=parents)
    seal(job.folder, header, entries)
