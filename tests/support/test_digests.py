"""Comparing two run folders: what differs is named, and what may differ is let be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.digests import digests, main

SCORES = {"scores": [{"method": "generated", "mean": 0.5}], "differences": [], "seconds": 3}


def write(runs: Path, *names: str, key: str = "aaaa") -> Path:
    """Runs of two stages, with these names, as a pipeline leaves them."""
    for name in names:
        run = runs / name
        train, evaluate = run / f"train-{key}", run / f"evaluate-{key}"
        for folder in (train, evaluate):
            folder.mkdir(parents=True)
        save_file(
            {"w": torch.arange(6.0).view(2, 3), "b": torch.ones(())}, train / "generator.safetensors", {"key": key}
        )
        (evaluate / "scores.json").write_text(json.dumps(SCORES), encoding="utf-8")
        stages = {"train": train.name, "evaluate": evaluate.name}
        (run / "run.json").write_text(json.dumps({"stages": stages}), encoding="utf-8")
    return runs


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return write(tmp_path / "before", "one", "several/a", "several/b")


@pytest.fixture
def after(tmp_path: Path) -> Path:
    return write(tmp_path / "after", "one", "several/a", "several/b", key="bbbb")


def test_other_keys_metadata_and_seconds_are_no_difference(before, after, capsys) -> None:
    scores = after / "one/evaluate-bbbb/scores.json"
    scores.write_text(json.dumps(SCORES | {"seconds": 9}), encoding="utf-8")
    assert main([str(before), str(after), "one", "several"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "one: 1 run, 1 file of tensors compared, 0 differences",
        "several: 2 runs, 2 files of tensors compared, 0 differences",
    ]


@pytest.mark.parametrize(
    "changed",
    [
        {"w": torch.arange(6.0).view(2, 3) + torch.tensor([0, 0, 1e-6])},
        {"w": torch.arange(6.0).view(3, 2)},
        {"w": torch.arange(6.0).view(2, 3).view(torch.int32)},
    ],
    ids=["value", "shape", "dtype"],
)
def test_a_tensor_of_another_value_shape_or_type_is_named(before, after, capsys, changed) -> None:
    file = after / "several/b/train-bbbb/generator.safetensors"
    save_file(load_file(file) | changed, file)
    assert main([str(before), str(after), "several"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "DIFF several/b train: generator.safetensors: w differs",
        "several: 2 runs, 2 files of tensors compared, 1 difference",
    ]


def test_what_one_side_alone_has_is_named(before, after, capsys) -> None:
    save_file({"w": torch.ones(1)}, after / "one/train-bbbb/more.safetensors")
    save_file({"w": torch.arange(6.0).view(2, 3)}, after / "one/train-bbbb/generator.safetensors")
    shutil.rmtree(after / "several/a")
    run = after / "several/b/run.json"
    run.write_text(json.dumps({"stages": {"train": "train-bbbb"}}), encoding="utf-8")
    assert main([str(before), str(after), "one", "several"]) == 1
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("DIFF")] == [
        "DIFF one train: more.safetensors is in one of them only",
        "DIFF one train: generator.safetensors: b differs",
        f"DIFF several/a: no run in {after / 'several/a'}",
        "DIFF several/b: stage evaluate is in one of them only",
    ]


def test_other_scores_are_named(before, after, capsys) -> None:
    scores = SCORES | {"scores": [{"method": "generated", "mean": 0.25}]}
    (after / "one/evaluate-bbbb/scores.json").write_text(json.dumps(scores), encoding="utf-8")
    assert main([str(before), str(after), "one"]) == 1
    assert capsys.readouterr().out.splitlines()[0] == "DIFF one evaluate: scores.json: scores differ"


def test_nothing_to_compare_is_no_pass(before, after, capsys) -> None:
    assert main([str(before), str(after), "two"]) == 2
    assert capsys.readouterr().err == f"{before / 'two'}: no finished run\n"
    assert main([str(before), str(after)]) == 2
    assert capsys.readouterr().err == "usage: python -m tests.support.digests RUNS_BEFORE RUNS_AFTER NAME...\n"


def test_every_kind_of_tensor_has_a_digest(tmp_path: Path) -> None:
    kinds = {"half": torch.ones(2, dtype=torch.bfloat16), "truth": torch.ones(2, dtype=torch.bool),
             "none": torch.ones(0), "one": torch.tensor(3)}  # fmt: skip
    save_file(kinds, tmp_path / "kinds.safetensors")
    assert len(set(digests(tmp_path / "kinds.safetensors").values())) == 4
