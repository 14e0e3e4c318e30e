"""IDX: the files of MNIST and its family, as they are published."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt, Lt, MinLen

from wspace.data.pictures import StoredImages, open_picture
from wspace.data.splits import drawn_for_validation
from wspace.interfaces import TEST, TRAIN, VAL, Dataset, Images
from wspace.support import fingerprint
from wspace.support.errors import DataError
from wspace.support.files import shown
from wspace.support.quantities import counted

PARTS = {TRAIN: ("train",), TEST: ("t10k", "test")}
"""What the name of a split's files says of it."""
BYTES = 0x08
"""IDX's code of unsigned bytes."""


class Idx(Dataset):
    """Grey pictures in IDX files: MNIST, Fashion-MNIST, KMNIST, EMNIST.

    In the folder `path` lie pictures and labels, those to train on under names with `train`, the others with `t10k` or `test`:
    train-images-idx3-ubyte, t10k-labels-idx1-ubyte, with or without `.gz`. `classes` are the names of labels 0, 1, 2 and so
    on. `val` is the share of each class's training pictures that choices are made on.
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        path: Path,
        classes: Annotated[tuple[str, ...], MinLen(2)],
        val: Annotated[float, Gt(0), Lt(1)] = 0.1,
    ):
        if twice := [name for number, name in enumerate(classes) if name in classes[:number]]:
            raise DataError(f"dataset 'idx': classes: {twice[0]!r} is named twice")
        self.path, self.classes, self.val = Path(path), tuple(classes), val

    def load(self, cache: Path) -> Images:
        names = _names_in(self.path)
        files = {
            split: (_file(self.path, names, split, "images", 3), _file(self.path, names, split, "labels", 1))
            for split in PARTS
        }
        parts = {split: self._part(*pair) for split, pair in files.items()}
        (trained_on, labels), (tested_on, test_labels) = parts[TRAIN], parts[TEST]
        if trained_on.shape[1:] != tested_on.shape[1:]:
            sizes = [" x ".join(map(str, pictures.shape[1:])) for pictures in (trained_on, tested_on)]
            raise DataError(f"{files[TEST][0]}: has pictures of {sizes[1]}, where those to train on are {sizes[0]}")
        split = np.full(len(labels) + len(test_labels), TEST)
        split[: len(labels)] = np.where(drawn_for_validation(labels, self.val), VAL, TRAIN)
        pixels = np.concatenate([trained_on, tested_on])
        identity = ["idx", self.version, self.classes, self.val]
        identity += [fingerprint.of_file(file) for pair in files.values() for file in pair]
        return StoredImages(
            self.classes,
            np.concatenate([labels, test_labels]),
            split,
            np.broadcast_to(pixels[..., None], (*pixels.shape, 3)),
            np.arange(len(pixels)),
            fingerprint.of_json(identity),
        )

    def _part(self, images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
        """Pictures (M, S, S) uint8 and labels (M,) of a split. Raises DataError."""
        pictures, numbers = read_idx(images, 3), read_idx(labels, 1)
        if len(pictures) != len(numbers):
            has, other = counted(len(numbers), "label", form=","), counted(len(pictures), "picture", form=",")
            raise DataError(f"{labels}: has {has}, and {images.name} {other}")
        if pictures.shape[1] != pictures.shape[2] or not pictures.shape[1]:
            raise DataError(
                f"{images}: its pictures are {pictures.shape[1]} x {pictures.shape[2]}, and square ones are needed"
            )
        counts = np.bincount(numbers, minlength=len(self.classes))
        if len(counts) > len(self.classes):
            raise DataError(
                f"{labels}: has the label {len(counts) - 1}, and dataset.classes names {len(self.classes)}, 0 to "
                f"{len(self.classes) - 1}"
            )
        for name, count in zip(self.classes, counts, strict=True):
            if count < 2:
                raise DataError(f"{labels}: class {name!r} has {count} of its pictures, and 2 are the least")
        return pictures, numbers

    def open_picture(self, path: Path) -> np.ndarray:
        names = _names_in(self.path)
        return open_picture(path, read_idx(_file(self.path, names, TRAIN, "images", 3), 3).shape[1])


def read_idx(file: Path, dimensions: int) -> np.ndarray:
    """What an IDX file of unsigned bytes with so many dimensions holds, plain or gzipped. Raises DataError."""
    try:
        content = file.read_bytes()
        if file.suffix == ".gz":
            content = gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{file}: truncated, or no gzip file: {error}") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error
    magic, head = bytes([0, 0, BYTES, dimensions]), 4 * (1 + dimensions)
    if content[:4] != magic:
        raise DataError(
            f"{file}: its magic number is 0x{content[:4].hex()}, where 0x{magic.hex()} begins an IDX file of bytes with "
            + counted(dimensions, "dimension")
        )
    whole = len(content) >= head
    shape = tuple(np.frombuffer(content[4:head] if whole else b"", ">u4").tolist())
    if not whole or len(content) - head < prod(shape):
        few = counted(len(content), "byte", form=",")
        raise DataError(f"{file}: truncated: it holds {few}, fewer than its header says")
    if len(content) - head > prod(shape):
        more = counted(len(content) - head - prod(shape), "byte", form=",")
        raise DataError(f"{file}: holds {more} more than its header says")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(file.name for file in folder.iterdir())
    except OSError as error:
        raise DataError(f"{shown(folder)}: cannot be read: {error.strerror or error}") from error


def _file(folder: Path, names: Sequence[str], split: int, kind: str, dimensions: int) -> Path:
    """The file of a split's pictures or labels; of the same one plain and gzipped, the plain one. Raises DataError."""
    ending = f"{kind}-idx{dimensions}-ubyte"
    of_kind = [name for name in names if name.removesuffix(".gz").replace(".idx", "-idx").endswith(ending)]
    fitting = [name for name in of_kind if any(part in name for part in PARTS[split])]
    if not fitting:
        example = f"{PARTS[split][0]}-{ending}"
        raise DataError(f"{shown(folder)}: has no file of {kind} such as {example} or {example}.gz")
    if len({name.removesuffix(".gz") for name in fitting}) > 1:
        raise DataError(
            f"{shown(folder)}: {fitting[0]} and {fitting[1]} could both be meant: keep each data set in a folder"
        )
    return folder / fitting[0]
