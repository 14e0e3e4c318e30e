"""Memory that a step frees is there for the next one."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

SIZE = 16_000_000  # bytes
SEEN = f"""
import ctypes, numpy
from wspace.support.memory import keep_freed_memory

class Info(ctypes.Structure):  # mallinfo2(3)
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Info
if {{keep}}:
    keep_freed_memory()
before = mallinfo().hblkhd
block = numpy.empty({SIZE // 8})
mapped = mallinfo().hblkhd - before
del block
print(mapped, mallinfo().fordblks)
"""


def mapped_and_kept(keep: bool) -> list[int]:
    """Bytes of a block that were mapped for it alone, and free bytes that are with the process after it."""
    done = subprocess.run([sys.executable, "-c", SEEN.format(keep=keep)], capture_output=True, text=True, check=True)
    return [int(number) for number in done.stdout.split()]


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="asks glibc 2.33"
)
def test_a_block_that_was_freed_stays_with_the_process() -> None:
    mapped, kept = mapped_and_kept(keep=False)
    assert mapped >= SIZE > kept
    mapped, kept = mapped_and_kept(keep=True)
    assert mapped == 0 and kept >= SIZE
