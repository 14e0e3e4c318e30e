"""What has to run and why, with tiny stages in place of the real ones."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.synthetic import Said
from tests.support.tiny import TINY_STAGES, WORKSHOP, Tiny, stages_fixture, tiny_fixture  # noqa: F401
from wspace.recipes.bind import bind as bind_recipe
from wspace.recipes.imports import sources_of
from wspace.recipes.plugins import load_plugins
from wspace.recipes.schema import ONLOOKERS, SLOTS, BoundRecipe
from wspace.recipes.signature import read_class, source_file
from wspace.recipes.source import packaged_recipes, read_recipe
from wspace.runs import pipeline
from wspace.runs.keys import keys, modules_of, slots_of
from wspace.runs.pipeline import STAGES, steps
from wspace.runs.store import Store, write_manifest
from wspace.support.errors import DiskError, FileError, UserError
from wspace.support.files import read_json
from wspace.support.names import LOCK, MANIFEST, RUN
from wspace.support.progress import Progress

NAMES = ["zoo", "opponents", "train", "generate", "evaluate", "report"]
Bind = Callable[..., BoundRecipe]


@pytest.fixture
def bind(tiny: Tiny, tmp_path: Path) -> Bind:
    """The tiny recipe, with some `--set`s."""
    file = tmp_path / "tiny.yaml"
    file.write_text(tiny.recipe)
    return lambda *changes: tiny.bind_file(file, *changes)


@pytest.fixture
def go(stages: ModuleType, bind: Bind, tmp_path: Path) -> Callable[..., list[str]]:
    """Run the tiny recipe with some `--set`s; the names of the stages that ran."""

    def call(*changes: str, **options) -> list[str]:
        stages.calls.clear()
        progress = options.pop("progress", Progress())
        pipeline.run(bind(*changes), tmp_path / "runs", progress, workshop=WORKSHOP, **options)
        return [name for name, *_ in stages.calls]

    return call


@pytest.fixture
def why(bind: Bind, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Stage -> why it is to be run, or 'cached'."""

    def call(*changes: str, force: tuple[str, ...] = ()) -> dict[str, str]:
        plan = steps(bind(*changes), Store(tmp_path / "runs/tiny"), force, workshop=WORKSHOP)
        return {step.stage.name: "cached" if step.action == "cached" else step.why for step in plan}

    return call


# ---------------------------------------------------------------- the real stages


def test_every_slot_of_a_recipe_but_the_device_and_onlookers_is_read_by_exactly_one_stage() -> None:
    """But for the opponents, of whom those that train on images are made in a stage of their own; and for what auxiliary data
    sets say, which a conditioner and opponents hear."""
    read = [slot for stage in STAGES for slot in stage.reads]
    assert sorted(read) == sorted([*({*SLOTS} - {"device", *ONLOOKERS}), "against", "auxiliary"])


def test_stages_take_stages_before_them_and_their_functions_are_there() -> None:
    assert [stage.name for stage in STAGES] == NAMES
    for number, stage in enumerate(STAGES):
        assert set(stage.takes) <= set(NAMES[:number])
        module, _, function = stage.function.partition(":")
        assert f"def {function}(" in source_file(module).read_text(encoding="utf-8")


# ---------------------------------------------------------------- running


def test_a_run_does_every_stage_and_says_what_is_whose(go, stages, bind, tmp_path: Path) -> None:
    said = Said()
    assert go(progress=said) == NAMES
    assert [takes for *_, takes in stages.calls] == [list(stage.takes) for stage in TINY_STAGES]
    assert said.lines == [f"{name} starts" for name in NAMES]
    root, found = tmp_path / "runs/tiny", keys(bind(), TINY_STAGES)
    folders = {name: f"{name}-{key[:12]}" for name, key in found.items()}
    assert read_json(root / RUN) == {"recipe": "tiny", "seed": 42, "stages": folders}
    assert sorted(os.listdir(root)) == sorted([*folders.values(), RUN, "recipe.yaml", LOCK])
    assert read_recipe(root / "recipe.yaml").values == bind().decisive
    manifest = read_json(root / folders["train"] / MANIFEST)
    assert manifest["stage"] == "train" and manifest["key"] == found["train"] and manifest["seconds"] >= 0
    assert manifest["slots"]["generator.denoiser.depth"] == 2
    assert {name for name in manifest["sources"] if not name.startswith("wspace.")} == {"tiny_parts", "tiny_stages"}
    assert {"wspace.support.files", "wspace.support.errors"} < set(manifest["sources"]), "what these import, too"
    assert manifest["versions"]["torch"] != "not installed"


def test_nothing_runs_when_nothing_has_changed(go, bind, tmp_path: Path) -> None:
    go()

    def workbench(*_: object) -> None:
        raise AssertionError("set up for nothing")

    said = Said()
    folder, plan = pipeline.run(bind(), tmp_path / "runs", said, workshop=replace(WORKSHOP, workbench=workbench))
    assert [step.action for step in plan] == ["cached"] * 6 and said.lines == []
    assert all(step.why.startswith("made 20") for step in plan) and folder == tmp_path / "runs/tiny"
    assert go() == []


CHANGES = [
    ("seed=1", 6),
    ("dataset.size=9", 6),
    ("target.rank=8", 6),
    ("tasks.seen=9", 6),
    ("tasks.held_out=0.2", 6),  # which tasks the zoo keeps apart
    ("generator.denoiser.depth=3", 4),
    ("tokenizer.size=8", 4),
    ("train.steps=11", 4),
    ("task_loss.steps=3", 4),
    ("symmetry=flip", 4),
    ("generate.steps=3", 3),
    ("evaluate.bootstrap=200", 2),
    ("metrics=[{use: count, most: 4}]", 2),
    ("device=cpu", 0),
    ("seed=42", 0),  # the default, written out
    ("conditioner.dropout=0.0", 0),
    ("generator.denoiser={use: net, depth: 2, width: 8}", 0),  # in another order
]


@pytest.mark.parametrize(("change", "count"), CHANGES)
def test_a_change_moves_the_keys_of_the_stages_it_matters_to(bind, change: str, count: int) -> None:
    before, after = keys(bind(), STAGES), keys(bind(change), STAGES)
    assert [name for name in NAMES if before[name] != after[name]] == NAMES[len(NAMES) - count :]


def test_the_version_of_a_component_is_part_of_the_key(tiny: Tiny, bind) -> None:
    before = keys(bind(), STAGES)
    tiny.file.write_text(tiny.file.read_text().replace("version: ClassVar[int] = 3", "version: ClassVar[int] = 4"))
    read_class.cache_clear()
    after = keys(bind(), STAGES)
    assert [name for name in NAMES if before[name] != after[name]] == NAMES[2:]


def test_the_version_of_a_nested_component_is_part_of_the_key(tiny: Tiny, bind) -> None:
    before = keys(bind(), STAGES)
    tiny.file.write_text(tiny.file.read_text().replace("class Net:\n", "class Net:\n    version = 2\n\n"))
    read_class.cache_clear()
    after = keys(bind(), STAGES)
    assert [name for name in NAMES if before[name] != after[name]] == NAMES[2:]


def test_the_version_of_a_stage_is_part_of_the_key(bind) -> None:
    before = keys(bind(), STAGES)
    after = keys(bind(), [replace(s, version=s.version + 1) if s.name == "generate" else s for s in STAGES])
    assert [name for name in NAMES if before[name] != after[name]] == NAMES[3:]


def test_what_files_hold_is_part_of_the_key(bind, tmp_path: Path) -> None:
    data, extra = tmp_path / "data", tmp_path / "extra.bin"
    recipe = bind(f"dataset={{use: files, path: {data}, more: [{extra}]}}")
    seen = [keys(recipe, STAGES)["zoo"]]
    data.mkdir()
    seen.append(keys(recipe, STAGES)["zoo"])
    (data / "a.png").write_bytes(b"1")
    seen.append(keys(recipe, STAGES)["zoo"])
    (data / "a.png").write_bytes(b"2")
    seen.append(keys(recipe, STAGES)["zoo"])
    extra.write_bytes(b"3")
    seen.append(keys(recipe, STAGES)["zoo"])
    assert len(set(seen)) == 5 and keys(recipe, STAGES)["zoo"] == seen[-1]
    (data / "a.png").write_bytes(b"1")
    extra.unlink()
    assert keys(recipe, STAGES)["zoo"] == seen[2], "the same contents again"


def test_where_files_lie_is_no_part_of_the_key(bind, tmp_path: Path) -> None:
    data, extra = tmp_path / "data", tmp_path / "extra.bin"
    data.mkdir()
    (data / "a.png").write_bytes(b"1")
    extra.write_bytes(b"2")
    before = keys(bind(f"dataset={{use: files, path: {data}, more: [{extra}]}}"), STAGES)
    data.rename(tmp_path / "moved")
    extra.rename(tmp_path / "moved.bin")
    assert keys(bind(f"dataset={{use: files, path: {tmp_path}/moved, more: [{tmp_path}/moved.bin]}}"), STAGES) == before
    swapped = keys(bind(f"dataset={{use: files, path: {tmp_path}/moved.bin, more: [{tmp_path}/moved]}}"), STAGES)
    assert swapped["zoo"] != before["zoo"]
    without = keys(bind(f"dataset={{use: files, path: {tmp_path}/moved}}"), STAGES)
    assert without["zoo"] != before["zoo"]


def test_data_that_moved_unchanged_are_cached_and_changed_in_the_middle_are_not(go, why, tmp_path: Path) -> None:
    data, moved = tmp_path / "data", tmp_path / "moved"
    data.mkdir()
    (data / "large.png").write_bytes(bytes(100_000))
    here, there = (f"dataset={{use: files, path: {path}}}" for path in (data, moved))
    go(here)
    data.rename(moved)
    assert go(there) == [] and set(why(there).values()) == {"cached"}
    assert f"path: {moved}" in (tmp_path / "runs/tiny/recipe.yaml").read_text(), "where they lie now is written down"
    with (moved / "large.png").open("r+b") as stream:
        stream.seek(50_000)
        stream.write(b"1")
    assert why(there)["zoo"] == f"dataset.path {data} -> {moved}, which holds something else"
    assert why(there, "seed=3")["zoo"] == "seed 42 -> 3", "where they lie is no reason"
    go(there)
    (moved / "large.png").write_bytes(bytes(100_001))
    assert why(there)["zoo"] == "the files it reads, or a component's version, changed"


def test_a_file_that_cannot_be_read_is_the_users_error(bind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").write_text("x")
    recipe = bind(f"dataset={{use: files, path: {tmp_path}/data}}")

    def denied(path: Path) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("wspace.support.fingerprint.of_file", denied)
    with pytest.raises(FileError, match=rf"^{tmp_path}/data: cannot be read: Permission denied$"):
        keys(recipe, STAGES)


# ---------------------------------------------------------------- why


AFTER_TRAIN = ["follows train", "follows train, generate", "follows train, generate, evaluate"]


def test_before_the_first_run_nothing_is_done_yet(why) -> None:
    assert why() == dict.fromkeys(NAMES, "not done yet")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ((), ["cached"] * 6),
        (
            ("generator.denoiser.depth=8",),
            ["cached", "cached", "generator.denoiser.depth 2 -> 8", *AFTER_TRAIN],
        ),
        (("generate.steps=5", "generate.guidance=2"), [
            "cached", "cached", "cached", "generate.guidance 1.0 -> 2.0, generate.steps 20 -> 5",
            "follows generate", "follows generate, evaluate",
        ]),
        (("symmetry=flip",), [
            "cached", "cached", "symmetry.axes (absent) -> ['hidden'], symmetry.use (absent) -> flip",
            *AFTER_TRAIN,
        ]),
        (("metrics=[{use: count, most: 4}]",), [*["cached"] * 4, "metrics.0.most 3 -> 4", "follows evaluate"]),
    ],
)  # fmt: skip
def test_a_stage_says_why_it_runs(go, why, changes: tuple[str, ...], expected: list[str]) -> None:
    go()
    assert list(why(*changes).values()) == expected


def test_a_changed_version_is_told_as_such(go, why, tiny: Tiny) -> None:
    go()
    tiny.file.write_text(tiny.file.read_text().replace("version: ClassVar[int] = 3", "version: ClassVar[int] = 4"))
    read_class.cache_clear()
    assert why()["train"] == "the files it reads, or a component's version, changed"
    assert why()["generate"] == "follows train"


def test_two_settings_of_one_recipe_live_side_by_side(go, bind, tmp_path: Path) -> None:
    go()
    assert go("generate.steps=5") == NAMES[3:]
    root = tmp_path / "runs/tiny"
    assert (
        read_json(root / RUN)["stages"]["generate"]
        == Store(root).folder("generate", keys(bind("generate.steps=5"), TINY_STAGES)["generate"]).name
    )
    assert go() == [], "the first one's artifacts are still there"
    assert (
        read_json(root / RUN)["stages"]["generate"]
        == Store(root).folder("generate", keys(bind(), TINY_STAGES)["generate"]).name
    )
    assert read_recipe(root / "recipe.yaml").values["generate"]["steps"] == 20


# ---------------------------------------------------------------- force and only


def test_force_takes_the_later_stages_along(go, why) -> None:
    go()
    assert list(why(force=("generate",)).values()) == [
        "cached", "cached", "cached", "forced", "generate is redone", "generate, evaluate is redone",
    ]  # fmt: skip
    assert go(force=["generate"]) == NAMES[3:]
    assert go() == []


def test_a_forced_stage_starts_from_nothing(go, stages) -> None:
    go()
    go(force=["zoo"])
    assert [found for _, found, _ in stages.calls] == [[]] * 6


def test_interrupted_after_a_force_nothing_old_passes_for_new(go, stages) -> None:
    go()
    stages.fails["zoo"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        go(force=["zoo"])
    stages.fails.clear()
    assert go() == NAMES


def test_force_leaves_the_half_done_work_of_other_stages_alone(go, stages) -> None:
    stages.fails["train"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        go()
    stages.fails.clear()
    go(force=["report"])
    assert stages.calls[0] == ("train", ["elapsed.json", "half.txt"], ["zoo"])


def test_only_runs_one_stage(go, tmp_path: Path) -> None:
    assert go(only="zoo") == ["zoo"]
    assert not (tmp_path / "runs/tiny" / RUN).exists(), "not a finished run"
    assert go(only="zoo") == []
    assert go(only="train") == ["train"]
    assert go() == ["opponents", *NAMES[3:]]


def test_only_one_stage_forced_leaves_nothing_old_after_it(go) -> None:
    go()
    assert go(only="train", force=["train"]) == ["train"]
    assert go() == NAMES[3:]


def test_only_a_stage_whose_inputs_are_missing_is_refused(go) -> None:
    go(only="zoo")
    with pytest.raises(UserError) as caught:
        go(only="evaluate")
    assert str(caught.value) == "--only evaluate: it needs opponents, train, generate, not done yet for this recipe"


@pytest.mark.parametrize("options", [{"only": "zooo"}, {"force": ["zooo"]}])
def test_an_unknown_stage_is_told_the_known_ones(go, options: dict) -> None:
    with pytest.raises(UserError) as caught:
        go(**options)
    assert str(caught.value) == "no stage 'zooo': the stages are zoo, opponents, train, generate, evaluate, report"


# ---------------------------------------------------------------- failures


def test_a_source_that_changed_since_is_noted_but_not_redone(go, tiny: Tiny) -> None:
    go()
    tiny.file.write_text(tiny.file.read_text() + "\n# a comment\n")
    said = Said()
    assert go(progress=said) == []
    assert said.lines[:2] == [
        "zoo: cached, but tiny_parts changed since; --force zoo to redo",
        "train: cached, but tiny_parts changed since; --force train to redo",
    ]
    assert [line.partition(":")[0] for line in said.lines] == ["zoo", "train", "evaluate"]


def test_an_artifact_of_an_earlier_layout_of_the_code_is_told_in_one_sentence(go, bind, tmp_path: Path) -> None:
    go()
    file = Store(tmp_path / "runs/tiny").folder("zoo", keys(bind(), TINY_STAGES)["zoo"]) / MANIFEST
    before = dict.fromkeys(["wspace.stages.zoo", *(f"wspace.old.{n}" for n in range(4))], "0")
    write_manifest(file.parent, read_json(file) | {"sources": before})
    said = Said()
    assert go(progress=said) == []
    assert said.lines == [
        "zoo: cached, but made by code that was moved or removed since "
        "(wspace.stages.zoo, wspace.old.0, wspace.old.1 and 2 more); --force zoo to redo"
    ]


def test_editing_any_module_that_computes_marks_the_stages_that_it_computes_stale() -> None:
    """Also one that neither a stage nor a component imports itself, or only inside a function."""
    recipe = bind_recipe(read_recipe(packaged_recipes()["nano"]), load_plugins().registry)
    behind = {stage.name: set(sources_of(modules_of(recipe, stage))) for stage in STAGES}
    assert {"wspace.learning.fitting", "wspace.support.seeding", "wspace.interfaces.targets"} <= behind["zoo"]
    assert {"wspace.learning.denoising", "wspace.learning.system", "wspace.learning.fitting"} <= behind["train"]
    for name, modules in behind.items():
        planning = {m for m in modules if m.startswith(("wspace.cli", "wspace.uses")) or m == "wspace.runs.pipeline"}
        assert not planning, f"{name}: these only plan and print"


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_a_failure_leaves_what_was_done_and_the_next_run_goes_on(
    go, stages, bind, tmp_path: Path, error: BaseException
) -> None:
    stages.fails["generate"] = error
    with pytest.raises(type(error)):
        go()
    root = tmp_path / "runs/tiny"
    assert not (root / RUN).exists()
    partial = Store(root).folder("generate", keys(bind(), TINY_STAGES)["generate"]).name + ".partial"
    assert sorted(os.listdir(root / partial)) == ["elapsed.json", "half.txt"]
    (root / partial / "elapsed.json").write_text("100.0")
    stages.fails.clear()
    assert go() == NAMES[3:]
    assert stages.calls[0] == ("generate", ["elapsed.json", "half.txt"], ["zoo", "train"])
    manifest = Store(root).manifest("generate", keys(bind(), TINY_STAGES)["generate"])
    assert 100 <= manifest["seconds"] < 200, "the time of both attempts"
    assert not (root / partial).exists()


def test_a_full_disk_is_one_sentence_and_the_next_run_goes_on(go, stages) -> None:
    stages.fails["train"] = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(
        DiskError,
        match=r"train-\w{12}\.partial: cannot be written: No space left on device; the same command goes on",
    ):
        go()
    stages.fails.clear()
    assert go() == NAMES[2:]


def test_a_disk_full_at_the_very_end_leaves_the_old_record(go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go()
    root = tmp_path / "runs/tiny"
    before = (root / RUN).read_bytes(), (root / "recipe.yaml").read_bytes()

    def full(path: Path, *_: object, **__: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(DiskError, match=rf"^{root}: cannot be written: No space left on device"):
            go()
    assert ((root / RUN).read_bytes(), (root / "recipe.yaml").read_bytes()) == before


def test_a_manifest_taken_away_means_redoing_that_stage(go, bind, tmp_path: Path) -> None:
    go()
    (Store(tmp_path / "runs/tiny").folder("train", keys(bind(), TINY_STAGES)["train"]) / MANIFEST).unlink()
    assert go() == ["train"]


def test_a_stage_taken_away_is_not_done_yet(go, why, bind, tmp_path: Path) -> None:
    go()
    shutil.rmtree(Store(tmp_path / "runs/tiny").folder("report", keys(bind(), TINY_STAGES)["report"]))
    assert list(why().values()) == ["cached"] * 5 + ["not done yet"]


def test_a_file_in_place_of_the_runs_folder_is_the_users_error(go, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match=rf"^{tmp_path}/runs: not a folder$"):
        go()


def test_slots_are_flat_and_reach_into_nested_components(bind) -> None:
    train = next(stage for stage in STAGES if stage.name == "train")
    slots = slots_of(bind(), train)
    assert (
        slots["generator.use"] == "noise" and slots["generator.denoiser.pair"] == [1, 2] and slots["symmetry"] is None
    )
    known_as = {"texts" if slot == "wording" else slot for slot in train.reads}
    assert {name.partition(".")[0] for name in slots} == known_as - {"reconstruction", "auxiliary"}  # which came later
    assert not any(isinstance(value, dict) for value in slots.values())


def test_what_a_killed_process_began_to_write_is_no_part_of_an_artifact(go, bind, tmp_path: Path) -> None:
    at = keys(bind(), TINY_STAGES)
    partial = Store(tmp_path / "runs/tiny").folder("zoo", at["zoo"]).with_suffix(".partial")
    (partial / "deeper").mkdir(parents=True)
    for name in (".tmpY4M8Ec", "deeper/.zoo.wspace-other-1"):
        (partial / name).write_text("half")
    go()
    assert not [file for file in partial.with_suffix("").rglob(".*") if file.is_file()]
