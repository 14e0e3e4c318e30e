"""Stage evaluate: generated weights beside every opponent, on the same tasks and the same test images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from wspace.data.splits import UNSEEN_TASKS
from wspace.data.tasks import prompts_of
from wspace.interfaces import Metric, Outcome, Prompts, Symmetry
from wspace.learning import baselines
from wspace.learning.fitting import predict
from wspace.learning.system import System
from wspace.recipes.bind import BoundRecipe
from wspace.runs.artifacts import Trained, Zoo
from wspace.runs.assemble import SAID
from wspace.runs.report.summary import interval, summary
from wspace.runs.stages import Job
from wspace.runs.stages.generate import GENERATED, MISMATCHED, trained_system
from wspace.support.files import save_tensors, write_json
from wspace.support.names import PER_TASK, SCORES
from wspace.support.progress import Bar, Progress
from wspace.support.seeding import stream
from wspace.support.settings import Generate
from wspace.weights.novelty import Neighbourhood, error_overlap

CHOOSING = 64  # held-out tasks on which ridge's penalty is chosen
NOVEL = ("generated", "noise", "retrieval", "oracle")  # methods of which it is asked how new their networks are
NEAREST = "nearest to {}"  # the zoo's network that such a method's is nearest to
FOLLOWED = 32  # unseen tasks whose networks are scored along the denoising steps
MARKED = 20  # of these steps at most, evenly from the first to the last


def run(job: Job) -> None:
    zoo = Zoo(job.inputs["zoo"])
    zoo.check(job.bench.fingerprints)
    methods, chosen = _methods(job, zoo)
    metrics: list[Metric] = [bound.build({}) for bound in job.recipe.metrics]
    scores: list[dict[str, Any]] = []
    per_task: dict[str, Tensor] = {}

    def record(split: str, metric: str, method: str, values: Tensor) -> None:
        per_task[f"{split}/{metric}/{method}"] = values
        low, high = interval(values, job.recipe)
        row = {"method": method, "split": split, "metric": metric, "mean": float(values.mean())}
        scores.append(row | {"ci_low": low, "ci_high": high, "n": len(values)})

    neighbourhood = _neighbourhood(job, zoo)
    with job.progress.bar("evaluate", sum(len(zoo.tasks.scored(split)) for split in zoo.tasks.splits)) as bar:
        for split in zoo.tasks.splits:
            tasks = zoo.tasks.scored(split)
            networks = torch.cat([methods[split][name] for name in NOVEL])
            near = dict(zip(NOVEL, neighbourhood.nearest(networks).split(len(tasks)), strict=True))
            asked = methods[split] | {NEAREST.format(name): zoo.weights[its.index] for name, its in near.items()}
            predictions: dict[str, list[Tensor]] = {name: [] for name in asked}
            labels: list[Tensor] = []
            for number, task in enumerate(tasks):
                stacked = torch.stack([weights[number] for weights in asked.values()])
                predicted, truth = predict(job.bench.target, stacked, task, job.bench.test, job.bench.class_texts)
                labels.append(truth)
                for name, row in zip(predictions, predicted, strict=True):
                    predictions[name].append(row)
                bar.advance()
            for name, weights in methods[split].items():
                outcome = Outcome(weights, methods[split]["oracle"], predictions[name], labels)
                for metric in metrics:
                    record(split, metric.name, name, metric.measure(outcome))
            for name, its in near.items():
                record(split, "novelty", name, its.novelty)
                overlap = error_overlap(predictions[name], predictions[NEAREST.format(name)], labels)
                record(split, "error_overlap", name, overlap)
    save_tensors(job.folder / PER_TASK, per_task)
    found = {"scores": scores, "differences": _differences(per_task, job), **_trajectory(job, zoo)}
    write_json(job.folder / SCORES, found | chosen)


def _neighbourhood(job: Job, zoo: Zoo) -> Neighbourhood:
    recipe = job.recipe
    symmetry: Symmetry | None = None
    if recipe.symmetry is not None:
        symmetry = recipe.symmetry.build({"spec": job.bench.target.spec})
    return Neighbourhood(zoo.weights, zoo.base, symmetry, stream(recipe.seed, "novelty"))


def _methods(job: Job, zoo: Zoo) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Weights (B, P) of every method, for the scored tasks of each split; and what was chosen on validation images."""
    recipe, bench = job.recipe, job.bench

    def on_validation(weights: Tensor) -> float:
        few = zoo.tasks.choosing[:CHOOSING]
        return float(bench.accuracies(weights[: len(few)], few, bench.val).mean())

    weights, splits, trained = zoo.weights, zoo.tasks.splits, Trained(job.inputs["opponents"])
    said = load_file(job.inputs["train"] / SAID)["texts"]
    prompts = [prompts_of(tasks, said) for tasks in (zoo.tasks.seen, *map(zoo.tasks.scored, splits))]
    known, *of_splits = baselines.descriptions(*prompts)
    asked = dict(zip(splits, of_splits, strict=True))
    held_out = slice(len(zoo.tasks.training), len(zoo.tasks.seen))
    linear, penalty = baselines.ridge(weights, known, held_out, asked, on_validation)
    methods = {}
    for split in splits:
        tasks, count = zoo.tasks.scored(split), len(asked[split])
        nearest = baselines.retrieval(weights, known, asked[split])
        found = {
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
        methods[split] = {name: bench.calibrated(its, tasks) for name, its in found.items()}  # alike for all
    return methods, {"ridge_penalty": penalty}


def _differences(per_task: dict[str, Tensor], job: Job) -> list[dict[str, Any]]:
    """`generated` minus each other method, task by task: a paired interval, tighter than the two side by side."""
    rows = []
    for name, values in per_task.items():
        split, metric, method = name.split("/")
        if method == "generated":
            continue
        difference = per_task[f"{split}/{metric}/generated"] - values
        low, high = interval(difference, job.recipe)
        row = {"method": method, "split": split, "metric": metric, "mean": float(difference.mean())}
        rows.append(row | {"ci_low": low, "ci_high": high, "n": len(values)})
    return rows


def _trajectory(job: Job, zoo: Zoo) -> dict[str, Any]:
    """Accuracy along the denoising steps (T2W, figure 3), at the recipe's temperature and at 1; and the oracle's.

    Networks are drawn anew for the first few unseen tasks: kept on disk, one for each task and step would outweigh all
    else of the run. No rows for a generator without steps.
    """
    bench, tasks = job.bench, zoo.tasks.scored(UNSEEN_TASKS)[:FOLLOWED]
    system, said = trained_system(job, zoo)

    def accuracy(weights: Tensor) -> Tensor:
        return bench.accuracies(weights.cpu(), tasks, bench.test)

    rows = along_steps(
        system, prompts_of(tasks, said, zoo.classes).to(bench.device), job.recipe, accuracy, job.progress
    )
    oracle = Trained(job.inputs["opponents"]).oracle(UNSEEN_TASKS)[: len(tasks)]
    return {"trajectory": rows, "trajectory_oracle": summary(accuracy(oracle), job.recipe)}


def along_steps(
    system: System,
    prompts: Prompts,
    recipe: BoundRecipe,
    accuracy: Callable[[Tensor], Tensor],
    progress: Progress,
) -> list[dict[str, Any]]:
    """Accuracy of networks drawn for these prompts, were each step the last, at the recipe's temperature and at 1.

    `accuracy` is of weights (B, P): (B,). No rows for a generator without steps.
    """
    rows: list[dict[str, Any]] = []
    temperatures = list(dict.fromkeys((recipe.generate.temperature, 1.0)))
    with progress.bar("trajectory", len(temperatures) * recipe.generate.steps) as bar:
        for temperature in temperatures:
            how = replace(recipe.generate, temperature=temperature)
            rng = stream(recipe.seed, "trajectory", temperature)
            for step, values in _followed(system, prompts, how, rng, accuracy, bar).items():
                rows.append({"temperature": temperature, "step": step, **summary(values, recipe)})
    return rows


def _followed(
    system: System,
    prompts: Prompts,
    how: Generate,
    rng: torch.Generator,
    accuracy: Callable[[Tensor], Tensor],
    bar: Bar,
) -> dict[int, Tensor]:
    """Step -> accuracy (B,) of the networks as they would then end: of the first step, the last and some between."""
    marked = {1 + round(mark * (how.steps - 1) / (MARKED - 1)) for mark in range(MARKED)}
    found: dict[int, Tensor] = {}
    done = 0

    def watch(step: int, weights: Tensor) -> None:
        nonlocal done
        done = step
        if step in marked and step < how.steps:
            found[step] = accuracy(weights)
        bar.advance()

    ended = system.sample(prompts, how, rng, watch)
    if done:  # a generator may take fewer steps than it is asked for
        found[done] = accuracy(ended)
    return found
