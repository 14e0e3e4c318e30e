"""What training on a task's own images gives: the bound that generated weights are held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from wspace.interfaces import Contest, Evidence, Opponent, Task
from wspace.learning.rates import best_rate

RATE_TASKS = 48  # held-out tasks on which the rate is chosen


class Oracle(Opponent):
    """A network for each task, trained from where the zoo's networks began until its validation images say stop.

    The learning rate is the one of `opponents.rates` that does best on validation images of held-out tasks.
    """

    version: ClassVar[int] = 1
    what: ClassVar[str] = "weights trained for that very task, on its training images"
    called: ClassVar[str] = "the oracle"
    place: ClassVar[int] = 0
    from_zoo: ClassVar[bool] = False
    prominence: ClassVar[Literal["headline", "tables", "report"]] = "headline"
    novelty: ClassVar[bool] = True
    trains_on_images: ClassVar[bool] = True

    def __init__(self) -> None:
        self.rate = 0.0

    def choose(self, evidence: Evidence) -> dict[str, float]:
        tasks = evidence.tasks[len(evidence.tasks) - evidence.held_out :][:RATE_TASKS]
        self.rate, _ = best_rate(
            evidence.effort.rates, lambda rate: _trained(evidence, tasks, rate, f"oracle rate {rate}")
        )
        return {"rate": self.rate}

    def resume(self, chosen: Mapping[str, float]) -> bool:
        self.rate = chosen["rate"]
        return True

    def weights(self, evidence: Evidence, contest: Contest) -> Tensor:
        return _trained(evidence, contest.tasks, self.rate, f"oracle {contest.split}")[0]


def _trained(evidence: Evidence, tasks: Sequence[Task], rate: float, name: str) -> tuple[Tensor, Tensor]:
    """Weights (B, P) and validation accuracies (B,), `zoo.together` networks at a time."""
    effort, zoo, parts = evidence.effort, evidence.zoo, list[tuple[Tensor, Tensor]]()
    with evidence.progress.bar(name, len(tasks)) as bar:
        for first in range(0, len(tasks), zoo.together):
            group = tasks[first : first + zoo.together]
            parts.append(
                evidence.fit(
                    evidence.starts(len(group), evidence.rng(name, "fresh", first)),
                    group,
                    evidence.rng(name, first),
                    steps=effort.steps,
                    batch=zoo.batch,
                    lr=rate,
                    check_every=effort.check_every,
                    patience=effort.patience,
                )
            )
            bar.advance(len(group))
    return torch.cat([weights for weights, _ in parts]), torch.cat([accuracy for _, accuracy in parts])
