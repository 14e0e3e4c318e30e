"""Stage evaluate: generated weights beside every opponent, on the same tasks and the same test images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from wspace.data.splits import UNSEEN_TASKS
from wspace.interfaces import Contest, Metric, Opponent, Outcome, Prompts, Symmetry, Task
from wspace.learning.baselines import descriptions
from wspace.learning.fitting import predictions as predictions_of
from wspace.learning.parts import PartSystem, where_of
from wspace.learning.system import System
from wspace.recipes.schema import BoundRecipe
from wspace.runs.artifacts import TrainedOpponents, Zoo
from wspace.runs.assemble import symmetry_of
from wspace.runs.draws import accurate_and_new, gauges
from wspace.runs.keys import takes_pictures, trains_on_images
from wspace.runs.report.intervals import interval, summary
from wspace.runs.report.methods import methods_of
from wspace.runs.stages import Job
from wspace.runs.stages.generate import trained_system
from wspace.runs.stages.opponents import asked_and_not, checked, evidence_of, zoo_of
from wspace.runs.telling import auxiliary
from wspace.support.devices import settled
from wspace.support.files import save_tensors, write_json
from wspace.support.methods import ORACLE, OURS
from wspace.support.names import GENERATED, MISMATCHED, PER_TASK, PROMPT_TEXTS, SCORES, ZOO_MEAN
from wspace.support.progress import Bar, Progress
from wspace.support.seeding import stream
from wspace.support.settings import Generate
from wspace.support.threads import threaded
from wspace.weights.novelty import Nearest, Neighbourhood, error_overlap
from wspace.weights.stretches import Stretches, squared_distances

NEAREST = "nearest to {}"  # the zoo's network that a method's is nearest to, where the report says how new its are
SPLIT_SCORES = "scores-{}.safetensors"  # of one split, until all are there
FOLLOWED = 32  # unseen tasks whose networks are scored along the denoising steps
MARKED = 20  # of these steps at most, evenly from the first to the last


def run(job: Job) -> None:
    zoo = zoo_of(job)
    zoo.check(job.bench.accepted)
    table = methods_of(bound.component for bound in job.recipe.against)
    symmetry = symmetry_of(job.recipe, job.bench.target)
    scores: list[dict[str, Any]] = []
    per_task: dict[str, Tensor] = {}

    def record(split: str, metric: str, method: str, values: Tensor) -> None:
        per_task[f"{split}/{metric}/{method}"] = values
        low, high = interval(values, job.recipe)
        row = {"method": method, "split": split, "metric": metric, "mean": float(values.mean())}
        scores.append(row | {"ci_low": low, "ci_high": high, "n": len(values)})

    splits = (*zoo.tasks.splits, *zoo.tasks.shown)
    parts = [(split, torch.get_num_threads()) for split in splits]
    answers = {split: answer for (split, _), answer in job.each(split_scores, parts, "evaluate")}
    for split in splits:
        values, shown = load_file(job.folder / SPLIT_SCORES.format(split)), zoo.tasks.shown.get(split)
        for name in answers[split]["names"]:
            metric, method = name.split("/")
            record(split, metric, method, values[name])
        if shown is not None:  # what goes by words alone is worth the same there
            methods = {name.split("/")[1] for name in answers[split]["names"]}
            for name, values_there in [*per_task.items()]:
                of_split, metric, method = name.split("/")
                if of_split == shown.split and method not in methods:
                    record(split, metric, method, values_there.clone())
    for split in splits:
        (job.folder / SPLIT_SCORES.format(split)).unlink()
    save_tensors(job.folder / PER_TASK, per_task)
    differences = _differences(per_task, job)
    system, texts = trained_system(job, zoo)
    drawn = partial(_drawn, job, GENERATED)
    write_json(
        job.folder / SCORES,
        {
            "scores": scores,
            "differences": differences,
            **_trajectory(job, zoo, system, texts),
            "chosen": answers[splits[0]]["chosen"],
            "left_out": answers[splits[0]]["left_out"],
            "accurate_and_new": accurate_and_new(job.bench, zoo, per_task, table.novel),
            "draws": gauges(job.bench, zoo, system, texts, symmetry, zoo.tasks.splits, drawn, per_task),
        },
    )


def split_scores(job: Job, part: tuple[str, int]) -> dict[str, Any]:
    """Every method's scores on the tasks of one split, into a file; their names, and what opponents had chosen.

    By as many threads as it is told: the last digits of closed forms depend on their number.
    """
    split, threads = part
    with threaded(threads):
        return _split_scores(job, split)


def _split_scores(job: Job, split: str) -> dict[str, Any]:
    zoo = zoo_of(job)
    if job.recipe.train.tokens is not None:
        return _split_scores_in_parts(job, zoo, split)
    contestants, metrics, neighbourhood = job.once("contest", lambda: _contest(job, zoo))
    tasks, methods = zoo.tasks.scored(split), contestants.of(split)
    novel = [name for name in methods_of(bound.component for bound in job.recipe.against).novel if name in methods]
    networks = torch.cat([methods[name] for name in novel])
    near = dict(zip(novel, neighbourhood.nearest(networks).split(len(tasks)), strict=True))
    asked = methods | {NEAREST.format(name): zoo.weights[its.index] for name, its in near.items()}
    there = [settled(weights, job.bench.device) for weights in asked.values()]
    stacked = (torch.stack([weights[number] for weights in there]) for number in range(len(tasks)))
    answers: list[Tensor] = []  # (methods + 1, m) of each task, the true labels last
    with job.progress.bar(f"evaluate {split}", len(tasks)) as bar:
        for answer in predictions_of(job.bench.target, stacked, tasks, job.bench.test, job.bench.class_texts):
            answers.append(torch.cat([answer[0], answer[1][None]]))
            bar.advance()
    by_method = torch.cat(answers, dim=1).cpu().split([answer.shape[1] for answer in answers], dim=1)
    *predicted, labels = zip(*by_method, strict=True)
    predictions = dict(zip(asked, predicted, strict=True))
    shown = zoo.tasks.shown.get(split)
    oracle = methods[ORACLE] if shown is None else contestants.oracle(shown.split)
    scores: dict[str, Tensor] = {}  # metric/method -> of each task
    for name, weights in methods.items():
        outcome = Outcome(weights, oracle, predictions[name], labels)
        scores |= {f"{metric.name}/{name}": metric.measure(outcome) for metric in metrics}
    for name, its in near.items():
        overlap = error_overlap(predictions[name], predictions[NEAREST.format(name)], labels)
        scores |= {f"novelty/{name}": its.novelty, f"error_overlap/{name}": overlap}
    save_tensors(job.folder / SPLIT_SCORES.format(split), scores)
    return {"names": list(scores), "chosen": contestants.chosen, "left_out": contestants.left_out}


def _split_scores_in_parts(job: Job, zoo: Zoo, split: str) -> dict[str, Any]:
    """As `_split_scores`, of networks that are in memory one at a time, beside the oracle of their task."""
    bench, tasks, texts = job.bench, zoo.tasks.scored(split), job.bench.class_texts
    contestants = job.once("contestants", lambda: _Contestants(job, zoo, None))
    metrics: list[Metric] = [bound.build({}) for bound in job.recipe.metrics]
    of_zoo = job.once(
        "zoo in parts", lambda: Stretches.of_zoo(zoo.stored, range(len(zoo.tasks.seen)), bench.target.spec)
    )
    near = _nearest_in_parts(job, of_zoo, contestants, split)
    values: dict[str, list[Tensor]] = {}
    with job.progress.bar(f"evaluate {split}", len(tasks)) as bar:
        for number, task in enumerate(tasks):
            oracle = contestants.one(ORACLE, split, number)
            for name in contestants.names:
                weights = oracle if name == ORACLE else contestants.one(name, split, number)
                ((predicted, labels),) = predictions_of(bench.target, [weights], [task], bench.test, texts)
                outcome = Outcome(weights, oracle, [predicted[0].cpu()], [labels.cpu()])
                for metric in metrics:
                    values.setdefault(f"{metric.name}/{name}", []).append(metric.measure(outcome))
                if name in near:
                    other = of_zoo.whole(int(near[name].index[number]))[None]
                    ((others, _),) = predictions_of(bench.target, [other], [task], bench.test, texts)
                    overlap = error_overlap(outcome.predictions, [others[0].cpu()], outcome.labels)
                    values.setdefault(f"error_overlap/{name}", []).append(overlap)
            bar.advance()
    scores = {name: torch.cat(of_each) for name, of_each in values.items()}
    scores |= {f"novelty/{name}": its.novelty for name, its in near.items()}
    save_tensors(job.folder / SPLIT_SCORES.format(split), scores)
    return {"names": list(scores), "chosen": contestants.chosen, "left_out": contestants.left_out}


def _nearest_in_parts(job: Job, of_zoo: Stretches, contestants: _Contestants, split: str) -> dict[str, Nearest]:
    """As `Neighbourhood` without a symmetry, in one stream over the zoo's networks and those of each novel method."""
    tables = methods_of(bound.component for bound in job.recipe.against)
    asked = [name for name in tables.novel if name in (OURS, *contestants.kept)]
    novel = {name: Stretches.of_rows(contestants.file(name, split)) for name in asked}
    system, _ = job.once("system", lambda: trained_system(job, contestants.zoo))
    layout, count = system.tokenizer.layout, len(of_zoo)
    networks = [(of_each, number) for of_each in (of_zoo, *novel.values()) for number in range(len(of_each))]
    apart = squared_distances(networks, where_of(layout), layout.width).sqrt()
    among = apart[:count, :count].clone().fill_diagonal_(torch.inf)
    unit = among.min(1).values.median().clamp_min(1e-12)
    nearest, first = {}, count
    for name, its in novel.items():
        distance, index = apart[first : first + len(its), :count].min(1)
        nearest[name], first = Nearest(index, (distance / unit).float()), first + len(its)
    return nearest


def _contest(job: Job, zoo: Zoo) -> tuple[_Contestants, list[Metric], Neighbourhood]:
    """What the scores of every split are taken with."""
    symmetry = symmetry_of(job.recipe, job.bench.target)
    weights, rng = settled(zoo.weights, job.bench.device), stream(job.recipe.seed, "novelty")
    neighbourhood = Neighbourhood(weights, zoo.reference, symmetry, rng)
    return _Contestants(job, zoo, symmetry), [bound.build({}) for bound in job.recipe.metrics], neighbourhood


class _Contestants:
    """Every method, fitted to what it may go by; and its networks for one split at a time, for those of all are large.

    Where tasks come with pictures, they are of those methods alone that look at these, and come after all other splits.
    """

    def __init__(self, job: Job, zoo: Zoo, symmetry: Symmetry | None):
        self.job, self.zoo = job, zoo
        self.trained = TrainedOpponents(job.inputs["opponents"])
        texts = load_file(job.inputs["train"] / PROMPT_TEXTS)["texts"]
        of_splits = [zoo.prompts(zoo.tasks.scored(split), texts) for split in zoo.tasks.splits]
        of_zoo, *of_splits = descriptions(
            zoo.prompts(zoo.tasks.seen, texts), *of_splits, places=job.bench.target.places
        )
        self.described = dict(zip(zoo.tasks.splits, of_splits, strict=True))
        others = auxiliary(job.bench, zoo.tasks.classes, lambda bench: bench.class_texts)
        in_parts = job.recipe.train.tokens is not None
        mean = Stretches.of_file(job.inputs["train"] / ZOO_MEAN, job.bench.target.spec).whole(0) if in_parts else None
        self.evidence = evidence_of(job, zoo, of_zoo, whole=not in_parts)
        self.evidence = replace(self.evidence, auxiliary=others, symmetry=symmetry, given_mean=mean)
        self.against, self.left_out = asked_and_not(job.recipe.against, zoo, in_parts=in_parts)
        for name, why in self.left_out.items():
            job.progress.say(f"note: the opponent {name!r} is left out: {why}")
        self.fitted: dict[str, Opponent] = {}
        self.chosen: dict[str, float] = {}
        """What was chosen on validation images."""
        for bound in self.against:
            if trains_on_images(bound):
                numbers = self.trained.chosen(bound.name)
            else:
                self.fitted[bound.name] = bound.build({})
                numbers = self.fitted[bound.name].choose(self.evidence)
            self.chosen |= {f"{bound.name}_{number}": value for number, value in numbers.items()}

    def of(self, split: str) -> dict[str, Tensor]:
        """Name -> weights (B, P) for the scored tasks of a split."""
        contest, shown = self._contest(split), split in self.zoo.tasks.shown
        methods = {OURS: _drawn(self.job, GENERATED, split)}
        for bound in self.against:
            if takes_pictures(bound) == shown:
                methods[bound.name] = self._opponents(bound.name, contest)
        return {name: self._calibrated(weights, contest.tasks) for name, weights in methods.items()}

    @property
    def names(self) -> list[str]:
        """Of all methods but those that take pictures."""
        return [OURS, *(bound.name for bound in self.against if not takes_pictures(bound))]

    @property
    def kept(self) -> list[str]:
        """Of those that stage `opponents` has trained."""
        return [bound.name for bound in self.against if trains_on_images(bound)]

    def file(self, name: str, split: str) -> Path:
        """Where the networks of a method lie for a split, if that is a file."""
        return self.job.inputs["generate"] / GENERATED.format(split) if name == OURS else self.trained.file(name, split)

    def one(self, name: str, split: str, number: int) -> Tensor:
        """Weights (1, P) for one of the scored tasks of a split: no others are in memory."""
        task = self.zoo.tasks.scored(split)[number : number + 1]
        if name == OURS or name in self.kept:
            rows = Stretches.of_rows(self.file(name, split))
            return self._calibrated(rows.whole(number if len(rows) > 1 else 0)[None], task)
        others = Stretches.of_rows(self.job.inputs["generate"] / MISMATCHED.format(split)).whole(number)[None]
        contest = Contest(split, task, self.described[split][number : number + 1], others)
        return self._calibrated(self._opponents(name, contest), task)

    def oracle(self, split: str) -> Tensor:
        """Weights (B, P) trained for the tasks of a split that has no pictures."""
        return self._calibrated(self.trained.oracle(split), self.zoo.tasks.scored(split))

    def _contest(self, split: str) -> Contest:
        tasks, shown = self.zoo.tasks.scored(split), self.zoo.tasks.shown.get(split)
        of_words = split if shown is None else shown.split
        contest = Contest(split, tasks, self.described[of_words], _drawn(self.job, MISMATCHED, of_words))
        return contest if shown is None else replace(contest, shots=self.job.bench.shots_of(self.zoo.tasks, split))

    def _opponents(self, name: str, contest: Contest) -> Tensor:
        if name not in self.fitted:
            return self.trained.weights(name, contest.split)
        weights = self.fitted[name].weights(self.evidence, contest)
        return checked(weights, name, len(contest.tasks), self.evidence)

    def _calibrated(self, weights: Tensor, tasks: Sequence[Task]) -> Tensor:
        return self.job.bench.calibrated(weights.expand(len(tasks), -1), tasks)  # alike for all


def _drawn(job: Job, file: str, split: str) -> Tensor:
    """(B, P), as stage generate left them."""
    return load_file(job.inputs["generate"] / file.format(split))["weights"]


def _differences(per_task: dict[str, Tensor], job: Job) -> list[dict[str, Any]]:
    """`generated` minus each other method, task by task: a paired interval, tighter than the two side by side."""
    rows = []
    for name, values in per_task.items():
        split, metric, method = name.split("/")
        if method == OURS:
            continue
        difference = per_task[f"{split}/{metric}/{OURS}"] - values
        low, high = interval(difference, job.recipe)
        row = {"method": method, "split": split, "metric": metric, "mean": float(difference.mean())}
        rows.append(row | {"ci_low": low, "ci_high": high, "n": len(values)})
    return rows


def _trajectory(job: Job, zoo: Zoo, system: System, texts: Tensor) -> dict[str, Any]:
    """Accuracy along the denoising steps (T2W, figure 3), at the recipe's temperature and at 1; and the oracle's.

    Networks are drawn anew for the first few unseen tasks: kept on disk, one for each task and step would outweigh all
    else of the run. No rows for a generator without steps.
    """
    bench, tasks = job.bench, zoo.tasks.scored(UNSEEN_TASKS)[:FOLLOWED]
    if isinstance(system, PartSystem):  # no network of it is there before its last step
        rows = Stretches.of_rows(TrainedOpponents(job.inputs["opponents"]).file(ORACLE, UNSEEN_TASKS))
        each = [bench.accuracies(rows.whole(n)[None], [task], bench.test) for n, task in enumerate(tasks)]
        return {"trajectory": [], "trajectory_oracle": summary(torch.cat(each), job.recipe)}

    def accuracy(weights: Tensor) -> Tensor:
        return bench.accuracies(weights, tasks, bench.test)

    rows = along_steps(system, zoo.prompts(tasks, texts).to(bench.device), job.recipe, accuracy, job.progress)
    oracle = TrainedOpponents(job.inputs["opponents"]).oracle(UNSEEN_TASKS)[: len(tasks)]
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
            settings = replace(recipe.generate, temperature=temperature)
            rng = stream(recipe.seed, "trajectory", temperature)
            for step, values in _followed(system, prompts, settings, rng, accuracy, bar).items():
                rows.append({"temperature": temperature, "step": step, **summary(values, recipe)})
    return rows


def _followed(
    system: System,
    prompts: Prompts,
    settings: Generate,
    rng: torch.Generator,
    accuracy: Callable[[Tensor], Tensor],
    bar: Bar,
) -> dict[int, Tensor]:
    """Step -> accuracy (B,) of the networks as they would then end: of the first step, the last and some between."""
    marked = {1 + round(mark * (settings.steps - 1) / (MARKED - 1)) for mark in range(MARKED)}
    accuracies: dict[int, Tensor] = {}
    done = 0

    def watch(step: int, weights: Tensor) -> None:
        nonlocal done
        done = step
        if step in marked and step < settings.steps:
            accuracies[step] = accuracy(weights)
        bar.advance()

    ended = system.sample(prompts, settings, rng, watch)
    if done:  # a generator may take fewer steps than it is asked for
        accuracies[done] = accuracy(ended)
    return {step: values.cpu() for step, values in accuracies.items()}
