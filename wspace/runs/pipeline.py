"""What has to run, and running it: torch-free until a stage does."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wspace.recipes.imports import UNCHANGED, Changes, changes, sources_of
from wspace.recipes.schema import Bound, BoundRecipe
from wspace.runs.ahead import left_out
from wspace.runs.keys import Stage, components_of, files_of, keys, modules_of, slots_of
from wspace.runs.spent import Spent, spending, spent
from wspace.runs.store import Store, manifest_of, write_manifest
from wspace.runs.tracking import Tracking
from wspace.support.errors import FileError, UserError
from wspace.support.files import check_place, disk_errors, read_json, remove_begun, write_json, write_text
from wspace.support.memory import keep_freed_memory
from wspace.support.names import KEPT, MANIFEST, RECIPE, RUN, STUDY
from wspace.support.processes import launched
from wspace.support.progress import Progress
from wspace.support.yaml import dump

if TYPE_CHECKING:
    from wspace.interfaces import Engine

NOT_DONE = "not done yet"  # why a stage runs for the first time
RECORDED = ("wspace", "torch", "timm", "open_clip_torch", "diffusers", "numpy", "safetensors")

STAGES = (
    Stage("zoo", "wspace.runs.stages.zoo:run", ("seed", "dataset", "backbone", "text", "target", "tasks", "zoo"), (), 3),
    Stage("opponents", "wspace.runs.stages.opponents:run", ("opponents", "against"), ("zoo",)),
    Stage(
        "train",
        "wspace.runs.stages.train:run",
        (
            "wording", "symmetry", "tokenizer", "conditioner", "generator", "reconstruction", "task_loss", "train", "losses",
            "adversary", "discriminator", "precision", "auxiliary",
        ),
        ("zoo",),
        3,
    ),
    Stage("generate", "wspace.runs.stages.generate:run", ("generate",), ("zoo", "train"), 3),
    Stage(
        "evaluate",
        "wspace.runs.stages.evaluate:run",
        ("metrics", "evaluate", "against", "auxiliary"),
        ("zoo", "opponents", "train", "generate"),
        3,
    ),
    Stage("report", "wspace.runs.stages.report:run", (), ("zoo", "opponents", "train", "generate", "evaluate"), 3, False),
)  # fmt: skip


JOINED = Stage("train", "wspace.runs.joint.training:member", (), ("zoo",), joined=True)
"""In the place of `train`, where the generator comes from a joint training."""


def stages_of(recipe: BoundRecipe, stages: Sequence[Stage] = STAGES) -> tuple[Stage, ...]:
    """The stages of a recipe's run, in order: of all `stages`, with the joint training's in place of its own."""
    joined = recipe.joined is not None
    return tuple(JOINED if joined and stage.name == JOINED.name else stage for stage in stages)


def _workbench(recipe: BoundRecipe, progress: Progress) -> Any:
    from wspace.runs.workbench import Workbench

    return Workbench(recipe, progress)


def _check(recipes: Mapping[str, BoundRecipe], workbench: Callable[[BoundRecipe], Any]) -> None:
    from wspace.runs.checking import check_all

    check_all(recipes, workbench)


@dataclass(frozen=True)
class Workshop:
    """What runs are made with: the stages, and how the workbench is set up that those of one run share.

    And how several recipes, by their names, are checked before the first is run.
    """

    stages: tuple[Stage, ...] = STAGES
    workbench: Callable[[BoundRecipe, Progress], Any] = _workbench
    check: Callable[[Mapping[str, BoundRecipe], Callable[[BoundRecipe], Any]], None] = _check


WORKSHOP = Workshop()


@contextmanager
def opened(bound: Bound[Engine] | None) -> Iterator[Engine | None]:
    """The engine, and its processes let go of in the end; None where this process has no others. Raises UserError."""
    engine: Engine | None = None if bound is None else bound.build({})
    if launched().count > 1:
        from wspace.runs.launched import Launched

        if bound is not None and engine is not None and engine.elsewhere:
            raise UserError(
                f"engine {bound.name!r}: the processes of a launcher are an engine by themselves; leave one out"
            )
        engine = Launched()
    if engine is None or not engine.elsewhere:
        yield None
        return
    engine.open()
    try:
        yield engine
    finally:
        engine.close()


@contextmanager
def opened_for(
    members: Sequence[BoundRecipe],
    folder: Path,
    runs: Path,
    force: Sequence[str] = (),
    workshop: Workshop = WORKSHOP,
) -> Iterator[Engine | None]:
    """As `opened`, for the runs of several recipes in `folder`, where one of them has something to do.

    None where the processes of a launcher share out each run by itself, and so train its generator together.
    """
    for member in members:
        plan = steps(member, Store(folder / member.name, runs), force, workshop=workshop)
        if any(step.action == "run" for step in plan):
            with opened(member.engine) as engine:
                yield None if launched().count > 1 else engine
            return
    yield None


@dataclass(frozen=True)
class Step:
    """What is to be done about one stage, and why."""

    stage: Stage
    key: str
    action: Literal["cached", "link", "run"]
    why: str
    stale: Changes = UNCHANGED  # of the sources since it was made; the key does not know
    forced: bool = False  # what is there of it goes first
    link_to: Path | None = None  # the same artifact in another run, to link


def check_untrained(
    runs: Mapping[str, tuple[BoundRecipe, Sequence[Step]]], progress: Progress, workshop: Workshop = WORKSHOP
) -> None:
    """Of several runs by their names: those that are yet to train anything are checked, before the first of them does.

    Raises UserError, with its name, for one that would be refused.
    """
    untrained = {name: recipe for name, (recipe, plan) in runs.items() if is_untrained(plan)}
    workshop.check(untrained, lambda recipe: workshop.workbench(recipe, progress))


def is_untrained(plan: Sequence[Step]) -> bool:
    """Whether a run is yet to train anything."""
    return any(step.action == "run" and step.stage.name in ("zoo", "train") for step in plan)


def steps(recipe: BoundRecipe, store: Store, force: Sequence[str] = (), *, workshop: Workshop = WORKSHOP) -> list[Step]:
    """What a run would do. A forced stage takes those after it along."""
    stages = stages_of(recipe, workshop.stages)
    return _steps(recipe, store, force, stages, keys(recipe, stages))


def _steps(
    recipe: BoundRecipe, store: Store, force: Sequence[str], stages: Sequence[Stage], at: Mapping[str, str]
) -> list[Step]:
    """`at`: stage -> key."""
    names = [stage.name for stage in stages]
    for name in force:
        if name not in names:
            raise UserError(f"no stage {name!r}: the stages are {', '.join(names)}")
    last = _last_run(store)
    plan, forced = list[Step](), set(force)

    def made_again(stage: Stage, key: str, damage: str) -> Step:
        return _linked(store, stage, key, damage) or Step(stage, key, "run", damage)

    for stage in stages:
        key = at[stage.name]
        manifest = store.manifest(stage.name, key)
        if forced & {stage.name, *stage.takes}:
            why = "forced" if stage.name in force else f"{', '.join(n for n in stage.takes if n in forced)} is redone"
            forced.add(stage.name)
            plan.append(Step(stage, key, "run", why, forced=True))
        elif damage := store.damage(stage.name, key, by_hash=False):
            plan.append(made_again(stage, key, f"damaged: {damage}"))
        elif manifest is not None:
            plan.append(Step(stage, key, "cached", f"made {manifest['made']}", changes(manifest["sources"])))
        elif linked := _linked(store, stage, key):
            plan.append(linked)
        else:
            why = "forced" if store.forced(stage.name, key) else _why(recipe, stage, last, at)
            plan.append(Step(stage, key, "run", why))
    read = set[str]()  # stages whose artifacts the run reads
    for place, step in reversed(list(enumerate(plan))):
        name = step.stage.name
        if step.action == "cached" and name in read and (damage := store.damage(name, step.key, by_hash=True)):
            plan[place] = made_again(step.stage, step.key, f"damaged: {damage}")
        if plan[place].action == "run":
            read |= {*step.stage.takes}
    return plan


def _linked(store: Store, stage: Stage, key: str, damage: str = "") -> Step | None:
    """The step that takes a stage's artifact from another run, if one has it. `damage`: why what is here will not do."""
    if not stage.shared or not (other := store.elsewhere(stage.name, key)):
        return None
    why = f"{damage}; made in {other.parent}" if damage else f"made in {other.parent}"
    return Step(stage, key, "link", why, changes(read_json(other / MANIFEST)["sources"]), link_to=other)


def _last_run(store: Store) -> dict[str, Any]:
    """Stage -> manifest of the artifacts of the last finished run in this folder."""
    try:
        stages = read_json(store.root / RUN)["stages"]
    except (FileError, KeyError, TypeError):  # none yet, or damaged: it is written anew at the end
        return {}
    manifests = {name: manifest_of(store.root / folder) for name, folder in stages.items()}
    return {name: manifest for name, manifest in manifests.items() if manifest is not None}


def _why(recipe: BoundRecipe, stage: Stage, last: Mapping[str, Any], at: Mapping[str, str]) -> str:
    if stage.name not in last:
        return NOT_DONE
    before, now, files = last[stage.name]["slots"], slots_of(recipe, stage), files_of(recipe, stage)
    changed = {
        name: f"{name} {before.get(name, '(absent)')} -> {now.get(name, '(absent)')}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    }
    if changed.keys() - files:
        return ", ".join(changed[name] for name in changed if name not in files)
    redone = [take for take in stage.takes if take not in last or last[take]["key"] != at[take]]
    if redone:
        return f"follows {', '.join(redone)}"
    moved = ", ".join(changed.values())
    return f"{moved}, which holds something else" if moved else "the files it reads, or a component's version, changed"


def run(
    recipe: BoundRecipe,
    runs: Path,
    progress: Progress,
    *,
    force: Sequence[str] = (),
    only: str | None = None,
    all_runs: Path | None = None,
    workshop: Workshop = WORKSHOP,
    engine: Engine | None = None,
) -> tuple[Path, list[Step]]:
    """Do what is left to do. Returns the run's folder and the steps; interrupted, the next call goes on.

    `all_runs` holds the runs that artifacts are shared with, if not `runs`; `engine` is open, and has the work of several runs.
    Raises UserError if another process runs it, or the recipe's engine cannot be reached.
    """
    check_folder(runs)
    keep_freed_memory()
    store = Store(runs / recipe.name, all_runs)
    if (store.root / STUDY).is_file():
        raise UserError(
            f"{store.root}: a study is there already; give the recipe's file another name, or --runs another folder"
        )
    stages = stages_of(recipe, workshop.stages)
    at = keys(recipe, stages)
    _chosen(_steps(recipe, store, force, stages, at), only)  # what is wrong with these is said before a folder is made
    with store.locked():
        plan = _steps(recipe, store, force, stages, at)  # another process may just have finished some
        chosen = _chosen(plan, only)
        folders = {name: store.folder(name, key) for name, key in at.items()}
        for step in plan:
            if step.stale:
                state = "cached" if step.action == "cached" else step.why
                progress.say(f"{step.stage.name}: {state}, but {step.stale}; --force {step.stage.name} to redo")
        trackers = {
            bound.name: bound.build({}) for bound in recipe.tracker
        }  # a library that is not installed is told before anything is thrown away
        bench, works = None, any(step.action == "run" for step in chosen)
        if works:
            for step in chosen:
                if step.action == "run":
                    for bound in components_of(recipe, step.stage):
                        bound.component.load()  # what a component lacks is told now, not hours later
            bench = workshop.workbench(recipe, progress)
            _tell_what_is_left_out(recipe, plan, progress)
        with opened(recipe.engine) if works and engine is None else nullcontext(engine) as engine, ExitStack() as stack:
            if works:
                _discard(plan, store, str(time.time_ns()))  # once it is known who does the work
            tracking = stack.enter_context(
                Tracking(recipe, trackers, store.root, _attempted(store, stages[-1], at), progress)
            )
            for step in chosen:
                if step.link_to is not None:
                    progress.say(f"{step.stage.name}: {step.why}")
                    store.link(step.stage.name, step.key, step.link_to)
                elif step.action == "run":
                    _run(step, recipe, bench, store, folders, progress, tracking, engine)
                if step.stage.name == "train":
                    tracking.training(folders["train"])
            if "report" in folders:
                tracking.report(folders["report"])
        if all(store.manifest(name, key) for name, key in at.items()):
            _finish(recipe, store, folders)
    return store.root, chosen


def _tell_what_is_left_out(recipe: BoundRecipe, plan: Sequence[Step], progress: Progress) -> None:
    """Before a run's first stage what stage evaluate will leave out, which says so itself, and perhaps hours later."""
    names = [step.stage.name for step in plan if step.action == "run"]
    if "evaluate" in names[1:]:
        for sentence in left_out(recipe):
            progress.say(f"note: {sentence}")


def _attempted(store: Store, last: Stage, at: Mapping[str, str]) -> str:
    """What a run and all attempts at it have in common, and no run after one was forced: a part of a file's name."""
    key = at[last.name]
    mark = store.forced(last.name, key) or (store.manifest(last.name, key) or {}).get("forced")
    return f"{key[:12]}-{mark}" if mark else key[:12]


def check_folder(runs: Path) -> None:
    """Raises UserError for a file where run folders are to be, and where no folder can be."""
    check_place(runs)
    if runs.exists() and not runs.is_dir():
        raise UserError(f"{runs}: not a folder")


def discard(
    recipe: BoundRecipe, store: Store, force: Sequence[str], mark: str, *, workshop: Workshop = WORKSHOP
) -> None:
    """Throw forced stages and those after them away, for the next run to make anew.

    Of runs that are given one mark, the first to make an artifact makes it for all of them.
    """
    plan = steps(recipe, store, force, workshop=workshop)
    with store.locked():
        _discard(plan, store, mark)


def _discard(plan: Sequence[Step], store: Store, mark: str) -> None:
    with disk_errors(store.root):
        for step in plan:  # all at once: after an interruption, no old one must pass for new
            if step.forced:
                store.discard(step.stage.name, step.key, mark)


def _chosen(plan: list[Step], only: str | None) -> list[Step]:
    """The steps to take: all, or the one asked for and the links it needs."""
    if only is None:
        return plan
    chosen = only_step(plan, only)
    return [step for step in plan if step.link_to and step.stage.name in chosen.stage.takes] + [chosen]


def only_step(plan: Sequence[Step], name: str) -> Step:
    """Raises UserError unless all it takes is there, or in another run."""
    by_name = {step.stage.name: step for step in plan}
    if name not in by_name:
        raise UserError(f"no stage {name!r}: the stages are {', '.join(by_name)}")
    missing = [take for take in by_name[name].stage.takes if by_name[take].action == "run"]
    if missing:
        raise UserError(f"--only {name}: it needs {', '.join(missing)}, not done yet for this recipe")
    return by_name[name]


def _run(
    step: Step,
    recipe: BoundRecipe,
    bench: Any,
    store: Store,
    folders: Mapping[str, Path],
    progress: Progress,
    tracking: Tracking,
    engine: Engine | None,
) -> None:
    from wspace.runs.launched import summon
    from wspace.runs.pieces import spread_by
    from wspace.runs.stages import Job, nobody, one_by_one

    stage, spread = step.stage, one_by_one if engine is None else spread_by(engine)
    summoned = summon if launched().count > 1 else nobody
    progress.say(f"{stage.name} starts" if step.why == NOT_DONE else f"{stage.name} starts: {step.why}")
    function = stage.load()
    with store.making(stage.name, step.key) as folder:
        with spending(folder):
            inputs = {name: folders[name] for name in stage.takes}
            if stage.joined and recipe.joined is not None:
                inputs["joint"] = recipe.joined.folder
            function(Job(recipe, bench, folder, inputs, progress, tracking.curves, spread, summoned))
        manifest = _manifest(step, recipe, spent(folder))
        if mark := store.forced(stage.name, step.key):
            manifest["forced"] = mark
        shutil.rmtree(folder / KEPT, ignore_errors=True)
        remove_begun(folder)  # by workers that were lost
        write_manifest(folder, manifest)
        _tell_of_others(store.folder(stage.name, step.key), folder, stage.name, progress)


def _tell_of_others(damaged: Path, made: Path, stage: str, progress: Progress) -> None:
    """What took the place of a damaged artifact is its like, byte for byte, unless code or libraries changed: then say so."""
    before, now = ((manifest_of(folder) or {}).get("hashes", {}) for folder in (damaged, made))
    others = [name for name in now if name.endswith(".safetensors") and before.get(name, now[name]) != now[name]]
    if others:
        progress.say(
            f"warning: {stage}: {others[0]} is not what it was before the damage, and what was made of it is kept; "
            f"--force {stage} to redo both"
        )


def _manifest(step: Step, recipe: BoundRecipe, took: Spent) -> dict[str, Any]:
    return {
        "stage": step.stage.name,
        "key": step.key,
        "slots": slots_of(recipe, step.stage),
        "seed": recipe.seed,
        **asdict(took),
        "made": time.strftime("%Y-%m-%d %H:%M:%S"),
        "sources": sources_of(modules_of(recipe, step.stage)),
        "versions": {"python": platform.python_version(), **{name: installed_version(name) for name in RECORDED}},
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
    }


@cache
def installed_version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def _finish(recipe: BoundRecipe, store: Store, folders: Mapping[str, Path]) -> None:
    """Say which artifacts are this run's, beside the recipe that made them."""
    stages = {name: folder.name for name, folder in folders.items()}
    with disk_errors(store.root):
        write_text(store.root / RECIPE, dump(recipe.decisive))
        write_json(store.root / RUN, {"recipe": recipe.name, "seed": recipe.seed, "stages": stages})
