"""Disks that take nothing more, folders that move, and several runs at once."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.survival import SMALL, Command, Mark, Moment, contents, left_behind

pytestmark = [pytest.mark.slow, pytest.mark.plugins("t2w", "igpg")]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "small.yaml"
    file.write_text(SMALL, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def undisturbed(small: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], list[Mark]]:
    runs = tmp_path_factory.mktemp("whole")
    marks = Command(small, runs).whole()
    return contents(runs), marks


@pytest.mark.parametrize("most", [3_000, 40_000, 300_000])
def test_a_limit_to_the_size_of_files_is_one_sentence_and_the_run_goes_on_without_it(
    small: Path, undisturbed, tmp_path: Path, most: int
) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    runs, cache = tmp_path / "runs", tmp_path / "cache"
    status, line = Command(small, runs, cache, limit).refused()
    assert status == 1 and line.startswith("error: /") and "cannot be written: File too large" in line
    assert not [name for name in left_behind(tmp_path) if ".wspace-" in name]
    Command(small, runs, cache).whole()
    assert contents(runs) == undisturbed[0] and left_behind(runs) == []


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A disk in memory, mounted with these options."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mounted(options: str) -> Path:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], capture_output=True).returncode:
            pytest.skip(f"no disk can be mounted here with {options}: it takes root, and for quotas CONFIG_TMPFS_QUOTA")
        return folder

    yield mounted
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def held_by_quotas() -> None:
    """Not even root is spared from here on: prctl(PR_CAPBSET_DROP, CAP_SYS_RESOURCE)."""
    ctypes.CDLL(None).prctl(24, 24)


@pytest.mark.parametrize(
    ("options", "more", "prepare", "words"),
    [
        ("size=200k", "size=100m", None, "No space left on device"),
        ("size=100m,nr_inodes=40", "nr_inodes=10k", None, "No space left on device"),
        ("size=100m,usrquota,usrquota_block_hardlimit=200k", "", held_by_quotas, "Disk quota exceeded"),
    ],
    ids=["bytes", "files", "quota"],
)
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_where_there_is_room(
    small: Path, undisturbed, disk, options: str, more: str, prepare: Callable[[], None] | None, words: str
) -> None:
    full = disk(options)
    status, line = Command(small, full, prepare=prepare or (lambda: None)).refused()
    assert status == 1 and line.startswith("error: /") and f"cannot be written: {words}" in line
    assert not [name for name in left_behind(full) if ".wspace-" in name]
    if more:
        remount(full, more)
    Command(small, full).whole()
    assert contents(full) == undisturbed[0] and left_behind(full) == []


def test_a_disk_that_becomes_read_only_is_one_sentence_and_the_run_goes_on_when_it_is_not(
    small: Path, undisturbed, disk
) -> None:
    expected, marks = undisturbed
    folder, order = disk("size=100m"), [(mark.member, mark.stage) for mark in marks]
    for stage in ("zoo", "train"):
        mark = next(mark for mark in marks if mark.stage == stage)
        assert Command(small, folder).end_at(Moment(mark, 0.5 * mark.lasts), signal.SIGKILL, order)
        before = contents(folder)
        remount(folder, "ro")
        status, line = Command(small, folder).refused()
        assert status == 1 and line.startswith("error: /") and "cannot be written: Read-only file system" in line
        assert contents(folder) == before
        remount(folder, "rw")
    Command(small, folder).whole()
    assert contents(folder) == expected and left_behind(folder) == []


def test_of_two_runs_of_one_recipe_at_once_one_is_refused(small: Path, undisturbed, tmp_path: Path) -> None:
    both = [Command(small, tmp_path), Command(small, tmp_path)]
    while all(command.marks.empty() for command in both):
        time.sleep(0.01)
    one, other = both if not both[0].marks.empty() else reversed(both)
    if one.process.poll() is None:  # it has the lock, and is held until the other has looked, which may start slowly
        os.killpg(one.process.pid, signal.SIGSTOP)
    ends = [other.refused()]
    if one.process.returncode is None:
        os.killpg(one.process.pid, signal.SIGCONT)
    ends = sorted([*ends, one.refused()], key=lambda end: end[0])
    assert [status for status, _ in ends] == [0, 2]
    assert "small: is being run by " in ends[1][1] and ends[1][1].endswith(
        "or give this run another folder with --runs"
    )
    assert contents(tmp_path) == undisturbed[0] and left_behind(tmp_path) == []


def test_four_runs_that_start_together_share_an_empty_cache(small: Path, undisturbed, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    every = [Command(small, tmp_path / str(number), cache) for number in range(4)]
    assert [command.refused()[0] for command in every] == [0] * 4
    assert all(contents(tmp_path / str(number)) == undisturbed[0] for number in range(4))
    files = [file.name for file in cache.rglob("*") if file.is_file()]
    assert files and left_behind(cache) == [] and len([name for name in files if name.endswith(".safetensors")]) == 1


def test_a_run_moved_while_it_was_stopped_goes_on_elsewhere(small: Path, undisturbed, tmp_path: Path) -> None:
    expected, marks = undisturbed
    train = next(mark for mark in marks if mark.stage == "train")
    command = Command(small, tmp_path / "here")
    assert command.end_at(
        Moment(train, 0.5 * train.lasts), signal.SIGKILL, [(mark.member, mark.stage) for mark in marks]
    )
    os.rename(tmp_path / "here", tmp_path / "elsewhere")
    again = Command(small, tmp_path / "elsewhere").whole()
    assert "zoo" not in [mark.stage for mark in again] and contents(tmp_path / "elsewhere") == expected
