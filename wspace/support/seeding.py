"""Random streams: one torch.Generator for each use, so that adding a use disturbs no other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def stream(seed: int, *names: str | float) -> torch.Generator:
    """A CPU generator for one purpose: the same seed and names, the same numbers, on every machine."""
    digest = hashlib.sha256("/".join(map(str, (seed, *names))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def on_device(device: torch.device, rng: torch.Generator) -> torch.Generator:
    """`rng` itself on its own device; on another one a generator of that device's, whose seed is `rng`'s next number.

    For draws as large as networks are, in every step: by the CPU they take longer to make, and to send, than a step takes a
    GPU. The numbers are others than the CPU's, and the same ones each time. What is small, or is to be the same on every
    machine (which images a network of the zoo is shown, what is sampled), is drawn by `rng`, and sent.
    """
    if rng.device.type == device.type:
        return rng
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=rng)))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Parameters initialised inside come from `seed`; the global random state is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed the GPU's too, which is not put back
        torch.default_generator.manual_seed(seed)
        yield
