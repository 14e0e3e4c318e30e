"""Heads for the classes of another data set: what is scored, beside what, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import wspace
import wspace.api
from tests.conftest import Wspace
from wspace.runs.run import Run
from wspace.uses import transfer
from wspace.uses.transfer import study


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """Four classes of eight pictures that any network tells apart."""
    rng, (rows, columns) = np.random.default_rng(0), np.mgrid[:64, :64]
    for name, drawn in {
        "disc": (rows - 32) ** 2 + (columns - 32) ** 2 < 400,
        "stripes": rows // 8 % 2 == 0,
        "check": (rows // 8 + columns // 8) % 2 == 0,
        "half": rows > columns,
    }.items():
        (tmp_path / "shapes" / name).mkdir(parents=True)
        for number in range(8):
            ink, paper = rng.integers(0, 100, 3), rng.integers(150, 256, 3)
            pixels = np.where(drawn[..., None], ink, paper).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "shapes" / name / f"{number}.png")
    return tmp_path / "shapes"


def test_heads_for_another_data_set_are_scored_beside_ones_trained_there(
    nano: Path, shapes: Path, inside: Wspace
) -> None:
    dataset = f"{{use: folder, path: {shapes}, size: 64}}"
    done = inside("transfer", nano, "--dataset", dataset, "--ways", "2,3,2,9", "--tasks", 3, "--json")
    assert done.returncode == 0, done.stderr
    section = json.loads(done.stdout)
    assert section["says"][0] == "Its 4 classes, to the generator: 0 known, 0 near, 4 far."
    assert [table["title"] for table in section["tables"]] == [
        "3 tasks of 2 classes: accuracy (%)", "3 tasks of 3 classes: accuracy (%)",
    ]  # fmt: skip
    assert section["says"][-1] == "No tasks of 9 classes: the data set has 4."
    for table in section["tables"]:
        accuracy = {row["name"]: row["cells"]["accuracy"]["mean"] for row in table["rows"]}
        assert list(accuracy) == ["generated", "universal", "trained there"]
        assert accuracy["trained there"] > 0.8 and all(0 <= value <= 1 for value in accuracy.values())
        (ours, *_) = table["rows"]
        assert ours["own"] and ours["cells"]["generated minus it"]["mean"] == 0
    assert "Another data set" in (nano / "report.html").read_text(encoding="utf-8")


def test_another_data_set_that_will_not_do_is_refused(nano: Path, shapes: Path, inside: Wspace, tmp_path: Path) -> None:
    for dataset, ways, said in (
        (f"{{use: folder, path: {shapes}}}", "5,x", "error: --ways: 'x' is no number of classes from 2\n"),
        (
            f"{{use: folder, path: {shapes}}}",
            "5",
            "error: --ways: the data set has 4 classes, and tasks are to have 5; give at most 4\n",
        ),
        (f"{{use: folder, path: {tmp_path}/none}}", "2", f"error: {tmp_path}/none: no such folder\n"),
        ("{use: foldr}", "2", "error: --dataset: use: no dataset named 'foldr'. Did you mean 'folder'?"),
        ("{use: folder}", "2", "error: --dataset: path: missing; dataset 'folder' needs path: path\n"),
        ("[folder]", "2", "error: --dataset: expected a dataset: a name, or {use: NAME, ...}, got ['folder']\n"),
        (
            "{use: folder, path: x",
            "2",
            "error: transfer --dataset={use: folder, path: x: the value is not YAML; text that YAML cannot read goes in "
            "quotes: --dataset='...'\n",
        ),
    ):
        done = inside("transfer", nano, "--dataset", dataset, "--ways", ways)
        assert done.returncode == 2 and said in done.stderr, done.stderr


def test_classes_that_are_one_to_the_text_encoder_and_a_class_alone_are_refused(
    nano: Path, shapes: Path, inside: Wspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes.joinpath("stripes").rename(shapes / "DISC")
    done = inside("transfer", nano, "--dataset", f"{{use: folder, path: {shapes}}}", "--ways", "2")
    assert done.returncode == 2 and done.stderr.endswith(
        "error: --dataset: the text encoder makes one vector of its classes 'DISC' and 'disc': no head can tell them apart; "
        "rename or remove all but one\n"
    ), done.stderr
    run = wspace.load(nano)
    world = run.world(f"{{use: folder, path: {shapes}}}")
    monkeypatch.setattr(world.images, "classes", ("disc",))  # of a plugin's data set; `folder` refuses one itself
    with pytest.raises(wspace.api.UserError, match="^--dataset: it has 1 class, and a task is of two or more$"):
        study(run, world, ways=[2], tasks=2, seed=0)


def test_text_prototypes_and_unlabelled_pictures_have_a_row_where_there_are_any(
    nano: Path, shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = wspace.load(nano)
    world = run.world(f"{{use: folder, path: {shapes}, size: 64}}")
    without = study(run, world, ways=[2], tasks=2, seed=0)
    assert "The run's recipe leaves text-prototype out of `against`: it has no row here." in without.says
    chosen = {"text-prototype_width": 0.6, "text-prototype_penalty": 1.0}
    monkeypatch.setattr(transfer, "chosen_of", lambda _: chosen)
    monkeypatch.setattr(type(run.system.conditioner), "takes_pictures", True)
    section = study(run, world, ways=[2], tasks=2, seed=0)
    assert [row.name for row in section.tables[0].rows] == [
        "generated", "generated, with unlabelled pictures", "text-prototype", "universal", "trained there",
    ]  # fmt: skip
    assert len(section.says) == len(without.says) - 1


def test_of_all_classes_there_is_one_task_and_the_section_says_so(nano: Path, shapes: Path, inside: Wspace) -> None:
    dataset = f"{{use: folder, path: {shapes}, size: 64}}"
    done = inside("transfer", nano, "--dataset", dataset, "--ways", "4", "--tasks", 3, "--json")
    assert done.returncode == 0, done.stderr
    section = json.loads(done.stdout)
    assert [table["title"] for table in section["tables"]] == ["The only task of 4 classes: accuracy (%)"]
    assert section["says"][-1] == "There is one task of all 4 classes: its intervals have no width, and say nothing."


def test_statistics_of_generated_networks_are_taken_as_generate_takes_them(
    nano: Path, shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(Run, "calibrated_for", lambda _, weights, names: asked.append(tuple(names)) or weights)
    run = wspace.load(nano)
    study(run, run.world(f"{{use: folder, path: {shapes}, size: 64}}"), ways=[2], tasks=2, seed=0)
    assert asked == [("check", "disc", "half", "stripes")]
