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


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Parameters initialised inside come from `seed`; the global random state is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed the GPU's too, which is not put back
        torch.default_generator.manual_seed(seed)
        yield
