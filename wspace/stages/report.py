"""Stage report: what the stages before left, as report.json and one self-contained report.html."""

from __future__ import annotations

from typing import Any

from wspace.stages import Job
from wspace.store import MANIFEST, read_json, write_json


def run(job: Job) -> None:
    evaluated = read_json(job.inputs["evaluate"] / "scores.json")
    report: dict[str, Any] = {
        "recipe": job.recipe.name,
        "seed": job.recipe.seed,
        "scores": evaluated["scores"],
        "differences": evaluated["differences"],
        "chosen": {"ridge_penalty": evaluated["ridge_penalty"]},
        "training": read_json(job.inputs["train"] / "summary.json"),
        "seconds": {name: read_json(folder / MANIFEST)["seconds"] for name, folder in job.inputs.items()},
    }
    write_json(job.folder / "report.json", report)
