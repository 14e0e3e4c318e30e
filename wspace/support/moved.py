"""Import paths of wspace 0.1 that plugins and the documentation used: they work until 0.3, and say where to go.

The modules themselves are gone. A finder, last on Python's list, makes a module of the old name whose attributes are those
of the door that has them now; asking for one is a DeprecationWarning. No other old path is kept.
"""

from __future__ import annotations

import ast
import importlib
import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

LIGHT, API = "wspace", "wspace.api"

MOVED: Mapping[str, Mapping[str, str]] = {
    "wspace.errors": {"UserError": f"{API}:UserError"},
    "wspace.denoising": {"sinusoids": f"{API}:sinusoids"},
    "wspace.fingerprint": {"of_json": f"{API}:fingerprint"},
    "wspace.hookspecs": {"Register": f"{LIGHT}:Register"},
    "wspace.matching": {"match": f"{API}:match", "move": f"{API}:move"},
    "wspace.matching.activations": {"match_activations": f"{API}:match_activations"},
    "wspace.matching.barrier": {"MeanLoss": f"{API}:MeanLoss", "straight_line": f"{API}:straight_line"},
    "wspace.pictures": {"StoredImages": f"{API}:StoredImages", "open_picture": f"{API}:open_picture"},
    "wspace.scaling": {"fit_scale": f"{API}:fit_scale", "spread_of": f"{API}:spread_of"},
    "wspace.seeding": {"seeded": f"{API}:seeded", "stream": f"{API}:stream"},
    "wspace.settings": {"Generate": f"{API}:Generate"},
    "wspace.tracing": {"infer": f"{API}:infer", "weights_of": f"{API}:weights_of"},
    "wspace.tracing.module_proof": {"prove_module": f"{API}:prove_module"},
    "wspace.tracing.spec_file": {"read_spec": f"{API}:read_spec"},
    "wspace.weights": {"WeightEntry": f"{API}:WeightEntry", "WeightSpec": f"{API}:WeightSpec"},
    "wspace.zoo_format": {"StoredZoo": f"{API}:StoredZoo"},
}
"""Old module -> name -> the door that has it, and its name there."""

STILL_THERE = frozenset({"wspace.interfaces", "wspace.weights"})
"""Names of 0.1 that are private packages now. Of `interfaces`, `wspace.api` has every public name."""


def moved(module: str, name: str) -> Any:
    """What `module.name` was, with a warning at the line that asks. Raises AttributeError for what was not public."""
    if name not in MOVED[module]:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    door, _, new = MOVED[module][name].partition(":")
    warnings.warn(_sentence(module, name, door, new), DeprecationWarning, stacklevel=3)
    return getattr(importlib.import_module(door), new)


@cache  # once for each file
def warn_of_private_imports(file: str) -> None:
    """Warn of a plugin's imports from `wspace.interfaces`, at their lines.

    wspace itself imports from there, so that the package cannot tell who asks; the plugin's source can.
    """
    for node in ast.walk(ast.parse(Path(file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "wspace.interfaces":
            for alias in node.names:
                message = _sentence(node.module, alias.name, API, alias.name)
                warnings.warn_explicit(message, DeprecationWarning, file, node.lineno)


def _sentence(module: str, name: str, door: str, new: str) -> str:
    return f"{module}.{name} is now `from {door} import {new}`; the old path goes in wspace 0.3"


class MovedFinder:
    """Finds the old modules that are gone, and loads them. (To subclass `importlib.abc` costs every command 20 ms.)"""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in MOVED or fullname in STILL_THERE:
            return None
        has_modules = any(name.startswith(f"{fullname}.") for name in MOVED)
        return ModuleSpec(fullname, self, origin="moved", is_package=has_modules)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None  # an ordinary one

    def exec_module(self, module: ModuleType) -> None:
        module.__doc__ = f"Moved: {', '.join(MOVED[module.__name__])}."
        module.__getattr__ = lambda name: moved(module.__name__, name)  # type: ignore[method-assign]


def install() -> None:
    """Once in a process, whoever asks."""
    if not any(isinstance(finder, MovedFinder) for finder in sys.meta_path):
        sys.meta_path.append(MovedFinder())  # type: ignore[arg-type]
