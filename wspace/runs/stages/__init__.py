"""The stages of a run, in the order of `wspace.runs.pipeline.STAGES`: each a function of a Job that fills its folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from wspace.learning.loop import Watch, unwatched

if TYPE_CHECKING:
    from wspace.recipes.schema import BoundRecipe
    from wspace.runs.workbench import Workbench
    from wspace.support.progress import Progress

Made = TypeVar("Made")


Function = Callable[["Job", Any], Any]
"""Of a module of stages: does a part of a stage, which JSON can have, and so is what it gives."""

Spread = Callable[["Job", Function, Sequence[Any], str], Iterator[tuple[Any, Any]]]
"""Job, function, parts, label -> every part and what the function gave, each as it is done."""


Summon = Callable[["Job", Callable[["Job"], None]], None]
"""Job, function of a module of stages: has the other processes of a launcher, if there are any, do it beside this one."""


def nobody(job: Job, function: Callable[[Job], None]) -> None:
    """A `Summon` of a process that has no others."""


def one_by_one(job: Job, function: Function, parts: Sequence[Any], label: str) -> Iterator[tuple[Any, Any]]:
    """In this process, where functions show their progress themselves."""
    for part in parts:
        yield part, function(job, part)


@dataclass(frozen=True)
class Job:
    """What a stage is given."""

    recipe: BoundRecipe
    bench: Workbench
    folder: Path  # to fill; holds what an interrupted attempt left
    inputs: dict[str, Path]  # the folders of the stages before
    progress: Progress
    watch: Watch = unwatched  # given the log of each phase of training, now and then
    spread: Spread = one_by_one  # as the recipe's engine has it
    summon: Summon = nobody
    _made: dict[str, Any] = field(init=False, repr=False, default_factory=dict)

    def each(self, function: Function, parts: Sequence[Any], label: str = "") -> Iterator[tuple[Any, Any]]:
        """Every part, and what `function(job, part)` gives, each as it is done: in any process and order, and perhaps twice.

        So the function goes by what lies in the job's folders, and what it writes there is whole or not there. With a label,
        a bar shows what other processes have done.
        """
        return self.spread(self, function, parts, label)

    def once(self, what: str, make: Callable[[], Made]) -> Made:
        """What `make` gives, which is kept for other parts that are done in this process."""
        if what not in self._made:
            self._made[what] = make()
        return self._made[what]
