"""Stage evaluate: generated weights beside every opponent, on the same tasks and the same test images."""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from wspace import baselines
from wspace.fitting import accuracies, predict
from wspace.interfaces import Metric, Outcome
from wspace.seeding import stream
from wspace.stages import Job
from wspace.stages.generate import GENERATED, MISMATCHED
from wspace.store import save_tensors, write_json
from wspace.tasks import prompts_of
from wspace.zoo import Trained, Zoo

CHOOSING = 64  # held-out tasks on which ridge's penalty is chosen


def run(job: Job) -> None:
    zoo = Zoo(job.inputs["zoo"])
    zoo.check(job.bench)
    methods, chosen = _methods(job, zoo)
    metrics: list[Metric] = [bound.build({}) for bound in job.recipe.metrics]
    scores: list[dict[str, Any]] = []
    per_task: dict[str, Tensor] = {}
    with job.progress.bar("evaluate", sum(len(zoo.tasks.scored(split)) for split in zoo.tasks.splits)) as bar:
        for split in zoo.tasks.splits:
            tasks = zoo.tasks.scored(split)
            predictions: dict[str, list[Tensor]] = {name: [] for name in methods[split]}
            labels: list[Tensor] = []
            for number, task in enumerate(tasks):
                stacked = torch.stack([weights[number] for weights in methods[split].values()])
                predicted, truth = predict(job.bench.target, stacked, task, job.bench.test, job.bench.class_texts)
                labels.append(truth)
                for name, row in zip(predictions, predicted, strict=True):
                    predictions[name].append(row)
                bar.advance()
            for name, weights in methods[split].items():
                outcome = Outcome(weights, methods[split]["oracle"], predictions[name], labels)
                for metric in metrics:
                    values = metric.measure(outcome)
                    per_task[f"{split}/{metric.name}/{name}"] = values
                    low, high = interval(values, job)
                    row = {"method": name, "split": split, "metric": metric.name, "mean": float(values.mean())}
                    scores.append(row | {"ci_low": low, "ci_high": high, "n": len(values)})
    save_tensors(job.folder / "per-task.safetensors", per_task)
    write_json(job.folder / "scores.json", {"scores": scores, "differences": _differences(per_task, job), **chosen})


def _methods(job: Job, zoo: Zoo) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Weights (B, P) of every method, for the scored tasks of each split; and what was chosen on validation images."""
    recipe, bench = job.recipe, job.bench

    def on_validation(weights: Tensor) -> float:
        few = zoo.tasks.choosing[:CHOOSING]
        return float(accuracies(bench.target, weights[: len(few)], few, bench.val, bench.class_texts).mean())

    weights, splits, trained = zoo.weights, zoo.tasks.splits, Trained(job.inputs["opponents"])
    said = load_file(job.inputs["train"] / "said.safetensors")["texts"]
    prompts = [prompts_of(tasks, said) for tasks in (zoo.tasks.seen, *map(zoo.tasks.scored, splits))]
    known, *of_splits = baselines.descriptions(*prompts)
    asked = dict(zip(splits, of_splits, strict=True))
    held_out = slice(len(zoo.tasks.training), len(zoo.tasks.seen))
    linear, penalty = baselines.ridge(weights, known, held_out, asked, on_validation)
    methods = {}
    for split in splits:
        count = len(asked[split])
        nearest = baselines.retrieval(weights, known, asked[split])
        methods[split] = {
            "generated": load_file(job.inputs["generate"] / GENERATED.format(split))["weights"],
            "oracle": trained.oracle(split),
            "universal": trained.universal.expand(count, -1),
            "base": zoo.base.expand(count, -1),
            "zoo-mean": weights.mean(0).expand(count, -1),
            "retrieval": nearest,
            "ridge": linear[split],
            "noise": baselines.noise(nearest, weights, stream(recipe.seed, "noise", split)),
            "random": bench.target.init(count, stream(recipe.seed, "random", split)),
            "mismatched": load_file(job.inputs["generate"] / MISMATCHED.format(split))["weights"],
        }
    return methods, {"ridge_penalty": penalty}


def interval(values: Tensor, job: Job) -> tuple[float, float]:
    """Bootstrap over tasks, percentile (Efron and Tibshirani, 1993, chapter 13): (B,) -> low, high."""
    settings = job.recipe.evaluate
    rng = stream(job.recipe.seed, "bootstrap")
    drawn = torch.randint(len(values), (settings.bootstrap, len(values)), generator=rng)
    means = values.double()[drawn].mean(1)
    tail = (1 - settings.confidence) / 2
    low, high = means.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


def _differences(per_task: dict[str, Tensor], job: Job) -> list[dict[str, Any]]:
    """`generated` minus each other method, task by task: a paired interval, tighter than the two side by side."""
    rows = []
    for name, values in per_task.items():
        split, metric, method = name.split("/")
        if method == "generated":
            continue
        difference = per_task[f"{split}/{metric}/generated"] - values
        low, high = interval(difference, job)
        row = {"method": method, "split": split, "metric": metric, "mean": float(difference.mean())}
        rows.append(row | {"ci_low": low, "ci_high": high, "n": len(values)})
    return rows
