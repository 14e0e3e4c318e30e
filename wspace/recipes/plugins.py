"""Finds plugins and lets them register. A plugin that fails becomes a fact to show, never a crash."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from wspace import PLUGIN_API
from wspace.recipes import hookspecs
from wspace.recipes.commands import Command
from wspace.recipes.registry import Component, Registry
from wspace.support.errors import FileError, NameClash, UserError, did_you_mean, reason
from wspace.support.quantities import counted

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
    note: str | None = None  # it is used, but may not work
    commands: int = 0

    @property
    def state(self) -> str:
        """In words."""
        commands = f", {counted(self.commands, 'command')}" if self.commands else ""
        note = f"; {self.note}" if self.note else ""
        works = f"{counted(self.components, 'component')}{commands}{note}"
        return "not in WSPACE_PLUGINS" if self.skipped else self.error or works


@dataclass
class Plugins:
    registry: Registry = field(default_factory=Registry)
    facts: list[PluginFact] = field(default_factory=list)
    commands: dict[str, Command] = field(default_factory=dict)  # by name, in the order of `wspace --help`

    @property
    def broken(self) -> list[PluginFact]:
        return [fact for fact in self.facts if fact.error]

    @property
    def warnings(self) -> list[str]:
        """A sentence on each plugin that cannot be used, or may not work."""
        broken = [f"plugin {fact.name!r} cannot be used: {fact.error}" for fact in self.broken]
        return broken + [f"plugin {fact.name!r} {fact.note}" for fact in self.facts if fact.note and not fact.error]


def load_plugins(
    files: Iterable[Path] = (), allowed: str | None = None, installed: Iterable[EntryPoint] | None = None
) -> Plugins:
    """Built-ins, then `installed` plugins (default: of every distribution) that `allowed` (default: $WSPACE_PLUGINS)
    admits, then one-file plugins.

    Raises NameClash if two plugins offer one component or one command, and FileError or UserError for a broken one-file
    plugin: the user named that file in this very command.
    """
    allow_list = os.environ.get("WSPACE_PLUGINS") if allowed is None else allowed
    admitted = None if allow_list is None else [name for name in map(str.strip, allow_list.split(",")) if name]
    plugins = built_in()
    entries = entry_points(group="wspace") if installed is None else installed
    entries = sorted(entries, key=lambda entry: entry.name)
    for entry in entries:
        source = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
        if admitted is not None and entry.name not in admitted:
            plugins.facts.append(PluginFact(entry.name, source, skipped=True))
            continue
        try:
            _admit(plugins, entry.name, source, entry.load())
        except NameClash:
            raise
        except (Exception, SystemExit) as error:  # somebody's fault: told by `wspace plugins`, stops nobody
            plugins.facts.append(PluginFact(entry.name, source, error=reason(error)))
    there = [entry.name for entry in entries]
    for name in admitted or ():
        if allowed is None and name not in there:
            hint = did_you_mean(name, there)
            plugins.facts.append(
                PluginFact(
                    name, "WSPACE_PLUGINS", error=f"WSPACE_PLUGINS names it, and no installed package has it.{hint}"
                )
            )
    for file in files:
        module = _module_from(file)
        try:
            _admit(plugins, module.__name__, str(file), module)
        except NameClash:
            raise
        except (Exception, SystemExit) as error:
            raise UserError(f"{file}: cannot be used: {reason(error)}") from error
    return plugins


def who_has(kind: str, name: str, folders: Iterable[Path] = ()) -> str:
    """Which plugin that is not in use has a component, and how it comes to be used, for the end of a message; or nothing.

    Asked are those installed that $WSPACE_PLUGINS leaves out and, by their source alone, one-file plugins in `folders`.
    """
    allow_list = os.environ.get("WSPACE_PLUGINS")
    for entry in entry_points(group="wspace") if allow_list is not None else ():
        with suppress(Exception, SystemExit):  # told by `wspace plugins`
            offered, _ = _offered(entry.name, entry.load())
            if any((kind, name) == (component.kind, component.name) for component in offered):
                return f"; plugin {entry.name!r} has it, which WSPACE_PLUGINS leaves out"
    for file in (file for folder in dict.fromkeys(folders) for file in sorted(folder.glob("*.py"))):
        with suppress(OSError, UnicodeDecodeError):
            source = file.read_text(encoding="utf-8")
            if "wspace_register" in source and re.search(rf"""(['"]){re.escape(name)}\1""", source):
                return f"; if the plugin {file} has it, add --plugin {shlex.quote(str(file))}"
    return ""


def built_in() -> Plugins:
    """What comes with wspace alone: no other package is looked for."""
    plugins = Plugins()
    _admit(plugins, BUILTIN, "built in", importlib.import_module(BUILTIN_MODULE))
    return plugins


def _admit(plugins: Plugins, name: str, source: str, module: ModuleType) -> None:
    note = _made_for_another_api(name, module)
    try:
        components, commands = _offered(name, module)
        plugins.registry.check(*components)
        for command in commands:
            if command.name in plugins.commands:
                other = plugins.commands[command.name].plugin
                raise NameClash(
                    f"plugins {other!r} and {name!r} both add the command {command.name!r}: uninstall one, or list the "
                    "plugins you want in WSPACE_PLUGINS"
                )
    except NameClash:
        raise
    except (Exception, SystemExit) as error:
        if note is not None:
            error.add_note(f"the plugin {note}")
        raise
    plugins.registry.add(*components)
    plugins.commands |= {command.name: command for command in commands}
    plugins.facts.append(PluginFact(name, source, len(components), note=note, commands=len(commands)))


def _made_for_another_api(name: str, module: ModuleType) -> str | None:
    """The end of a sentence on it, if so. A module that gives no number was made for 1, the first there was."""
    number = getattr(module, "PLUGIN_API", 1)
    if type(number) is not int:
        raise pluggy.PluginValidationError(module, f"plugin {name!r} has PLUGIN_API = {number!r}: write a whole number")
    if number == PLUGIN_API:
        return None
    return f"is made for plugin API {number}, and this wspace has {PLUGIN_API}: it may not work"


def _offered(name: str, module: ModuleType) -> tuple[list[Component], list[Command]]:
    """What a plugin's hooks register and add."""
    manager = pluggy.PluginManager("wspace")
    manager.add_hookspecs(hookspecs)
    for hook in dir(module):  # a misspelt hook is an error, not silence
        if manager.parse_hookimpl_opts(module, hook) is not None and hook not in HOOKS:
            raise pluggy.PluginValidationError(module, f"unknown hook {hook!r}.{did_you_mean(hook, HOOKS)}")
    manager.register(module, name)
    components: list[Component] = []
    commands: list[Command] = []

    def register(
        kind: str, name_: str, target: str, *, example: Mapping[str, Any] | None = None, was: tuple[str, ...] = ()
    ) -> None:
        who = f"plugin {name!r} registers the {kind} {name_!r}"
        if any((kind, name_) == (other.kind, other.name) for other in components):
            raise pluggy.PluginValidationError(module, f"{who} twice")
        _check_import_string(module, who, target, "class", "Class")
        if isinstance(was, str):
            raise pluggy.PluginValidationError(module, f"{who} with was={was!r}: write a tuple, as in was=({was!r},)")
        components.append(Component(kind, name_, target, name, example or {}, tuple(was)))

    def add(name_: str, target: str) -> None:
        who = f"plugin {name!r} adds the command {name_!r}"
        if any(name_ == other.name for other in commands):
            raise pluggy.PluginValidationError(module, f"{who} twice")
        _check_import_string(module, who, target, "function", "function")
        commands.append(Command(name_, target, name))

    manager.hook.wspace_register(register=register)
    manager.hook.wspace_commands(add=add)
    if not components and not commands:
        raise pluggy.PluginValidationError(
            module, f"plugin {name!r} registers nothing: has it a @hookimpl wspace_register?"
        )
    return components, commands


def _check_import_string(module: ModuleType, who: str, target: str, what: str, shown: str) -> None:
    if not isinstance(target, str) or not all(part.strip() for part in target.partition(":")):
        raise pluggy.PluginValidationError(
            module, f"{who} as {target!r}: write where its {what} is, as in 'package.module:{shown}'"
        )


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
