"""Several processes at one run: the first does everything, the others take a share of training the generator.

A launcher, `torchrun` or `accelerate launch`, starts them all with the same command and says in environment variables who
is who. All of them read one disk; the first alone writes to it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from wspace.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from wspace.bind import BoundRecipe

LONGEST = timedelta(days=30)
"""That the others wait for the first, which makes the zoo meanwhile. A process that dies is the launcher's to see."""


@dataclass(frozen=True)
class Processes:
    """Those that train together, as one of them sees it. Alone, nothing here changes a number."""

    rank: int = 0
    count: int = 1

    def share(self, batch: int) -> int:
        """Of a batch, for each process. Raises UserError."""
        if batch % self.count:
            raise UserError(f"train.batch: {batch} cannot be shared out evenly among {self.count} processes")
        return batch // self.count

    @property
    def own(self) -> tuple[int, ...]:
        """What to add to the names of a random stream that each process should have to itself."""
        return (self.rank,) if self.rank else ()

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Each tensor becomes its mean over the processes, bit for bit the same in all of them."""
        if self.count == 1 or not tensors:
            return
        import torch
        import torch.distributed as distributed

        flat = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor) / self.count)

    def averaged(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scalars, each as its mean over the processes."""
        means = {name: value.detach().clone() for name, value in values.items()}
        self.average(list(means.values()))
        return means

    def agree(self, tensors: Sequence[Tensor]) -> None:
        """Each tensor becomes what it is in the first process."""
        if self.count > 1:
            import torch.distributed as distributed

            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def send(self, work: Mapping[str, str] | None) -> None:
        """Give the others, who wait for it in `receive`, something to do; None: nothing more."""
        if self.count > 1:
            self._pass(json.dumps(work).encode())

    def receive(self) -> Mapping[str, str] | None:
        return json.loads(self._pass(b""))

    def _pass(self, message: bytes) -> bytes:
        """From the first to the others, through the CPU: a GPU would be kept busy waiting."""
        import torch
        import torch.distributed as distributed

        length = torch.tensor(len(message))
        distributed.broadcast(length, 0)
        content = torch.empty(int(length), dtype=torch.uint8)
        if self.rank == 0:
            content.copy_(torch.frombuffer(bytearray(message), dtype=torch.uint8))
        distributed.broadcast(content, 0)
        return content.numpy().tobytes()


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
def leading(recipe: BoundRecipe) -> Iterator[None]:
    """The first process's run, which the others wait to be asked into, if there are any."""
    if launched().count == 1:
        yield
        return
    from wspace.workbench import device_of

    launched().share(recipe.train.batch)  # before the zoo is made
    with connected(device_of(recipe)):
        yield


@contextmanager
def connected(device: torch.device) -> Iterator[Processes]:
    """Talking to the others. When the first one leaves, they have nothing more to do."""
    global _here
    import torch.distributed as distributed

    backend = "gloo"
    if device.type == "cuda":
        import torch

        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, timeout=LONGEST)
    _here = launched()
    try:
        yield _here
        if _here.rank == 0:
            _here.send(None)
        distributed.destroy_process_group()  # not after an error: others may wait in the middle of something, for ever
    finally:
        _here = ALONE
