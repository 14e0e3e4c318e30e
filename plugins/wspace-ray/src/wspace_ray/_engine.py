"""A Ray cluster: what it is asked for a piece of work, and how it is reached."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

from annotated_types import Ge, Gt

from wspace.api import Engine, UserError, WspaceError

HANDED_ON = ("WSPACE_CACHE", "WSPACE_PLUGINS")
"""Variables of the environment that the workers are given as well."""

SECONDS = 10  # that a cluster may take to answer
UNLESS_SAID = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run`, each worker would build and install the project for itself
}
"""Of Ray's settings in the environment."""


class Ray(Engine):
    """A Ray cluster, of one machine or many: Ray places the pieces, and repeats those whose worker is lost.

    address: that of a cluster which runs, as `ray start` prints it, or `auto` for the one that this machine is part of; without
        one, this machine alone is a cluster for the time of the run.
    workers: how many cores that cluster of one machine has; as many as the machine if left out.
    cpus, gpus: what a piece is given of a machine. A piece computes with as many threads as it has cpus.
    retries: how often a piece may be lost with its worker before the run ends.
    """

    def __init__(
        self,
        address: str | None = None,
        workers: Annotated[int, Ge(1)] | None = None,
        cpus: Annotated[float, Gt(0)] = 1.0,
        gpus: Annotated[float, Ge(0)] = 0.0,
        retries: Annotated[int, Ge(0)] = 10,
    ):
        if address is not None and workers is not None:
            raise UserError(
                "engine.workers: a cluster that runs has its own; leave engine.workers or engine.address out"
            )
        self.address, self.workers, self.cpus, self.gpus, self.retries = address, workers, cpus, gpus, retries

    def open(self) -> None:
        self._knock()
        for name, value in UNLESS_SAID.items():
            os.environ.setdefault(name, value)
        import ray

        variables = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
        ended_by = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                self.address,
                num_cpus=self.workers,
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=False if self.address is None else None,
                runtime_env={"env_vars": variables} if variables else None,
            )
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            raise self._unreachable() from error
        signal.signal(signal.SIGTERM, ended_by)  # Ray has put its own in the place, which ends in a dump
        for kind, asked in (("CPU", self.cpus), ("GPU", self.gpus)):
            most = max((node["Resources"].get(kind, 0) for node in ray.nodes() if node["Alive"]), default=0)
            if asked > most:
                ray.shutdown()
                name = f"{kind.lower()}s"
                raise UserError(
                    f"engine.{name}: a piece is to have {asked:g}, and no machine of the cluster has more than {most:g}"
                )

    def _knock(self) -> None:
        """Ray itself waits for minutes where nobody answers."""
        host, _, port = (self.address or "").removeprefix("ray://").rpartition(":")
        if not port.isdecimal():  # `auto`, or none
            return
        try:
            socket.create_connection((host, int(port)), SECONDS).close()
        except (OSError, OverflowError) as error:
            raise self._unreachable() from error

    def _unreachable(self) -> UserError:
        where = "no Ray cluster runs on this machine" if self.address == "auto" else f"nobody answers at {self.address}"
        return UserError(f"engine.address: {where}; `ray start --head` starts one and prints its address")

    def work(self, do: Callable[[str], str], pieces: Sequence[str]) -> Iterator[tuple[int, str]]:
        import ray

        there = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=self.retries)(do)
        numbers = {there.remote(piece): number for number, piece in enumerate(pieces)}
        left = list(numbers)
        while left:
            done, left = ray.wait(left)
            for reference in done:
                yield numbers[reference], self._result(reference)

    def _result(self, reference: Any) -> str:
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            return ray.get(reference)
        except RayTaskError:
            raise  # of our own code: with its traceback
        except RayError as error:
            times = f"{self.retries + 1} times" if self.retries else "once"
            raise WspaceError(
                f"engine 'ray': a piece of work was lost {times}; the same command goes on from here"
            ) from error

    def close(self) -> None:
        import ray

        ray.shutdown()
