"""What is skipped is said, with its reason, whatever pytest was told to report."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from wspace.testing.subject import scratch

os.environ["TRACKIO_DIR"] = str(scratch() / "trackio")  # that tracker's own store is the user's


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if "s" in terminalreporter.reportchars.lower():
        return
    reasons = Counter(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", []))
    for reason, count in reasons.items():
        terminalreporter.write_line(f"{count} skipped: {reason.removeprefix('Skipped: ')}")
