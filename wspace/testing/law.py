"""What a check is: a function that holds one component to one law of its kind, and fails with one sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from wspace.recipes.registry import KINDS

if TYPE_CHECKING:
    from wspace.testing.subject import Subject

Check = Callable[["Subject"], None]

CHECKS: dict[str, list[Check]] = {kind: [] for kind in KINDS}
"""Kind -> what every component of it is held to, in this order."""


def check(*kinds: str) -> Callable[[Check], Check]:
    """Hold components of these kinds to the decorated function; without kinds, those of all."""

    def hold(function: Check) -> Check:
        for kind in kinds or KINDS:
            CHECKS[kind].append(function)
        return function

    return hold
