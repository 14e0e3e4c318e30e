"""The contract with plugins. A plugin is a module with implementations of these hooks, marked `@wspace.hookimpl`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import pluggy

hookspec = pluggy.HookspecMarker("wspace")


class Register(Protocol):
    """What `wspace_register` is given to register components with."""

    def __call__(self, kind: str, name: str, target: str, *, example: Mapping[str, Any] | None = None) -> None:
        """Offer a component.

        `kind` is one of `wspace.recipes.registry.KINDS`; `name` is what recipes write after `use:`; `target` is an import
        string, "package.module:Class", imported at first use; `example` holds arguments for a tiny instance: it is
        tested by the conformance checks and shown by `wspace show`.
        """


@hookspec
def wspace_register(register: Register) -> None:
    """Register this plugin's components. Must not import torch: the command line calls it for every command."""
