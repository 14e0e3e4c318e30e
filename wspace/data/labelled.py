"""Labelled pictures as a data set's images: which can be read, and which split each is in."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import PIL

from wspace.data.pictures import MOST_PIXELS, StoredImages, Unreadable, stored_pixels
from wspace.interfaces import TEST, TRAIN, VAL, Images
from wspace.support import fingerprint
from wspace.support.errors import DataError, DiskError
from wspace.support.files import shown, write_text
from wspace.support.quantities import counted

READER = 1
"""Raise it when a change in how pictures are read changes a pixel."""


@dataclass(frozen=True)
class Picture:
    path: str  # relative to the data set's folder, with /, or any name that no other has
    class_name: str
    split: int | None  # as the data set says


@dataclass(frozen=True)
class Labelled:
    """Pictures by class. Those without a split are cut by hash into shares of their class; the rest are train's."""

    origin: str  # what messages call the data set
    pictures: Sequence[Picture]
    open: Callable[[int], np.ndarray]  # picture i as (size, size, 3) uint8 RGB; raises Unreadable
    contents: Callable[[], object]  # what the pixels depend on, as `fingerprint.of_json` takes it
    former_contents: Callable[[], object]  # the same, as it was written before 0.2
    size: int
    most_pixels: int
    test: float
    val: float  # also a share of train, where pictures have splits but none is VAL
    places: Mapping[int, str]  # how messages name TRAIN and TEST
    notes: Sequence[str] = ()  # what else a user should know

    def images(self, cache: Path, kind: str) -> Images:
        """Raises DataError if a class has too few pictures for its splits."""
        self.check()
        key = self._key(self.contents())
        pixels, unreadable = self._read(cache / f"{kind}-{key[:16]}.npy")
        rows = np.array(
            [i for i, picture in enumerate(self.pictures) if picture.path not in unreadable], dtype=np.int64
        )
        readable = [self.pictures[i] for i in rows]
        self._check_readable(readable, unreadable)

        classes = sorted({picture.class_name for picture in self.pictures})
        index = {name: k for k, name in enumerate(classes)}
        labels = np.array([index[picture.class_name] for picture in readable])
        split = self._split(readable)

        def identity(of_contents: str) -> str:
            return fingerprint.of_json([of_contents, classes, labels.tolist(), split.tolist(), rows.tolist()])

        former = identity(self._key(self.former_contents()))
        skipped = {picture.path: unreadable[picture.path] for picture in self.pictures if picture.path in unreadable}
        notes = [
            *self.notes,
            *_skipped(skipped, len(self.pictures)),
            *_repeated([picture.path for picture in readable], pixels, rows, labels, split),
        ]
        return StoredImages(classes, labels, split, pixels, rows, identity(key), notes, [former])

    def _key(self, contents: object) -> str:
        allowed = [] if self.most_pixels == MOST_PIXELS else [self.most_pixels]
        return fingerprint.of_json([READER, PIL.__version__, self.size, contents, *allowed])

    def check(self) -> None:
        """Every class has pictures enough for its splits, before any is opened."""
        for name, pictures in _by_class(self.pictures):
            splits = {picture.split for picture in pictures}
            if None in splits and len(pictures) < 3:
                self._too_few(name, len(pictures), "")
            if None not in splits:
                self._check_splits(name, splits, "")

    def _check_readable(self, readable: Sequence[Picture], unreadable: Mapping[str, str]) -> None:
        def first(pictures: Sequence[Picture]) -> str:
            return f"the first: {shown(pictures[0].path)}: {unreadable[pictures[0].path]}"

        if not readable:
            many = len(self.pictures)
            none = "the only picture cannot" if many == 1 else f"none of the {many} pictures can"
            raise DataError(f"{self.origin}: {none} be read, {first(self.pictures)}")
        left = dict(_by_class(readable))
        for name, pictures in _by_class(self.pictures):
            if name not in left:
                raise DataError(f"{self.origin}: class {name!r} has no picture that can be read, {first(pictures)}")
            if pictures[0].split is None and len(left[name]) < 3:
                self._too_few(name, len(left[name]), " that can be read")
            if pictures[0].split is not None:
                self._check_splits(name, {picture.split for picture in left[name]}, " that can be read")

    def _too_few(self, name: str, count: int, which: str) -> None:
        raise DataError(
            f"{self.origin}: class {name!r} has {counted(count, 'picture')}{which}, and at least 3 are needed: "
            "one each to train on, to choose on and to test on"
        )

    def _check_splits(self, name: str, splits: set[int | None], which: str) -> None:
        for split, place in self.places.items():
            if split not in splits:
                raise DataError(f"{self.origin}: class {name!r} has no pictures{which} in {place}")

    def _read(self, file: Path) -> tuple[np.ndarray, Mapping[str, str]]:
        """The pixels of all pictures, black where unreadable, and the paths of these with why."""
        opened: set[int] = set()
        unreadable: dict[str, str] = {}

        def picture(i: int) -> np.ndarray:
            opened.add(i)
            try:
                return self.open(i)
            except Unreadable as error:
                unreadable[self.pictures[i].path] = error.reason
                return np.zeros((self.size, self.size, 3), dtype=np.uint8)

        count, remembered = len(self.pictures), file.with_suffix(".json")
        recorded = _reasons_in(remembered)
        if recorded is None:
            _remove(file)  # pixels are of no use without the list of those that are none
        pixels = stored_pixels(file, count, self.size, picture)
        if recorded is None or len(opened) == count:
            _remember(remembered, unreadable)
            return pixels, unreadable
        return pixels, recorded

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


def class_name(folder: str) -> str:
    """'red_-panda ' -> 'red panda'."""
    return " ".join(unicodedata.normalize("NFC", folder).replace("_", " ").replace("-", " ").split())


def class_names(folders: Sequence[str], place: str) -> dict[str, str]:
    """Folder -> class name. Raises DataError where one has none, or two have the same."""
    named: dict[str, str] = {}
    for folder in folders:
        if shown(folder) != folder:
            raise DataError(
                f"{place}/{shown(folder)}: a class is named after its folder, and this name is not UTF-8: rename it"
            )
        name = class_name(folder)
        if not name:
            raise DataError(f"{place}/{folder}: no class name is left of this folder's name")
        if name in named.values():
            other = next(earlier for earlier, value in named.items() if value == name)
            raise DataError(f"{place}: folders {other!r} and {folder!r} give the same class name {name!r}")
        named[folder] = name
    return named


def file_identity(path: Path, of_file: Callable[[Path], str] = fingerprint.of_file) -> str:
    """Of a picture that may be missing or unreadable."""
    try:
        return of_file(path) if path.is_file() else "not a file"
    except OSError as error:
        return f"unreadable: {error.errno}"


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


# ---------------------------------------------------------------- pictures that are there twice


def _repeated(
    paths: Sequence[str], pixels: np.ndarray, rows: np.ndarray, labels: np.ndarray, split: np.ndarray
) -> list[str]:
    """Notes on pictures that are tested on and not new, and on those that are of two classes: `paths` (M,) name them."""
    first: dict[bytes, int] = {}  # by pixels, the first that is not for testing
    contents = [hashlib.blake2b(pixels[row].tobytes(), digest_size=16).digest() for row in rows]
    for i, content in enumerate(contents):
        if split[i] != TEST:
            first.setdefault(content, i)
    seen = [i for i, content in enumerate(contents) if split[i] == TEST and content in first]
    earlier: dict[bytes, int] = {}
    doubtful = [i for i, content in enumerate(contents) if labels[earlier.setdefault(content, i)] != labels[i]]
    notes = []
    if seen:
        one, other = shown(paths[seen[0]]), shown(paths[first[contents[seen[0]]]])
        of = f"{len(seen):,} of {int((split == TEST).sum()):,} test pictures {'has' if len(seen) == 1 else 'have'}"
        notes.append(
            f"{of} the same pixels as pictures to train or to choose on, so scores flatter: the first is {one}, as {other}"
        )
    if doubtful:
        one, other = shown(paths[doubtful[0]]), shown(paths[earlier[contents[doubtful[0]]]])
        of = f"{len(doubtful):,} of {len(paths):,} pictures {'has' if len(doubtful) == 1 else 'have'}"
        notes.append(f"{of} the same pixels as pictures of another class: the first is {one}, as {other}")
    return notes


# ---------------------------------------------------------------- unreadable pictures


KINDS = 3
"""Reasons that get a note of their own."""


def _skipped(unreadable: Mapping[str, str], count: int) -> list[str]:
    """A note on each kind of reason: reasons that differ in figures alone are one kind."""
    kinds: dict[str, list[str]] = {}
    for path, reason in unreadable.items():
        kinds.setdefault(re.sub(r"\d+", "", reason), []).append(path)
    by_size = sorted(kinds.values(), key=len, reverse=True)
    rest = [path for paths in by_size[KINDS:] for path in paths]
    return [_note(paths, count, unreadable) for paths in (*by_size[:KINDS], rest) if paths]


def _note(paths: Sequence[str], count: int, reasons: Mapping[str, str]) -> str:
    which = (
        "1 of {} pictures cannot be read and is skipped"
        if len(paths) == 1
        else "{1} of {0} pictures cannot be read and are skipped, the first"
    )
    return f"{which.format(count, len(paths))}: {shown(paths[0])}: {reasons[paths[0]]}"


def _reasons_in(file: Path) -> dict[str, str] | None:
    try:
        reasons = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(reasons, dict) and all(isinstance(reason, str) for reason in reasons.values())
    return reasons if whole else None  # before 0.2 it was a list of paths, without reasons


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise DiskError(f"{file}: cannot be removed: {error.strerror or error}") from error


def _remember(file: Path, reasons: Mapping[str, str]) -> None:
    try:
        write_text(file, json.dumps(reasons))
    except OSError as error:
        raise DiskError(f"{file}: cannot be written: {error.strerror or error}") from error
