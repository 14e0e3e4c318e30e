"""What files, folders and plain values hold, as a sha256 in hex: to see whether something changed."""

from __future__ import annotations

import hashlib
import json
import os
import time
from functools import cache
from pathlib import Path
from typing import Any

from wspace.support.files import files_below

ENDS = 16 * 1024
"""Bytes at either end of a file."""


def of_file(path: Path) -> str:
    """Of every byte. Raises OSError.

    A process reads a file once, and again only if its size, its times or the file under this name are others.
    """
    return _once(_of_ends if path.stat().st_size <= 2 * ENDS else _of_content, path)


def of_content(path: Path) -> str:
    """As `sha256sum` has it: of every byte and nothing else; read as often as `of_file` reads. Raises OSError."""
    return _once(_of_content, path)


def of_ends(path: Path) -> str:
    """Of its size and its first and last 16 KiB, which is all there is of a small file. Raises OSError.

    Before 0.2 this was the identity of large files too: artifacts made then go by it.
    """
    return _once(_of_ends, path)


SETTLED = 1_000_000_000
"""Nanoseconds after which another change of a file has another time, on any file system that keeps times finely."""


def _once(read: Any, path: Path) -> str:
    """`read` is one of the two below: what it says of a file is remembered until that changes."""
    status = path.stat()
    if time.time_ns() - status.st_ctime_ns < SETTLED:
        return read.__wrapped__(path)
    # unlike the time of the last modification, that of the last change (ctime) is set back by no program
    return read(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@cache
def _of_content(path: Path, *_: int) -> str:
    return sha256_of_file(path)


def sha256_of_file(path: Path) -> str:
    """Of what a file holds and nothing else, as `sha256sum` has it, read anew each time. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@cache
def _of_ends(path: Path, *_: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        digest.update(f"{size}\n".encode())
        digest.update(stream.read(ENDS))
        stream.seek(max(0, size - ENDS))
        digest.update(stream.read(ENDS))
    return digest.hexdigest()


def of_folder(path: Path) -> str:
    """Of the relative paths of all files in it, and of each file. Raises OSError."""
    if not path.is_dir():
        raise NotADirectoryError(f"{path}: not a folder")
    files = sorted(file for file in files_below(path) if file.is_file())
    return of_json([[file.relative_to(path).as_posix(), of_file(file)] for file in files])


def of_json(value: Any) -> str:
    """Of a value made of dicts with string keys, lists, tuples, strings, numbers, booleans and None.

    Raises TypeError for any other: what cannot be written down cannot be compared.
    """
    _check_keys(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _check_keys(value: Any) -> None:
    # json.dumps would silently write the key 1 as "1".
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"a key must be a string, not {key!r}")
            _check_keys(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_keys(item)
