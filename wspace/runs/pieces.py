"""What an engine has done in other processes: a piece of work as a text, and what came of it as another.

A piece has the versions and plugins of where it comes from, which the other process holds its own against, and the filled
recipe, which it checks as any other. Of code it can name a function of `wspace.runs.stages` and nothing else. An error that
is the user's to mend is part of what comes back, so that it ends the command as it would have here.
"""

from __future__ import annotations

import importlib
import json
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

from wspace.interfaces import Engine
from wspace.recipes.bind import bind
from wspace.recipes.plugins import BUILTIN, load_plugins
from wspace.recipes.schema import ONLOOKERS, SLOTS, BoundRecipe, Joined
from wspace.recipes.source import Source
from wspace.runs.stages import Function, Job, Spread
from wspace.runs.workbench import Workbench
from wspace.support import errors
from wspace.support.errors import UserError, WspaceError
from wspace.support.progress import Bar, Progress

STAGES = "wspace.runs.stages"  # the package that a piece may name functions of
ALIKE = ("wspace", "torch")  # of these every process has the same version, for results depend on it


# ---------------------------------------------------------------- here


def told_of(recipe: BoundRecipe) -> dict[str, Any]:
    """All that another process needs to check this recipe, as JSON."""
    slots = [slot for slot in SLOTS if slot not in ONLOOKERS]
    used = {bound.component.plugin for bound in recipe.components(slots)} - {BUILTIN}
    installed = _installed()
    files = [sys.modules[name].__file__ for name in sorted(used - installed.keys()) if name in sys.modules]
    return {
        "host": platform.node(),
        "versions": {name: version(name) for name in ALIKE},
        "plugins": {name: installed[name] for name in sorted(used & installed.keys())},
        "plugin_files": files,
        "recipe": recipe.filled | {"engine": None, "tracker": []},
        "name": recipe.name,
        "source": recipe.source,
        "joined": None if recipe.joined is None else [recipe.joined.key, str(recipe.joined.folder.absolute())],
    }


def _installed() -> dict[str, str]:
    """Name of each installed plugin -> distribution and version."""
    return {e.name: f"{e.dist.name} {e.dist.version}" for e in entry_points(group="wspace") if e.dist is not None}


def work_off(
    engine: Engine, do: Callable[[str], str], pieces: Sequence[dict[str, Any]], progress: Progress, label: str
) -> Iterator[tuple[int, Any]]:
    """Number of the piece and what came of it, each as it is done. Notes are said once. Raises what a piece raised."""
    notes = set[str]()
    with progress.bar(label, len(pieces)) if label else nullcontext(Bar("", 0)) as bar:
        for number, text in engine.work(do, [json.dumps(piece) for piece in pieces]):
            answer = json.loads(text)
            for note in answer["notes"]:
                if note not in notes:
                    notes.add(note)
                    progress.say(note)
            if answer["error"] is not None:
                kind, message = answer["error"]
                raise getattr(errors, kind, WspaceError)(message)
            bar.advance()
            yield number, answer["result"]


def piece_of(job: Job, function: Callable[..., Any]) -> dict[str, Any]:
    """A function of a module of stages, to be called with this job elsewhere, as JSON."""
    told = told_of(job.recipe) | {
        "folder": str(job.folder.absolute()),
        "inputs": {name: str(folder.absolute()) for name, folder in job.inputs.items()},
        "cache": str(job.bench.cache.absolute()),
    }
    return {"job": told, "function": f"{function.__module__.removeprefix(f'{STAGES}.')}:{function.__name__}"}


def spread_by(engine: Engine) -> Spread:
    """A `Job.spread` that has other processes do the parts."""

    def spread(job: Job, function: Function, parts: Sequence[Any], label: str) -> Iterator[tuple[Any, Any]]:
        shared = piece_of(job, function)
        pieces = [shared | {"part": part} for part in parts]
        for number, result in work_off(engine, do_part, pieces, job.progress, label):
            yield parts[number], result

    return spread


# ---------------------------------------------------------------- in another process


def do_part(piece: str) -> str:
    """A part of a stage."""
    order = json.loads(piece)

    def work(notes: list[str]) -> Any:
        job, said = _job(json.dumps(order["job"], sort_keys=True))
        said.texts = notes
        return _function_of(order)(job, order["part"])

    return answered(order["job"], work)


def do_beside(piece: str) -> None:
    """What a stage has all processes do at once. Raises UserError as parts do; its notes are the first process's to say."""
    order = json.loads(piece)
    check(order["job"])
    _function_of(order)(_job(json.dumps(order["job"], sort_keys=True))[0])


def _function_of(order: dict[str, Any]) -> Callable[..., Any]:
    module, _, name = order["function"].partition(":")
    return getattr(importlib.import_module(f"{STAGES}.{module}"), name)


def answered(told: dict[str, Any], work: Callable[[list[str]], Any]) -> str:
    """The answer to a piece: what `work(notes)` gives, its notes, or an error of ours. Other exceptions go on."""
    notes: list[str] = []
    result, failed = None, None
    try:
        check(told)
        result = work(notes)
    except WspaceError as error:
        where = "" if told["host"] == platform.node() else f"worker {platform.node()}: "
        failed = (_kind_of(error), f"{where}{error}")
    return json.dumps({"notes": notes, "error": failed, "result": result})


def _kind_of(error: WspaceError) -> str:
    """The name of its class in `wspace.support.errors`, of which it can be made anew from what it says."""
    kinds = [kind for kind in type(error).mro() if getattr(errors, kind.__name__, None) is kind]
    return next(kind.__name__ for kind in kinds if kind is not errors.RecipeError)  # which is made of problems


def check(told: dict[str, Any]) -> None:
    """Raises UserError unless this process has the same versions and plugins."""
    for name, theirs in told["versions"].items():
        if version(name) != theirs:
            raise UserError(f"has {name} {version(name)}, and the run {theirs}: install the same")
    installed = _installed()
    for name, theirs in told["plugins"].items():
        if installed.get(name) != theirs:
            here = f"has {installed[name]}" if name in installed else f"lacks the plugin {name!r}"
            raise UserError(f"{here}, and the run has {theirs}: install the same")


@dataclass
class Noted(Progress):
    """Keeps what is said, for the answer; warnings and notes with the run that they are of, where a piece is a whole run."""

    texts: list[str]
    run: str = ""

    def say(self, text: str) -> None:
        kind, _, rest = text.partition(": ")
        self.texts.append(f"{kind}: {self.run}: {rest}" if self.run and kind in ("warning", "note") else text)


@lru_cache(maxsize=2)
def _job(told: str) -> tuple[Job, Noted]:
    """Of all pieces of one stage, with the workbench that they share."""
    job, said = json.loads(told), Noted([])
    folder = Path(job["folder"])
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: the run's folder has to lie where every worker sees it")
    recipe = bound_of(job)
    bench = Workbench(recipe, said, Path(job["cache"]))
    return Job(recipe, bench, folder, {name: Path(path) for name, path in job["inputs"].items()}, said), said


def bound_of(told: dict[str, Any]) -> BoundRecipe:
    """The recipe, checked here."""
    registry = load_plugins([Path(file) for file in told["plugin_files"]]).registry
    recipe = bind(Source(told["source"], told["recipe"]), registry, told["name"])
    if told["joined"] is None:
        return recipe
    key, folder = told["joined"]
    return replace(recipe, joined=Joined(key, Path(folder)))
