"""Stage report: what the stages before left, as report.json and one self-contained report.html."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from wspace.data.splits import UNSEEN_TASKS
from wspace.interfaces import TEST
from wspace.learning.fitting import predict
from wspace.runs.artifacts import Zoo, chosen_of
from wspace.runs.draws import BEYOND
from wspace.runs.report import figures
from wspace.runs.report import page as html
from wspace.runs.report.draws import sections_on_draws
from wspace.runs.report.methods import methods_of
from wspace.runs.report.section import Figure
from wspace.runs.spent import SPENT, told
from wspace.runs.stages import Job
from wspace.support.files import read_json, write_json
from wspace.support.names import GENERATED, LOG, MANIFEST, PAGE, PER_TASK, REPORT, SCORES, SUMMARY
from wspace.support.yaml import dump
from wspace.weights.stretches import Stretches

SHOWN = 24  # pictures
FEW = 16  # classes: a task with more has less than a picture or two of each


def run(job: Job) -> None:
    evaluated = read_json(job.inputs["evaluate"] / SCORES)
    sheet, pictures = _pictures(job)
    report: dict[str, Any] = {
        "recipe": job.recipe.name,
        "seed": job.recipe.seed,
        "confidence": job.recipe.evaluate.confidence,
        "scores": evaluated["scores"],
        "differences": evaluated["differences"],
        "trajectory": evaluated["trajectory"],
        "trajectory_oracle": evaluated["trajectory_oracle"],
        "chosen": chosen_of(job.inputs["evaluate"]),
        "left_out": evaluated.get("left_out", {}),  # opponents, and why: since 0.2
        **{name: evaluated[name] for name in ("accurate_and_new", "draws") if name in evaluated},
        "training": read_json(job.inputs["train"] / SUMMARY),
        "pictures": pictures,
        **_spent(job),
    }
    write_json(job.folder / REPORT, report)
    made = read_json(job.inputs["evaluate"] / MANIFEST)
    versions = {name: str(value) for name, value in (made["versions"] | made["machine"]).items()}
    table = methods_of(bound.component for bound in job.recipe.against)
    drawn = _figures(job, report) | {"pictures": sheet}
    sections = sections_on_draws(report, table, _frontier(job, report))
    page = html.render(report, drawn, dump(job.recipe.decisive), versions, table, sections)
    (job.folder / PAGE).write_text(page, encoding="utf-8")


def _spent(job: Job) -> dict[str, dict[str, float]]:
    """What was measured -> stage -> how much; the stage's memory since 0.2."""
    took = {name: told(read_json(folder / MANIFEST)) for name, folder in job.inputs.items()}
    return {what: {name: its[what] for name, its in took.items() if what in its} for what in SPENT}


def _figures(job: Job, report: dict[str, Any]) -> dict[str, str]:
    drawn: dict[str, str] = {}
    if any(row["metric"] == "accuracy" for row in report["scores"]):
        per_task = load_file(job.inputs["evaluate"] / PER_TASK)
        prefix = f"{UNSEEN_TASKS}/accuracy/"
        accuracies = {name.removeprefix(prefix): v.tolist() for name, v in per_task.items() if name.startswith(prefix)}
        drawn["scores"] = figures.accuracy_by_method(report["scores"])
        drawn["differences"] = figures.paired_differences(report["differences"])
        drawn["tasks"] = figures.task_by_task(accuracies)
        if shown := Zoo(job.inputs["zoo"]).tasks.shown:
            by_split = {its.split: dict[int, str]() for its in shown.values()}
            for split, its in shown.items():
                by_split[its.split][its.pictures] = split
            drawn["by_pictures"] = figures.accuracy_by_pictures(report["scores"], by_split)
    if report["trajectory"]:
        drawn["trajectory"] = figures.accuracy_along_steps(report["trajectory"], report["trajectory_oracle"])
    lines = (job.inputs["train"] / LOG).read_text(encoding="utf-8").splitlines()
    if lines:
        mean = report["training"]["validation_accuracy_of_zoo_mean"]
        drawn["training"] = figures.training_curves([json.loads(line) for line in lines], mean)
    return drawn


def _frontier(job: Job, report: dict[str, Any]) -> list[Figure]:
    """Accuracy against novelty, network by network; none where not both were measured."""
    if not report.get("accurate_and_new"):
        return []
    draws: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    per_task = load_file(job.inputs["evaluate"] / PER_TASK)
    for row in report["accurate_and_new"]["rows"]:
        split, method = row["split"], row["method"]
        novelty, accuracy = (per_task[f"{split}/{metric}/{method}"].tolist() for metric in ("novelty", "accuracy"))
        draws.setdefault(split, {})[method] = novelty, accuracy
    measured = report["accurate_and_new"]
    least = {split: measured["share"] * reached for split, reached in measured["of_zoo"].items()}
    return [Figure("frontier", html.CAPTIONS["frontier"], figures.frontier(draws, least, BEYOND))]


def _pictures(job: Job) -> tuple[str, dict[str, Any]]:
    """Test pictures of the first unseen task of few classes, named by its generated network; and what they show."""
    bench, zoo = job.bench, Zoo(job.inputs["zoo"])
    tasks = zoo.tasks.scored(UNSEEN_TASKS)
    number = min(range(len(tasks)), key=lambda i: (max(len(tasks[i]), FEW), i))
    weights = Stretches.of_rows(job.inputs["generate"] / GENERATED.format(UNSEEN_TASKS)).whole(number)
    predicted, labels = predict(bench.target, weights[None], tasks[number], bench.test, zoo.class_texts)
    names = [zoo.classes[c] for c in tasks[number]]
    right = predicted[0] == labels
    shown = evenly(labels, SHOWN)
    rows = np.flatnonzero(bench.images.split == TEST)[bench.test.rows_of(tasks[number]).numpy()]
    sheet = figures.picture_sheet(
        bench.images.read(rows[shown.numpy()]),
        [names[k] for k in predicted[0, shown].tolist()],
        [names[k] for k in labels[shown].tolist()],
    )
    facts = {"task": number, "classes": names, "shown": len(shown), "right": int(right[shown].sum())}
    return sheet, facts | {"images": len(labels), "accuracy": float(right.float().mean())}


def evenly(labels: Tensor, count: int) -> Tensor:
    """Places of at most `count` of these labels: each label's share as equal as can be, and spread over its images."""
    chosen, classes = [], labels.unique()
    for number, label in enumerate(classes):
        places = torch.nonzero(labels == label).flatten()
        share = min(len(places), count // len(classes) + (number < count % len(classes)))
        # Turned by `number`: images of a class come by designer, and one designer should not draw the whole sheet.
        chosen.append(places[(torch.arange(share) * len(places) // max(1, share) + number) % len(places)])
    return torch.cat(chosen)
