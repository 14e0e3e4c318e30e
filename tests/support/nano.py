"""What a nano recipe is for: a run in which something was learnt, or it guards nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MARGIN = 0.1
"""Accuracy above that of random weights which a constant answer does not have."""


def check_above_random(report: Mapping[str, Any]) -> None:
    """On seen and unseen tasks, of a run's report."""
    scores = {(s["split"], s["method"]): s["mean"] for s in report["scores"] if s["metric"] == "accuracy"}
    for split in ("seen", "unseen-tasks"):
        generated, random = scores[split, "generated"], scores[split, "random"]
        assert generated > random + MARGIN, (
            f"{report['run']}: {split}: {generated:.1%}, and random weights {random:.1%}"
        )
