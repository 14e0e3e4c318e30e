"""`precision: auto`: what is faster on the device, measured once and kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.support.synthetic import Said, bench_of, recipe_of, run
from wspace.runs import precision
from wspace.runs.workbench import Workbench
from wspace.support.errors import FileError

CPU = torch.device("cpu")


def kept(cache: Path, seconds: object) -> Path:
    """What was measured on this machine, put in place."""
    precision.faster(CPU, cache)
    (file,) = (cache / "rates").glob("precision-*.json")
    file.write_text(json.dumps(seconds), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("half", "chosen"), [(0.5, "bfloat16"), (0.9, "bfloat16"), (0.95, "float32"), (1.0, "float32"), (2.0, "float32")]
)
def test_half_precision_is_taken_where_it_saves_a_tenth(tmp_path: Path, half: float, chosen: str) -> None:
    kept(tmp_path, {"float32": 2.0, "bfloat16": 2.0 * half})
    assert precision.faster(CPU, tmp_path) == (chosen, half)


def test_both_are_measured_and_kept(tmp_path: Path) -> None:
    first = precision.faster(CPU, tmp_path)
    (file,) = (tmp_path / "rates").iterdir()
    seconds = json.loads(file.read_text(encoding="utf-8"))
    assert set(seconds) == {"float32", "bfloat16"} and min(seconds.values()) > 0
    assert precision.faster(CPU, tmp_path) == first  # to the last digit: nothing was measured again


@pytest.mark.parametrize("damaged", ["{", "[]", '{"float32": 1}', '{"float32": "x", "bfloat16": 1}'])
def test_a_damaged_file_is_measured_again(tmp_path: Path, damaged: str) -> None:
    file = kept(tmp_path, {})
    file.write_text(damaged, encoding="utf-8")
    precision.faster(CPU, tmp_path)
    assert set(json.loads(file.read_text(encoding="utf-8"))) == {"float32", "bfloat16"}


def test_a_recipe_that_leaves_it_open_is_told_what_it_became_and_another_is_not(tmp_path: Path) -> None:
    kept(tmp_path, {"float32": 2.0, "bfloat16": 1.0})
    said = Said()
    assert Workbench(recipe_of(tmp_path, "precision=auto"), said, tmp_path).precision == "bfloat16"
    assert said.lines == ["note: precision auto is bfloat16 here: bfloat16 takes 0.50 times as long as float32"]
    said = Said()
    for named in ("float32", "bfloat16"):
        assert Workbench(recipe_of(tmp_path, f"precision={named}"), said, tmp_path).precision == named
    assert not said.lines


def test_a_training_goes_on_in_what_it_began_in_whatever_is_faster_now(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "precision=auto", "task_loss.steps=0", "losses.adversarial=0")
    bench, train = bench_of(recipe), tmp_path / "train"
    bench.cache = tmp_path
    kept(tmp_path, {"float32": 1.0, "bfloat16": 2.0})
    run(recipe, bench, tmp_path, "zoo")

    def trained() -> tuple[str, bytes]:
        run(recipe, bench, tmp_path, "train")
        assert not (train / "precision.json").exists()  # a training that has ended begins anew
        chosen = json.loads((train / "summary.json").read_text(encoding="utf-8"))["precision"]
        return chosen, (train / "generator.safetensors").read_bytes()

    chosen, whole = trained()
    assert chosen == "float32"
    (train / "precision.json").write_text('{"precision": "bfloat16"}', encoding="utf-8")  # as another machine began it
    chosen, half = trained()
    assert chosen == "bfloat16" and half != whole


def test_what_a_training_began_in_is_written_once(tmp_path: Path) -> None:
    assert precision.as_begun(tmp_path, lambda: "bfloat16") == "bfloat16"
    assert precision.as_begun(tmp_path, lambda: "float32") == "bfloat16"
    for damaged in ("[]", "{}", '{"precision": "float8"}'):
        (tmp_path / "precision.json").write_text(damaged, encoding="utf-8")
        with pytest.raises(FileError) as caught:
            precision.as_begun(tmp_path, lambda: "float32")
        told = "precision.json: no precision of a training; remove it, and the checkpoints beside it"
        assert str(caught.value) == f"{tmp_path}/{told}"
