"""Several draws for one task, put together; beside as many heads trained on its images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from wspace.data.tasks import Task
from wspace.learning.fitting import Schedule, accuracies, fit_until_validated
from wspace.runs.report.intervals import summary
from wspace.runs.report.section import Row, Section, Table, percent
from wspace.runs.run import Run
from wspace.runs.workbench import Workbench
from wspace.support.methods import OURS
from wspace.support.quantities import counted
from wspace.support.seeding import stream
from wspace.weights.files.network import Network

WAYS = ("one", "best on training images", "averaged weights", "vote")
"""What can be made of N networks; `one` is the mean of their accuracies."""

TYPICAL = "generated at temperature 0"


def drawn(run: Run, tasks: Sequence[Task], count: int, temperature: float, seed: int) -> Tensor:
    """`count` networks for each task: (N, B, P)."""
    return torch.stack([run.sample(tasks, stream(seed, "ensemble", n), temperature=temperature) for n in range(count)])


def oracles(run: Run, tasks: Sequence[Task], count: int, seed: int, world: Workbench | None = None) -> Tensor:
    """As the report's oracle is trained, on other draws of the task's images each, and where none is shared from other starts.

    (N, B, P). Tasks are of the run's data set, or of the `world` that is given.
    """
    bench, opponents = world or run.bench, run.recipe.opponents
    trained = []
    with bench.progress.bar("oracles", count) as bar:
        for n in range(count):
            weights, _ = fit_until_validated(
                run.target,
                run.zoo.starts(run.target, len(tasks), stream(seed, "ensemble start", n)),
                tasks,
                bench.train,
                bench.val,
                bench.class_texts,
                Schedule(opponents.steps, run.recipe.zoo.batch, run.recipe.zoo.lr),
                stream(seed, "ensemble oracle", n),
                check_every=opponents.check_every,
                patience=opponents.patience,
            )
            trained.append(weights)
            bar.advance()
    return torch.stack(trained)


def best(run: Run, networks: Tensor, tasks: Sequence[Task]) -> Tensor:
    """Of (N, B, P), each task's network that does best on its training images: (B, P)."""
    bench = run.bench
    on_training_images = torch.stack(
        [accuracies(run.target, draw, tasks, bench.train, bench.class_texts) for draw in networks]
    )
    return networks[on_training_images.argmax(0), torch.arange(len(tasks))]


@torch.no_grad()
def vote(run: Run, networks: Tensor, tasks: Sequence[Task]) -> Tensor:
    """Accuracy (B,) of the class that most of N networks (N, B, P) name; of equals, the more probable one."""
    bench, values = run.bench, []
    for number, task in enumerate(tasks):
        features, labels = bench.test.of_task(task)
        texts = bench.class_texts[list(task)].expand(len(networks), -1, -1)
        logits = run.target.logits(networks[:, number], features.expand(len(networks), -1, -1), texts)  # (N, m, K)
        votes = functional.one_hot(logits.argmax(2), len(task)).sum(0)  # (m, K)
        chosen = (votes + 0.5 * logits.softmax(2).mean(0)).argmax(1)  # a probability never outweighs a vote
        values.append((chosen == labels).float().mean())
    return torch.stack(values)


def _ways(run: Run, networks: Tensor, tasks: Sequence[Task]) -> dict[str, Tensor]:
    """Way -> accuracy (B,)."""

    def scored(weights: Tensor) -> Tensor:
        return accuracies(run.target, weights, tasks, run.bench.test, run.bench.class_texts)

    scores = (
        torch.stack([scored(draw) for draw in networks]).mean(0),
        scored(best(run, networks, tasks)),
        scored(run.calibrated(networks.mean(0), tasks)),
        vote(run, networks, tasks),
    )
    return dict(zip(WAYS, scores, strict=True))


def study(run: Run, tasks: Sequence[Task], *, count: int, temperature: float, seed: int) -> Section:
    """Accuracy of `count` generated networks for each task, and of as many trained ones, by each of `WAYS` to use them.

    Networks are (count, B, P) for the B tasks: one alone, the best on training images, the average of their weights, and
    their vote. Accuracies are on test images, in percent; differences are in points.

    Raises UserError if the generator cannot be told of a task, WspaceError if the run's data are no longer those of its
    zoo.
    """
    run.zoo.check(run.bench.accepted)
    generated = _ways(run, drawn(run, tasks, count, temperature, seed), tasks)
    trained = _ways(run, oracles(run, tasks, count, seed), tasks)
    typical = run.sample(tasks, stream(seed, "ensemble"), temperature=0.0)
    typical_scores = accuracies(run.target, typical, tasks, run.bench.test, run.bench.class_texts)
    rows = []
    for way in WAYS:
        of_draws, of_trained = generated[way], trained[way]
        cells = {OURS: summary(of_draws, run.recipe), "trained": summary(of_trained, run.recipe)}
        rows.append(
            Row(way, cells | {f"{OURS} - trained": summary(of_draws - of_trained, run.recipe)}, own=way == "vote")
        )
    rows.append(Row(TYPICAL, {OURS: summary(typical_scores, run.recipe)}))
    columns = dict(zip(rows[0].cells, ("percent", "percent", "points"), strict=True))
    says = []
    for way in WAYS[1:]:
        gain = summary(generated[way] - generated["one"], run.recipe)
        says.append(f"{way}: {percent(gain, 'points')} points over one draw at temperature {temperature:g}.")
    loss = summary(typical_scores - generated["vote"], run.recipe)
    says.append(
        f"One head at temperature 0 is {percent(loss, 'points')} points from the vote of {counted(count, 'draw')}."
    )
    settings = {"tasks": len(tasks), "count": count, "temperature": temperature, "seed": seed}
    title = f"{counted(count, 'head')} for one task: accuracy (%)"
    return Section("ensemble", "Ensembles", says, settings, [Table(title, columns, rows)])


def one(run: Run, classes: Sequence[str], *, count: int, temperature: float, seed: int) -> tuple[Network, Section]:
    """For a user's classes: the averaged network of `count` draws, and how all ways do on their images.

    Raises UserError for fewer than two classes, one named twice, or one that the data set has no images of.
    """
    task = run.task_of(classes)
    section = study(run, [task], count=count, temperature=temperature, seed=seed)
    averaged = run.calibrated(drawn(run, [task], count, temperature, seed).mean(0), [task])[0]
    origin = f"{run.recipe.name}, average of {counted(count, 'draw')} at temperature {temperature:g}, seed {seed}"
    return run.network(run.names_of(task), averaged, origin), section
