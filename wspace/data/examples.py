"""Pictures that come with class names: a few of each, in a folder of its own; or of no class that is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wspace.data.labelled import class_names
from wspace.data.trees import left_out, left_out_by_name, tree_of
from wspace.support.classes import class_meant
from wspace.support.errors import DataError, UserError
from wspace.support.quantities import counted


def examples_of(folder: Path, classes: Sequence[str]) -> tuple[dict[str, list[Path]], list[str]]:
    """Class -> its pictures, for the classes that have a sub-folder; and notes on what is left out.

    Folders are named as data set `folder` has it: `red-panda` is "red panda". Those of other classes are left alone. Raises
    DataError for a folder that cannot be read, or has pictures of no class; UserError where it has none of a class that is
    asked for, and for such a class whose folder has no picture.
    """
    tree = tree_of(folder)
    loose = [path for path in tree.pictures if len(path.parts) == 1]
    with_pictures = dict.fromkeys(path.parts[0] for path in tree.pictures if len(path.parts) > 1)
    empty = [entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name not in with_pictures]
    names = class_names(list(with_pictures), str(folder))
    if not names:
        raise DataError(f"{folder}: has no sub-folder with pictures; make one for each class that has some")
    others = [name for name in names.values() if name not in classes]
    if len(others) == len(names):
        hint = class_meant(others[0], classes)
        raise UserError(f"{folder}: has pictures of {others[0]!r}, which is none of the classes asked for.{hint}")
    for name, sub_folder in zip(class_names(empty, str(folder)).values(), empty, strict=True):
        if name in classes:
            raise UserError(f"{folder / sub_folder}: has no picture; remove it for a class that goes by its words")
    pictures: dict[str, list[Path]] = {name: [] for name in names.values() if name in classes}
    for path in tree.pictures:
        if len(path.parts) > 1 and names[path.parts[0]] in pictures:
            pictures[names[path.parts[0]]].append(folder / path)
    notes = [*left_out(loose, "pictures are of no class", "picture is of no class"), *left_out_by_name(tree)]
    if others:
        are, first = ("is", "") if len(others) == 1 else ("are", "the first: ")
        many = counted(len(others), "class", "classes")
        notes.append(f"{many} of {folder} {are} not asked for and {are} left alone, {first}{others[0]}")
    return pictures, notes


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder, at any depth. Raises DataError for a folder that cannot be read, or has none."""
    pictures = [folder / path for path in tree_of(folder).pictures]
    if not pictures:
        raise DataError(f"{folder}: has no pictures")
    return pictures
