"""Pictures that anybody may have made."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, features

from tests.support.hostile import cases, held, mutated, refused_or_done
from wspace.data.pictures import decode_picture

KINDS = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO", "PCX", "SGI", "DDS", "QOI", "XBM", "MSP",
         "JPEG2000", "MPO", "DIB", "ICNS"]  # fmt: skip


def made(kind: str, mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    picture = Image.linear_gradient("L").resize((16, 16))
    try:
        picture.convert({"XBM": "1", "MSP": "1"}.get(kind, mode)).save(stream, kind)
    except (KeyError, OSError, ValueError):  # this Pillow reads it, and does not write it
        return b""
    return stream.getvalue()


PICTURES = [content for kind in KINDS for mode in ("RGB", "L", "P", "RGBA") if (content := made(kind, mode))]


def png(width: int, height: int, data: bytes = b"", extra: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    )


@cases(14_000)
@given(st.sampled_from(PICTURES).flatmap(mutated) | st.binary(max_size=64))
@example(png(2**31 - 1, 2**31 - 1))
@example(png(9000, 9000, bytes(30_000_000)))
@example(png(50_000, 1, bytes(150_001)))
def test_a_picture_is_opened_or_refused(content: bytes) -> None:
    with held():
        picture = refused_or_done(lambda: decode_picture(content, "hostile.png", 32, most_pixels=10_000_000))
    assert picture is None or picture.shape == (32, 32, 3)


def test_enough_kinds_are_tried() -> None:
    assert len(PICTURES) > 30 and features.check("jpg")


def test_a_picture_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = png(20_000, 20_000, bytes(20_000))
    with held(), pytest.raises(Exception, match="too large, 400,000,000 pixels, where 89,478,485 are allowed"):
        decode_picture(bomb, "bomb.png", 32)
