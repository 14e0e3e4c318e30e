"""Finds plugins and lets them register. A plugin that fails becomes a fact to show, never a crash."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from wspace.recipes import hookspecs
from wspace.recipes.registry import Component, Registry
from wspace.support.errors import FileError, NameClash, UserError, did_you_mean, reason

BUILTIN = "wspace"
BUILTIN_MODULE = "wspace.components"  # by name: they register like anybody's, and stand above this room
HOOKS = [name for name in vars(hookspecs) if name.startswith("wspace_")]


@dataclass(frozen=True)
class PluginFact:
    """What became of one plugin."""

    name: str
    source: str  # distribution and version, or the file
    components: int = 0
    error: str | None = None
    skipped: bool = False  # not in WSPACE_PLUGINS


@dataclass
class Plugins:
    registry: Registry = field(default_factory=Registry)
    facts: list[PluginFact] = field(default_factory=list)

    @property
    def broken(self) -> list[PluginFact]:
        return [fact for fact in self.facts if fact.error]


def load_plugins(files: Iterable[Path] = (), allowed: str | None = None) -> Plugins:
    """Built-ins, then installed plugins that `allowed` (default: $WSPACE_PLUGINS) admits, then one-file plugins.

    Raises NameClash if two plugins offer one component, and FileError or UserError for a broken one-file plugin: the
    user named that file in this very command.
    """
    allow_list = os.environ.get("WSPACE_PLUGINS") if allowed is None else allowed
    plugins = Plugins()
    _admit(plugins, BUILTIN, "built in", importlib.import_module(BUILTIN_MODULE))
    for entry in sorted(entry_points(group="wspace"), key=lambda entry: entry.name):
        source = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
        if allow_list is not None and entry.name not in [name.strip() for name in allow_list.split(",")]:
            plugins.facts.append(PluginFact(entry.name, source, skipped=True))
            continue
        try:
            _admit(plugins, entry.name, source, entry.load())
        except NameClash:
            raise
        except (Exception, SystemExit) as error:  # somebody's fault: told by `wspace plugins`, stops nobody
            plugins.facts.append(PluginFact(entry.name, source, error=reason(error)))
    for file in files:
        module = _module_from(file)
        try:
            _admit(plugins, module.__name__, str(file), module)
        except NameClash:
            raise
        except (Exception, SystemExit) as error:
            raise UserError(f"{file}: cannot be used: {reason(error)}") from error
    return plugins


def _admit(plugins: Plugins, name: str, source: str, module: ModuleType) -> None:
    manager = pluggy.PluginManager("wspace")
    manager.add_hookspecs(hookspecs)
    for hook in dir(module):  # a misspelt hook is an error, not silence
        if manager.parse_hookimpl_opts(module, hook) is not None and hook not in HOOKS:
            raise pluggy.PluginValidationError(module, f"unknown hook {hook!r}.{did_you_mean(hook, HOOKS)}")
    manager.register(module, name)
    offered: list[Component] = []

    def register(kind: str, name_: str, target: str, *, example: Mapping[str, Any] | None = None) -> None:
        who = f"plugin {name!r} registers the {kind} {name_!r}"
        if any((kind, name_) == (other.kind, other.name) for other in offered):
            raise pluggy.PluginValidationError(module, f"{who} twice")
        if not isinstance(target, str) or not all(part.strip() for part in target.partition(":")):
            raise pluggy.PluginValidationError(
                module, f"{who} as {target!r}: write where its class is, as in 'package.module:Class'"
            )
        offered.append(Component(kind, name_, target, name, example or {}))

    manager.hook.wspace_register(register=register)
    if not offered:
        raise pluggy.PluginValidationError(
            module, f"plugin {name!r} registers nothing: has it a @hookimpl wspace_register?"
        )
    plugins.registry.add(*offered)
    plugins.facts.append(PluginFact(name, source, len(offered)))


def _module_from(file: Path) -> ModuleType:
    if not file.is_file():
        raise FileError(f"{file}: no such plugin file")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise FileError(f"{file}: a one-file plugin is a Python file, ending in .py")
    other = _module_named(file.stem)
    if other is not None and Path(other).resolve() != file.resolve():
        raise UserError(f"{file}: there is a module {file.stem!r} already, {other}: give the plugin file another name")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module  # so that its own import strings find it
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[file.stem]
        raise UserError(f"{file}: cannot be imported: {reason(error)}") from error
    return module


def _module_named(name: str) -> str | None:
    """The file of the module that `import name` would find; 'built-in' where it has none."""
    if name in sys.modules:
        return getattr(sys.modules[name], "__file__", None) or "built-in"
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # 'my.plugin': no package 'my'
        return None
    return spec.origin if spec else None
