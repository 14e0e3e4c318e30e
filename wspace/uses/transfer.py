"""Heads from words for the classes of another data set, scored on its pictures: nothing is trained there."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from wspace.data.tasks import Task, prompts_of
from wspace.learning.fitting import accuracies
from wspace.runs.report.intervals import summary
from wspace.runs.report.section import Form, Row, Section, Table, percent
from wspace.runs.run import Run
from wspace.runs.workbench import Workbench
from wspace.support.errors import UserError
from wspace.support.seeding import stream
from wspace.uses.ensemble import oracles

GENERATED, UNIVERSAL, ORACLE = "generated", "universal", "trained there"
DIFFERENCE = f"{GENERATED} minus it"
COLUMNS: dict[str, Form] = {"accuracy": "percent", DIFFERENCE: "points"}


def study(run: Run, world: Workbench, *, ways: Sequence[int], tasks: int, seed: int) -> Section:
    """Accuracy on test images of another data set, `world`'s, in tasks of so many of its classes.

    `generated` and `universal` are the run's, and have seen none of its pictures; `trained there` are networks trained for each
    task on its training images, as `wspace ensemble` trains them. `world` is `Run.world`'s.

    Raises UserError for a data set of fewer classes than a task needs.
    """
    classes = world.images.classes
    fitting = [way for way in dict.fromkeys(ways) if way <= len(classes)]
    if not fitting:
        raise UserError(
            f"--ways: the data set has {len(classes)} classes, and tasks are to have {min(ways)}; give at most {len(classes)}"
        )
    texts, prompt_texts = world.class_texts, world.prompt_texts
    universal = run.opponents.universal
    tables, says = [], [_known(run, classes)]
    for count in fitting:
        drawn = _drawn(len(classes), count, tasks, seed)
        prompts = prompts_of(drawn, prompt_texts, classes)
        run.system.conditioner.check(prompts)
        made = run.system.sample(prompts.to(run.bench.device), run.recipe.generate, stream(seed, "transfer")).cpu()
        methods = {
            GENERATED: run.calibrated_for(made, classes),
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


def _known(run: Run, classes: Sequence[str]) -> str:
    """How the data set's classes stand to those that the generator was trained on, in a sentence."""
    kinds = [standing.kind for standing in run.standings(classes)]
    shares = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("known", "near", "far"))
    return f"Its {len(classes)} classes, to the generator: {shares}."


def _drawn(classes: int, count: int, tasks: int, seed: int) -> list[Task]:
    """Tasks of so many classes, no two alike; as many as there are, if those are fewer."""
    rng, drawn = stream(seed, "transfer tasks", count), dict[Task, None]()
    for _ in range(20 * tasks):
        drawn[tuple(sorted(torch.randperm(classes, generator=rng)[:count].tolist()))] = None
        if len(drawn) == tasks:
            break
    return list(drawn)
