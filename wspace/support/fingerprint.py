"""What files, folders and plain values hold, as a sha256 in hex: to see whether something changed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

ENDS = 16 * 1024
"""Bytes read at either end of a file."""


def of_file(path: Path) -> str:
    """Of its size and its first and last 16 KiB: cheap for large files. Raises OSError.

    A change in the middle of a large file that keeps its size goes unseen.
    """
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
    files = sorted(file for file in path.rglob("*") if file.is_file())
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
