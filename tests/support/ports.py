"""A port for a server of a test."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_port() -> Iterator[int]:
    """One that nothing listens on, for a server that is told its number; meanwhile no other process is given it."""
    with socket.socket() as bound:  # and never listening: a server may listen beside it
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
