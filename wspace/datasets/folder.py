"""Folder: any folder of pictures, sorted into sub-folders named after their classes."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import PIL
from annotated_types import Ge, Gt, Lt

from wspace import fingerprint
from wspace.errors import DataError, DiskError
from wspace.interfaces import TEST, TRAIN, VAL, Dataset, Images
from wspace.pictures import StoredImages, open_picture, stored_pixels

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif"})
SPLIT_FOLDERS = {"train": TRAIN, "val": VAL, "test": TEST}

READER = 1
"""Raise it when a change in how pictures are read changes a pixel."""


@dataclass(frozen=True)
class Picture:
    path: str  # relative to the data set's folder, with /
    class_name: str
    split: int | None  # as its folder says


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
        self._check(listed)
        key = self._key(listed)
        pixels, unreadable = self._read(listed, cache / f"folder-{key[:16]}.npy")
        rows = np.array([i for i, picture in enumerate(listed) if picture.path not in unreadable], dtype=np.int64)
        readable = [listed[i] for i in rows]
        self._check_readable(listed, readable)

        classes = sorted({picture.class_name for picture in listed})
        index = {name: k for k, name in enumerate(classes)}
        labels = np.array([index[picture.class_name] for picture in readable])
        split = self._split(readable)
        identity = fingerprint.of_json([key, classes, labels.tolist(), split.tolist(), rows.tolist()])
        notes = _skipped([picture.path for picture in listed if picture.path in unreadable], len(listed))
        return StoredImages(classes, labels, split, pixels, rows, identity, notes)

    def open_picture(self, path: Path) -> np.ndarray:
        return open_picture(path, self.size)

    def _check(self, listed: Sequence[Picture]) -> None:
        """Every class has pictures enough for its splits, before any is opened."""
        for name, pictures in _by_class(listed):
            splits = {picture.split for picture in pictures}
            if None in splits and len(pictures) < 3:
                self._too_few(name, len(pictures), "")
            if None not in splits:
                self._check_splits(name, splits, "")

    def _check_readable(self, listed: Sequence[Picture], readable: Sequence[Picture]) -> None:
        if not readable:
            raise DataError(f"{self.path}: none of the {len(listed)} pictures can be read")
        left = dict(_by_class(readable))
        for name, pictures in _by_class(listed):
            if name not in left:
                raise DataError(f"{self.path}: class {name!r} has no picture that can be read")
            if pictures[0].split is None and len(left[name]) < 3:
                self._too_few(name, len(left[name]), " that can be read")
            if pictures[0].split is not None:
                self._check_splits(name, {picture.split for picture in left[name]}, " that can be read")

    def _too_few(self, name: str, count: int, which: str) -> None:
        pictures = "1 picture" if count == 1 else f"{count} pictures"
        raise DataError(
            f"{self.path}: class {name!r} has {pictures}{which}, and at least 3 are needed: "
            "one each to train on, to choose on and to test on"
        )

    def _check_splits(self, name: str, splits: set[int | None], which: str) -> None:
        for folder in ("train", "test"):
            if SPLIT_FOLDERS[folder] not in splits:
                raise DataError(f"{self.path}: class {name!r} has no pictures{which} in {folder}/")

    def _key(self, listed: Sequence[Picture]) -> str:
        """What the decoded pixels depend on."""
        files = [[picture.path, _identity(self.path / picture.path)] for picture in listed]
        return fingerprint.of_json([READER, PIL.__version__, self.size, files])

    def _read(self, listed: Sequence[Picture], file: Path) -> tuple[np.ndarray, set[str]]:
        """The pixels of all pictures, black where unreadable, and the paths of these."""
        opened: set[int] = set()
        unreadable: set[str] = set()

        def picture(i: int) -> np.ndarray:
            opened.add(i)
            try:
                return open_picture(self.path / listed[i].path, self.size)
            except DataError:
                unreadable.add(listed[i].path)
                return np.zeros((self.size, self.size, 3), dtype=np.uint8)

        remembered = file.with_suffix(".json")
        known = _paths_in(remembered)
        if known is None:
            _remove(file)  # pixels are of no use without the list of those that are none
        pixels = stored_pixels(file, len(listed), self.size, picture)
        if known is None or len(opened) == len(listed):
            _remember(remembered, unreadable)
            return pixels, unreadable
        return pixels, known

    def _split(self, pictures: Sequence[Picture]) -> np.ndarray:
        has_val = any(picture.split == VAL for picture in pictures)
        split = {picture.path: picture.split for picture in pictures}
        for _, members in _by_class(pictures):
            if members[0].split is None:
                split |= self._cut([picture.path for picture in members])
            elif not has_val:
                train = _by_hash(picture.path for picture in members if picture.split == TRAIN)
                split |= dict.fromkeys(train[: _share(self.val, len(train), len(train) - 1)], VAL)
        return np.array([split[picture.path] for picture in pictures])

    def _cut(self, paths: Sequence[str]) -> dict[str, int]:
        ordered = _by_hash(paths)
        test = _share(self.test, len(ordered), len(ordered) - 2)
        val = _share(self.val, len(ordered), len(ordered) - test - 1)
        splits = [TEST] * test + [VAL] * val + [TRAIN] * (len(ordered) - test - val)
        return dict(zip(ordered, splits, strict=True))


def _share(share: float, count: int, most: int) -> int:
    """At least one, if `most` allows."""
    return min(max(1, round(share * count)), most)


def _by_hash(paths: Iterator[str] | Sequence[str]) -> list[str]:
    """In an order that has nothing to do with the names, and that other files do not change."""

    def order(path: str) -> bytes:
        return hashlib.sha256(unicodedata.normalize("NFC", path).encode(errors="surrogateescape")).digest()

    return sorted(paths, key=order)


def _by_class(pictures: Sequence[Picture]) -> list[tuple[str, list[Picture]]]:
    ordered = sorted(pictures, key=lambda picture: picture.class_name)
    return [(name, list(group)) for name, group in groupby(ordered, key=lambda picture: picture.class_name)]


# ---------------------------------------------------------------- what is in the folder


def list_pictures(root: Path) -> list[Picture]:
    """All pictures, by class and path. Raises DataError if the folder is not one of classes."""
    folders = _sub_folders(root)
    names = {folder.name for folder in folders}
    if {"train", "test"} <= names:
        found = [
            picture
            for folder in folders
            if folder.name in SPLIT_FOLDERS
            for picture in _classes_in(folder, root, SPLIT_FOLDERS[folder.name])
        ]
    elif names and names <= set(SPLIT_FOLDERS):
        missing = " and ".join(f"{name}/" for name in ("train", "test") if name not in names)
        raise DataError(f"{root}: has {' and '.join(f'{name}/' for name in sorted(names))} but no {missing}")
    else:
        found = _classes_in(root, root, None)
    count = len({picture.class_name for picture in found})
    if count < 2:
        classes = "1 class" if count == 1 else "no classes"
        raise DataError(f"{root}: has {classes} (sub-folders of pictures), and at least 2 are needed")
    return sorted(found, key=lambda picture: (picture.class_name, picture.path))


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
    found = []
    for name, folder in _named(_sub_folders(parent)).items():
        paths = sorted(path.relative_to(root).as_posix() for path in _files_in(folder))
        if not paths:
            raise DataError(f"{parent}: class {name!r} has no pictures")
        found += [Picture(path, name, split) for path in paths]
    return found


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


def class_name(folder: str) -> str:
    """'red_-panda ' -> 'red panda'."""
    return " ".join(unicodedata.normalize("NFC", folder).replace("_", " ").replace("-", " ").split())


def _files_in(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if Path(name).suffix.lower() in EXTENSIONS and not name.startswith("."):
                yield Path(parent, name)


# ---------------------------------------------------------------- unreadable pictures


def _identity(path: Path) -> str:
    try:
        return fingerprint.of_file(path) if path.is_file() else "not a file"
    except OSError as error:
        return f"unreadable: {error.errno}"


def _skipped(unreadable: Sequence[str], count: int) -> list[str]:
    if not unreadable:
        return []
    if len(unreadable) == 1:
        return [f"1 of {count} pictures cannot be read and is skipped: {unreadable[0]}"]
    return [f"{len(unreadable)} of {count} pictures cannot be read and are skipped, the first: {unreadable[0]}"]


def _paths_in(file: Path) -> set[str] | None:
    try:
        paths = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return set(paths) if isinstance(paths, list) and all(isinstance(path, str) for path in paths) else None


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise DiskError(f"{file}: cannot be removed: {error.strerror or error}") from error


def _remember(file: Path, paths: set[str]) -> None:
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(sorted(paths)), encoding="utf-8")
        os.replace(temporary, file)
    except OSError as error:
        raise DiskError(f"{file}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
