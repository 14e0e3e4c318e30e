"""One table of all members of a study: paired where they were scored on the same tasks and images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wspace.data.splits import AS_READ, UNSEEN_TASKS
from wspace.runs.finished import report_of as report_of_run
from wspace.runs.finished import stages_of
from wspace.runs.report.methods import CONFIDENCE, METRIC, RESAMPLES, methods_of
from wspace.runs.store import intact
from wspace.runs.study.file import PARAMETERS, Member, Study
from wspace.support.errors import NotARun, UserError
from wspace.support.files import read_json
from wspace.support.methods import OURS
from wspace.support.names import GENERATOR, MANIFEST, PER_TASK, REPORT, STUDY, SUMMARY, TASKS, WORLD

if TYPE_CHECKING:
    from torch import Tensor

    from wspace.data.tasks import TaskSet


def report_of(folder: Path) -> dict[str, Any] | None:
    """The report of a study's folder; None if it is not one. Raises NotARun for one that is not finished."""
    if not (folder / STUDY).is_file():
        return None
    if not (folder / REPORT).is_file():
        raise NotARun(f"{folder}: this study is not finished; run it again, and it goes on")
    report = read_json(folder / REPORT)
    return {"study": report["study"], "run": str(folder)} | report


@dataclass(frozen=True)
class Result:
    """What a finished member left."""

    report: Mapping[str, Any]
    scores: Mapping[str, Tensor]  # "split/metric/method" -> (B,)
    tasks: TaskSet
    images: str  # fingerprint
    took: Mapping[str, tuple[str, float]]  # stage -> its artifact's folder, and seconds
    costs: Mapping[str, float]  # of its generator

    @classmethod
    def of(cls, folder: Path) -> Result:
        from safetensors.torch import load_file

        from wspace.data.tasks import TaskSet

        stages = stages_of(folder)
        took = {
            stage: (artifact, read_json(folder / artifact / MANIFEST)["seconds"]) for stage, artifact in stages.items()
        }
        scores = load_file(intact(folder / stages["evaluate"], PER_TASK))
        tasks = TaskSet.load(intact(folder / stages["zoo"], TASKS))
        images = read_json(intact(folder / stages["zoo"], WORLD))["fingerprints"]["images"]
        report = report_of_run(folder)
        costs = {"train_seconds": took["train"][1], PARAMETERS: report["training"]["parameters"]}
        trained, drawn = (
            folder / stages["train"] / GENERATOR,
            folder / stages["generate"] / SUMMARY,
        )
        if trained.is_file():
            costs["bytes"] = trained.stat().st_size
        if drawn.is_file():  # those of earlier versions did not measure it
            costs["seconds_per_network"] = read_json(drawn)["seconds_per_network"]
        return cls(report, scores, tasks, images, took, costs)

    def pairs_with(self, other: Result, split: str) -> bool:
        """Whether both were scored on the same tasks and images, in the same order."""
        return self.images == other.images and self.tasks.scored(split) == other.tasks.scored(split)


Scored = tuple[str, str]
"""A variant and a method."""


def compared(study: Study, folder: Path) -> dict[str, Any]:
    results = {(m.variant, m.seed): Result.of(folder / m.recipe.name) for m in study.members}
    measured = [{name.partition("/")[0] for name in result.scores} for result in results.values()]
    every = dict.fromkeys([*AS_READ, *(split for result in results.values() for split in result.tasks.further)])
    splits = study.splits or [split for split in every if all(split in of_run for of_run in measured)]

    def values(scored: Scored, split: str) -> list[Tensor]:
        variant, method = scored
        name = f"{split}/{METRIC}/{method}"
        of_seeds = [results[variant, seed].scores for seed in study.seeds]
        if any(name not in scores for scores in of_seeds):
            raise UserError(f"{study.source}: the runs of {variant!r} have no {METRIC} of {method!r} on {split!r}")
        return [scores[name] for scores in of_seeds]

    titles = {(row.variant, row.method): row.title for row in study.rows}
    if study.methods:  # a method's rows among themselves, and generated beside the others named
        alike = [scored for scored in titles if scored[1] == study.methods[0]]
        beside = {m.variant: [method for method in study.methods if method != OURS] for m in study.members}
    else:
        alike = list(titles)
        beside = {m.variant: headline_of(m, results[m.variant, m.seed].report) for m in study.members}
    rows, differences = [], []
    for split in splits:
        for row in study.rows:
            about = {"label": row.title, "variant": row.variant, "method": row.method, "split": split}
            summary = _summary(values((row.variant, row.method), split))
            rows.append(about | {"metric": METRIC} | summary | {"paper": row.paper.get(split)})
        for left, right in _compared(alike, beside, study.lines):
            if all(results[left[0], seed].pairs_with(results[right[0], seed], split) for seed in study.seeds):
                minuend, subtrahend = values(left, split), values(right, split)
                names = {"label": titles[left], "minus": titles.get(right, f"its {right[1]}")}
                summary = _summary([a - b for a, b in zip(minuend, subtrahend, strict=True)])
                differences.append(names | {"split": split, "metric": METRIC} | summary)
    return {
        "study": study.name,
        "seeds": list(study.seeds),
        "confidence": CONFIDENCE,
        **_along(study, results),
        **({"each": study.each} if study.each else {}),
        "rows": rows,
        "differences": differences,
        "training": [
            {"variant": variant, "seed": seed} | result.report["training"] | {"seconds": result.report["seconds"]}
            for (variant, seed), result in results.items()
        ],
        "generators": _generators(study, results, splits),
        "seconds": _seconds(results.values()),
    }


def _along(study: Study, results: Mapping[tuple[str, int], Result]) -> dict[str, Any]:
    """What accuracy is drawn against, if the study says: of each variant its number, and the line of several it is on."""
    if study.along is None:
        return {}
    values = study.along.values
    if study.along.path == PARAMETERS:
        values = {variant: result.costs[PARAMETERS] for (variant, _), result in results.items()}
    lines = {"lines": study.lines} if study.lines else {}
    return {"along": {"path": study.along.path, "values": values} | lines}


def headline_of(member: Member, report: Mapping[str, Any]) -> list[str]:
    """What a member's networks are set beside: the headline of its methods, but for what its report says was left out."""
    headline = methods_of(bound.component for bound in member.recipe.against).headline
    return [method for method in headline if method not in report.get("left_out", {})]


def _generators(study: Study, results: Mapping[tuple[str, int], Result], splits: Sequence[str]) -> list[dict[str, Any]]:
    """Of each row about what is generated: how new it is, what training and drawing took, and how large the file is."""
    rows = []
    about = next((split for split in (UNSEEN_TASKS, *splits) if split in splits), None)
    for row in (row for row in study.rows if row.method == OURS):
        of_seeds = [results[row.variant, seed] for seed in study.seeds]
        generator: dict[str, Any] = {"label": row.title, "variant": row.variant, "split": about}
        new = [result.scores[name] for result in of_seeds if (name := f"{about}/novelty/{OURS}") in result.scores]
        generator["novelty"] = _summary(new) if len(new) == len(of_seeds) else None
        for cost in (PARAMETERS, "train_seconds", "seconds_per_network", "bytes"):
            values = [result.costs[cost] for result in of_seeds if cost in result.costs]
            generator[cost] = sum(values) / len(values) if values else None
        rows.append(generator)
    return rows


def _compared(
    rows: Sequence[Scored], beside: Mapping[str, Sequence[str]], lines: Mapping[str, str]
) -> list[tuple[Scored, Scored]]:
    """The first row with each other, and `generated` of each variant with the methods beside it; ours comes first.

    Where variants are points of lines, each point is compared with that of the first line at its place, or with that line's
    first point if the two have not as many.
    """
    points: dict[Scored, list[Scored]] = {}
    for variant, method in rows:
        points.setdefault((lines.get(variant, variant), method), []).append((variant, method))
    first, *others = points.values() if len(points) > 1 else [[row] for row in rows]
    likes = [
        (row, first[place] if len(line) == len(first) else first[0])
        for line in others
        for place, row in enumerate(line)
    ]
    pairs = [(row, like) if row[1] == OURS != like[1] else (like, row) for row, like in likes]
    ours = [(row, (row[0], method)) for row in rows if row[1] == OURS for method in beside[row[0]]]
    return list(dict.fromkeys([*pairs, *ours]))


def _seconds(results: Iterable[Result]) -> dict[str, float]:
    """Stage -> what its artifacts took, those that several members share counted once."""
    seconds: dict[str, float] = {}
    for stage, (_, took) in dict.fromkeys(place for result in results for place in result.took.items()):
        seconds[stage] = seconds.get(stage, 0.0) + took
    return seconds


def _summary(values: Sequence[Tensor]) -> dict[str, Any]:
    from wspace.runs.report.intervals import over_seeds
    from wspace.support.seeding import stream

    means = [float(of_seed.mean()) for of_seed in values]
    low, high = over_seeds(values, RESAMPLES, CONFIDENCE, stream(0, "study"))
    return {"mean": sum(means) / len(means), "ci_low": low, "ci_high": high, "seeds": means, "n": len(values[0])}
