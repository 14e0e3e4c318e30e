"""One network for every task: what can be had without knowing the task."""

from __future__ import annotations

from typing import ClassVar, Literal

from wspace.learning.one_for_all import OneForAll


class Universal(OneForAll):
    """A network for all classes that are not set apart, with rate and steps as validation images like best."""

    version: ClassVar[int] = 1
    what: ClassVar[str] = (
        "one set of weights for every task, trained on the images of all seen classes; like generated, it has never met "
        "an unseen class"
    )
    called: ClassVar[str] = "the universal head"
    place: ClassVar[int] = 60
    from_zoo: ClassVar[bool] = False
    prominence: ClassVar[Literal["headline", "tables", "report"]] = "headline"
    one_for_all: ClassVar[bool] = True
    trains_on_images: ClassVar[bool] = True
    known_as: ClassVar[str] = "universal"

    def __init__(self) -> None:
        super().__init__()
