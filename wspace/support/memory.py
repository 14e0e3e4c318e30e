"""How much memory there is, and how the C library keeps it.

glibc hands large blocks back at once, and the next step's are zeroed page by page again.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wspace.support.quantities import in_bytes

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8  # parameters of mallopt(3)
LARGEST = 32 << 20  # bytes: the most that glibc takes for its threshold of blocks that are mapped one by one


def keep_freed_memory() -> None:
    """Blocks of up to 32 MiB that a step frees are there for the next one; without glibc, nothing is done."""
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    for parameter, value in ((MMAP_THRESHOLD, LARGEST), (TRIM_THRESHOLD, 2**31 - 1), (ARENA_MAX, 1)):
        mallopt(parameter, value)


def forget_peak() -> None:
    """`peak_mib` is of what comes after this, where Linux lets a process say so; else it stays the process's."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """The most memory that this process has had, with its libraries."""
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # of Linux, which counts what had started the process, too
    with suppress(OSError, ValueError, IndexError):
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
        kib = int(line.split()[1])
    return kib / 1024


CONTROL_GROUP = Path("/sys/fs/cgroup")
"""Where Linux says what a container may have."""


def memory() -> tuple[int, int]:
    """Bytes that this process may have at most, and of these what is free; as far as Linux tells."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = total
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    with suppress(OSError, ValueError):  # "max" is no number, and no limit
        limit = int((CONTROL_GROUP / "memory.max").read_text())
        used = int((CONTROL_GROUP / "memory.current").read_text())
        total, free = min(total, limit), min(free, max(0, limit - used))
    return total, free


@contextmanager
def limited_to_what_is_free() -> Iterator[None]:
    """Asking for more memory than is free now fails inside, where Linux lets a process say so: it is not killed later."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    try:
        held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (held + memory()[1], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def wanted(error: BaseException) -> str:
    """Of an allocation that failed: a sentence on how much it asked for, as far as it says."""
    asked = re.search(r"allocate (\d+) bytes", str(error))
    much = "more memory" if asked is None else f"{in_bytes(int(asked[1]))} of memory at once, more"
    return f"this takes {much} than there is"


def is_want_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: Python's, torch's or numpy's."""
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error)
