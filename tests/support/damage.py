"""What disks, cables and careless hands do to files."""

from __future__ import annotations

from pathlib import Path


def flip(file: Path, share: float = 0.5) -> None:
    """One bit, at a share of the file's length. It becomes a file of its own where it was a link."""
    content = bytearray(file.read_bytes())
    content[int(share * len(content))] ^= 1
    file.unlink()
    file.write_bytes(content)


def cut(file: Path, share: float = 0.5) -> None:
    """What comes after a share of the file's length is gone."""
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[: int(share * len(content))])
