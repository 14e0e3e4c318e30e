"""Several processes at one run: the first does everything, the others take a share of training the generator.

A launcher, `torchrun` or `accelerate launch`, starts them all with the same command and says in environment variables who
is who. All of them read one disk; the first alone writes to it. (`accelerate launch --cpu --num_processes 2` starts one.)

accelerate connects them, and averages and broadcasts tensors. It has no messages but collectives, in which a GPU's process
would wait at full load for as long as the zoo takes: those go through torch's key-value store.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from wspace.support.errors import MissingPackage, UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Key = TypeVar("Key")
Part = TypeVar("Part")

_thread = threading.local()  # of a thread of `by_threads`: its event `unwanted`

LONGEST = timedelta(days=30)
"""That the others wait for the first, which makes the zoo meanwhile. A process that dies is the launcher's to see."""


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
            raise UserError(f"train.batch: {batch} networks are too few for {among}{each}: it takes {shares}")
        cuts = [batch * number // shares for number in range(self.rank * parts, (self.rank + 1) * parts + 1)]
        return [slice(*ends) for ends in itertools.pairwise(cuts)]

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Each tensor becomes its mean over the processes, bit for bit the same in all of them."""
        if self.count == 1 or not tensors:
            return
        import torch
        from accelerate.utils import reduce

        flat = torch.cat([tensor.flatten() for tensor in tensors])  # one message: accelerate would send each by itself
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
            tensor: Any = reduce(some[name] if name in some else torch.zeros_like(alike), "sum")
            if self.rank == 0:
                all_of_them[name] = tensor.cpu()
        return all_of_them

    def send(self, work: Mapping[str, str]) -> int:
        """Give the others something to do, all at once, and the first with them. Returns the number of what was sent."""
        return self._tell(work) if self.count > 1 else 0

    def reply(self, question: str, text: str) -> None:
        """To the first process."""
        self.store.set(f"reply {question}", text)

    def answer(self, question: str) -> str:
        """What one of the others replies, waited for."""
        return self.store.get(f"reply {question}").decode()

    def received(self) -> Iterator[Mapping[str, str]]:
        """What the first sends, one after the other, until it leaves."""
        for number in itertools.count():
            work = json.loads(self.store.get(f"work {number}"))
            if work is None:
                return
            yield work

    def leave(self) -> None:
        """When nothing more is to be sent, and the others know."""
        if self.rank == 0:
            self._tell(None)
        self.store.set(f"left {self.rank}", "")
        if self.rank == 0:  # where it keeps the store itself, it must be the last to go
            self.store.wait([f"left {rank}" for rank in range(self.count)])

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
def leading(device: str, batch: int, parts: int) -> Iterator[None]:
    """The first process's run, which the others wait to be asked into, if there are any.

    `device` is as a recipe names it; of each `batch` all processes take a share, in so many `parts`. Raises UserError.
    """
    launched().rows(batch, parts)  # before the zoo is made
    if launched().count == 1:
        yield
        return
    with connected(device_of(device)):
        yield


@contextmanager
def connected(device: torch.device) -> Iterator[Processes]:
    """Talking to the others, once in a process. When the first one leaves, they have nothing more to do.

    Raises MissingPackage without accelerate, UserError if not all that were launched are connected.
    """
    global _here
    try:
        from accelerate.state import PartialState
    except ImportError as error:
        raise MissingPackage('several processes need the package accelerate: pip install "wspace[multi]"') from error
    import torch.distributed as distributed

    if device.type == "cuda":
        import torch

        torch.cuda.set_device(device)
    rendezvous: Any = distributed.rendezvous("env://", timeout=LONGEST)  # a function, and a module of that name
    store, rank, count = next(rendezvous)
    store.set_timeout(LONGEST)
    store = distributed.PrefixStore(f"start {_start()}", store)
    group = PartialState(
        cpu=device.type == "cpu",
        timeout=LONGEST,
        store=distributed.PrefixStore("group", store),
        rank=rank,
        world_size=count,
    )
    if group.num_processes != launched().count:
        raise UserError(f"{launched().count} processes were launched, and accelerate connects {group.num_processes}")
    _here = Processes(group.process_index, group.num_processes, distributed.PrefixStore("messages", store))
    try:
        yield _here
        _here.leave()
        group.destroy_process_group()  # not after an error: others may wait in the middle of something, for ever
    finally:
        _here = ALONE


def _start() -> str:
    """Which start of the processes it is: torchrun's own store outlives a restart, with all that the dead wrote in it."""
    outlives = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return os.environ["TORCHELASTIC_RESTART_COUNT"] if outlives else "0"


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


def by_threads(parts: Sequence[Callable[[], Part]]) -> list[Part]:
    """What each part gives, by as many threads as torch has, each of which does without torch's others.

    They wait for each other once, where torch's would at every product. What a part raises is raised, and so is an
    interruption: then others are not begun, and those that are end at their next `check_wanted`.
    """
    import torch

    threads = min(torch.get_num_threads(), len(parts))
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


def steps_unread(device: torch.device) -> int:
    """How many steps of a loop go by until the host reads what came of them, or gives the device more numbers to go by.

    Either waits for all that a GPU was asked for, which would otherwise be ahead of the host; a CPU is never behind it.
    """
    return 1 if device.type == "cpu" else 64


def finish() -> None:
    """Wait until a GPU, where one is in use, has done all that it was asked for: before a clock is read."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def settled(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor that much is computed with: on the device, or where it lies if it would take most of what a GPU has free."""
    import torch

    has_room = device.type != "cuda" or 2 * tensor.nbytes <= torch.cuda.mem_get_info(device)[0]
    return tensor.to(device) if has_room else tensor


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
