"""Whether a generated network's layers belong together: layers of several draws, put into one network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wspace.data.tasks import Task
from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.runs.report.section import Row, Section, Table, percent
from wspace.runs.report.summary import summary
from wspace.runs.run import Run
from wspace.support.errors import UserError
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
    """Networks as drawn, and with every other layer of another draw, of the same task and of another."""
    run.zoo.check(run.bench.fingerprints)
    spec, zoo = run.target.spec, run.zoo.weights

    def scored(networks: Tensor) -> Tensor:
        return run.bench.accuracies(networks, tasks, run.bench.test)

    def mean(made: Sequence[Tensor]) -> Tensor:
        return torch.stack([scored(networks) for networks in made]).mean(0)

    drawn = [run.sample(tasks, stream(seed, "coherence", n), temperature=temperature) for n in range(draws)]
    turned = [*drawn[1:], drawn[0]]
    rows = torch.randperm(len(zoo), generator=stream(seed, "coherence zoo"))[: len(tasks)]
    random = run.target.init(2 * len(tasks), stream(seed, "coherence random"))
    found = {
        WHOLE: mean(drawn),
        "layers of another draw": mean([exchanged(spec, a, b) for a, b in zip(drawn, turned, strict=True)]),
        "layers of a draw for another task": mean([exchanged(spec, own, own.roll(1, 0)) for own in drawn]),
        "layers of a network of the zoo": mean([exchanged(spec, own, zoo[rows[: len(own)]]) for own in drawn]),
        "layers of a fresh network": mean([exchanged(spec, own, random[: len(own)]) for own in drawn]),
    }
    cells = {
        name: {"accuracy": summary(own, run.recipe), "from as drawn": summary(own - found[WHOLE], run.recipe)}
        for name, own in found.items()
    }
    says = [
        f"With every other layer from {name.removeprefix('layers of ')}: "
        f"{percent(own['from as drawn'], 'points')} points from networks as drawn."
        for name, own in cells.items()
        if name != WHOLE
    ]
    table = Table(
        f"{draws} draws at temperature {temperature:g}, layers exchanged: accuracy (%)",
        {"accuracy": "percent", "from as drawn": "points"},
        [Row(name, own, own=name == WHOLE) for name, own in cells.items()],
    )
    settings = {"tasks": len(tasks), "draws": draws, "temperature": temperature, "seed": seed}
    return Section("coherence", "Layers that belong together", says, settings, [table])
