"""The stages of a run, in the order of `wspace.runs.keys.STAGES`: each a function of a Job that fills its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wspace.learning.loop import Watch, unwatched

if TYPE_CHECKING:
    from wspace.recipes.bind import BoundRecipe
    from wspace.runs.workbench import Workbench
    from wspace.support.progress import Progress


@dataclass(frozen=True)
class Job:
    """What a stage is given."""

    recipe: BoundRecipe
    bench: Workbench
    folder: Path  # to fill; holds what an interrupted attempt left
    inputs: dict[str, Path]  # the folders of the stages before
    progress: Progress
    watch: Watch = unwatched  # given the log of each phase of training, now and then
