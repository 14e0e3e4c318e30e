"""What counts as the same file: every byte of it, wherever it lies."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wspace.support import fingerprint

LARGE = 100_000  # bytes: more than both ends


def large(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(bytes(range(250)) * (LARGE // 250))
    return file


def edit(file: Path, place: int = LARGE // 2) -> None:
    """One byte, and the time of the last modification set back."""
    before = file.stat()
    with file.open("r+b") as stream:
        stream.seek(place)
        stream.write(b"\xff")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("identity", [fingerprint.of_file, lambda file: fingerprint.of_folder(file.parent)])
@pytest.mark.parametrize("settled", [False, True])
def test_an_edit_anywhere_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, identity: Callable[[Path], str], settled: bool
) -> None:
    if settled:  # as if the file had lain there for long, so that what it holds is remembered
        monkeypatch.setattr(fingerprint, "SETTLED", -1)
    file = large(tmp_path / "in" / "file")
    seen = [identity(file)]
    for place in (0, 20_000, LARGE // 2, LARGE - 20_000, LARGE - 1):
        time.sleep(0.02)  # longer than a tick of the clock that files are dated by
        edit(file, place)
        seen.append(identity(file))
    assert len(set(seen)) == 6 and identity(file) == seen[-1]


def test_a_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "SETTLED", -1)
    file, opened = large(tmp_path / "file"), []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *rest: (opened.append(self), real(self, *rest))[1])
    assert fingerprint.of_file(file) == fingerprint.of_file(file) == fingerprint.of_file(file)
    assert opened == [file]


def test_the_identity_of_small_files_and_of_folders_of_them_is_that_of_before(tmp_path: Path) -> None:
    """Artifacts made before go by these."""
    (tmp_path / "a").write_bytes(b"a" * 32_768)
    (tmp_path / "b").write_bytes(b"")
    assert fingerprint.of_file(tmp_path / "a") == fingerprint.of_ends(tmp_path / "a")
    assert fingerprint.of_file(tmp_path / "a").startswith("90dc0eb9b826")
    assert fingerprint.of_folder(tmp_path).startswith("1e9140659975")


def test_a_linked_folder_is_part_of_the_folder(tmp_path: Path) -> None:
    file = large(tmp_path / "elsewhere" / "file")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "linked").symlink_to(file.parent)
    (tmp_path / "folder" / "back").symlink_to(tmp_path / "folder")
    first = fingerprint.of_folder(tmp_path / "folder")
    edit(file)
    assert fingerprint.of_folder(tmp_path / "folder") != first
