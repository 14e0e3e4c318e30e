"""Engines: where the parts of a run are worked off that do not depend on each other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar


class Engine(ABC):
    """Other processes, here or on other machines, and how they come by work.

    Nothing that is computed depends on one. A piece of work is a text. Doing it twice, or being killed in its middle, does
    no harm, for what it makes is written beside its place and renamed. So an engine may repeat, lose and reorder pieces as it
    likes, if each is done in the end. Processes need the same packages, and see the run's folder and the cache under the same
    paths.
    """

    version: ClassVar[int] = 1  # raise it when the class does something else

    @property
    def elsewhere(self) -> bool:
        """Whether there are other processes. If not, stages do their parts themselves, and no other method is called."""
        return True

    def open(self) -> None:
        """Reach them. Called once, before anything is made. Raises UserError where nobody answers."""
        return

    @abstractmethod
    def work(self, do: Callable[[str], str], pieces: Sequence[str]) -> Iterator[tuple[int, str]]:
        """Call `do(piece)` for every piece, anywhere: (number of the piece, what it gave), each as it is done.

        `do` is a function of a module, which other processes import by its name. What it raises ends the work, and is raised
        here; what the user did wrong is no exception to an engine, but part of what `do` gives. Called any number of times
        between `open` and `close`.
        """

    def close(self) -> None:
        """Let go of them. Called once after `open`, also where the work failed or was interrupted."""
        return
