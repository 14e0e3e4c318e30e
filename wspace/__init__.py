"""wspace: neural-network weights from a description.

This is the light door: it imports no torch. What components are made of is in `wspace.api`, what holds them to their
contracts in `wspace.testing`. Everything else is private.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

from wspace.recipes.hookspecs import AddCommand, Register
from wspace.support import moved
from wspace.support.parameters import build_defaults_with

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from wspace.runs.run import Run

__all__ = ["PLUGIN_API", "AddCommand", "Register", "__version__", "hookimpl", "load"]
__version__ = "0.2.0.dev0"
"""The installed version."""

PLUGIN_API = 1
"""The number of the contract with plugins, of which `docs/stability.md` says what it promises.

A plugin's module writes the number that it was made for, `PLUGIN_API = 1`, as a number and not imported from here; one
that writes none was made for 1. A plugin made for another is used all the same, and told of.
"""

hookimpl = pluggy.HookimplMarker("wspace")
"""Marks a plugin's implementation of a hook of `wspace.recipes.hookspecs`."""

moved.install()


def load(what: str | Path, plugins: Sequence[str | Path] = ()) -> Run | Any:
    """Open a finished run's folder: `wspace.load("runs/t2w").generate(["book", "camera"])`.

    Or what `wspace push` sent to a hub, as `"hf://user/name"`, `"hf://user/name@revision"` or, of a zoo,
    `"hf://datasets/user/name"`. It is downloaded once, into the hub's cache, and every file's hash is checked; nothing in it
    is executed.

    The folder of a zoo, or an address at which one lies (`https://...`), gives a `StoredZoo`; generated weights, a file or the
    folder of `wspace export --to huggingface`, give a `Network`. A run whose recipe names components of one-file plugins needs
    these files, as `plugins=["otters.py"]`. Raises UserError for what is none of these, or is not on the hub, and FileError for
    a file that is not what was sent.
    """
    from wspace.uses.hub.opening import load

    return load(what, plugins)


def _default(kind: str, name: str, given: Mapping[str, Any]) -> Any:
    """A component by name, with its own defaults: what a name, or a constructor's `Default`, becomes in plain Python."""
    from wspace.recipes.bind import bind_one
    from wspace.recipes.plugins import load_plugins
    from wspace.support.errors import UserError

    bound = bind_one(kind, name, load_plugins().registry, f"the {kind}")
    missing = [asked for asked in bound.signature.given if given.get(asked) is None]
    if missing:
        raise UserError(f"the {kind} {name!r} needs {', '.join(missing)}: pass that, or a {kind}")
    return bound.build(given)


build_defaults_with(_default)
