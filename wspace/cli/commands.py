"""The commands as one group: those that come with wspace, then those of plugins, each imported when it is called."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from wspace.recipes.commands import Command
from wspace.recipes.plugins import built_in, load_plugins
from wspace.support import terminal
from wspace.support.errors import NameClash

PLAIN = {"add_completion": False, "pretty_exceptions_enable": False, "rich_markup_mode": None}
"""Of every Typer here: errors are ours to print."""


FILES, COMMANDS = "wspace.plugin_files", "wspace.commands"  # in click's `ctx.meta`


GOING_ON = ("run", "push", "pull")
"""Commands that, given again after an interruption, go on where they were. Others begin anew."""


class Offered(TyperCommand):
    """A command that is not imported yet: `wspace --help` shows it, and a call becomes one of the real command."""

    def __init__(self, command: Command):
        super().__init__(command.name, help=command.summary(), rich_markup_mode=None)
        self.command = command

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        command = loaded(self.command)
        return command.make_context(info_name, _manner_of(args, command), parent, **extra)


MANNERS = {"-q": "quiet", "--quiet": "quiet", "-v": "verbose", "--verbose": "verbose"}
"""Options of `wspace` itself that may follow the command as well: what each sets of `terminal.manner`."""


def _manner_of(args: list[str], command: Any) -> list[str]:
    """The arguments without those. One that a command has itself is the command's."""
    taken = {name for parameter in command.params for name in parameter.opts}
    rest = []
    for number, argument in enumerate(args):
        if argument == "--":
            return [*rest, *args[number:]]
        if argument in MANNERS and argument not in taken:
            setattr(terminal.manner, MANNERS[argument], True)
        else:
            rest.append(argument)
    return rest


def loaded(command: Command) -> Any:
    """Imported, as Typer makes it. Raises MissingPackage or UserError."""
    target, parent = command.load(), typer.Typer(**PLAIN)
    if isinstance(target, typer.Typer):
        parent.add_typer(target, name=command.name)
    else:
        parent.callback()(lambda: None)  # so that one command makes a group as well
        parent.command(command.name)(target)
    return typer.main.get_group(parent).commands[command.name]


class Commands(TyperGroup):
    """Plugins are looked for where a command is none of wspace's, and for `--help`."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names, in the order they were added. A plugin that cannot be used is told, and stops nobody."""
        try:
            plugins = load_plugins()
        except NameClash as error:
            print(f"warning: {error}", file=sys.stderr)
            plugins = built_in()
        for sentence in plugins.warnings:
            print(f"warning: {sentence}", file=sys.stderr)
        ctx.meta[COMMANDS] = plugins.commands
        return list(plugins.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        terminal.manner.goes_on = cmd_name in GOING_ON
        command = (ctx.meta.get(COMMANDS) or built_in().commands).get(cmd_name)
        if command is None:
            every = load_plugins(ctx.meta.get(FILES, ())).commands
            command = every.get(cmd_name)
            self.commands = {name: Offered(other) for name, other in every.items()}  # the nearest are suggested
        return None if command is None else Offered(command)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """A command of a one-file plugin is found by the `--plugin` that follows it, as everywhere."""
        ctx.meta[FILES] = list(_plugin_files(args[1:]))
        return super().resolve_command(ctx, args)


def _plugin_files(args: list[str]) -> Iterator[Path]:
    for option, value in zip(args, [*args[1:], ""], strict=False):
        if option == "--plugin" and value:
            yield Path(value)
        elif option.startswith("--plugin="):
            yield Path(option.removeprefix("--plugin="))
