"""This machine: the process itself, or several beside it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Annotated

from annotated_types import Ge

from wspace.interfaces import Engine
from wspace.support.errors import WspaceError


class Local(Engine):
    """So many worker processes of this machine, each on its share of the processor's cores; with 1, the run's own process."""

    def __init__(self, workers: Annotated[int, Ge(1)] = 1):
        self.workers = workers

    @property
    def elsewhere(self) -> bool:
        return self.workers > 1

    def open(self) -> None:
        import torch

        share = torch.get_num_threads() // self.workers  # of the run's own, which are as many as there are cores
        self.pool = ProcessPoolExecutor(self.workers, multiprocessing.get_context("spawn"), _take_cores, (share,))

    def work(self, do: Callable[[str], str], pieces: Sequence[str]) -> Iterator[tuple[int, str]]:
        numbers = {self.pool.submit(do, piece): number for number, piece in enumerate(pieces)}
        try:
            for done in as_completed(numbers):
                yield numbers[done], done.result()
        except BrokenProcessPool as error:
            raise WspaceError(
                "engine 'local': a worker process was killed, perhaps for want of memory; the same command goes on from here"
            ) from error

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)


def _take_cores(count: int) -> None:
    """Called first of all in a worker."""
    import torch

    torch.set_num_threads(max(1, count))
