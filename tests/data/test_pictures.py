"""One picture: EXIF that is broken, pixels of no known range, and the reason in every refusal."""

from __future__ import annotations

import io
import re
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wspace.data.pictures import BLOCK, Unreadable, decode_picture, open_picture, stored_pixels
from wspace.support.errors import DataError


def reason_of(path: Path) -> str:
    with pytest.raises(Unreadable) as caught:
        open_picture(path, 16)
    assert str(caught.value) == f"{path}: cannot be read as a picture: {caught.value.reason}"
    return caught.value.reason


def with_exif(exif: bytes) -> bytes:
    """A PNG, white above and black below, that says this."""
    image = Image.new("RGB", (40, 40), "black")
    image.paste("white", (0, 0, 40, 20))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    content = stream.getvalue()
    chunk = b"eXIf" + exif
    at = content.index(b"IDAT") - 4
    return content[:at] + struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[at:]


def tags(*entries: bytes, count: int | None = None) -> bytes:
    """EXIF of some raw entries: tag, type, number of values, value."""
    return b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", len(entries) if count is None else count) + b"".join(entries)


UPSIDE_DOWN = struct.pack("<HHIHH", 0x0112, 3, 1, 3, 0)


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"broken",
        b"II*\x00",
        b"II*\x00\xff\xff\xff\x7f",
        tags(count=999),
        tags(struct.pack("<HHII", 0x0112, 3, 1 << 30, 8)),
    ],
)
def test_a_picture_of_broken_exif_is_read_as_it_lies(exif: bytes) -> None:
    pixels = decode_picture(with_exif(exif), "x.png", 16)
    assert pixels[2].min() > 225 and pixels[13].max() < 30


def test_any_garbage_as_exif_leaves_the_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        exif = bytearray(tags(UPSIDE_DOWN, UPSIDE_DOWN) + bytes(20))
        for place in rng.integers(0, len(exif), 3):
            exif[place] = rng.integers(0, 256)
        assert decode_picture(with_exif(bytes(exif)), "x.png", 16).shape == (16, 16, 3)


def test_an_orientation_counts_beside_a_tag_that_is_broken() -> None:
    beyond = struct.pack("<HHII", 0x010E, 2, 500, 1 << 20)  # a description that lies outside the file
    pixels = decode_picture(with_exif(tags(beyond, UPSIDE_DOWN)), "x.png", 16)
    assert pixels[2].max() < 30 and pixels[13].min() > 225


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_of_each_orientation_comes_out_upright(tmp_path: Path, orientation: int) -> None:
    upright = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3).repeat(4, 0).repeat(4, 1) * 5)
    turned = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright.transpose(turned[orientation]) if orientation in turned else upright
    stored.save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(open_picture(tmp_path / "x.png", 16), np.asarray(upright))


def test_pixels_of_no_known_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)).save(tmp_path / "floats.tif")
    assert reason_of(tmp_path / "floats.tif") == (
        "its pixels are floating-point numbers, of no range that is known: convert it to 8 bits"
    )
    Image.fromarray(np.full((20, 20), 1 << 20, np.int32)).save(tmp_path / "large.tif")
    assert reason_of(tmp_path / "large.tif") == (
        "its pixels are 32-bit integers, of no range that is known: convert it to 8 bits"
    )
    Image.fromarray(np.full((20, 20), 0xFFFF, np.int32)).save(tmp_path / "deep.tif")
    assert open_picture(tmp_path / "deep.tif", 16).min() == 255


def test_a_refusal_has_the_decoders_own_reason(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    for suffix in ("png", "jpg", "tif", "bmp", "gif", "jp2"):
        whole = tmp_path / f"whole.{suffix}"
        noise.save(whole)
        cut = tmp_path / f"cut.{suffix}"
        cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        assert reason_of(cut) not in ("", "OSError")
    (tmp_path / "locked.png").symlink_to("locked.png")
    assert reason_of(tmp_path / "locked.png") == "there is no such file"


def test_a_picture_inside_a_picture_may_be_no_larger(tmp_path: Path) -> None:
    """An icon says how large it is, and so does the PNG that it holds."""
    stream = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(stream, "PNG")
    inner = stream.getvalue()
    header = struct.pack("<HHHBBBBHHII", 0, 1, 1, 32, 32, 0, 0, 1, 32, len(inner), 22)
    (tmp_path / "x.ico").write_bytes(header + inner)
    assert reason_of(tmp_path / "x.ico").startswith("too large, 100,000,000 pixels, where 89,478,485 are allowed")


@pytest.mark.parametrize("threads", [1, 3])
def test_pictures_drawn_by_several_threads_lie_in_their_order(tmp_path: Path, threads: int) -> None:
    callers: set[int] = set()

    def picture(i: int) -> np.ndarray:
        callers.add(threading.get_ident())
        return np.full((2, 2, 3), i % 251, dtype=np.uint8)

    pixels = stored_pixels(tmp_path / "pixels.npy", BLOCK + 44, 2, picture, threads=threads)
    assert pixels[:, 0, 0, 0].tolist() == [i % 251 for i in range(BLOCK + 44)]
    assert len(callers) <= threads


def test_a_picture_that_cannot_be_drawn_ends_the_drawing(tmp_path: Path) -> None:
    def picture(i: int) -> np.ndarray:
        raise DataError(f"picture {i}")

    with pytest.raises(DataError, match="picture 0"):
        stored_pixels(tmp_path / "pixels.npy", 5, 2, picture, threads=2)
    assert not (tmp_path / "pixels.npy").exists()


def test_pictures_that_the_disk_has_no_room_for_are_told_before_the_first_is_made(tmp_path: Path) -> None:
    def picture(number: int) -> np.ndarray:
        raise AssertionError("it was made")

    with pytest.raises(DataError) as caught:
        stored_pixels(tmp_path / "cache" / "pixels.npy", 1000, 10_000_000, picture)
    assert re.fullmatch(
        r"dataset\.size: 1,000 pictures of 10,000,000 x 10,000,000 pixels take 272848 TiB, and "
        rf"{tmp_path} has .* free: set it lower, or WSPACE_CACHE to a folder with more room",
        str(caught.value),
    )
    assert not (tmp_path / "cache").exists()
