"""What one call may ask for. Each limit is refused in one sentence, which says the way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wspace.api import UserError

CLASSES = 100  # names in a description
LETTERS = 100  # in a name
PICTURES = 16  # in a call, and of a class
PICTURE_BYTES = 10 * 2**20
CALL_BYTES = 2**20  # of JSON
UPLOAD_BYTES = PICTURES * PICTURE_BYTES + CALL_BYTES
WAITING = 64  # calls in the queue


def class_names(classes: Any) -> list[str]:
    """The names, if they are a list of strings within limits. Raises UserError."""
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise UserError('classes are a list of names, as in ["book", "camera"]')
    if len(classes) > CLASSES:
        raise UserError(f"{len(classes)} class names are too many for this page: at most {CLASSES} are taken")
    for name in classes:
        if len(name) > LETTERS:
            raise UserError(f"the class name {name[:20]!r}... has {len(name)} letters, and at most {LETTERS} are taken")
    return classes


def picture_files(pictures: Any, uploads: Path) -> list[Path]:
    """The files, if they were uploaded and are not too many. Raises UserError."""
    if not isinstance(pictures, Sequence) or not all(isinstance(picture, str) for picture in pictures):
        raise UserError("pictures are a list of the paths that their upload answered")
    if len(pictures) > PICTURES:
        raise UserError(f"{len(pictures)} pictures are too many at once: at most {PICTURES} are taken")
    files = [Path(picture) for picture in pictures]
    for file in files:
        if uploads not in file.resolve().parents:
            raise UserError(
                f"{file.name}: not a picture that was uploaded here: upload it first, and give the path answered"
            )
        if file.is_file() and file.stat().st_size > PICTURE_BYTES:
            raise UserError(f"{file.name}: more than {PICTURE_BYTES // 2**20} MB: make the picture smaller")
    return files


def example_files(examples: Any, uploads: Path) -> dict[str, list[Path]]:
    """Class -> its pictures, as `picture_files` has them. Raises UserError."""
    if not isinstance(examples, Mapping):
        raise UserError('examples are pictures of classes, written {"book": [PATH, ...]}')
    return {str(name): picture_files(files, uploads) for name, files in examples.items() if files}
