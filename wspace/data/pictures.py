"""Opening picture files, and keeping many decoded pictures in one memory-mapped file."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from wspace.interfaces import Images
from wspace.support.errors import DataError, DiskError
from wspace.support.files import replacing


def open_picture(path: Path, size: int) -> np.ndarray:
    """The middle square of a picture, upright and on white: (size, size, 3) uint8 RGB. Raises DataError."""
    return _decode(path, str(path), size)


def decode_picture(content: bytes, name: str, size: int) -> np.ndarray:
    """As `open_picture`, of what a picture file holds; `name` is for the message."""
    return _decode(BytesIO(content), name, size)


def square(image: Image.Image, size: int) -> np.ndarray:
    """The middle square of an open image, on white: (size, size, 3) uint8 RGB."""
    return np.array(ImageOps.fit(_on_white(image), (size, size), Image.Resampling.BICUBIC), dtype=np.uint8)


def _decode(source: Path | BytesIO, name: str, size: int) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if isinstance(source, Path) and not source.is_file():
                raise FileNotFoundError(source)  # opening a named pipe would wait for ever
            with Image.open(source) as image:
                image.draft(None, (2 * size, 2 * size))  # a large JPEG is decoded at a fraction of its size
                return square(ImageOps.exif_transpose(image), size)
    except Exception as error:
        # Decoders raise almost anything on a broken file: SyntaxError, struct.error, ValueError, OSError, ...
        raise DataError(f"{name}: cannot be read as a picture") from error


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Sixteen bits of grey; converted as they are, all but the darkest would come out white.
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    paper = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")


class StoredImages(Images):
    """Images whose pixels are rows of one array, usually memory-mapped."""

    def __init__(
        self,
        classes: Sequence[str],
        labels: np.ndarray,
        split: np.ndarray,
        pixels: np.ndarray,
        rows: np.ndarray,  # (M,) the row of `pixels` that holds image m
        fingerprint: str,
        notes: Sequence[str] = (),
    ):
        self.classes = tuple(classes)
        self.labels = labels.astype(np.int64)
        self.split = split.astype(np.int8)
        self.fingerprint = fingerprint
        self.warnings = tuple(notes)
        self._pixels = pixels
        self._rows = rows

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return np.array(self._pixels[self._rows[np.asarray(indices, dtype=np.int64)]])


def stored_pixels(file: Path, count: int, size: int, picture: Callable[[int], np.ndarray]) -> np.ndarray:
    """(count, size, size, 3) uint8, memory-mapped from a .npy file that is made with `picture(i)` if need be.

    It is made anew if it is truncated, of another shape, or if its first, middle or last picture is another.
    Raises DiskError.
    """
    shape = (count, size, size, 3)
    pixels = _mapped(file, shape)
    if pixels is not None and all(np.array_equal(pixels[i], picture(i)) for i in (0, count // 2, count - 1)):
        return pixels
    del pixels
    try:
        _write(file, shape, picture)
    except OSError as error:
        raise DiskError(f"{file}: cannot be written: {error.strerror or error}") from error
    pixels = _mapped(file, shape)
    if pixels is None:
        raise DiskError(f"{file}: cannot be read back after writing it")
    return pixels


def _mapped(file: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        pixels = np.lib.format.open_memmap(file, mode="r")
    except (OSError, ValueError, OverflowError):
        return None
    return pixels if pixels.shape == shape and pixels.dtype == np.uint8 else None


def _write(file: Path, shape: tuple[int, ...], picture: Callable[[int], np.ndarray]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    # Written, not mapped: on a full disk a write raises, a store to a mapped page kills the process.
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for i in range(shape[0]):
            stream.write(picture(i).tobytes())
