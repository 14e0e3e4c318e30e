"""What a report says of drawn networks beside their scores: which are accurate and new at once, and whether they collapsed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from wspace.data.splits import SEEN
from wspace.data.tasks import first_of_task
from wspace.interfaces import Symmetry, Task
from wspace.learning.parts import PartSystem
from wspace.learning.system import System
from wspace.runs.artifacts import Zoo
from wspace.runs.assemble import aligned
from wspace.runs.report.intervals import summary
from wspace.runs.workbench import Workbench
from wspace.support.methods import ORACLE, OURS
from wspace.weights.stretches import Stretches

BEYOND = (1, 2, 4)
"""How new a network is to be at least, in units of the zoo's own distances (`wspace.weights.novelty`)."""

REAL = 256  # networks of the zoo whose tokens drawn ones are set beside, at most: bounds memory

PerTask = Mapping[str, Tensor]
""""split/metric/method" -> (B,)."""


def accurate_and_new(bench: Workbench, zoo: Zoo, per_task: PerTask, methods: Iterable[str]) -> dict[str, Any]:
    """Of each split and method, the share of networks that are accurate and farther from the zoo than each of `BEYOND`.

    Accurate: at least `evaluate.accurate` of the accuracy that the zoo's own networks have on the same task; on tasks that the
    zoo has none for, of the oracle's. `best` is the greatest accuracy of what is so far, accurate or not; None where none is.
    {} in a run without accuracies.
    """
    recipe, rows, of_zoo = bench.recipe, list[dict[str, Any]](), dict[str, float]()
    for split in zoo.tasks.splits:
        if f"{split}/accuracy/{OURS}" not in per_task:
            return {}
        reached = per_task[f"{split}/accuracy/{ORACLE}"] if split != SEEN else _of_zoo(bench, zoo)
        of_zoo[split] = float(reached.mean())
        for method in methods:
            if (novelty := per_task.get(f"{split}/novelty/{method}")) is None:
                continue
            accuracy = per_task[f"{split}/accuracy/{method}"]
            accurate = accuracy >= recipe.evaluate.accurate * reached
            for beyond in BEYOND:
                new = novelty > beyond
                best = float(accuracy[new].max()) if new.any() else None
                row = {"method": method, "split": split, "beyond": beyond, "best": best}
                rows.append(row | summary((accurate & new).float(), recipe))
    return {"share": recipe.evaluate.accurate, "of_zoo": of_zoo, "rows": rows}


def _of_zoo(bench: Workbench, zoo: Zoo) -> Tensor:
    """Test accuracy of the zoo's networks of each scored task that it has: (B,), the mean over those of one task."""
    tasks = zoo.tasks.scored(SEEN)
    if bench.recipe.train.tokens is not None:
        networks = Stretches.of_zoo(zoo.stored, range(len(tasks)), bench.target.spec)
        each = [bench.accuracies(networks.whole(number)[None], [task], bench.test) for number, task in enumerate(tasks)]
        return mean_of_task(torch.cat(each), tasks)
    return mean_of_task(bench.accuracies(zoo.weights[: len(tasks)], tasks, bench.test), tasks)


def mean_of_task(values: Tensor, tasks: Sequence[Task]) -> Tensor:
    """(B,) -> (B,): in place of each value the mean over all of the same task."""
    rows = torch.tensor(first_of_task(tasks))
    totals = torch.zeros_like(values).index_add(0, rows, values)
    return (totals / rows.bincount(minlength=len(rows)).clamp_min(1))[rows]


def gauges(
    bench: Workbench,
    zoo: Zoo,
    system: System,
    texts: Tensor,
    symmetry: Symmetry | None,
    splits: Sequence[str],
    drawn: Callable[[str], Tensor],
    per_task: PerTask,
) -> dict[str, Any]:
    """Of each split's `drawn` networks (B, P): how large their tokens are beside real ones', and what drawing is worth.

    They are asked for split by split, which bounds memory. `rms`: root mean square of a network's tokens over that of the
    zoo's, as the generator was trained on them; none where tokens are codes. `drawing`: accuracy minus that of the predictor
    alone on the same task; none where there is no predictor.
    """
    recipe, tokenizer = bench.recipe, system.tokenizer
    rms, drawing = list[dict[str, Any]](), list[dict[str, Any]]()
    if isinstance(system, PartSystem):  # tokens of networks that are never whole, around no predictor
        return {"temperature": recipe.generate.temperature, "rms": rms, "drawing": drawing}
    if not tokenizer.layout.codes:
        trained_on = zoo.weights[: min(REAL, len(zoo.tasks.training))]
        real = _squares(system, aligned(recipe, zoo, trained_on, symmetry, bench.device)).mean().clamp_min(1e-24)
        for split in splits:
            ratio = (_squares(system, drawn(split)) / real).sqrt()
            rms.append({"split": split, **summary(ratio, recipe)})
    for split in splits:
        if (ours := per_task.get(f"{split}/accuracy/{OURS}")) is None:
            continue
        tasks = zoo.tasks.scored(split)
        networks = system.predicted(zoo.prompts(tasks, texts).to(bench.device))
        if networks is None:
            break
        alone = bench.accuracies(networks.cpu().to(torch.float32), tasks, bench.test)
        row = {"split": split, "alone": summary(alone, recipe), **summary(ours - alone, recipe)}
        drawing.append(row)
    return {"temperature": recipe.generate.temperature, "rms": rms, "drawing": drawing}


@torch.no_grad()
def _squares(system: System, networks: Tensor) -> Tensor:
    """Mean square of each network's tokens, over values that are weights: (B, P) -> (B,)."""
    mask = system.tokenizer.layout.mask
    device = next(system.buffers()).device
    tokens = torch.cat([system.tokenizer.tokenize(part.to(device)).cpu() for part in networks.split(REAL)])
    return (tokens.double() * mask.cpu()).square().sum((1, 2)) / mask.sum().cpu()
