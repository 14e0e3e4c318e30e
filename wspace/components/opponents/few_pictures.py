"""Fine-tuning on a few pictures of each class: the least that somebody has who trains."""

from __future__ import annotations

from typing import Annotated, ClassVar

from annotated_types import Ge

from wspace.learning.few_pictures import OnFewPictures


class FewPictures(OnFewPictures):
    """A network for each task, fine-tuned whole from where the zoo's began on so many `pictures` of each of its classes.

    Rate and steps are chosen on held-out tasks. Of the task itself no other image is trained on; but statistics of images
    (batch norm) are taken, as those of all methods are, from all of its training images, whose labels nobody reads.
    """

    version: ClassVar[int] = 1
    what: ClassVar[str] = (
        "weights fine-tuned for that very task on a few pictures of each class (4, unless `pictures` says otherwise)"
    )
    called: ClassVar[str] = "fine-tuning on a few pictures a class"
    place: ClassVar[int] = 17
    from_zoo: ClassVar[bool] = False
    trains_on_images: ClassVar[bool] = True

    def __init__(self, pictures: Annotated[int, Ge(1)] = 4):
        super().__init__(pictures)
