"""What is to be thought of where a GPU computes: that it is waited for seldom, and that what it has room for lies there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


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


def gpu_memory() -> int:
    """Bytes of memory that the largest GPU of this machine has; 0 without one."""
    import torch

    if not torch.cuda.is_available():
        return 0
    return max(torch.cuda.get_device_properties(number).total_memory for number in range(torch.cuda.device_count()))


def settled(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor that much is computed with: on the device, or where it lies if it would take most of what a GPU has free."""
    import torch

    has_room = device.type != "cuda" or 2 * tensor.nbytes <= torch.cuda.mem_get_info(device)[0]
    return tensor.to(device) if has_room else tensor
