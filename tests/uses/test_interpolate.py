"""Between tasks, along conditions and along weights."""

from __future__ import annotations

import base64
import io
import json

import pytest
import torch
from PIL import Image

import wspace as package
from wspace.learning.fitting import accuracies
from wspace.uses.interpolate import GENERATED, LINEAR, SPHERICAL, TRAINED, WAYS, Corners, disjoint, ways_between


@pytest.fixture(scope="module")
def run(nano):
    return package.load(nano)


@pytest.fixture(scope="module")
def corners(run):
    """Two pairs of tasks to go between."""
    return Corners(run, list(zip(*disjoint(run.zoo.tasks.unseen, 2, 2), strict=True)), 0)


def known(run, first: int, last: int) -> str:
    return ", ".join(run.zoo.classes[c] for c in run.zoo.tasks.classes[first:last])


# ---------------------------------------------------------------- groups of tasks

TASKS = [(0, 1), (1, 2), (2, 3), (0, 4), (4, 5), (6, 7)]


def test_groups_share_no_class_and_no_task():
    assert disjoint(TASKS, 2, 9) == [((0, 1), (2, 3)), ((1, 2), (0, 4)), ((4, 5), (6, 7))]
    assert disjoint(TASKS, 3, 9) == [((0, 1), (2, 3), (4, 5)), ((1, 2), (0, 4), (6, 7))]
    assert disjoint(TASKS, 2, 1) == [((0, 1), (2, 3))]
    assert disjoint(TASKS, 5, 9) == [] and disjoint(TASKS, 4, 9) == [((0, 1), (2, 3), (4, 5), (6, 7))]


# ---------------------------------------------------------------- on the way


@pytest.mark.parametrize("end", [0, 1])
def test_at_its_ends_every_way_has_the_heads_of_these_tasks(run, corners, end):
    tasks = list(corners.tasks[end])
    generated = run.sample(tasks, torch.Generator())  # at the recipe's temperature nothing is drawn
    for way in (LINEAR, SPHERICAL, GENERATED):
        found = corners.networks(way, corners.counts(way, float(end)))
        assert torch.allclose(found, generated, atol=1e-4), way
    assert torch.equal(corners.networks(TRAINED, corners.counts(TRAINED, float(end))), corners.trained[end])


def test_along_weights_halfway_is_the_mean(corners):
    for way, ends in ((GENERATED, corners.generated), (TRAINED, corners.trained)):
        found = corners.networks(way, corners.counts(way, 0.5))
        assert torch.allclose(found, (ends[0] + ends[1]) / 2, atol=1e-6)


def test_conditions_on_an_arc_count_more_than_on_a_line(corners):
    line, arc = (corners.counts(way, 0.5) for way in (LINEAR, SPHERICAL))
    assert torch.equal(line, torch.full((2, 2), 0.5))
    assert (arc > 0.5).all() and torch.allclose(arc[:, 0], arc[:, 1])


def test_scores_are_those_on_each_task(run, corners):
    scores = corners.score(corners.generated[0])  # (2 tasks, 2 pairs)
    for i, tasks in enumerate(corners.tasks):
        expected = accuracies(run.target, corners.generated[0], tasks, run.bench.test, run.bench.class_texts)
        assert torch.equal(scores[i], expected)
    assert torch.equal(
        corners.on_own_tasks(corners.generated)[0], (scores[0][0] + corners.score(corners.generated[1])[1][0]) / 2
    )


# ---------------------------------------------------------------- the study


@pytest.fixture(scope="module")
def studied(nano, inside):
    done = inside("interpolate", nano, "--pairs", "2", "--steps", "3", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_study_has_a_table_for_each_task_their_mean_and_several_at_once(studied):
    first, second, mean, several = studied["tables"]
    for table in (first, second, mean):
        assert [row["name"] for row in table["rows"]] == ["0", "0.5", "1"] and list(table["columns"]) == list(WAYS)
    for a, b, both in zip(first["rows"], second["rows"], mean["rows"], strict=True):
        for way in WAYS:
            expected = (a["cells"][way]["mean"] + b["cells"][way]["mean"]) / 2
            assert both["cells"][way]["mean"] == pytest.approx(expected, abs=1e-6)
    halfway = mean["rows"][1]["cells"]
    by_name = {row["name"]: row["cells"] for row in several["rows"]}
    for name, way in {"mean of conditions": LINEAR, "mean of trained weights": TRAINED}.items():
        assert by_name[name]["2 tasks"]["mean"] == pytest.approx(halfway[way]["mean"], abs=1e-6)
    assert "generated from the joined texts" in by_name and studied["says"][0].startswith(
        "Halfway, mean over the tasks: "
    )


def test_the_study_becomes_a_section_with_its_figure(studied, nano, inside):
    page = (nano / "report.html").read_text(encoding="utf-8")
    assert "Between two tasks" in page and 'id="interpolate-ways"' in page
    assert json.loads(inside("report", nano, "--json").stdout)["uses"]["interpolate"] == studied


# ---------------------------------------------------------------- a user's tasks


def test_a_way_through_a_third_task(nano, run, inside):
    named = [known(run, 0, 3), known(run, 3, 7), known(run, 7, 9)]
    asked = ("--from", named[0], "--to", named[2], "--through", named[1], "--steps", "5")
    done = inside("interpolate", nano, *asked, "--json")
    assert done.returncode == 0, done.stderr
    *along, several = json.loads(done.stdout)["tables"]
    assert [table["title"].partition(":")[0] for table in along] == [
        "on the first task", "on task 2", "on the last task", "mean over the tasks"
    ]  # fmt: skip
    assert [row["name"] for row in along[0]["rows"]] == ["0", "0.25", "0.5", "0.75", "1"]
    head = run.sample([run.task_of(named[1].split(", "))], torch.Generator())
    expected = accuracies(run.target, head, [run.task_of(named[1].split(", "))], run.bench.test, run.bench.class_texts)
    for way in (LINEAR, SPHERICAL, GENERATED):  # there in the middle
        assert along[1]["rows"][2]["cells"][way]["mean"] == pytest.approx(float(expected[0]))
    assert list(several["columns"]) == ["3 tasks"]
    *_, halfway, worst, alone = json.loads(done.stdout)["says"]
    assert alone == "There is one way, and so no figure has an interval." and "[" not in halfway + worst


@pytest.mark.parametrize(("panels", "down"), [(2, 1), (3, 1), (4, 2)])
def test_the_figure_has_a_panel_for_each_task(panels, down):
    lines = {way: [50.0 + 9 * number, 60.0, 70.0] for number, way in enumerate(WAYS)}
    uri = ways_between([0.0, 0.5, 1.0], {f"on task {n}": lines for n in range(panels)}, WAYS)
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        assert image.width > 1200 and abs(image.height - 180 * (0.7 + 2.6 * down)) < 30


BAD = [
    (["--from", "a, b"], "--from and --to: name the classes of both tasks, or of neither for the study"),
    (["--to", "a, b"], "--from and --to: name the classes of both tasks, or of neither for the study"),
    (["--through", "a, b"], "--through: the study goes from one task to another; name them by --from and --to"),
    (["--from", "lamp", "--to", "a, b"], "one class ('lamp') leaves nothing to tell apart: name two or more"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_input_is_one_sentence(nano, inside, arguments, message):
    done = inside("interpolate", nano, *arguments)
    assert (done.returncode, done.stderr.strip()) == (2, f"error: {message}")


def test_there_is_no_way_to_itself_nor_to_what_has_no_images(nano, run, inside):
    names = known(run, 0, 3)
    backwards = ", ".join(reversed(names.split(", ")))
    done = inside("interpolate", nano, "--from", names, "--to", backwards)
    assert (done.returncode, done.stderr.strip()) == (
        2,
        "error: there is no way from a task to itself: name other classes",
    )
    done = inside("interpolate", nano, "--from", names, "--to", "quasar, pulsar")
    assert done.returncode == 2
    assert done.stderr.startswith("error: the data set has no images of 'quasar', 'pulsar' to score on.")
