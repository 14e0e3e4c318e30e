"""Heads from words for the classes of another data set, scored on its pictures: nothing is trained there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from wspace.data.prompts import prompts_of
from wspace.data.tasks import Task, task_of
from wspace.data.twins import listed, twins
from wspace.interfaces import Prompts
from wspace.learning.fitting import accuracies
from wspace.learning.prototypes import FeatureSpace, Heads, heads_at, places_of
from wspace.runs.artifacts import chosen_of
from wspace.runs.report.intervals import summary
from wspace.runs.report.section import Form, Row, Section, Table, percent
from wspace.runs.run import Run
from wspace.runs.telling import statistics_of
from wspace.runs.workbench import Workbench
from wspace.support.errors import UserError
from wspace.support.methods import TEXT_PROTOTYPE, UNIVERSAL
from wspace.support.quantities import counted
from wspace.support.seeding import stream
from wspace.uses.ensemble import oracles

GENERATED, CENTRED, ORACLE = "generated", "generated, with unlabelled pictures", "trained there"
DIFFERENCE = f"{GENERATED} minus it"
COLUMNS: dict[str, Form] = {"accuracy": "percent", DIFFERENCE: "points"}


def study(run: Run, world: Workbench, *, ways: Sequence[int], tasks: int, seed: int) -> Section:
    """Accuracy on test images of another data set, `world`'s, in tasks of so many of its classes.

    `generated`, `text-prototype` and `universal` are the run's, and have seen none of its pictures; `trained there` are
    networks trained for each task on its training images, as `wspace ensemble` trains them. In a further row, where the run's
    conditioner takes pictures, these images come with the words, unlabelled. `world` is `Run.world`'s.

    Raises UserError for a data set of fewer classes than a task needs, and for classes that the text encoder cannot tell apart.
    """
    classes, ordered = world.images.classes, run.zoo.tasks.ordered
    _check(world)
    fitting = [way for way in dict.fromkeys(ways) if way <= len(classes)]
    if not fitting:
        raise UserError(
            f"--ways: the data set has {len(classes)} classes, and tasks are to have {min(ways)}; give at most {len(classes)}"
        )
    texts, prompt_texts = world.class_texts, world.prompt_texts
    universal, prototypes = run.opponents.universal, _text_prototypes(run, texts)
    tables, says = [], [_known(run, classes)]
    if prototypes is None:
        says.append(f"The run's recipe leaves {TEXT_PROTOTYPE} out of `against`: it has no row here.")
    for count in fitting:
        drawn = _drawn(len(classes), count, tasks, seed, ordered)
        prompts = prompts_of(drawn, prompt_texts, classes, ordered=ordered)
        run.system.conditioner.check(prompts)
        made = {GENERATED: prompts}
        if run.system.conditioner.takes_pictures:
            centre = torch.stack([world.train.of_task(task)[0].mean(0) for task in drawn])
            made[CENTRED] = replace(prompts, centre=centre)
        methods = {
            **{name: _sampled(run, prompts, classes, seed) for name, prompts in made.items()},
            **({} if prototypes is None else {TEXT_PROTOTYPE: run.calibrated_for(prototypes(drawn), classes)}),
            UNIVERSAL: universal.expand(len(drawn), -1),
            ORACLE: oracles(run, drawn, 1, seed, world)[0],
        }
        scores = {name: accuracies(run.target, weights, drawn, world.test, texts) for name, weights in methods.items()}
        cells = {
            name: {
                "accuracy": summary(values, run.recipe),
                DIFFERENCE: summary(scores[GENERATED] - values, run.recipe),
            }
            for name, values in scores.items()
        }
        difference = percent(cells[UNIVERSAL][DIFFERENCE], "points")
        says.append(
            f"{count} classes: {percent(cells[GENERATED]['accuracy'])} %, {difference} points from the universal head; chance "
            f"is {100 / count:.0f} %."
        )
        rows = [Row(name, row, own=name == GENERATED) for name, row in cells.items()]
        many = f"{len(drawn)} tasks" if len(drawn) > 1 else "The only task"
        tables.append(Table(f"{many} of {count} classes: accuracy (%)", COLUMNS, rows))
    if left_out := sorted({way for way in ways if way > len(classes)}):
        says.append(f"No tasks of {', '.join(map(str, left_out))} classes: the data set has {len(classes)}.")
    if len(classes) in fitting:
        says.append(f"There is one task of all {len(classes)} classes: its intervals have no width, and say nothing.")
    settings = {"dataset": world.recipe.dataset.told(), "ways": list(ways), "tasks": tasks, "seed": seed}
    return Section("transfer", "Another data set", says, settings, tables)


def _sampled(run: Run, prompts: Prompts, classes: Sequence[str], seed: int) -> Tensor:
    """Networks (B, P), drawn as the recipe says."""
    made = run.system.sample(prompts.to(run.bench.device), run.recipe.generate, stream(seed, "transfer")).cpu()
    return run.calibrated_for(made, classes)


def _check(world: Workbench) -> None:
    """Raises UserError for a data set of one class, and for one with classes that are one to the text encoder."""
    classes = world.images.classes
    if len(classes) < 2:
        raise UserError(f"--dataset: it has {counted(len(classes), 'class', 'classes')}, and a task is of two or more")
    for group in twins(world.class_texts):
        raise UserError(
            f"--dataset: the text encoder makes one vector of its classes {listed([classes[number] for number in group])}: no "
            "head can tell them apart; rename or remove all but one"
        )


def _text_prototypes(run: Run, texts: Tensor) -> Heads | None:
    """As the report has them, for classes of these texts (n, T); None of a run whose report has none.

    Raises WspaceError if the run's data are no longer those of its zoo.
    """
    chosen, bench, known = chosen_of(run.artifacts["evaluate"]), run.bench, run.zoo.tasks.classes
    if f"{TEXT_PROTOTYPE}_width" not in chosen:
        return None
    run.zoo.check(bench.accepted)
    statistics = statistics_of(bench, known, lambda other: other.class_texts)
    width, penalty = chosen[f"{TEXT_PROTOTYPE}_width"], chosen[f"{TEXT_PROTOTYPE}_penalty"]
    space = FeatureSpace.around(statistics.means, statistics.within)
    places = places_of(texts, statistics.texts, space, width, penalty)
    return lambda tasks: heads_at(run.target, space, places, texts, tasks)


def _known(run: Run, classes: Sequence[str]) -> str:
    """How the data set's classes stand to those that the generator was trained on, in a sentence."""
    kinds = [standing.kind for standing in run.standings(classes)]
    shares = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("known", "near", "far"))
    return f"Its {len(classes)} classes, to the generator: {shares}."


def _drawn(classes: int, count: int, tasks: int, seed: int, ordered: bool) -> list[Task]:
    """Tasks of so many classes, no two alike; as many as there are, if those are fewer."""
    rng, drawn = stream(seed, "transfer tasks", count), dict[Task, None]()
    for _ in range(20 * tasks):
        drawn[task_of(torch.randperm(classes, generator=rng)[:count].tolist(), ordered)] = None
        if len(drawn) == tasks:
            break
    return list(drawn)
