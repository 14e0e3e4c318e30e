"""Whether a generated network's layers belong together: layers of several draws, put into one network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wspace.data.tasks import Task
from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.runs.report.intervals import summary
from wspace.runs.report.section import Row, Section, Table, percent
from wspace.runs.run import Run
from wspace.support.errors import UserError
from wspace.support.quantities import counted
from wspace.support.seeding import stream

WHOLE = "as drawn"


def layer_of(entry: WeightEntry) -> str:
    """The layer a tensor belongs to: `hidden1.weight` and `hidden1.bias` are of one, as are `w1` and `b1`."""
    return entry.name.rpartition(".")[0] or entry.name[1:]


def exchanged(spec: WeightSpec, first: Tensor, second: Tensor) -> Tensor:
    """Every other layer of the first networks with the rest of the second: (B, P), (B, P) -> (B, P).

    Raises UserError for networks of one layer. Norms count as layers with the one before, whose outputs they scale.
    """
    layers: list[str] = []
    taken = torch.zeros(spec.size, dtype=torch.bool)
    for entry in spec.entries:
        if layer_of(entry) not in layers and len(entry.shape) > 1:
            layers.append(layer_of(entry))
        taken[spec.slices[entry.name]] = len(layers) % 2 == 0
    if len(layers) < 2:
        raise UserError("coherence: these networks have one layer, and no other to exchange it with")
    return torch.where(taken, second, first)


def study(run: Run, tasks: Sequence[Task], *, draws: int, temperature: float, seed: int) -> Section:
    """Accuracy of networks as drawn, and with every other layer exchanged for another network's.

    `draws` networks (B, P) are drawn for the B tasks. The layers come from another draw for the same task, from a draw for
    another task, from a network of the zoo, and from a fresh one. Accuracies are on test images, in percent; differences
    from the networks as drawn are in points.

    Raises UserError if the generator cannot be told of a task, WspaceError if the run's data are no longer those of its
    zoo.
    """
    run.zoo.check(run.bench.accepted)
    spec, zoo = run.target.spec, run.zoo.weights

    def scored(networks: Tensor) -> Tensor:
        return run.bench.accuracies(networks, tasks, run.bench.test)

    def mean(made: Sequence[Tensor]) -> Tensor:
        return torch.stack([scored(networks) for networks in made]).mean(0)

    drawn = [run.sample(tasks, stream(seed, "coherence", n), temperature=temperature) for n in range(draws)]
    turned = [*drawn[1:], drawn[0]]
    rows = torch.randperm(len(zoo), generator=stream(seed, "coherence zoo"))[: len(tasks)]
    random = run.target.init(2 * len(tasks), stream(seed, "coherence random"))
    accuracy = {
        WHOLE: mean(drawn),
        "layers of another draw": mean([exchanged(spec, a, b) for a, b in zip(drawn, turned, strict=True)]),
        "layers of a draw for another task": mean(
            [exchanged(spec, networks, networks.roll(1, 0)) for networks in drawn]
        ),
        "layers of a network of the zoo": mean(
            [exchanged(spec, networks, zoo[rows[: len(networks)]]) for networks in drawn]
        ),
        "layers of a fresh network": mean([exchanged(spec, networks, random[: len(networks)]) for networks in drawn]),
    }
    cells = {
        name: {"accuracy": summary(values, run.recipe), "from as drawn": summary(values - accuracy[WHOLE], run.recipe)}
        for name, values in accuracy.items()
    }
    says = [
        f"With every other layer from {name.removeprefix('layers of ')}: "
        f"{percent(row['from as drawn'], 'points')} points from networks as drawn."
        for name, row in cells.items()
        if name != WHOLE
    ]
    table = Table(
        f"{counted(draws, 'draw')} at temperature {temperature:g}, layers exchanged: accuracy (%)",
        {"accuracy": "percent", "from as drawn": "points"},
        [Row(name, row, own=name == WHOLE) for name, row in cells.items()],
    )
    settings = {"tasks": len(tasks), "draws": draws, "temperature": temperature, "seed": seed}
    return Section("coherence", "Layers that belong together", says, settings, [table])
