"""Several processes at one run: the first does everything, the others take a share of training the generator.

A launcher, `torchrun` or `accelerate launch`, starts them all with the same command and says in environment variables who
is who. All of them read one disk; the first alone writes to it. (`accelerate launch --cpu --num_processes 2` starts one.)

accelerate connects them, and averages and broadcasts tensors. It has no messages but collectives, in which a GPU's process
would wait at full load for as long as the zoo takes: those go through torch's key-value store. There a process looks again and
again for what it waits for, so that a signal ends it at once, and so does the end of the first.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from wspace.support.errors import MissingPackage, UserError, WspaceError
from wspace.support.slices import even

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Key = TypeVar("Key")

LONGEST = timedelta(days=30)
"""That the others wait for the first, which makes the zoo meanwhile. A process that dies is the launcher's to see."""

LOOKS_EVERY = 0.05  # seconds, of a process that waits for a message
GRACE = 3.0
"""Seconds that the others have to hear that the first has failed, and to say nothing of what failed for them."""

GONE = "another process of this run is gone; the same command goes on from the last checkpoint"


@dataclass(frozen=True)
class Processes:
    """Those that train together, as one of them sees it. Alone, nothing here changes a number."""

    rank: int = 0
    count: int = 1
    store: Any = field(default=None, compare=False, repr=False)  # a torch.distributed.Store, for messages

    def rows(self, batch: int, parts: int = 1) -> list[slice]:
        """Which rows of a batch are this process's, in so many parts; of all shares none is empty. Raises UserError."""
        shares = self.count * parts
        if shares > batch:
            among = f"{self.count} processes" if self.count > 1 else "one process"
            each = f" in {parts} parts each (train.accumulate)" if parts > 1 else ""
            verb, or_else = "is" if batch == 1 else "are", "" if parts > 1 else ", or start fewer"
            raise UserError(
                f"train.batch: {batch} {verb} too few networks for {among}{each}: set {shares} or more{or_else}"
            )
        return even(batch, shares)[self.rank * parts : (self.rank + 1) * parts]

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Each tensor becomes its mean over the processes, bit for bit the same in all of them."""
        if self.count == 1 or not tensors:
            return
        import torch
        from accelerate.utils import reduce

        flat = torch.cat([tensor.flatten() for tensor in tensors])  # one message: accelerate would send each by itself
        with self.in_touch():
            mean_of_all: Any = reduce(flat, "mean")  # shaped as what it is given: a tensor
        means = mean_of_all.split([tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.copy_(mean.view_as(tensor))

    def averaged(self, values: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
        """Scalars, each as its mean over the processes."""
        means = {name: value.detach().clone() for name, value in values.items()}
        self.average(list(means.values()))
        return means

    def agree(self, tensors: Sequence[Tensor]) -> None:
        """Each tensor becomes what it is in the first process."""
        if self.count > 1:
            from accelerate.utils import broadcast

            with self.in_touch():
                for tensor in tensors:
                    tensor.copy_(broadcast(tensor))

    def collect(self, some: Mapping[Key, Tensor], like: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
        """What each process has `some` of, and no two the same: all of it in the first, on the CPU, and none in the others.

        `like` has the shape and the device of each. They are sent one by one: the others have no more than two at once beside
        theirs. What no process has is 0.
        """
        import torch
        from accelerate.utils import reduce

        all_of_them: dict[Key, Tensor] = {}
        for name, alike in like.items():
            with self.in_touch():
                tensor: Any = reduce(some[name] if name in some else torch.zeros_like(alike), "sum")
            if self.rank == 0:
                all_of_them[name] = tensor.cpu()
        return all_of_them

    @contextmanager
    def in_touch(self) -> Iterator[None]:
        """Around what all do together. Raises WspaceError if one of them is gone."""
        try:
            yield
        except RuntimeError as error:
            if self.count == 1:
                raise
            raise WspaceError(GONE) from error

    def send(self, work: Mapping[str, str]) -> int:
        """Give the others something to do, all at once, and the first with them. Returns the number of what was sent."""
        return self._tell(work) if self.count > 1 else 0

    def reply(self, question: str, text: str) -> None:
        """To the first process."""
        self.store.set(f"reply {question}", text)

    def answer(self, question: str) -> str:
        """What one of the others replies, waited for."""
        return self.waited_for(f"reply {question}")

    def received(self) -> Iterator[Mapping[str, str]]:
        """What the first sends, one after the other, until it leaves."""
        for number in itertools.count():
            work = json.loads(self.waited_for(f"work {number}"))
            if work is None:
                return
            yield work

    def arrive(self) -> None:
        """Wait until every process has come here."""
        self.store.set(f"here {self.rank}", "")
        for rank in range(self.count):
            self.waited_for(f"here {rank}")

    def leave(self) -> None:
        """When nothing more is to be sent, and the others know."""
        if self.rank == 0:
            self._tell(None)
        self.store.set(f"left {self.rank}", "")
        if self.rank == 0:  # where it keeps the store itself, it must be the last to go
            for rank in range(self.count):
                self.waited_for(f"left {rank}")

    def fail(self, status: int) -> None:
        """Of the first: the others are to end with this status, and have a moment for it."""
        self.store.set("failed", str(status))
        until = time.monotonic() + GRACE
        heard = [f"left {rank}" for rank in range(1, self.count)]
        while not self.store.check(heard) and time.monotonic() < until:
            time.sleep(LOOKS_EVERY)

    def fail_with_the_first(self) -> None:
        """Of the others: raises SystemExit if the first has failed, or does so in a moment; it has said why."""
        until = time.monotonic() + GRACE
        with suppress(RuntimeError):  # the store went with the first
            self._hear_of_failure()
            while time.monotonic() < until:
                time.sleep(LOOKS_EVERY)
                self._hear_of_failure()

    def _hear_of_failure(self) -> None:
        if self.rank and self.store.check(["failed"]):
            status = int(self.store.get("failed"))
            self.store.set(f"left {self.rank}", "")
            raise SystemExit(status)

    def waited_for(self, key: str) -> str:
        """What the store has under a key, once it has. Raises WspaceError where the store is gone."""
        with self.in_touch():
            while not self.store.check([key]):
                self._hear_of_failure()
                time.sleep(LOOKS_EVERY)
            return self.store.get(key).decode()

    def _tell(self, work: Mapping[str, str] | None) -> int:
        # Not by a collective, in which the others would wait with all their might for as long as the zoo takes.
        number = self.store.add("sent", 1) - 1
        self.store.set(f"work {number}", json.dumps(work))
        return number


ALONE = Processes()
_here = ALONE


def here() -> Processes:
    """Those that are connected now."""
    return _here


def launched() -> Processes:
    """Those that a launcher has started, whether connected or not."""
    return Processes(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def gpu_of_this() -> int | None:
    """Which of the machine's GPUs is this process's; None without a launcher."""
    return int(os.environ["LOCAL_RANK"]) if launched().count > 1 and "LOCAL_RANK" in os.environ else None


@contextmanager
def failing_together() -> Iterator[None]:
    """Around all that the first process does: where it fails, the others end with its exit status, and say nothing."""
    try:
        yield
    except Exception as error:
        if launched().count > 1:
            with suppress(Exception):  # where there is no store, the launcher ends them
                _launched_with_store().fail(getattr(error, "exit_status", 1))
        raise


@contextmanager
def leading(*trainings: tuple[str, int, int]) -> Iterator[None]:
    """The first process's run, which the others wait to be asked into, if there are any.

    Of each training its device, as a recipe names it, its batch, of which all processes take a share, and the parts of a
    share. Raises UserError.
    """
    for _, batch, parts in trainings:
        launched().rows(batch, parts)  # before the zoo is made
    if launched().count == 1:
        yield
        return
    devices = sorted({device for device, _, _ in trainings})
    if len(devices) > 1:
        raise UserError(
            f"device: the processes of a launcher compute on one kind of device, and recipes name {' and '.join(devices)}; "
            "--set device=auto says the same of all"
        )
    with connected(devices[0]):
        yield


@contextmanager
def connected(device: str | None = None) -> Iterator[Processes]:
    """Talking to the others, once in a process. When the first one leaves, they have nothing more to do.

    The first says what `device` each computes on, as a recipe names it. Raises MissingPackage without accelerate, UserError
    for a GPU that is not there, and if not all that were launched are connected; SystemExit where the first has failed.
    """
    global _here
    processes = _launched_with_store()
    try:
        group = _grouped(processes, device)
        _here = processes
        yield processes
        processes.leave()
        group.destroy_process_group()  # not after an error: others may wait in the middle of something, for ever
    except Exception as error:
        if processes.rank:
            processes.fail_with_the_first()
            if isinstance(error, WspaceError):
                error.args = (f"process {processes.rank} ({platform.node()}): {error}",)
        raise
    finally:
        _here = ALONE


def _grouped(processes: Processes, device: str | None) -> Any:
    """accelerate's state of all processes. They are all there before torch, in which no signal is heard, connects them."""
    try:
        from accelerate.state import PartialState
    except ImportError as error:
        raise MissingPackage('several processes need the package accelerate: pip install "wspace[multi]"') from error
    import torch
    import torch.distributed as distributed

    if device is not None and processes.rank == 0:
        processes.store.set("device", device)
    of_this = device_of(processes.waited_for("device"))
    if of_this.type == "cuda":
        torch.cuda.set_device(of_this)
    processes.arrive()
    group = PartialState(
        cpu=of_this.type == "cpu",
        timeout=LONGEST,
        store=distributed.PrefixStore("group", processes.store),
        rank=processes.rank,
        world_size=processes.count,
    )
    if group.num_processes != processes.count:
        raise UserError(f"{processes.count} processes were launched, and accelerate connects {group.num_processes}")
    return group


@cache
def _launched_with_store() -> Processes:
    """Those that a launcher has started, and the store that they all see."""
    import torch.distributed as distributed

    rendezvous: Any = distributed.rendezvous("env://", timeout=LONGEST)  # a function, and a module of that name
    store, rank, count = next(rendezvous)
    return Processes(rank, count, distributed.PrefixStore(f"start {_start()}", store))


def _start() -> str:
    """Which start of the processes it is: torchrun's own store outlives a restart, with all that the dead wrote in it."""
    outlives = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return os.environ["TORCHELASTIC_RESTART_COUNT"] if outlives else "0"


def device_of(name: str) -> torch.device:
    """This process's device, of a recipe's `device`: auto, cpu or cuda. Raises UserError for a GPU that is not there."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda: torch sees no GPU here; set 'device: auto'")
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    kind, number = automatic if name == "auto" else name, gpu_of_this()
    if kind == "cpu" or number is None:
        return torch.device(kind)
    if number >= torch.cuda.device_count():
        raise UserError(
            f"device: process {number} of this machine has no GPU: torch sees {torch.cuda.device_count()}; start no more "
            "processes than that"
        )
    return torch.device(kind, number)
