"""Threads of this process: how many torch computes by, and work that each of them does for itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Part = TypeVar("Part")

_thread = threading.local()  # of a thread of `by_threads`: its event `unwanted`


@contextmanager
def threaded(count: int) -> Iterator[None]:
    """With so many threads of torch's, and afterwards as many as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def by_threads(parts: Sequence[Callable[[], Part]], *, at_once: bool = True) -> list[Part]:
    """What each part gives, by as many threads as torch has, each of which does without torch's others.

    They wait for each other once, where torch's would at every product. If not `at_once`, it is one part after the other, with
    all of torch's threads. What a part raises is raised, and so is an interruption: then others are not begun, and those
    that are end at their next `check_wanted`.
    """
    import torch

    threads = min(torch.get_num_threads(), len(parts)) if at_once else 1
    if threads == 1:
        return [part() for part in parts]
    unwanted = threading.Event()

    def begin() -> None:
        torch.set_num_threads(1)
        _thread.unwanted = unwanted

    with ThreadPoolExecutor(threads, initializer=begin) as pool:
        try:
            return list(pool.map(lambda part: part(), parts))
        except BaseException:
            unwanted.set()
            raise


def check_wanted() -> None:
    """Raises CancelledError in a thread of `by_threads` for whose result nobody waits any more: for loops that take long."""
    unwanted: threading.Event | None = getattr(_thread, "unwanted", None)
    if unwanted is not None and unwanted.is_set():
        raise CancelledError
