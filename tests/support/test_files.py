"""Files that are written whole or not at all: where none can be, disks that are full, homes that are missing."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.support.homeless import leave_home
from wspace.support.errors import DiskError, UserError
from wspace.support.files import (
    check_file,
    check_new_folder,
    disk_errors,
    expanded,
    new_folder,
    replacing,
    save_tensors,
    write_text,
)

LONG = "a" * 300


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder we are in, with a file, a folder and a pipe."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@contextmanager
def small_disk() -> Iterator[None]:
    """No file grows above 4 KiB: what is in the way is told as a full disk is, by another number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


NOWHERE = {
    "file/x": "file/x: cannot be written: Not a directory",
    "file/x/y": "file/x/y: cannot be written: Not a directory",
    "/proc/x": "/proc/x: cannot be written: No such file or directory",
    LONG: f"{LONG}: cannot be written: File name too long",
    "~/x": "~/x: would make a folder named ~ here; write your home folder out",
    f"new/{LONG}": f"new/{LONG}: cannot be written: File name too long",
    f"new/{LONG}/x": f"new/{LONG}/x: cannot be written: File name too long",
}


@pytest.mark.parametrize("check", [check_file, check_new_folder])
@pytest.mark.parametrize(("place", "sentence"), NOWHERE.items(), ids=range(len(NOWHERE)))
def test_where_nothing_can_be_is_told(folder: Path, check: Callable[[Path], None], place: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        check(Path(place))
    assert str(caught.value) == sentence
    assert sorted(os.listdir(folder)) == ["file", "full", "pipe"], "trying leaves nothing behind"


@pytest.mark.parametrize("place", ["new", "new/and/newer", "a" * 255, "full/y"])
def test_where_something_can_be_nothing_is_said(folder: Path, place: str) -> None:
    check_file(Path(place))
    check_new_folder(Path(place))
    assert sorted(os.listdir(folder)) == ["file", "full", "pipe"]


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("full", "full: is a folder; name a file to write"),
        (".", ".: is a folder; name a file to write"),
        ("full/..", "full/..: is a folder; name a file to write"),
        ("pipe", "pipe: is no ordinary file; name one to write"),
    ],
)
def test_what_is_no_file_is_not_replaced(place: str, sentence: str) -> None:
    for write in (check_file, lambda file: write_text(file, "x")):
        with pytest.raises(UserError) as caught:
            write(Path(place))
        assert str(caught.value) == sentence
    assert Path("full/x").is_file() and Path("pipe").is_fifo()


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("file", "file: is there already"),
        ("full", "full: is there already"),
        ("pipe", "pipe: is there already"),
        (".", ".: is the folder you are in; name one to make"),
        ("full/..", "full/..: is the folder you are in; name one to make"),
    ],
)
def test_what_is_there_is_no_new_folder(place: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught, new_folder(Path(place)):
        raise AssertionError
    assert str(caught.value) == sentence


def test_a_name_may_be_as_long_as_the_system_has_them() -> None:
    name = "ü" * 127
    write_text(Path(name), "x")
    assert Path(name).read_text(encoding="utf-8") == "x"
    with new_folder(Path("b" * 255)) as made:
        (made / "x").touch()
    assert os.listdir("b" * 255) == ["x"]


def test_a_full_disk_names_the_file_or_folder_that_was_asked_for(folder: Path) -> None:
    (folder / "full/large").write_bytes(bytes(8192))
    sentence = "{}: cannot be written: File too large; the same command goes on from here"
    with small_disk():
        with pytest.raises(DiskError) as of_copy, new_folder(Path("out")) as made:
            shutil.copyfile("full/large", made / "large")
        with pytest.raises(DiskError) as of_text, disk_errors(Path("text")):
            write_text(Path("text"), "x" * 8192)
        with pytest.raises(DiskError) as of_tensors, disk_errors(Path("tensors")):
            save_tensors(Path("tensors"), {"x": torch.ones(4096)})
    sentences = [str(caught.value) for caught in (of_copy, of_text, of_tensors)]
    assert sentences == [sentence.format(name) for name in ("out", "text", "tensors")]
    assert sorted(os.listdir(folder)) == ["file", "full", "pipe"], "nothing half-written"


def test_a_file_that_cannot_be_opened_goes_by_its_own_name() -> None:
    with pytest.raises(OSError, match="Not a directory") as caught, replacing(Path("file/x")) as temporary:
        temporary.write_text("x")
    assert caught.value.errno == errno.ENOTDIR


@pytest.mark.parametrize(
    ("home", "path", "sentence"),
    [
        (None, "~/x", "~/x: there is no home folder for ~; write the path out, or set HOME"),
        ("", "~/x", "~/x: there is no home folder for ~; write the path out, or set HOME"),
        ("/h", "~nobody-of-that-name/x", "~nobody-of-that-name/x: there is no home folder for ~nobody-of-that-name;"),
    ],
)
def test_a_home_that_there_is_not(monkeypatch: pytest.MonkeyPatch, home: str | None, path: str, sentence: str) -> None:
    leave_home(monkeypatch, home)
    with pytest.raises(UserError) as caught:
        expanded(Path(path))
    assert str(caught.value).startswith(sentence)
    assert expanded(Path("a/~/x")) == Path("a/~/x") and expanded(Path("/x")) == Path("/x")


def test_a_home_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    assert expanded(Path("~/x")) == Path("/h/x") and expanded(Path("~")) == Path("/h")


def test_files_of_tensors_may_be_read_by_those_who_may_read_other_files(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("as usual", encoding="utf-8")
    save_tensors(tmp_path / "tensors", {"w": torch.zeros(2)})
    assert (tmp_path / "tensors").stat().st_mode == (tmp_path / "text").stat().st_mode
