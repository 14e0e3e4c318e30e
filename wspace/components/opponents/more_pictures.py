"""Fine-tuning on some more pictures of each class, beside `few-pictures`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from annotated_types import Ge

from wspace.learning.few_pictures import OnFewPictures


class MorePictures(OnFewPictures):
    """A network for each task, fine-tuned whole from where the zoo's began on so many `pictures` of each of its classes.

    As `few-pictures`, whose pictures are among these: two rows of one table.
    """

    version: ClassVar[int] = 1
    what: ClassVar[str] = (
        "weights fine-tuned for that very task on some more pictures of each class (16, unless `pictures` says otherwise)"
    )
    called: ClassVar[str] = "fine-tuning on some more pictures a class"
    place: ClassVar[int] = 14
    from_zoo: ClassVar[bool] = False
    trains_on_images: ClassVar[bool] = True

    def __init__(self, pictures: Annotated[int, Ge(1)] = 16):
        super().__init__(pictures)
