"""Artifacts that something else changed: seen before they are read, and made again or refused; never used as they are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import Wspace
from tests.support.damage import cut, flip
from tests.support.synthetic import Said
from tests.support.tiny import TINY_STAGES, WORKSHOP, Tiny, stages_fixture, tiny_fixture  # noqa: F401
from wspace.runs import pipeline
from wspace.runs.artifacts import keep, kept
from wspace.runs.keys import keys
from wspace.runs.pipeline import Step
from wspace.runs.store import Store, intact, manifest_of, write_manifest
from wspace.support.errors import FileError
from wspace.support.files import read_json, save_tensors, write_json
from wspace.support.names import ELAPSED, KEPT, MANIFEST, RUN
from wspace.support.progress import Progress

GENERATE = ("generate", "{run}", "--classes", "book, camera", "--out", "{out}")
COMMANDS = [
    ("train", "generator.safetensors", GENERATE),
    ("train", "said.safetensors", GENERATE),
    ("zoo", "world.json", GENERATE),
    ("zoo", "tasks.json", GENERATE),
    ("zoo", "world.safetensors", GENERATE),
    ("evaluate", "per-task.safetensors", GENERATE),
    ("report", "report.json", ("report", "{run}")),
    ("zoo", "networks-0001.safetensors", ("plot", "{run}", "space")),
    ("zoo", "base.safetensors", ("plot", "{run}", "space")),
    ("zoo", "index.jsonl", ("plot", "{run}", "space")),
    ("zoo", "zoo.json", ("plot", "{run}", "space")),
    ("opponents", "oracle-unseen-tasks.safetensors", ("plot", "{run}", "space")),
    ("generate", "generated-unseen-tasks.safetensors", ("plot", "{run}", "space")),
]
"""A stage, a file of its artifact, and a command that reads it."""

WITHOUT = {
    "zoo.json": "error: {artifact}: the run came here without the zoo's networks; ",
    "oracle-unseen-tasks.safetensors": "error: this run has no opponent 'oracle' that trains on images; ",
}
"""What may not be there in a run that is whole: how that is told."""

HALF = "half.txt"  # that every tiny stage leaves
Go = Callable[..., list[Step]]


@pytest.fixture
def go(stages: ModuleType, tiny: Tiny, tmp_path: Path) -> Go:
    """Run the tiny recipe, under the name of its file; the steps."""

    def call(*settings: str, name: str = "tiny", progress: Progress | None = None) -> list[Step]:
        stages.calls.clear()
        (tmp_path / f"{name}.yaml").write_text(tiny.recipe)
        recipe = tiny.bind_file(tmp_path / f"{name}.yaml", *settings)
        return pipeline.run(recipe, tmp_path / "runs", progress or Progress(), workshop=WORKSHOP)[1]

    return call


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Callable[..., Path]:
    """The artifact of a stage of the tiny recipe."""

    def call(stage: str, name: str = "tiny") -> Path:
        return Store(tmp_path / "runs" / name).folder(stage, keys(tiny.bind(), TINY_STAGES)[stage])

    return call


# ---------------------------------------------------------------- runs


@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_a_file_cut_short_or_missing_is_seen_whatever_is_to_be_done(stages, go: Go, folder, damage) -> None:
    go()
    damage(folder("train") / HALF)
    steps = go()
    assert [name for name, *_ in stages.calls] == ["train"]
    assert steps[2].why.startswith(f"damaged: {HALF} ")
    assert (folder("train") / HALF).read_text() == "train"


def test_one_flipped_bit_is_seen_where_a_stage_goes_on_from_it(stages, go: Go, folder) -> None:
    go()
    flip(folder("zoo") / HALF)
    steps, said = go("generate.steps=3", progress=(progress := Said())), progress.lines
    assert [name for name, *_ in stages.calls] == ["zoo", "generate", "evaluate", "report"]
    assert steps[0].why == f"damaged: {HALF} changed since it was written"
    assert said[0] == f"zoo starts: damaged: {HALF} changed since it was written"
    assert (folder("zoo") / HALF).read_text() == "zoo"


def test_a_damaged_artifact_is_taken_from_another_run_that_has_it_whole(stages, go: Go, folder, tmp_path: Path) -> None:
    go()
    go(name="other")
    stages_there = folder("zoo", "other")
    for file in stages_there.iterdir():  # a copy on another disk, and no link
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content)
    flip(folder("zoo") / HALF)
    steps = go("generate.steps=3")
    assert [name for name, *_ in stages.calls] == ["generate", "evaluate", "report"]
    assert steps[0].why == f"damaged: {HALF} changed since it was written; made in {tmp_path / 'runs/other'}"
    assert (folder("zoo") / HALF).read_text() == "zoo"


def test_what_is_damaged_in_another_run_is_not_linked(stages, go: Go, folder) -> None:
    go()
    flip(folder("zoo") / HALF)
    go(name="other")
    assert [name for name, *_ in stages.calls] == ["zoo"]
    assert (folder("zoo", "other") / HALF).read_text() == "zoo"


@pytest.mark.parametrize("damage", [flip, cut, lambda file: file.write_bytes(bytes(file.stat().st_size))])
def test_a_damaged_manifest_is_as_good_as_none(stages, go: Go, folder, damage) -> None:
    go()
    damage(folder("generate") / MANIFEST)
    assert manifest_of(folder("generate")) is None
    assert go()[3].why == f"damaged: {MANIFEST} changed since it was written"
    assert [name for name, *_ in stages.calls] == ["generate"] and manifest_of(folder("generate")) is not None


def test_what_a_power_failure_makes_of_small_files_does_not_end_the_next_attempt(
    stages, go: Go, folder, tmp_path
) -> None:
    stages.fails["train"] = RuntimeError("power")
    with pytest.raises(RuntimeError):
        go()
    stages.fails.clear()
    partial = folder("train").with_suffix(".partial")
    (partial / ELAPSED).write_bytes(b"\0\0\0")
    (tmp_path / "runs/tiny" / RUN).write_bytes(b"")
    go()
    assert [name for name, *_ in stages.calls] == ["train", "generate", "evaluate", "report"]
    assert read_json(folder("train") / ELAPSED)["seconds"] >= 0


def test_what_takes_the_place_of_a_damaged_artifact_and_is_another_is_told(tmp_path: Path) -> None:
    said = Said()
    for name, value in (("before", 1.0), ("same", 1.0), ("after", 2.0)):
        (tmp_path / name).mkdir()
        save_tensors(tmp_path / name / "w.safetensors", {"w": torch.tensor(value)})
        write_manifest(tmp_path / name, {"stage": "zoo"})
    pipeline._tell_of_others(tmp_path / "before", tmp_path / "same", "zoo", said)
    assert said.lines == []
    pipeline._tell_of_others(tmp_path / "before", tmp_path / "after", "zoo", said)
    assert said.lines == [
        "warning: zoo: w.safetensors is not what it was before the damage, and what was made of it is kept; "
        "--force zoo to redo both"
    ]


def test_an_artifact_of_before_there_were_hashes_is_as_good_as_ever(stages, go: Go, folder) -> None:
    go()
    for name in ("zoo", "opponents", "train", "generate", "evaluate", "report"):
        manifest = read_json(folder(name) / MANIFEST)
        write_json(folder(name) / MANIFEST, {k: v for k, v in manifest.items() if k not in ("hashes", "sha256")})
    go("generate.steps=3")
    assert [name for name, *_ in stages.calls] == ["generate", "evaluate", "report"]
    assert intact(folder("zoo"), HALF).read_text() == "zoo"


def test_a_clock_that_goes_back_changes_nothing(stages, go: Go, folder, monkeypatch: pytest.MonkeyPatch) -> None:
    now = count(2_000_000_000, -3600)
    with monkeypatch.context() as patch:
        patch.setattr("time.time", lambda: float(next(now)))
        patch.setattr("time.time_ns", lambda: next(now) * 10**9)
        go()
        flip(folder("zoo") / HALF)
        go("generate.steps=3")
    assert [name for name, *_ in stages.calls] == ["zoo", "generate", "evaluate", "report"]
    assert read_json(folder("zoo") / MANIFEST)["seconds"] >= 0 and go() == go()


# ---------------------------------------------------------------- what an interrupted attempt leaves


def test_a_kept_file_of_tensors_is_there_if_it_is_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    keep(file, {"b": torch.ones(3), "a": torch.zeros(2, 2)})
    assert kept(file) and not kept(tmp_path / "other.safetensors")
    for damage in (flip, cut):
        before = file.read_bytes()
        damage(file)
        assert not kept(file)
        file.write_bytes(before)
    (tmp_path / KEPT / file.name).write_bytes(b"")  # by a power failure: nothing is known of what is there
    assert not kept(file)
    (tmp_path / KEPT / file.name).unlink()  # an older version
    assert kept(file)


# ---------------------------------------------------------------- commands that read a run


@pytest.mark.plugins("t2w")
@pytest.mark.parametrize(("stage", "name", "command"), COMMANDS, ids=[name for _, name, _ in COMMANDS])
def test_no_command_reads_a_file_with_a_flipped_bit(nano, inside: Wspace, tmp_path, stage, name, command) -> None:
    (artifact,) = nano.glob(f"{stage}-*")
    file = artifact / name
    before = file.read_bytes()
    asked = [str(part).format(out=tmp_path / "out.safetensors", run=nano) for part in command]
    try:
        flip(file)
        done = inside(*asked)
    finally:
        file.write_bytes(before)
    assert (done.returncode, done.stdout) == (2, "") and not os.listdir(tmp_path)
    assert done.stderr.startswith(f"error: {file}: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.plugins("t2w")
@pytest.mark.parametrize(("stage", "name", "command"), COMMANDS, ids=[name for _, name, _ in COMMANDS])
def test_a_file_that_has_gone_is_told_in_a_sentence(nano, inside: Wspace, tmp_path, stage, name, command) -> None:
    (artifact,) = nano.glob(f"{stage}-*")
    asked = [str(part).format(out=tmp_path / "out.safetensors", run=nano) for part in command]
    (artifact / name).rename(tmp_path / "kept")
    try:
        done = inside(*asked)
    finally:
        (tmp_path / "kept").rename(artifact / name)
    assert (done.returncode, done.stdout) == (2, "") and not os.listdir(tmp_path)
    begins = WITHOUT.get(name, "error: {artifact}/{name}: ").format(artifact=artifact, name=name)
    assert done.stderr.startswith(begins) and len(done.stderr.splitlines()) == 1


@pytest.mark.plugins("t2w")
def test_a_stage_that_was_forced_and_is_not_made_anew_is_told_in_a_sentence(nano, inside: Wspace, tmp_path) -> None:
    (artifact,) = nano.glob("evaluate-*")
    artifact.rename(tmp_path / "kept")
    try:
        done = inside("generate", nano, "--classes", "book, camera", "--out", tmp_path / "out.safetensors")
    finally:
        (tmp_path / "kept").rename(artifact)
    assert (done.returncode, done.stdout, os.listdir(tmp_path)) == (2, "", [])
    assert done.stderr == (
        f"error: {artifact}: there is no such folder, so stage 'evaluate' is not done: the same `wspace run` goes on with it\n"
    )


@pytest.mark.plugins("t2w")
def test_finished_artifacts_have_the_size_and_hash_of_every_file(nano: Path) -> None:
    for artifact in nano.glob("*-*"):
        manifest = json.loads((artifact / MANIFEST).read_text(encoding="utf-8"))
        names = sorted(file.name for file in artifact.iterdir() if file.name != MANIFEST)
        assert sorted(manifest["files"]) == sorted(manifest["hashes"]) == names and KEPT not in names


def test_a_file_that_came_without_its_manifest_is_read(tmp_path: Path) -> None:
    save_tensors(tmp_path / "w.safetensors", {"w": torch.ones(2)})
    assert load_file(intact(tmp_path, "w.safetensors"))["w"].sum() == 2
    write_manifest(tmp_path, {"stage": "zoo"})
    flip(tmp_path / "w.safetensors")
    with pytest.raises(FileError) as caught:
        intact(tmp_path, "w.safetensors")
    assert str(caught.value) == (
        f"{tmp_path}/w.safetensors: changed since it was written: its sha256 is not the one in artifact.json; `wspace run` "
        "with the same recipe makes it again"
    )
