"""Whether a device computes what the CPU does: memory that fails, or a driver that does, gives numbers and no error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from wspace.support.errors import WspaceError
from wspace.support.seeding import stream

MOST = 0.01  # of a result's norm; TensorFloat-32 rounds products by a tenth of it
SIDE = 256

PROBES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "a matrix product": lambda x: x @ x.mT,
    "a softmax": lambda x: x.softmax(1),
    "attention": lambda x: functional.scaled_dot_product_attention(x[None], x[None], x[None])[0],
    "a layer norm": lambda x: functional.layer_norm(x, x.shape[1:]),
    "a convolution": lambda x: functional.conv2d(x[None, None], x[None, None, :3, :3])[0, 0],
    "sorting": lambda x: x.sort(1).values,
    "a gradient": lambda x: torch.func.vjp(lambda y: functional.gelu(y @ y), x)[1](x)[0],
}
"""(SIDE, SIDE) -> any matrix: what trainings and drawing are made of."""


@cache
def check_device(device: torch.device) -> None:
    """Raises WspaceError where a result on the device is not the CPU's up to rounding; once in a process."""
    if device.type == "cpu":
        return
    values = torch.randn(SIDE, SIDE, generator=stream(0, "probe"))
    for what, compute in PROBES.items():
        expected = compute(values)
        off = float((compute(values.to(device)).cpu() - expected).norm() / expected.norm())
        if not off <= MOST:  # also what is no number
            raise WspaceError(
                f"device {device} does not compute what the CPU does: {what} is off by {off:.1%}, where rounding gives less "
                f"than {MOST:.0%}; nothing can be trusted that is computed on it: 'device: cpu' does without"
            )
