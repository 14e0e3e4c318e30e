"""Whether there is a network: asked before a download, which fails by itself only after most of a minute."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Thread
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

PATIENCE = 2.0
"""Seconds a host has to answer. A download without a network fails by itself only after 46."""


_downloads = ContextVar("downloads", default=True)


@contextmanager
def without_downloads() -> Iterator[None]:
    """While it lasts, pretrained weights that are not here are missing."""
    token = _downloads.set(False)
    try:
        yield
    finally:
        _downloads.reset(token)


def may_download() -> bool:
    """Whether nobody has asked to do `without_downloads`."""
    return _downloads.get()


def offline_by_choice() -> bool:
    from huggingface_hub import constants

    # the hub's own constant holds what the variable was when the hub was first imported
    return constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in {
        "1",
        "ON",
        "YES",
        "TRUE",
    }


def reachable(address: str, patience: float = PATIENCE) -> bool:
    """Whether the host of `address`, or the proxy on the way to it, accepts a connection within so many seconds."""
    parts = urlsplit(address)
    proxy = getproxies().get(parts.scheme)
    if proxy and not proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    answered: list[bool] = []

    def knock() -> None:
        try:
            with socket.create_connection((host, port), timeout=patience):
                answered.append(True)
        except OSError:
            pass

    # A look-up of a name takes no time limit: left behind in a thread if it hangs.
    thread = Thread(target=knock, daemon=True)
    thread.start()
    thread.join(patience)
    return bool(answered)
