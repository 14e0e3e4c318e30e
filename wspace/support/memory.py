"""How the C library keeps memory: glibc hands large blocks back at once, and the next step's are zeroed page by page again."""

from __future__ import annotations

import ctypes
import platform
import resource

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8  # parameters of mallopt(3)
LARGEST = 32 << 20  # bytes: the most that glibc takes for its threshold of blocks that are mapped one by one


def keep_freed_memory() -> None:
    """Blocks of up to 32 MiB that a step frees are there for the next one; without glibc, nothing is done."""
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    for parameter, value in ((MMAP_THRESHOLD, LARGEST), (TRIM_THRESHOLD, 2**31 - 1), (ARENA_MAX, 1)):
        mallopt(parameter, value)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # which Linux counts in KiB
