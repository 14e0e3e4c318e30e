"""Opening picture files, and keeping many decoded pictures in one memory-mapped file."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from shutil import disk_usage

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from wspace.interfaces import Images
from wspace.support.errors import DataError, DiskError
from wspace.support.files import nearest_there, replacing, shown
from wspace.support.quantities import counted, in_bytes

FORMATS = (
    "AVIF", "BLP", "BMP", "CUR", "DCX", "DDS", "DIB", "FITS", "FLI", "FTEX", "GBR", "GIF", "ICNS", "ICO", "IM", "JPEG",
    "JPEG2000", "MPO", "MSP", "PCD", "PCX", "PIXAR", "PNG", "PPM", "PSD", "QOI", "SGI", "SUN", "TGA", "TIFF", "WEBP", "XBM",
    "XPM",
)  # fmt: skip
"""What Pillow decodes by itself. Others hand a file to a program (EPS), need a system (WMF), or only know the header."""

BLOCK = 256  # pictures that are drawn ahead of the writing

MOST_PIXELS = 89_478_485
"""Pillow's own limit: a small file can say that it is so large that no memory holds it."""


class Unreadable(DataError):
    """A picture that cannot be read. `reason` says why without naming it."""

    def __init__(self, name: str, reason: str):
        super().__init__(f"{name}: cannot be read as a picture: {reason}")
        self.reason = reason


@cache
def suffixes() -> frozenset[str]:
    """How the names of picture files end: `.png`, in lower case."""
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)


@cache
def _formats() -> tuple[str, ...]:
    """Those that this Pillow opens by their names: some come with another's."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def open_picture(path: Path, size: int, most_pixels: int = MOST_PIXELS) -> np.ndarray:
    """The middle square of a picture, upright and on white: (size, size, 3) uint8 RGB.

    Raises DataError, also for a picture of more than `most_pixels`.
    """
    return _decode(path, shown(path), size, most_pixels)


def decode_picture(content: bytes, name: str, size: int, most_pixels: int = MOST_PIXELS) -> np.ndarray:
    """As `open_picture`, of what a picture file holds; `name` is for the message."""
    return _decode(BytesIO(content), name, size, most_pixels)


def square(image: Image.Image, size: int) -> np.ndarray:
    """The middle square of an open image, on white: (size, size, 3) uint8 RGB."""
    return np.array(ImageOps.fit(_on_white(image), (size, size), Image.Resampling.BICUBIC), dtype=np.uint8)


def _decode(source: Path | BytesIO, name: str, size: int, most_pixels: int) -> np.ndarray:
    if isinstance(source, Path) and not source.is_file():  # opening a named pipe would wait for ever
        raise Unreadable(name, "it is no file" if source.exists() else "there is no such file")
    with warnings.catch_warnings(record=True) as noted, _at_most(most_pixels):
        warnings.simplefilter("always")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(source, formats=_formats()) as image:
                image.draft(None, (2 * size, 2 * size))  # a large JPEG is decoded at a fraction of its size
                return square(_upright(image), size)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise Unreadable(name, _too_large(error, most_pixels)) from error
        except UnidentifiedImageError as error:
            lacking = [str(warning.message) for warning in noted]  # a library that Pillow was built without
            raise Unreadable(name, "; ".join(["cannot identify image file", *lacking])) from error
        except Exception as error:
            # Decoders raise almost anything on a broken file: SyntaxError, struct.error, ValueError, OSError, ...
            said = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
            raise Unreadable(name, said.splitlines()[0]) from error


@contextmanager
def _at_most(pixels: int) -> Iterator[None]:
    """Pillow's limit, which is one for the whole process, for a while."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, pixels
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _too_large(error: Exception, most_pixels: int) -> str:
    count = re.search(
        r"(\d+) pixels", str(error)
    )  # Pillow says it nowhere else; the limit that follows may be twice ours
    size = f"{int(count[1]):,} pixels" if count else str(error)
    return f"too large, {size}, where {most_pixels:,} are allowed: make it smaller, or raise 'dataset.most_pixels'"


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientations."""


def _upright(image: Image.Image) -> Image.Image:
    """As its EXIF wants it; as it is, if that is broken."""
    # Not ImageOps.exif_transpose: it writes the EXIF back, which fails where a tag that says nothing of orientation is broken.
    image.load()
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # almost anything, as above
        return image
    return image if turn is None else image.transpose(turn)


def _on_white(image: Image.Image) -> Image.Image:
    """Raises ValueError for pixels that no range of brightness is known of."""
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, of no range that is known: convert it to 8 bits")
    if image.mode.startswith("I"):
        # Sixteen bits of grey; converted as they are, all but the darkest would come out white.
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError("its pixels are 32-bit integers, of no range that is known: convert it to 8 bits")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
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
        former_fingerprints: Sequence[str] = (),
    ):
        self.classes = tuple(classes)
        self.labels = labels.astype(np.int64)
        self.split = split.astype(np.int8)
        self.fingerprint = fingerprint
        self.former_fingerprints = tuple(former_fingerprints)
        self.warnings = tuple(notes)
        self._pixels = pixels
        self._rows = rows

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return np.array(self._pixels[self._rows[np.asarray(indices, dtype=np.int64)]])


def stored_pixels(
    file: Path, count: int, size: int, picture: Callable[[int], np.ndarray], *, threads: int = 1
) -> np.ndarray:
    """(count, size, size, 3) uint8, memory-mapped from a .npy file that is made with `picture(i)` if need be.

    `picture` is called by so many threads at a time, if it can be.
    It is made anew if it is truncated, of another shape, or if its first, middle or last picture is another.
    Raises DataError for pictures too large for the disk, before the first is made, and DiskError.
    """
    shape = (count, size, size, 3)
    pixels = _mapped(file, shape)
    if pixels is None:
        _check_room(file.parent, count, size)
    if pixels is not None and all(np.array_equal(pixels[i], picture(i)) for i in (0, count // 2, count - 1)):
        return pixels
    del pixels
    try:
        _write(file, shape, picture, threads)
    except OSError as error:
        raise DiskError(f"{file}: cannot be written: {error.strerror or error}") from error
    pixels = _mapped(file, shape)
    if pixels is None:
        raise DiskError(f"{file}: cannot be read back after writing it")
    return pixels


def _check_room(folder: Path, count: int, size: int) -> None:
    there, takes = nearest_there(folder), 3 * count * size**2
    free = disk_usage(there).free
    if takes > free:
        raise DataError(
            f"dataset.size: {counted(count, 'picture', form=',')} of {size:,} x {size:,} pixels take {in_bytes(takes)}, and "
            f"{there} has {in_bytes(free)} free: set it lower, or WSPACE_CACHE to a folder with more room"
        )


def _mapped(file: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        pixels = np.lib.format.open_memmap(file, mode="r")
    except (OSError, ValueError, OverflowError):
        return None
    return pixels if pixels.shape == shape and pixels.dtype == np.uint8 else None


def _write(file: Path, shape: tuple[int, ...], picture: Callable[[int], np.ndarray], threads: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    # Written, not mapped: on a full disk a write raises, a store to a mapped page kills the process.
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        with ThreadPoolExecutor(threads) as pool:
            for begin in range(0, shape[0], BLOCK):  # of all at once, those drawn and not written would fill the memory
                for pixels in pool.map(picture, range(begin, min(begin + BLOCK, shape[0]))):
                    stream.write(pixels.tobytes())
