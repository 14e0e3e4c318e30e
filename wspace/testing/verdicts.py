"""What a check may say of a component."""

from __future__ import annotations


class Unlawful(AssertionError):
    """Which component breaks which law, and by how much: one sentence."""


class Unbuilt(Exception):
    """The component cannot be made: `check_builds_from_its_example` says why, and the other checks do not apply."""


class Unreadable(Unbuilt):
    """Because its constructor cannot be read from source, which `check_signature_is_readable` says."""
