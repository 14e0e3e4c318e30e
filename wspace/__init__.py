"""wspace: neural-network weights from a description. See README.md for where things live."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    from wspace.run import Run

__all__ = ["__version__", "hookimpl", "load"]
__version__ = "0.1.0"

hookimpl = pluggy.HookimplMarker("wspace")
"""Marks a plugin's implementation of a hook of `wspace.hookspecs`."""


def load(run: str | Path) -> Run:
    """Open a finished run's folder: `wspace.load("runs/t2w").generate(["anchor", "camera"])`."""
    from wspace.run import Run

    return Run.open(run)
