"""Fine-tuning on a few pictures of each class: what somebody would do who has some."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

import torch
from torch import Tensor

from wspace.data.features import Pool
from wspace.interfaces import Contest, Evidence, Opponent, Task
from wspace.learning.fitting import Schedule, fit
from wspace.learning.rates import at_every
from wspace.support.errors import Diverged

CHOOSING = 16  # held-out tasks on which rate and steps are chosen


class OnFewPictures(Opponent):
    """A network for each task, all of it trained from where the zoo's networks began, on a few pictures of each class.

    They are drawn from the training images, the same ones for any number of them: 4 are among 16. Rate and steps are those that
    do best on validation images of held-out tasks; of the task itself, no validation image is looked at. A class that has fewer
    training images gives all of them, and a note says so.
    """

    def __init__(self, pictures: int):
        self.pictures, self.rate, self.steps = pictures, 0.0, 0

    def choose(self, evidence: Evidence) -> dict[str, float]:
        effort = evidence.effort
        tasks = evidence.tasks[len(evidence.tasks) - evidence.held_out :][:CHOOSING]
        looks = [*range(effort.check_every, effort.steps, effort.check_every), effort.steps]
        found = dict[tuple[float, int], float]()
        with evidence.progress.bar(f"{self._name} rate", len(effort.rates)) as bar:
            for rate in effort.rates:
                with suppress(Diverged):  # then it is no candidate
                    found |= self._tried(evidence, tasks, rate, looks)
                bar.advance()
        if not found:
            raise Diverged(f"{self._name}: {at_every(effort.rates)}: give a lower one")
        self.rate, self.steps = max(found, key=found.__getitem__)
        return {"rate": self.rate, "steps": float(self.steps)}

    def resume(self, chosen: Mapping[str, float]) -> bool:
        self.rate, self.steps = chosen["rate"], int(chosen["steps"])
        return True

    def weights(self, evidence: Evidence, contest: Contest) -> Tensor:
        rows, few = list[Tensor](), False
        with evidence.progress.bar(f"{self._name} {contest.split}", len(contest.tasks)) as bar:
            for number, task in enumerate(contest.tasks):
                name = (contest.split, number)
                pool = self._pool(evidence, task, name)
                few |= int(pool.counts.min()) < self.pictures
                rows.append(self._trained(evidence, task, pool, name, self.rate, self.steps))
                bar.advance()
        if few:
            evidence.progress.say(
                f"note: {self._name}: some classes of {contest.split} have fewer, and give all of them"
            )
        return torch.cat(rows)

    @property
    def _name(self) -> str:
        return f"{self.pictures} pictures a class"

    def _tried(
        self, evidence: Evidence, tasks: Sequence[Task], rate: float, looks: Sequence[int]
    ) -> dict[tuple[float, int], float]:
        """(rate, steps) -> mean accuracy on validation images, for each of so many steps."""
        accuracies = {steps: list[float]() for steps in looks}

        def look(task: Task, step: int, weights: Tensor) -> None:
            if step in accuracies:
                accuracies[step].append(float(evidence.accuracy(weights, [task])))

        for number, task in enumerate(tasks):
            name = ("choosing", number)
            self._trained(evidence, task, self._pool(evidence, task, name), name, rate, looks[-1], partial(look, task))
        return {(rate, steps): sum(values) / len(values) for steps, values in accuracies.items()}

    def _pool(self, evidence: Evidence, task: Task, name: tuple[str, int]) -> Pool:
        """The few pictures of each class that there are."""
        features, labels = evidence.images(task)
        shuffled = torch.randperm(len(labels), generator=evidence.rng("few pictures", *name))
        rows = torch.cat([shuffled[labels[shuffled] == label][: self.pictures] for label in range(len(task))])
        return Pool.of(features[rows], labels[rows], len(task))

    def _trained(
        self,
        evidence: Evidence,
        task: Task,
        pool: Pool,
        name: tuple[str, int],
        rate: float,
        steps: int,
        on_step: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """(1, P). The rate is constant, so that fewer steps are the beginning of more."""
        schedule = Schedule(steps, min(evidence.zoo.batch, max(2, len(pool.features))), rate, decay=False)
        return fit(
            evidence.target,
            evidence.starts(1, evidence.rng("few pictures", *name, "fresh")),
            [tuple(range(len(task)))],
            pool,
            evidence.class_texts[list(task)],
            schedule,
            evidence.rng("few pictures", *name, "order"),
            on_step=on_step,
        )
