"""What a stage takes is measured, and that of an interrupted attempt is part of it."""

from __future__ import annotations

import json
from mmap import mmap
from pathlib import Path

import pytest

from wspace.runs.spent import Spent, spending, spent
from wspace.support.memory import forget_peak, peak_mib
from wspace.support.names import ELAPSED


def test_attempts_add_up_and_the_greatest_memory_counts(tmp_path: Path) -> None:
    (tmp_path / ELAPSED).write_text(json.dumps({"seconds": 100.0, "processor_seconds": 50.0, "peak_mib": 1e6}))
    with pytest.raises(KeyboardInterrupt), spending(tmp_path):
        raise KeyboardInterrupt
    took = spent(tmp_path)
    assert 100 < took.seconds < 101 and 50 <= took.processor_seconds < 51 and took.peak_mib == 1e6


@pytest.mark.parametrize(("content", "expected"), [("12.5", Spent(12.5)), ("\0\0", Spent()), ('{"x": 1}', Spent())])
def test_what_earlier_versions_or_a_power_failure_left_is_read(tmp_path: Path, content: str, expected: Spent) -> None:
    (tmp_path / ELAPSED).write_text(content)
    assert spent(tmp_path) == expected


def test_a_stage_s_peak_is_not_that_of_the_stage_before() -> None:
    forget_peak()
    before = peak_mib()
    with mmap(-1, 200 << 20) as large:  # new memory, where an allocator may have some that is free
        for _ in range(200):
            large.write(b"x" * (1 << 20))
        assert peak_mib() > before + 150
    forget_peak()
    assert peak_mib() < before + 50
