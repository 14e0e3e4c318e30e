"""What training on a class's few pictures gives, where the optimum is reached: a convex problem."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from wspace.interfaces import Evidence, Shots, Task
from wspace.learning.few_shots import ByPictures, FewShotHeads, logistic_regression, networks_scoring, whitened
from wspace.learning.prototypes import space_of


class Logistic(ByPictures):
    """Logistic regression on the few pictures of a task's classes, in features whitened as for `nearest-mean`.

    Pictures are brought to one length, so that cosines count. The L2 penalty is what does best on known classes left out of the
    fit. Every class counts the same, however many pictures it has.
    """

    version: ClassVar[int] = 1
    what: ClassVar[str] = "pictures alone: logistic regression on the few pictures of the task's classes"
    called: ClassVar[str] = "logistic regression on the pictures"
    place: ClassVar[int] = 49
    linear: ClassVar[bool] = True
    takes_pictures: ClassVar[bool] = True
    choices: ClassVar[tuple[float, ...]] = (1e-2, 1e-1, 1e-3, 1e-4, 1e-5)  # of pictures of unit length
    choice: ClassVar[str] = "penalty"

    def __init__(self) -> None:
        pass

    def fitted(self, evidence: Evidence, known: Task) -> FewShotHeads:
        space = space_of(evidence, known)
        images, _ = evidence.images(known)
        length = space(images).norm(dim=1).mean()  # of images that it is asked about

        def heads(tasks: Sequence[Task], shots: Shots, penalty: float) -> Tensor:
            directions, offsets = logistic_regression(whitened(space, shots, at_one_length=True), penalty)
            return networks_scoring(evidence, space, tasks, directions / length, offsets)

        return heads
