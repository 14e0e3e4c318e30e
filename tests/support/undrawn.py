"""Runs without figures in their reports: to draw those takes longer than to train a small network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def undrawn() -> Iterator[None]:
    """Inside, the page of a run has its tables and its text alone. tests/runs/test_report.py looks at the figures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wspace.runs.stages.report._figures", lambda *_: {})
        for name in ("picture_sheet", "frontier"):
            patch.setattr(f"wspace.runs.report.figures.{name}", lambda *_: "")
        yield
