"""What can be said of networks as weights: symmetry, matching, tracing, low rank, zoos and networks as files.

It may import `interfaces` and `support`.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """`from wspace.weights import WeightSpec`, as wspace 0.1 had it."""
    from wspace.support.moved import moved

    return moved(__name__, name)
