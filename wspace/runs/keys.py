"""A stage, and its key: of all that its artifact depends on. Which stages a run has, `wspace.runs.pipeline` says."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wspace.recipes.schema import Bound, BoundRecipe, as_written
from wspace.support import fingerprint
from wspace.support.elsewhere import Address
from wspace.support.errors import FileError
from wspace.support.names import ZOO_HEADER


@dataclass(frozen=True)
class Stage:
    name: str
    function: str  # import string of a function of a `wspace.runs.stages.Job`
    reads: tuple[str, ...]  # slots of the recipe
    takes: tuple[str, ...]  # stages before
    version: int = 1  # raised when the stage computes something else
    shared: bool = True  # whether another run's artifact will do: it says nothing of the run it was made in
    joined: bool = False  # whether its artifact comes of the recipe's joint training

    @property
    def module(self) -> str:
        return self.function.partition(":")[0]

    def load(self) -> Any:
        """The function, imported."""
        return getattr(importlib.import_module(self.module), self.function.partition(":")[2])


KEYED_AS = {"wording": "texts"}
"""Slots that were renamed after artifacts had been made: keys know them by the old name."""


def slots_of(recipe: BoundRecipe, stage: Stage) -> dict[str, Any]:
    """The part of the filled recipe a stage depends on, flat: 'generator.denoiser.depth': 6.

    A setting at its default that came later (`wspace.support.parameters.Since`) is not in it.
    """
    return {name: as_written(value) for name, value in _slots(recipe, stage).items()}


def files_of(recipe: BoundRecipe, stage: Stage) -> set[str]:
    """Those of `slots_of` that name files or folders: not where these lie is in the key, but what they hold."""
    return {name for name, value in _slots(recipe, stage).items() if _anywhere(value) != as_written(value)}


def _slots(recipe: BoundRecipe, stage: Stage) -> dict[str, Any]:
    """As `slots_of`; paths are paths."""
    flat: dict[str, Any] = {}
    for slot in stage.reads:
        if slot == "against":
            flat |= _against(recipe, stage)
            continue
        for name, value in recipe.keyed(slot).items():
            _flatten(value, KEYED_AS.get(name, name), flat)
    return flat


def trains_on_images(opponent: Bound) -> bool:
    """Whether stage `opponents` makes it; the others are made in stage `evaluate`."""
    return opponent.signature.constants.get("trains_on_images", False)


def takes_pictures(opponent: Bound) -> bool:
    """Whether it is asked for the tasks that come with pictures, and for no others."""
    return opponent.signature.constants.get("takes_pictures", False)


def opponents_of(recipe: BoundRecipe, stage: Stage) -> list[Bound]:
    """Those that a stage depends on: stage `opponents` on those that train on images alone."""
    return [bound for bound in recipe.against if stage.name != "opponents" or trains_on_images(bound)]


FIRST_OPPONENTS = {
    "opponents": ("oracle", "universal"),
    "evaluate": ("oracle", "universal", "base", "zoo-mean", "retrieval", "ridge", "noise", "random", "mismatched"),
}
"""Those that there were before a recipe could choose: artifacts of these had been made, and no key knows of them."""


def _against(recipe: BoundRecipe, stage: Stage) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    blocks = [bound.filled() for bound in opponents_of(recipe, stage)]
    if blocks != [{"use": name} for name in FIRST_OPPONENTS.get(stage.name, ())]:
        _flatten(blocks, "against", flat)
    return flat


def _flatten(value: Any, path: str, into: dict[str, Any]) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _flatten(inner, f"{path}.{key}", into)
    elif isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        for index, inner in enumerate(value):
            _flatten(inner, f"{path}.{index}", into)
    else:
        into[path] = value


def components_of(recipe: BoundRecipe, stage: Stage) -> list[Bound[Any]]:
    """The components a stage computes with."""
    return _components(recipe, stage, keyed=False)


def _components(recipe: BoundRecipe, stage: Stage, *, keyed: bool) -> list[Bound[Any]]:
    bound = recipe.components([slot for slot in stage.reads if slot != "against"], keyed)
    return bound + (opponents_of(recipe, stage) if "against" in stage.reads else [])


def keys(recipe: BoundRecipe, stages: Sequence[Stage]) -> dict[str, str]:
    """Stage -> key: of its slots, its components' versions, the files they name, and the keys of what it takes."""
    made: dict[str, str] = {}
    for stage in stages:
        bound = _components(recipe, stage, keyed=True)
        parts = {
            "stage": [stage.name, stage.version],
            "slots": {name: _anywhere(value) for name, value in _slots(recipe, stage).items()},
            # the first version of an opponent goes without saying: so it was when there was no such kind
            "versions": [
                [b.component.kind, b.name, b.signature.version]
                for b in bound
                if b.component.kind != "opponent" or b.signature.version > 1
            ],
            "files": [_file_identity(path) for b in bound for path in _paths(b)] + _zoo_identity(recipe, stage),
            "takes": [made[name] for name in stage.takes],
        }
        if stage.joined and recipe.joined is not None:
            parts["joined"] = recipe.joined.key
        made[stage.name] = fingerprint.of_json(parts)
    return made


def _anywhere(value: Any) -> Any:
    """A setting as a key has it: of a file counts what it holds, wherever it lies."""
    if isinstance(value, Path | Address):
        return "a file"
    return [_anywhere(inner) for inner in value] if isinstance(value, list) else value


def _paths(bound: Bound[Any]) -> list[Path]:
    arguments = [value for name, value in bound.arguments.items() if name not in bound.unkeyed]
    values = [value if isinstance(value, list | tuple) else [value] for value in arguments]
    return [inner for value in values for inner in value if isinstance(inner, Path)]


def _zoo_identity(recipe: BoundRecipe, stage: Stage) -> list[str]:
    """Of the zoo that the recipe takes in place of its own, if any: its header has hashes of all the rest."""
    if "zoo" not in stage.reads or recipe.zoo.source is None:
        return []
    source = recipe.zoo.source
    try:
        header = source.read(ZOO_HEADER) if isinstance(source, Address) else (source / ZOO_HEADER).read_bytes()
    except OSError:
        return ["missing"]  # the stage says so
    return [hashlib.sha256(header).hexdigest()]


def _file_identity(path: Path) -> str:
    try:
        if path.is_dir():
            return fingerprint.of_folder(path)
        return fingerprint.of_file(path) if path.is_file() else "missing"
    except OSError as error:
        raise FileError(f"{error.filename or path}: cannot be read: {error.strerror}") from error


def modules_of(recipe: BoundRecipe, stage: Stage) -> set[str]:
    """The modules that compute a stage's artifact: its function's, and its components'."""
    return {stage.module, *(bound.component.module for bound in components_of(recipe, stage))}
