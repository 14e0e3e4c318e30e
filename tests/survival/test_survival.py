"""Runs that are killed, interrupted and terminated, at many moments, end as if they had not been."""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path

import pytest

from tests.support import survival
from tests.support.survival import SMALL, STUDY, Command, Mark, Moment, contents, ended_often, left_behind, moments

pytestmark = [pytest.mark.slow, pytest.mark.plugins("t2w", "igpg")]
KILLS = 10


@pytest.fixture(scope="session")
def small_study(common: Path) -> Path:
    (common / "small.yaml").write_text(SMALL, encoding="utf-8")
    (common / "several.yaml").write_text(STUDY, encoding="utf-8")
    return common / "several.yaml"


def undisturbed(recipe: Path | str, runs: Path) -> tuple[dict[str, str], list[Mark]]:
    marks = Command(recipe, runs).whole()
    return contents(runs), marks


@pytest.mark.parametrize(("recipe", "seed"), [("nano", 1), ("igpg-nano", 2), ("a study", 3)])
def test_a_run_killed_ten_times_leaves_the_bytes_of_one_that_was_not(
    recipe: str, seed: int, tmp_path: Path, small_study: Path
) -> None:
    source = small_study if recipe == "a study" else recipe
    expected, marks = undisturbed(source, tmp_path / "whole")
    when = moments(marks, KILLS, seed)
    print(*(f"{m.mark.member} {m.mark.stage or 'start'} + {m.after:.2f} s" for m in when), sep="\n")
    killed = list(ended_often(source, tmp_path / "killed", marks, when, [signal.SIGKILL] * KILLS))
    assert [command.process.returncode for command in killed] == [-signal.SIGKILL] * KILLS
    assert contents(tmp_path / "killed") == expected
    assert left_behind(tmp_path / "killed") == []
    print(f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime:.0f} s of processor time so far", file=sys.stderr)


def test_a_run_that_was_done_before_its_moment_does_its_last_stage_again_and_is_ended_sooner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = list[float]()

    class Faster:
        """Than when its moments were measured: its report takes half a second."""

        def __init__(self, recipe: str, runs: Path):
            (runs / "small/report-abc").mkdir(parents=True, exist_ok=False)

        def end_at(self, moment: Moment, *_: object) -> bool:
            tried.append(moment.after)
            return moment.after < 0.5

        def whole(self) -> None:
            pass

    monkeypatch.setattr(survival, "Command", Faster)
    mark = Mark("", "report", 1.0, 2.0)
    ended = survival.ended_often("small", tmp_path, [mark], [Moment(mark, 1.2)], [signal.SIGKILL])
    assert isinstance(next(ended), Faster) and tried == [1.2, 0.6, 0.3]


def test_a_run_interrupted_and_terminated_in_each_stage_says_so_in_a_sentence_and_goes_on(tmp_path: Path) -> None:
    expected, marks = undisturbed("core", tmp_path / "whole")
    when = [Moment(mark, share * mark.lasts) for mark in marks for share in (0.2, 0.5)]
    how = [signal.SIGINT, signal.SIGTERM] * len(marks)
    for command, by in zip(ended_often("core", tmp_path / "ended", marks, when, how), how, strict=True):
        word, status = ("interrupted", 130) if by is signal.SIGINT else ("terminated", 143)
        assert command.process.returncode == status, command.lines
        assert command.lines[-1] == f"{word}: the same command goes on from here"
        assert not [line for line in command.lines if line.startswith(("Traceback", "Exception"))], command.lines
        assert not [name for name in os.listdir(tmp_path / "ended/core") if ".wspace-" in name]
    assert contents(tmp_path / "ended") == expected and left_behind(tmp_path / "ended") == []
