"""Disks that take nothing more, folders that move, and several runs at once."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Iterator
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
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(disk)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_where_there_is_room(
    small: Path, undisturbed, tiny_disk: Path
) -> None:
    status, line = Command(small, tiny_disk).refused()
    assert status == 1 and line.startswith("error: /") and "cannot be written: No space left on device" in line
    assert not [name for name in left_behind(tiny_disk) if ".wspace-" in name]
    subprocess.run(["mount", "-o", "remount,size=100m", str(tiny_disk)], check=True)
    Command(small, tiny_disk).whole()
    assert contents(tiny_disk) == undisturbed[0] and left_behind(tiny_disk) == []


def test_of_two_runs_of_one_recipe_at_once_one_is_refused(small: Path, undisturbed, tmp_path: Path) -> None:
    both = [Command(small, tmp_path), Command(small, tmp_path)]
    ends = sorted((command.refused() for command in both), key=lambda end: end[0])
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
