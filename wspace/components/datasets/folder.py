"""Folder: any folder of pictures, sorted into sub-folders named after their classes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Lt

from wspace.data.labelled import Labelled, Picture, class_name, file_identity
from wspace.data.pictures import open_picture
from wspace.interfaces import TEST, TRAIN, VAL, Dataset, Images
from wspace.support.errors import DataError

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif"})
SPLIT_FOLDERS = {"train": TRAIN, "val": VAL, "test": TEST}


class Folder(Dataset):
    """Sub-folders of pictures, one a class. Split by train/, val/ and test/ if these are there, else by hash.

    `test` and `val` are shares of a class's pictures. With train/ and test/, `test` is unused, and `val` is a
    share of train/, taken if there is no val/.
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        path: Path,
        size: Annotated[int, Ge(16)] = 96,
        test: Annotated[float, Gt(0), Lt(1)] = 0.25,
        val: Annotated[float, Gt(0), Lt(1)] = 0.15,
    ):
        self.path = Path(path)
        self.size = size
        self.test = test
        self.val = val

    def load(self, cache: Path) -> Images:
        if self.test + self.val >= 1:
            raise DataError(f"test {self.test:g} and val {self.val:g} together leave no picture to train on")
        listed = list_pictures(self.path)
        return Labelled(
            str(self.path),
            listed,
            lambda i: open_picture(self.path / listed[i].path, self.size),
            lambda: [[picture.path, file_identity(self.path / picture.path)] for picture in listed],
            self.size,
            self.test,
            self.val,
            {TRAIN: "train/", TEST: "test/"},
        ).images(cache, "folder")

    def open_picture(self, path: Path) -> np.ndarray:
        return open_picture(path, self.size)


# ---------------------------------------------------------------- what is in the folder


def list_pictures(root: Path) -> list[Picture]:
    """All pictures, by class and path. Raises DataError if the folder is not one of classes."""
    folders = _sub_folders(root)
    names = {folder.name for folder in folders}
    if {"train", "test"} <= names:
        pictures = [
            picture
            for folder in folders
            if folder.name in SPLIT_FOLDERS
            for picture in _classes_in(folder, root, SPLIT_FOLDERS[folder.name])
        ]
    elif names and names <= set(SPLIT_FOLDERS):
        missing = " and ".join(f"{name}/" for name in ("train", "test") if name not in names)
        raise DataError(f"{root}: has {' and '.join(f'{name}/' for name in sorted(names))} but no {missing}")
    else:
        pictures = _classes_in(root, root, None)
    count = len({picture.class_name for picture in pictures})
    if count < 2:
        classes = "1 class" if count == 1 else "no classes"
        raise DataError(f"{root}: has {classes} (sub-folders of pictures), and at least 2 are needed")
    return sorted(pictures, key=lambda picture: (picture.class_name, picture.path))


def _sub_folders(path: Path) -> list[Path]:
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such folder") from error
    except NotADirectoryError as error:
        raise DataError(f"{path}: is a file, not a folder") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be listed: {error.strerror or error}") from error


def _classes_in(parent: Path, root: Path, split: int | None) -> list[Picture]:
    pictures = []
    for name, folder in _named(_sub_folders(parent)).items():
        paths = sorted(path.relative_to(root).as_posix() for path in _files_in(folder))
        if not paths:
            raise DataError(f"{parent}: class {name!r} has no pictures")
        pictures += [Picture(path, name, split) for path in paths]
    return pictures


def _named(folders: Sequence[Path]) -> Mapping[str, Path]:
    named: dict[str, Path] = {}
    for folder in folders:
        name = class_name(folder.name)
        if not name:
            raise DataError(f"{folder}: no class name is left of this folder's name")
        if name in named:
            raise DataError(
                f"{folder.parent}: folders {named[name].name!r} and {folder.name!r} give the same class name {name!r}"
            )
        named[name] = folder
    return named


def _files_in(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if Path(name).suffix.lower() in EXTENSIONS and not name.startswith("."):
                yield Path(parent, name)
