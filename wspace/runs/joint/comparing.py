"""One table of all members' methods, in the form that a study's has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wspace.runs.finished import report_of
from wspace.runs.joint.file import Joint
from wspace.runs.report.methods import CONFIDENCE, METRIC, methods_of


def compared(joint: Joint, folder: Path) -> dict[str, Any]:
    """Every member's methods, as the report of a study has them."""
    rows, differences, training = [], [], []
    for member in (*joint.members, *joint.held_out):
        report = report_of(folder / member.name)
        shown = methods_of(bound.component for bound in member.against).of_several
        label = member.name + (" (held out)" if member in joint.held_out else "")
        scores: dict[tuple[str, str], Mapping[str, Any]] = {
            (score["split"], score["method"]): score for score in report["scores"] if score["metric"] == METRIC
        }
        for (split, method), score in scores.items():
            if method in shown:
                about = {"label": f"{label}: {method}", "variant": member.name, "method": method, "split": split}
                rows.append(about | {"metric": METRIC, "paper": None} | _figures(score))
        for row in report["differences"]:
            if row["metric"] == METRIC and row["method"] in shown:
                about = {"label": label, "minus": row["method"], "split": row["split"], "metric": METRIC}
                differences.append(about | _figures(row))
        entry = {"variant": member.name, "seed": member.seed} | report["training"]
        training.append(entry | {"seconds": report["seconds"]})
    return {
        "study": joint.name,
        "seeds": sorted({member.seed for member in joint.members}),
        "confidence": CONFIDENCE,
        "rows": rows,
        "differences": differences,
        "training": training,
    }


def _figures(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("mean", "ci_low", "ci_high", "n")} | {"seeds": [row["mean"]]}
