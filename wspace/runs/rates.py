"""What a recipe's work takes on this machine, kind by kind: a few steps of each, by the code that does it, on random numbers.

`wspace.runs.plan` has how often a run does each, and keeps what was measured.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from wspace.components.opponents.oracle import RATE_TASKS
from wspace.components.predictors.directions import LOOKS
from wspace.data.features import BLOCK, FeatureScale
from wspace.data.splits import SEEN
from wspace.data.tasks import Task, TaskSet, draw_tasks, with_pictures, with_ways
from wspace.interfaces import PICTURE, TRAIN, Contest, Evidence, Opponent, Prompts, Target, Told
from wspace.learning.baselines import descriptions
from wspace.learning.fitting import Schedule, accuracies, fit, predict
from wspace.learning.loop import Step
from wspace.learning.parts import PartStep, PartSystem, where_of
from wspace.learning.phases import (
    ReconstructionStep,
    TaskLossStep,
    TrainingPairs,
    TrainingSet,
    generator_parameters,
)
from wspace.learning.system import System
from wspace.recipes.schema import BoundRecipe
from wspace.runs.artifacts import Zoo, keep
from wspace.runs.assemble import build_system, generator_step, proven, symmetry_of
from wspace.runs.checking import check
from wspace.runs.keys import components_of, takes_pictures, trains_on_images
from wspace.runs.measured import FLOAT, TRIED_WITH, Measured, Rate
from wspace.runs.pipeline import STAGES
from wspace.runs.report.intervals import interval
from wspace.runs.stages import Job
from wspace.runs.stages.evaluate import FOLLOWED, MARKED
from wspace.runs.stages.opponents import asked_and_not, evidence_of
from wspace.runs.stages.train import VALIDATION_DRAW, VALIDATION_TASKS, adversary_of
from wspace.runs.workbench import Workbench
from wspace.support.devices import finish
from wspace.support.errors import UserError
from wspace.support.memory import (
    forget_peak,
    is_want_of_memory,
    keep_freed_memory,
    limited_to_what_is_free,
    memory,
    peak_mib,
)
from wspace.support.names import ZOO_DIRECTIONS, ZOO_MEAN
from wspace.support.progress import Progress
from wspace.support.quantities import in_bytes
from wspace.support.seeding import stream
from wspace.support.threads import by_threads, threaded
from wspace.weights.novelty import Neighbourhood
from wspace.weights.stretches import Stretches, squared_distances

STEPS = 16  # of a training that is tried
OPERATIONS = 2000  # by which it is seen what counting takes
PLAIN = 0.2  # share of what all networks take in which a difference shows
ENOUGH = 0.1  # seconds that a kind of work is tried for, or once if that takes longer
PARTED = 4  # networks of a zoo that no stage has in memory
DRAWN = 8  # networks that are drawn, scored or looked at in a trial
NEAR = 32  # networks whose nearest are looked for
LEAST = 40 << 20  # bytes of networks, so that what is made of them shows in the memory of the process
SHARE = 8  # of this machine's memory at most one part in so many is taken for networks to try with


def tried(work: Callable[[], Any], units: float = 1) -> Rate:
    """Of one of the `units` that `work` does. The first time round, which warms caches, counts and is not timed."""
    with threaded(1), _Counting() as counted:  # which does not see what other threads do
        work()
        finish()
    times, started, processor = 0, time.perf_counter(), time.process_time()
    while times == 0 or time.perf_counter() - started < ENOUGH:
        work()
        finish()
        times += 1
    return _rate(time.perf_counter() - started, time.process_time() - processor, counted, times, units)


def once(work: Callable[[], Any], units: float = 1) -> Rate:
    """As `tried`, of what takes long, and what a first time is as good for."""
    started, processor = time.perf_counter(), time.process_time()
    with _Counting() as counted:
        work()
        finish()
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    counting = counted.seen * _counting_takes()
    return _rate(max(0.0, seconds - counting), max(0.0, processor - counting), counted, 1, units)


@cache
def _counting_takes() -> float:
    """Seconds of an operation, small or large."""
    one, times = torch.ones(1), list[float]()
    for counting in (nullcontext(), _Counting()):
        started = time.process_time()
        with counting:
            for _ in range(OPERATIONS):
                one.add(one)
        times.append(time.process_time() - started)
    return max(0.0, times[1] - times[0]) / OPERATIONS


def in_the_zoo(work: Callable[[World], Any], world: World) -> tuple[Rate, Rate, float]:
    """Of work over the whole zoo: what it takes in any case, and for each network, by a zoo and half of it. And how much
    memory it takes, at the most, for each byte of the networks.

    What networks take is the difference, where that is no small part; else it drowns in what else the machine does, and
    comes from the difference of what was counted, at the speed of a large product of matrices.
    """
    half = world.with_half_a_zoo()
    of_half = once(lambda: work(half))
    forget_peak()
    before = resident()  # with what half of it left in the heap: the whole zoo's blocks are too large for that
    of_all, count = once(lambda: work(world)), len(world.zoo.weights)
    copies = max(0.0, peak_mib() * 2**20 - before) / world.zoo.weights.nbytes
    if count == len(half.zoo.weights):
        return Rate(), of_all * (1 / count), copies
    each = _above_zero((of_all + of_half * -1) * (1 / (count - len(half.zoo.weights))))
    if each.processor_seconds * count < PLAIN * of_all.processor_seconds:
        speed = _product()
        factor = each.flops / speed.flops
        each = replace(each, seconds=factor * speed.seconds, processor_seconds=factor * speed.processor_seconds)
    return _above_zero(of_all + each * -count), each, copies


def _above_zero(rate: Rate) -> Rate:
    """A difference may be below by what is measured, or because a small zoo takes another way."""
    return Rate(*(max(0.0, value) for value in vars(rate).values()))


@cache
def _product() -> Rate:
    matrix = torch.rand(1024, 1024)
    return tried(lambda: matrix @ matrix)


def _rate(seconds: float, processor: float, counted: _Counting, times: int, units: float) -> Rate:
    """What else this machine does is left out: on idle cores, work takes no longer than all its threads together."""
    if not torch.cuda.is_initialized():
        seconds = min(seconds, processor)
    of_each = counted.flops * times, counted.bytes * times, counted.calls * times
    return Rate(seconds, processor, *of_each) * (1 / (times * units))


class _Counting(TorchDispatchMode):
    """Counts what operations do, as they are done."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.bytes = self.calls = 0.0
        self.seen = 0  # operations, views among them

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self.seen += 1
        if not func.is_view:
            self.calls += 1
            self.bytes += sum(t.nbytes for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor))
            if (count := flop_registry.get(func._overloadpacket)) is not None:
                self.flops += count(*args, **kwargs, out_val=result)
        return result


# ---------------------------------------------------------------- what a run has, of random numbers


@dataclass(frozen=True)
class World:
    """A recipe's target, tasks and images, with random features, and a zoo of random networks that is small."""

    bench: Workbench
    zoo: Zoo

    @property
    def target(self) -> Target:
        return self.bench.target

    @classmethod
    def of(cls, recipe: BoundRecipe, real: Workbench) -> World:
        """Opens the data set, whose pictures are made ready if no run has done that yet; no feature is read."""
        bench = Workbench(recipe, Progress(), real.cache, real.dims, FeatureScale(torch.ones(())))
        images = real.images
        features = torch.rand(len(images), real.backbone.dim, generator=stream(0, "plan"))
        given = {"images": images, "backbone": real.backbone, "text": real.text, "target": real.target}
        vars(bench).update(given, _raw_features=features)
        size, networks = real.target.spec.size, recipe.tasks.seen * recipe.zoo.copies
        room = max(1, memory()[0] // SHARE // (size * FLOAT))
        few = min(networks, TRIED_WITH, room, max(recipe.zoo.together, 2 * DRAWN, ceil(LEAST / (size * FLOAT))))
        if recipe.train.tokens is not None:
            few = min(few, PARTED)
        tasks = _tasks(recipe, bench, max(few, 2))
        rng = stream(0, "plan")
        weights = real.target.init(1, rng) + 0.01 * torch.randn(len(tasks.seen), size, generator=rng)
        zoo = Zoo(Path())  # of no folder: what would be read from one is here
        base = weights.mean(0) if recipe.zoo.start == "base" else None
        vars(zoo).update(tasks=tasks, classes=images.classes, weights=weights, _base=base)
        return cls(bench, zoo)

    def with_half_a_zoo(self) -> World:
        """Of its first networks; the same share is held out."""
        tasks, half = self.zoo.tasks, max(2, len(self.zoo.tasks.seen) // 2)
        fewer = replace(tasks, seen=tasks.seen[:half], held_out=max(1, tasks.held_out * half // len(tasks.seen)))
        zoo = Zoo(Path())
        given = {"tasks": fewer, "classes": self.zoo.classes, "weights": self.zoo.weights[:half]}
        vars(zoo).update(given, _base=vars(self.zoo)["_base"])
        return World(self.bench, zoo)

    def starts(self, count: int) -> Tensor:
        return self.zoo.starts(self.target, count, stream(0, "plan"))

    def prompts(self, tasks: Sequence[Task]) -> Prompts:
        return self.zoo.prompts(tasks, self.bench.prompt_texts)


def _tasks(recipe: BoundRecipe, bench: Workbench, seen: int) -> TaskSet:
    """As stage zoo draws them, but few."""
    classes, ordered = bench.images.classes, bench.target.places > 0
    few = replace(recipe.tasks, seen=seen, unseen=min(recipe.tasks.unseen, max(seen, recipe.tasks.evaluate)))
    tasks = draw_tasks(few, len(classes), stream(recipe.seed, "tasks"), ordered=ordered)
    tasks = with_ways(few, tasks, classes, stream(recipe.seed, "unseen ways"))
    of_training = bench.images.labels[bench.images.split == TRAIN]
    return with_pictures(few, tasks, np.bincount(of_training, minlength=len(classes)).tolist())


# ---------------------------------------------------------------- trials


def measure(recipe: BoundRecipe, bench: Workbench | None = None, progress: Progress | None = None) -> Measured:
    """Builds what the recipe names, and tries each kind of work of its run.

    Raises UserError for components that do not go together, before any is tried, and where memory does not suffice for one
    kind, with which.
    """
    keep_freed_memory()  # as a run does
    bench = bench or Workbench(recipe, Progress())
    rates, copies, held = dict[str, Rate](), dict[str, float](), dict[str, int]()
    for bound in [bound for stage in STAGES for bound in components_of(recipe, stage)]:
        bound.component.load()  # as a run does before its stages begin
    rates["started"] = Rate(time.process_time(), time.process_time())  # of this process: it has loaded what a run does
    rates["opened"] = once(lambda: (bench.target, bench.images, bench.class_texts))
    with limited_to_what_is_free(), _fitting(recipe, bench, "the generator"):
        check(recipe, bench.target, bench.dims())
    if progress is not None:
        progress.say("measuring what work takes on this machine: once for a recipe, and kept")
    in_parts = recipe.train.tokens is not None

    def holding() -> int:
        """Of what is done network by network the most, for whole networks come and go; of the rest, what stays."""
        most = int(peak_mib() * 2**20)
        forget_peak()
        return most if in_parts else resident()

    with limited_to_what_is_free(), (progress or Progress()).bar("measuring this machine", 4) as bar:
        with _fitting(recipe, bench, "the zoo"):
            world = World.of(recipe, bench)
            rates |= of_networks(recipe, world)
            held["zoo"] = held["opponents"] = holding()
            bar.advance()
        with _fitting(recipe, bench, "the generator"):
            system = build_system(recipe, bench.target, bench.text.dim)
            system.tell(blank_context(bench.text.dim, bench.backbone.dim))
            rates["proof"] = once(lambda: proven(recipe, bench.target, bench.dims()))
            closed, copies["train"] = of_statistics(world, system) if in_parts else of_closed_forms(world, system)
            bar.advance()
        with _fitting(recipe, bench, "training the generator"):
            system.to(bench.device)
            rates |= closed | of_training(recipe, world, system)
            held["train"] = held["generate"] = holding()
            rates |= of_drawing(recipe, world, system)
            bar.advance()
        with _fitting(recipe, bench, "the evaluation"):
            evaluation, copies["evaluate"] = of_evaluation(recipe, world)
            rates |= evaluation
            bar.advance()
        held["evaluate"] = holding()
        return Measured(counts_of(recipe, world, system), rates, held, copies)


@contextmanager
def _fitting(recipe: BoundRecipe, bench: Workbench, what: str) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_want_of_memory(error):
            raise
        networks, size = recipe.tasks.seen * recipe.zoo.copies, bench.target.spec.size
        raise UserError(
            f"{recipe.source}: {what} breaks first: for networks of {size:,} weights, {in_bytes(size * FLOAT)} each, it takes "
            f"more than the {in_bytes(memory()[1])} of memory that are free here; the zoo of {networks:,} takes "
            f"{in_bytes(networks * size * FLOAT)} of disk"
        ) from error


def resident() -> int:
    """Bytes of this process now, where Linux says so; else its most."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return int(peak_mib() * 2**20)
    return pages * os.sysconf("SC_PAGE_SIZE")


def counts_of(recipe: BoundRecipe, world: World, system: System) -> dict[str, int]:
    """What the stages are counted by, and of what size it is."""
    bench = world.bench
    tasks, images, layout = world.zoo.tasks, bench.images, system.tokenizer.layout
    against, _ = asked_and_not(recipe.against, world.zoo, in_parts=recipe.train.tokens is not None)
    methods = 1 + sum(not takes_pictures(bound) for bound in against)
    novel = 1 + sum(bool(bound.signature.constants.get("novelty")) for bound in against)
    takes_steps = False

    def watch(*_: Any) -> None:
        nonlocal takes_steps
        takes_steps = True

    one = world.prompts(tasks.seen[:1]).to(bench.device)
    parted = isinstance(system, PartSystem)
    directions = system.generator.directions if parted else 0
    if not parted:  # of which nobody can watch the steps
        system.sample(one, replace(recipe.generate, steps=2), stream(0, "plan"), watch)
    return {
        "weights": world.target.spec.size,
        "tokens": layout.count,
        "token_width": layout.width,
        "parameters": sum(p.numel() for p in system.parameters()),
        "state": sum(t.numel() for t in system.state_dict().values()),
        "images": len(images),
        "blocks": -(-len(images) // BLOCK),
        "images_ready": int(bench.extraction.file.is_file()),
        "places": bench.target.places,
        "splits": len(tasks.splits),
        "shown": len(tasks.shown),
        "methods": methods,
        "novel": novel,
        "held_out_per_thousand": round(1000 * tasks.held_out / len(tasks.seen)),
        "takes_steps": int(takes_steps),
        "directions": directions,
        "looks_in_parts": LOOKS if directions else 0,
        "tried_with": len(tasks.seen),
        "rate_tasks": RATE_TASKS,
        "checked": VALIDATION_TASKS,
        "followed": FOLLOWED,
        "marked": MARKED,
    }


def of_networks(recipe: BoundRecipe, world: World) -> dict[str, Rate]:
    """Features; a step of the base, and of a network of the zoo beside others; and a look at validation images."""
    bench, settings, tasks, rng = world.bench, recipe.zoo, world.zoo.tasks, stream(0, "plan")
    room = memory()[0] // SHARE // (6 * FLOAT * bench.target.spec.size)
    group = tasks.seen[: max(1, min(settings.together, room))]
    everything = [tasks.classes[: bench.target.places or None]]
    some, pictures = tasks.seen[: _at_once(recipe)], bench.images.read(range(min(64, len(bench.images))))

    def fitting(among: Sequence[Task], batch: int, lr: float) -> Callable[[], Tensor]:
        schedule, start = Schedule(STEPS, batch, lr, settings.average), world.starts(len(among))
        return lambda: fit(bench.target, start, among, bench.train, bench.class_texts, schedule, rng)

    def looking(among: Sequence[Task]) -> Callable[[], Tensor]:
        return lambda: accuracies(bench.target, world.starts(len(among)), among, bench.val, bench.class_texts)

    at_rates = [fitting(everything, settings.base_batch, rate) for rate in recipe.opponents.rates]
    return {
        "image": tried(lambda: bench.backbone.encode(pictures), len(pictures)),
        "network step": tried(fitting(group, settings.batch, settings.lr), len(group) * STEPS),
        "base step": tried(fitting(everything, settings.base_batch, settings.base_lr), STEPS),
        "universal step": tried(lambda: by_threads(at_rates, at_once=bench.target.concurrent), STEPS * len(at_rates)),
        "look": tried(looking(some), len(some)),
        "look at all classes": tried(looking(everything)),
    }


def of_closed_forms(world: World, system: System) -> tuple[dict[str, Rate], float]:
    """In any case, and for each network; and the memory of `in_the_zoo`."""

    fixed, each, copies = in_the_zoo(lambda world: take_closed_forms(world, system), world)
    return {"closed forms": fixed, "closed forms, of each in the zoo": each}, copies


def _at_once(recipe: BoundRecipe) -> int:
    """How many networks a trial draws or looks at: as many as a stage has at once, at the most."""
    return DRAWN if recipe.train.tokens is None else 1


@contextmanager
def _on_disk(world: World) -> Iterator[Stretches]:
    """The zoo's networks as a file, for what reads some weights of them at a time."""
    with tempfile.TemporaryDirectory(prefix="wspace-plan-") as folder:
        networks = Stretches.create_rows(
            Path(folder) / "zoo.safetensors", len(world.zoo.weights), world.target.spec.size
        )
        for number, weights in enumerate(world.zoo.weights):
            networks.put(number, 0, weights)
        yield networks


def of_statistics(world: World, system: System) -> tuple[dict[str, Rate], float]:
    """Of networks that are taken in parts, as of closed forms: no network stays in memory."""
    assert isinstance(system, PartSystem)
    with _on_disk(world) as networks, tempfile.TemporaryDirectory(prefix="wspace-plan-") as folder:
        each = once(lambda: _fit_parts(world, system, networks, Path(folder)), len(networks))
    return {"closed forms": Rate(), "closed forms, of each in the zoo": each}, 0.0


def _fit_parts(world: World, system: PartSystem, networks: Stretches, folder: Path) -> None:
    """As stage train does, the last network held out; of the looks that a predictor chooses by, one, for its memory."""
    tasks, bench, known = world.zoo.tasks.seen, world.bench, len(networks) - 1
    prompts, mean = world.prompts(tasks), folder / ZOO_MEAN
    if not system.generator.directions:
        return system.fit_parts(networks, prompts, mean)
    held_out = networks[known:], prompts[known:]
    system.fit_parts(networks[:known], prompts[:known], mean, held_out, folder / ZOO_DIRECTIONS)
    bench.accuracies(networks.whole(0)[None], tasks[:1], bench.val)


def take_closed_forms(world: World, system: System) -> None:
    tasks, weights, count = world.zoo.tasks, world.zoo.weights, len(world.zoo.tasks.training)
    held_out = (weights[count:], world.prompts(tasks.choosing))
    system.fit(weights[:count], world.prompts(tasks.training), held_out)


def of_training(recipe: BoundRecipe, world: World, system: System) -> dict[str, Rate]:
    """Steps of each phase; looks at held-out tasks; and a checkpoint."""
    bench, zoo, rng = world.bench, world.zoo, stream(0, "plan")
    if isinstance(system, PartSystem):
        return _of_training_in_parts(recipe, world, system)
    pairs = TrainingPairs(system, zoo.weights, world.prompts(zoo.tasks.seen)).to(bench.device)
    rates = dict[str, Rate]()

    def stepping(step: Step, number: int) -> Rate:
        return _stepping(system, step, number, rng)

    if system.tokenizer.lossy and recipe.reconstruction.steps:
        step = ReconstructionStep(TrainingSet((pairs,)), recipe.reconstruction.batch, bench.device)
        rates["reconstruction step"] = stepping(step, 0)
    if generator_parameters(system) and recipe.train.steps:
        step = generator_step(recipe, bench, pairs, adversary_of(Job(recipe, bench, Path(), {}, Progress()), system))
        turns = (recipe.train.steps, recipe.train.steps + recipe.adversary.turn)  # a discriminator learns, and judges
        rates["generator step"] = sum((stepping(step, number) for number in turns), Rate()) * 0.5
    if system.generator.task_parameters() and recipe.task_loss.steps:
        step = TaskLossStep(
            pairs,
            recipe.task_loss,
            bench.target,
            bench.train,
            bench.class_texts,
            lambda count, rng: [zoo.tasks.seen[number % len(zoo.tasks.seen)] for number in range(count)],
            world.prompts,
            bench.device,
        )
        rates["task step"] = stepping(step, 0)
        few = world.prompts(zoo.tasks.seen[:VALIDATION_TASKS]).to(bench.device)
        with torch.no_grad():
            rates["typical"] = tried(lambda: system.typical(few), len(few.mask))
    return rates | {"byte written": _writing(system)}


def _of_training_in_parts(recipe: BoundRecipe, world: World, system: PartSystem) -> dict[str, Rate]:
    """As `of_training`, of some tokens of networks that lie on a disk."""
    tasks, device = world.zoo.tasks.seen, world.bench.device
    with _on_disk(world) as networks, tempfile.TemporaryDirectory(prefix="wspace-plan-") as folder:
        _fit_parts(world, system, networks, Path(folder))  # whose files stay open
        system.to(device)
        step = PartStep(system, networks, world.prompts(tasks), recipe.train, device, world.bench.precision)
        stepping = _stepping(system, step, 0, stream(0, "plan")) if recipe.train.steps else Rate()
        return {"generator step": stepping, "byte written": _writing(system)}


def _stepping(system: System, step: Step, number: int, rng: torch.Generator) -> Rate:
    optimizer = torch.optim.AdamW([p for p in system.parameters() if p.requires_grad], lr=0.0, fused=True)

    def work() -> None:
        optimizer.zero_grad()
        for loss, _ in step(number, rng):
            loss.backward()
        optimizer.step()

    return tried(work)


def _writing(system: System) -> Rate:
    state = {name: tensor for name, tensor in system.state_dict().items() if tensor.is_floating_point()}
    largest = max(state.values(), key=lambda tensor: tensor.nbytes)
    with tempfile.TemporaryDirectory(prefix="wspace-plan-") as folder:
        file = Path(folder) / "tried.safetensors"
        return once(lambda: keep(file, {"tensor": largest.cpu()}), largest.nbytes)


def of_drawing(recipe: BoundRecipe, world: World, system: System) -> dict[str, Rate]:
    """A network: for the report, and for a look at held-out tasks. By few steps; a generator may take none."""
    prompts = world.prompts(world.zoo.tasks.seen[: _at_once(recipe)]).to(world.bench.device)
    rng = stream(0, "plan")
    count = len(prompts.mask)
    system.eval()

    def drawing(settings: Any) -> Rate:
        two, four = (tried(lambda n=n: system.sample(prompts, replace(settings, steps=n), rng), count) for n in (2, 4))
        further = (four + two * -1) * 0.5
        return two + further * (settings.steps - 2 if further.seconds > 0 else 0)

    return {
        "network drawn": drawing(recipe.generate),
        "network looked at": drawing(VALIDATION_DRAW),
        "network predicted": tried(lambda: system.predicted(prompts), count),
    }


def of_evaluation(recipe: BoundRecipe, world: World) -> tuple[dict[str, Rate], float]:
    """Opponents that no image trains, nearest networks, and a task with all methods at once; and as of closed forms."""
    bench, zoo = world.bench, world.zoo
    symmetry = symmetry_of(recipe, bench.target)
    job = Job(recipe, bench, Path(), {}, Progress())
    in_parts = recipe.train.tokens is not None
    some = zoo.tasks.seen[: _at_once(recipe)]
    against, _ = asked_and_not(recipe.against, zoo, in_parts=in_parts)
    names = [b for b in against if not trains_on_images(b) and not takes_pictures(b)]
    near = zoo.weights[torch.arange(0 if in_parts else NEAR) % len(zoo.weights)] * 1.01
    theirs, contests, neighbours = list[Opponent](), dict[int, tuple[Evidence, Contest]](), list[Neighbourhood]()

    def choosing(world: World) -> None:
        of_zoo, asked = descriptions(
            world.prompts(world.zoo.tasks.seen), world.prompts(some), places=bench.target.places
        )
        evidence = replace(evidence_of(job, world.zoo, of_zoo, whole=not in_parts), symmetry=symmetry)
        if in_parts:
            evidence = replace(evidence, given_mean=world.zoo.weights[0])
        theirs[:] = [bound.build({}) for bound in names]
        for opponent in theirs:
            opponent.choose(evidence)
        for count in (len(some), 1):
            described, networks = asked[:count], world.starts(count)
            contests[count] = evidence, Contest(SEEN, some[:count], described, networks)

    def aligning(world: World) -> None:
        its = world.zoo
        neighbours.append(Neighbourhood(its.weights, its.reference, symmetry, stream(0, "plan")))

    def scoring() -> None:
        if in_parts:  # one after the other
            for _ in range(1 + len(against)):
                predict(bench.target, world.starts(1), some[0], bench.test, bench.class_texts)
            return
        stacked = world.starts(1 + 2 * len(against))
        for task in some:
            predict(bench.target, stacked, task, bench.test, bench.class_texts)

    if in_parts:
        chosen, chosen_each, of_choosing = once(lambda: choosing(world)), Rate(), 0.0
        aligned, aligned_each, of_aligning = Rate(), Rate(), 0.0
        nearest, nearest_each, of_nearest = Rate(), _distance(recipe, world) * NEAR, 0.0
    else:
        chosen, chosen_each, of_choosing = in_the_zoo(choosing, world)
        aligned, aligned_each, of_aligning = in_the_zoo(aligning, world)
        of_sizes = {len(its.weights): its for its in neighbours}
        nearest, nearest_each, of_nearest = in_the_zoo(
            lambda world: of_sizes[len(world.zoo.weights)].nearest(near), world
        )
    contest, several = (
        tried(lambda count=count: [their.weights(*contests[count]) for their in theirs]) for count in (1, len(some))
    )
    values = torch.rand(recipe.tasks.evaluate)
    rates = {
        "opponents chosen": chosen,
        "opponents chosen, of each in the zoo": chosen_each,
        "contest": contest,
        "opponents' network": _above_zero(several + contest * -1) * (1 / max(1, len(some) - 1)),
        "zoo aligned": aligned,
        "zoo aligned, of each in the zoo": aligned_each,
        "nearest": nearest * (1 / NEAR),
        "nearest, of each in the zoo": nearest_each * (1 / NEAR),
        "task scored": tried(scoring, len(some)),
        "look at test images": tried(
            lambda: accuracies(bench.target, world.starts(len(some)), some, bench.test, bench.class_texts), len(some)
        ),
        "interval": tried(lambda: interval(values, recipe)),
    }
    return rates, max(of_choosing, of_aligning, of_nearest)


def _distance(recipe: BoundRecipe, world: World) -> Rate:
    """Between two networks, in a stream over several."""
    layout = recipe.tokenizer.build({"spec": world.target.spec}).layout
    with _on_disk(world) as networks:
        pairs = [(networks, number) for number in range(len(networks))]
        return once(lambda: squared_distances(pairs, where_of(layout), layout.width), len(pairs) ** 2)


def blank_context(text_dim: int, feature_dim: int) -> Told:
    """Two classes with a blank picture each, in the shapes of what a conditioner may ask for."""
    texts = torch.eye(2, text_dim)
    means = torch.eye(2, feature_dim)
    return Told(texts, torch.zeros(2, 1, PICTURE), texts[0], means, torch.eye(feature_dim))
