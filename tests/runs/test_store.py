"""Artifact folders: whole or not at all, and a full disk is one sentence."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from wspace.runs.store import Store
from wspace.support.errors import DiskError, FileError, UserError
from wspace.support.files import disk_errors, read_json, save_tensors, write_json, write_text
from wspace.support.names import LOCK, LOCK_HOLDER, MANIFEST

KEY = "0123456789abcdef"


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_json_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, True], "é": "ü"}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_a_failing_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.json"
    write_json(file, "old")

    def half(path: Path, text: str, **_: object) -> None:
        path.write_bytes(text.encode()[:2])
        no_space()

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="No space left"):
        write_json(file, "new")
    assert read_json(file) == "old" and os.listdir(tmp_path) == ["x.json"]
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "y.txt", "new")
    assert os.listdir(tmp_path) == ["x.json"]


def test_what_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", "old")
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"a": object()})
    assert read_json(tmp_path / "x.json") == "old" and os.listdir(tmp_path) == ["x.json"]


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\xff\xfe"])
def test_a_truncated_file_is_told_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(FileError, match=rf"^{tmp_path}/x\.json: not JSON: "):
        read_json(tmp_path / "x.json")


def test_a_missing_file_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=rf"^{tmp_path}/x\.json: cannot be read: No such file or directory$"):
        read_json(tmp_path / "x.json")


def test_tensors_are_written_whole_with_their_metadata(tmp_path: Path) -> None:
    matrix = torch.arange(6.0).view(2, 3)
    save_tensors(tmp_path / "w.safetensors", {"a": matrix.T, "b": matrix.requires_grad_()[0]}, {"classes": "x"})
    loaded = load_file(tmp_path / "w.safetensors")
    assert torch.equal(loaded["a"], matrix.T) and torch.equal(loaded["b"], matrix[0])
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_a_failing_write_of_tensors_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "w.safetensors"
    save_tensors(file, {"a": torch.ones(2)})

    def half(tensors: object, path: Path, metadata: object) -> None:
        Path(path).write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", half)
    with pytest.raises(DiskError, match=r"cannot be written: No space left on device; "), disk_errors(file):
        save_tensors(file, {"a": torch.zeros(2)})
    assert torch.equal(load_file(file)["a"], torch.ones(2)) and os.listdir(tmp_path) == ["w.safetensors"]


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM"])
def test_a_disk_that_takes_no_more_is_one_sentence(tmp_path: Path, code: str) -> None:
    number = getattr(errno, code)
    with pytest.raises(DiskError) as caught, disk_errors(tmp_path):
        raise OSError(number, os.strerror(number))
    assert (
        str(caught.value) == f"{tmp_path}: cannot be written: {os.strerror(number)}; the same command goes on from here"
    )
    with pytest.raises(DiskError, match=r"^/the/file: cannot be written"), disk_errors(tmp_path):
        raise OSError(number, os.strerror(number), "/the/file")


def test_other_errors_of_the_system_are_not_the_disks(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        (tmp_path / "missing").read_bytes()


def test_a_folder_is_finished_once_all_went_well(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs/r")
    with store.making("zoo", KEY) as folder:
        assert folder.name == "zoo-0123456789ab.partial" and folder.is_dir()
        write_json(folder / MANIFEST, {"key": KEY})
        assert store.manifest("zoo", KEY) is None
    assert store.folder("zoo", KEY).name == "zoo-0123456789ab"
    assert store.manifest("zoo", KEY) == {"key": KEY} and store.manifest("zoo", "f" * 16) is None
    assert os.listdir(store.root) == ["zoo-0123456789ab"]


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), FileNotFoundError("y")])
def test_an_interrupted_attempt_is_kept_and_gone_on_with(tmp_path: Path, error: BaseException) -> None:
    store = Store(tmp_path)
    with pytest.raises(type(error)), store.making("zoo", KEY) as folder:
        (folder / "half").write_text("1")
        raise error
    assert store.manifest("zoo", KEY) is None and not store.folder("zoo", KEY).exists()
    with store.making("zoo", KEY) as folder:
        assert (folder / "half").read_text() == "1"
        write_json(folder / MANIFEST, {})
    assert sorted(os.listdir(store.folder("zoo", KEY))) == [MANIFEST, "half"]
    assert os.listdir(tmp_path) == [store.folder("zoo", KEY).name]


def test_a_full_disk_while_making_names_the_folder(tmp_path: Path) -> None:
    store = Store(tmp_path)
    message = r"zoo-0123456789ab\.partial: cannot be written: No space left on device"
    with pytest.raises(DiskError, match=message), store.making("zoo", KEY):
        no_space()
    assert os.listdir(tmp_path) == ["zoo-0123456789ab.partial"]


def test_a_folder_whose_manifest_was_taken_away_is_replaced(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.folder("zoo", KEY).mkdir()
    (store.folder("zoo", KEY) / "old").touch()
    with store.making("zoo", KEY) as folder:
        write_json(folder / MANIFEST, {})
    assert os.listdir(store.folder("zoo", KEY)) == [MANIFEST]


def test_discarding_takes_the_finished_and_the_half_made(tmp_path: Path) -> None:
    store = Store(tmp_path)
    other = tmp_path / "zoo-other"
    for folder in (store.folder("zoo", KEY), tmp_path / "zoo-0123456789ab.partial", other):
        folder.mkdir()
        (folder / "x").touch()
    store.discard("zoo", KEY, "this command")
    store.discard("train", KEY, "this command")
    marks = [f"{stage}-{KEY[:12]}.forced" for stage in ("train", "zoo")]
    assert sorted(os.listdir(tmp_path)) == [*marks, "zoo-other"]
    assert store.forced("zoo", KEY) == "this command" and store.forced("generate", KEY) is None


# ---------------------------------------------------------------- the lock

HOLD = """
import sys
from pathlib import Path
from wspace.runs.store import Store
with Store(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_one_process_s_until_that_is_gone_however_it_went(tmp_path: Path) -> None:
    store = Store(tmp_path / "r")
    command = [sys.executable, "-c", HOLD, str(store.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        with pytest.raises(UserError) as caught, store.locked():
            pass
        other.kill()
    assert str(caught.value) == (
        f"{store.root}: is being run by process {other.pid}; wait for it, or give this run another folder with --runs"
    )
    again = pytest.raises(UserError, match=f"is being run by process {os.getpid()};")
    with store.locked(), again, Store(store.root).locked():
        pass
    assert os.listdir(store.root) == [LOCK]
    with store.locked():
        pass


def test_a_folder_made_for_a_lock_goes_unless_something_came_to_be_in_it(tmp_path: Path) -> None:
    for made in ("runs/r", "runs/other"):
        with pytest.raises(UserError, match="^refused$"), Store(tmp_path / made).locked():
            raise UserError("refused")
        assert os.listdir(tmp_path) == []
    with Store(tmp_path / "runs/kept").locked():
        (tmp_path / "runs/kept/zoo").mkdir()
    with Store(tmp_path / "runs/r").locked():
        pass
    assert os.listdir(tmp_path / "runs") == ["kept"] and sorted(os.listdir(tmp_path / "runs/kept")) == [LOCK, "zoo"]


@pytest.mark.skipif(sys.platform == "win32", reason="locks of Unix")
def test_who_opened_a_lock_that_then_went_is_refused_as_a_moment_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    first, second, flock = Store(tmp_path / "r").locked(), Store(tmp_path / "r"), fcntl.flock

    def late(*arguments: Any) -> None:
        monkeypatch.setattr("fcntl.flock", flock)
        first.__exit__(None, None, None)
        flock(*arguments)

    first.__enter__()
    monkeypatch.setattr("fcntl.flock", late)
    with pytest.raises(UserError, match="is being run by another process"), second.locked():
        pass  # and would have a lock that nobody else can see
    assert os.listdir(tmp_path) == []
    with second.locked():
        assert sorted(os.listdir(second.root)) == [LOCK, LOCK_HOLDER]


def test_a_lock_goes_with_an_error(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt), store.locked():
        raise KeyboardInterrupt
    with store.locked():
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="locks of Unix")
@pytest.mark.parametrize("code", ["ENOSYS", "EOPNOTSUPP", "ENOLCK"])
def test_a_file_system_without_locks_runs_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    def flock(*_: object) -> None:
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    monkeypatch.setattr("fcntl.flock", flock)
    for _ in range(2):
        with Store(tmp_path).locked():
            (tmp_path / "made").touch()
    assert (tmp_path / "made").exists()


def test_a_folder_that_takes_no_lock_file_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.flock", no_space)
    message = rf"^{tmp_path}: cannot be written: No space left on device; "
    with pytest.raises(DiskError, match=message), Store(tmp_path).locked():
        pass
