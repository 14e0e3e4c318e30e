"""Whether accuracies lie where they are expected: which tasks are drawn, what is counted, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import wspace
from tests.conftest import Wspace
from wspace.data.tasks import near_and_far
from wspace.learning.expectation import ScoredTasks
from wspace.runs.run import Run
from wspace.uses.expectation import MIXED, fresh_tasks, study


@pytest.mark.slow
def test_coverage_of_fresh_tasks_is_told_by_kind_and_number_of_classes(nano: Path, inside: Wspace) -> None:
    done = inside("expectation", nano, "--tasks", 60, "--json")
    assert done.returncode == 0, done.stderr
    section = json.loads(done.stdout)
    by_kind, by_ways = (table["rows"] for table in section["tables"])
    everything = by_kind[0]["cells"]["in the interval"]
    assert by_kind[0]["own"] and everything["n"] == 60
    assert 0 <= everything["ci_low"] < everything["mean"] <= everything["ci_high"] <= 1
    for rows in (by_kind[1:], by_ways):
        counts = [(row["cells"]["in the interval"]["n"], row["cells"]["in the interval"]["mean"]) for row in rows]
        assert sum(count for count, _ in counts) == 60
        assert sum(count * share for count, share in counts) == pytest.approx(60 * everything["mean"])
    assert f"in {100 * everything['mean']:.1f} [" in section["says"][0]
    assert [figure["name"] for figure in section["figures"]] == ["tasks"]
    page = (nano / "report.html").read_text(encoding="utf-8")
    assert "What accuracy to expect" in page and 'id="expectation-tasks"' in page


def test_fresh_tasks_are_of_their_kind_and_none_was_scored(nano: Path) -> None:
    run = wspace.load(nano)
    drawn = fresh_tasks(run, 80, 0)
    scored = {task for split in run.zoo.tasks.splits for task in run.zoo.tasks.scored(split)}
    assert not scored & set(drawn) and len(drawn) == 80
    known = set(run.zoo.tasks.classes)
    near, far = map(set, near_and_far(run.zoo.classes, run.zoo.tasks.classes))
    pools = {"known": known, "near": near, "far": far, MIXED: known | near | far}
    for task, kind in drawn.items():
        assert len(task) > 1 and set(task) <= pools[kind]
        assert kind != MIXED or (set(task) & known and set(task) - known)
    assert max(map(len, drawn)) <= max(map(len, scored)) and fresh_tasks(run, 80, 0) == drawn != fresh_tasks(run, 80, 1)


def test_a_task_is_in_its_interval_if_its_network_scores_what_was_expected(
    nano: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = wspace.load(nano)

    def expecting(low: float, high: float) -> float:
        expected = SimpleNamespace(mean=0.5, low=low, high=high, confidence=0.9, tasks=40, guessed=True)
        monkeypatch.setattr(Run, "expected_accuracy", lambda *_: expected)
        section = study(run, tasks=20, seed=0)
        assert any(says.startswith("Of 20 tasks `generate` says that it guesses") for says in section.says)
        return section.tables[0].rows[0].cells["in the interval"]["mean"]

    assert expecting(0, 1) == 1 and expecting(1.5, 2) == 0
    task = next(iter(fresh_tasks(run, 1, 0)))
    by_hand = run.score(run.generate(run.names_of(task)))["accuracy"]
    expected = SimpleNamespace(mean=0.5, low=by_hand, high=by_hand, confidence=0.9, tasks=40, guessed=False)
    monkeypatch.setattr(Run, "expected_accuracy", lambda *_: expected)
    assert study(run, tasks=1, seed=0).tables[0].rows[0].cells["in the interval"]["mean"] == 1


def test_a_report_of_which_nothing_can_be_expected_is_refused(
    nano: Path, inside: Wspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScoredTasks, "of", lambda *_: None)
    done = inside("expectation", nano, "--tasks", 3)
    assert done.returncode == 2 and done.stderr.endswith(
        "error: nothing is expected of this run: its report scores fewer than 30 tasks, or no accuracy\n"
    ), done.stderr
