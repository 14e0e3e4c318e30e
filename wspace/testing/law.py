"""What a check is: a function that holds one component to one law of its kind, and fails with one sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from wspace.registry import KINDS

if TYPE_CHECKING:
    from wspace.testing.subject import Subject

Check = Callable[["Subject"], None]

CHECKS: dict[str, list[Check]] = {kind: [] for kind in KINDS}
"""Kind -> what every component of it is held to, in this order."""


class Unlawful(AssertionError):
    """Which component breaks which law, and by how much: one sentence."""


class Unbuilt(Exception):
    """The component cannot be made: `check_builds_from_its_example` says why, and the other checks do not apply."""


class Unreadable(Unbuilt):
    """Because its constructor cannot be read from source, which `check_signature_is_readable` says."""


def check(*kinds: str) -> Callable[[Check], Check]:
    """Hold components of these kinds to the decorated function; without kinds, those of all."""

    def hold(function: Check) -> Check:
        for kind in kinds or KINDS:
            CHECKS[kind].append(function)
        return function

    return hold
