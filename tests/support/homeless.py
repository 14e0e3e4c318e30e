"""A user whom the system does not know, as in a container that runs under any number."""

from __future__ import annotations

import pytest


def leave_home(monkeypatch: pytest.MonkeyPatch, home: str | None = None) -> None:
    """Nobody is known to the system, and HOME is `home`, or not set."""

    def unknown(_: object) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.delenv("HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
