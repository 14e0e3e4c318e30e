"""The contract with plugins. A plugin is a module with implementations of these hooks, marked `@wspace.hookimpl`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import pluggy

hookspec = pluggy.HookspecMarker("wspace")


class Register(Protocol):
    """What `wspace_register` is given to register components with."""

    def __call__(
        self,
        kind: str,
        name: str,
        target: str,
        *,
        example: Mapping[str, Any] | None = None,
        was: tuple[str, ...] = (),
    ) -> None:
        """Offer a component.

        `kind` is one of those in docs/components.md; `name` is what recipes write after `use:`; `target` is an import
        string, "package.module:Class", imported at first use; `example` holds arguments for a tiny instance: it is
        tested by the conformance checks and shown by `wspace show`; `was` holds names that it had before: recipes may
        go on writing them, and are told the new one.
        """


class AddCommand(Protocol):
    """What `wspace_commands` is given to offer commands with."""

    def __call__(self, name: str, target: str) -> None:
        """Offer a command, `wspace NAME`.

        `target` is an import string, "package.module:function", imported when the command is called. The function's
        signature is its arguments and options, as Typer reads them. The first line of its docstring stands in
        `wspace --help`, read from the source. A `typer.Typer` in place of the function is a group of commands, and the
        line is its `help`.
        """


@hookspec
def wspace_register(register: Register) -> None:
    """Register this plugin's components. Must not import torch: the command line calls it for every command."""


@hookspec
def wspace_commands(add: AddCommand) -> None:
    """Add this plugin's commands. Must not import torch either."""
