"""Trackers: they see every step once, however a run is interrupted, and no byte of it depends on them."""

from __future__ import annotations

import json
import shutil
import struct
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.stand_ins import registry
from tests.support.synthetic import RECIPE, Said, bench_of
from wspace.components.trackers.jsonl import Jsonl
from wspace.recipes.bind import bind
from wspace.recipes.registry import Component
from wspace.recipes.schema import BoundRecipe
from wspace.recipes.source import parse_recipe
from wspace.runs import pipeline
from wspace.runs.keys import keys
from wspace.runs.pipeline import STAGES, Workshop
from wspace.runs.stages.train import _Validation
from wspace.runs.tracking import Tracking
from wspace.support.errors import MissingPackage, RecipeError
from wspace.support.files import read_json
from wspace.support.names import REPORT, RUN

SYNTHETIC = Workshop(tuple(s for s in STAGES if s.name in ("zoo", "train")), lambda recipe, progress: bench_of(recipe))
"""Two real stages, on clouds of points."""

PHASES = {"task": 4, "train": 6}
"""Phases of the recipe's training, and steps of each."""

Curves = dict[str, list[tuple[int, float]]]
"""`train/loss` -> (step, value) of each point, in the order in which they are kept."""


class Failing(Jsonl):
    """Finds the disk full at a step in the middle."""

    def __init__(self) -> None: ...

    def scalars(self, phase: str, step: int, values: Mapping[str, float]) -> None:
        if (phase, step) == ("task", 4):
            raise OSError(28, "No space left on device")
        super().scalars(phase, step, values)


def recipe_of(tracker: str = "[]") -> BoundRecipe:
    components = registry()
    components.add(Component("tracker", "failing", f"{__name__}:Failing", "tests"))
    return bind(parse_recipe(f"{RECIPE}tracker: {tracker}\n", "synthetic.yaml"), components)


def run(recipe: BoundRecipe, runs: Path, **how: Any) -> list[str]:
    """What it said."""
    said = Said()
    pipeline.run(recipe, runs, said, workshop=SYNTHETIC, **how)
    return said.lines


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs, in which the zoo is made."""
    runs = tmp_path_factory.mktemp("begun")
    run(recipe_of(), runs, only="zoo")
    return runs


@pytest.fixture
def runs(begun: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(begun, tmp_path / "runs")


def interrupted(recipe: BoundRecipe, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends by Ctrl-C at the second look of its last phase, three steps after the last checkpoint."""
    looks = [0]
    look = _Validation.of_samples

    def stopping(self: Any) -> float:
        looks[0] += 1
        if looks[0] == 2:
            raise KeyboardInterrupt
        return look(self)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(_Validation, "of_samples", stopping)
        run(recipe, runs)


def log_of(runs: Path) -> Curves:
    """What trackers should have, but for learning rates: `log.jsonl` of the finished training."""
    (file,) = (runs / "synthetic").glob("train-*/log.jsonl")
    curves: Curves = defaultdict(list)
    for entry in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
        phase, step, terms = entry.pop("phase"), entry.pop("step"), entry.pop("terms", {})
        discriminator = {f"discriminator/{name}": value for name, value in entry.pop("discriminator", {}).items()}
        for name, value in (entry | discriminator | {f"terms/{term}": value for term, value in terms.items()}).items():
            curves[f"{phase}/{name}"].append((step, value))
    assert {phase: len(curves[f"{phase}/loss"]) for phase in PHASES} == PHASES
    return curves


def check(curves: Curves, runs: Path, rounding: float = 0.0) -> None:
    """All of the log's points once, in order; and learning rates that rise and fall to nearly 0."""
    rates = {phase: [value for _, value in curves.pop(f"{phase}/learning_rate")] for phase in PHASES}
    assert {phase: len(of_phase) for phase, of_phase in rates.items()} == PHASES
    assert rates["train"][0] == pytest.approx(1e-2) and 0 < rates["train"][-1] < 1e-3
    expected = log_of(runs)
    assert curves.keys() == expected.keys()
    for name, points in expected.items():
        assert [step for step, _ in curves[name]] == [step for step, _ in points], name
        assert [value for _, value in curves[name]] == pytest.approx([v for _, v in points], rel=rounding, abs=0), name


def of_jsonl(runs: Path) -> Curves:
    (file,) = (runs / "synthetic/tracking/jsonl").glob("*/log.jsonl")
    curves: Curves = defaultdict(list)
    for line in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
        if "phase" in line:
            phase, step = line.pop("phase"), line.pop("step")
            for name, value in line.items():
                curves[f"{phase}/{name}"].append((step, value))
    return curves


def of_tensorboard(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (run,) = folder.iterdir()
    return EventAccumulator(str(run), {"scalars": 0, "images": 0, "tensors": 0}).Reload()


def scalars_of(events: Any) -> Curves:
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def of_wandb(file: Path) -> Iterator[Any]:
    """The records of an offline run: LevelDB's log format, after a head of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    content, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, part = struct.unpack_from("<IHB", content, at)
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if part in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


# ---------------------------------------------------------------- what a run leaves


def test_no_byte_of_a_run_depends_on_its_trackers(runs: Path, tmp_path: Path) -> None:
    other = shutil.copytree(runs, tmp_path / "other")
    run(recipe_of(), runs)
    run(recipe_of("[jsonl, tensorboard]"), other)
    left = {file.relative_to(runs): file.read_bytes() for file in runs.rglob("*") if file.is_file()}
    for name, content in left.items():
        if name.name not in ("artifact.json", "elapsed.json"):  # when and how long
            assert (other / name).read_bytes() == content, name
    more = {file.relative_to(other) for file in other.rglob("*") if file.is_file()} - left.keys()
    assert more and {name.parts[:2] for name in more} == {("synthetic", "tracking")}


def test_no_key_knows_of_trackers_and_nothing_has_to_run_for_another(runs: Path) -> None:
    plain, tracked = recipe_of(), recipe_of("[jsonl]")
    assert keys(plain, STAGES) == keys(tracked, STAGES)
    run(plain, runs)
    assert [line.partition(":")[0] for line in run(tracked, runs)] == ["tracker 'jsonl'"]
    check(of_jsonl(runs), runs)


def test_a_run_that_is_done_gives_a_tracker_nothing_twice(runs: Path) -> None:
    recipe = recipe_of("[jsonl]")
    run(recipe, runs)
    files = {file: file.stat().st_mtime_ns for file in (runs / "synthetic/tracking").rglob("*")}
    run(recipe, runs)
    assert {file: file.stat().st_mtime_ns for file in (runs / "synthetic/tracking").rglob("*")} == files


def test_a_finished_run_gives_its_report_to_a_tracker_that_comes_later(nano: Path, inside: Any) -> None:
    report = read_json(nano / read_json(nano / RUN)["stages"]["report"] / REPORT)
    done = inside("run", "nano", "--runs", nano.parent, "--set", "tracker=[tensorboard, jsonl]")
    assert done.returncode == 0 and "nothing has changed: no stage had to run" in done.stdout
    events = of_tensorboard(nano / "tracking/tensorboard")
    assert len(scalars_of(events)["train/loss"]) == 40
    (table,) = [event.tensor_proto.string_val[0].decode() for event in events.Tensors("report/scores/text_summary")]
    lines = table.splitlines()
    assert lines[0] == "| split | method | metric | mean | ci_low | ci_high | n |" and len(lines) == 2 + len(
        report["scores"]
    )
    (sheet,) = events.Images("report/pictures")
    assert sheet.width > 1000 and sheet.height > 500
    pictures = {file.stem for file in (nano / "tracking/jsonl").glob("*/*.png")}
    assert pictures == {tag.removeprefix("report/") for tag in events.Tags()["images"]}
    assert pictures == {
        "scores",
        "differences",
        "tasks",
        "training",
        "trajectory",
        "accurate-and-new-frontier",
        "pictures",
    }


# ---------------------------------------------------------------- going on


def test_an_interrupted_run_goes_on_in_the_same_run_of_tensorboard(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of("[jsonl, tensorboard]")
    interrupted(recipe, runs, monkeypatch)
    folder = runs / "synthetic/tracking/tensorboard"
    assert [step for step, _ in scalars_of(of_tensorboard(folder))["train/loss"]] == [1, 2, 3]
    run(recipe, runs)
    events = of_tensorboard(folder)
    check(scalars_of(events), runs, rounding=1e-6)
    check(of_jsonl(runs), runs)
    (text,) = [event.tensor_proto.string_val[0].decode() for event in events.Tensors("recipe/text_summary")]
    assert "  steps: 6" in text or "steps: 6" in text
    assert "tracker" not in text


def test_an_interrupted_run_goes_on_in_the_same_run_of_trackio(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of("[{use: trackio, project: curves}]")
    interrupted(recipe, runs, monkeypatch)
    run(recipe, runs)
    from trackio.sqlite_storage import SQLiteStorage

    (name,) = SQLiteStorage.get_runs("curves")
    curves: Curves = defaultdict(list)
    for line in SQLiteStorage.get_logs("curves", name):
        step = line.pop("step")
        for key, value in line.items():
            if key != "timestamp":
                curves[key].append((step, value))
    check(curves, runs)
    assert SQLiteStorage.get_run_config("curves", name)["train"]["steps"] == 6


@pytest.mark.slow
def test_an_interrupted_run_goes_on_under_the_same_id_of_wandb(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of("[wandb]")
    interrupted(recipe, runs, monkeypatch)
    assert not [line for line in run(recipe, runs) if line.startswith("warning")]
    folder = runs / "synthetic/tracking/wandb/wandb"
    curves: Curves = defaultdict(list)
    ids, configs, counts = set(), [], []
    for file in sorted(folder.glob("offline-run-*/*.wandb")):
        for record in of_wandb(file):
            if record.HasField("run"):
                ids.add(record.run.run_id)
                configs.append({one.key: json.loads(one.value_json) for one in record.run.config.update})
            values = {(one.key or "/".join(one.nested_key)): json.loads(one.value_json) for one in record.history.item}
            counts += [values["_step"]] if values else []
            for phase in PHASES:
                if f"{phase}/step" in values:
                    step = values.pop(f"{phase}/step")
                    for name, value in values.items():
                        if name.startswith(f"{phase}/"):
                            curves[name].append((step, value))
    assert len(ids) == 1 and len(configs) == 2 and configs[0]["train"]["steps"] == 6
    assert counts == list(range(10))
    check(curves, runs)


def test_what_was_not_kept_when_a_process_was_killed_is_given_again(tmp_path: Path) -> None:
    """No block is left here: as if the process had been killed."""
    first, second = (Remembering(keeps) for keeps in (True, False))
    log = [{"step": step, "loss": 1 / step} for step in range(1, 7)]
    for given in (3, 6):
        trackers = {"first": first, "second": second}
        Tracking(recipe_of(), trackers, tmp_path, "key", Said()).curves("train", log[:given])
    assert first.steps == [1, 2, 3, 4, 5, 6] and second.steps == [1, 2, 3, 1, 2, 3, 4, 5, 6]
    assert first.starts == [(first.starts[0][0], False), (first.starts[0][0], True)] == second.starts


class Remembering(Jsonl):
    """Has nothing but a memory."""

    def __init__(self, keeps: bool):
        self.keeps, self.steps, self.starts = keeps, list[int](), list[tuple[str, bool]]()

    def start(self, name: str, identity: str, config: Mapping[str, Any], folder: Path, resumed: bool) -> None:
        self.starts.append((identity, resumed))

    def scalars(self, phase: str, step: int, values: Mapping[str, float]) -> None:
        self.steps.append(step)

    def flush(self) -> bool:
        return self.keeps


def test_a_training_that_was_forced_is_another_run_in_the_trackers(runs: Path) -> None:
    recipe = recipe_of("[jsonl]")
    run(recipe, runs)
    run(recipe, runs, force=["train"])
    files = list((runs / "synthetic/tracking/jsonl").glob("*/log.jsonl"))
    assert len(files) == 2
    assert {len(file.read_text(encoding="utf-8").splitlines()) for file in files} == {1 + sum(PHASES.values())}


# ---------------------------------------------------------------- what goes wrong


def test_a_tracker_that_fails_is_told_once_and_the_run_goes_on(runs: Path, tmp_path: Path) -> None:
    other = shutil.copytree(runs, tmp_path / "other")
    run(recipe_of(), runs)
    said = run(recipe_of("[failing, jsonl]"), other)
    (warning,) = [line for line in said if line.startswith("warning")]
    assert warning.startswith(
        "warning: tracker 'failing' failed, and is given no more for now; the run goes on without: OSError: [Errno 28] No "
        "space left on device (test_tracking.py, line "
    )
    check(of_jsonl(other), other)
    (here,), (there,) = (list(place.glob("synthetic/train-*/generator.safetensors")) for place in (runs, other))
    assert here.read_bytes() == there.read_bytes()


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb"])
def test_a_library_that_is_not_installed_is_told_before_anything_is_done(
    name: str, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(MissingPackage) as caught:
        run(recipe_of(f"[{name}]"), runs, force=["zoo"])
    assert str(caught.value) == f"tracker '{name}' needs the package {name}: pip install \"wspace[{name}]\""
    assert list(runs.glob("synthetic/zoo-*")), "nothing was thrown away"


@pytest.mark.parametrize(
    ("tracker", "said"),
    [
        ("[jsonl, tensorboard, jsonl]", "tracker.2: the tracker 'jsonl' is named twice"),
        ("[tensorbord]", "tracker.0.use: no tracker named 'tensorbord'. Did you mean 'tensorboard'? Known: "),
        ("tensorboard", "tracker: expected a list, got 'tensorboard'"),
    ],
)
def test_a_wrong_tracker_is_a_problem_of_the_recipe(tracker: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_of(tracker)
    assert said in str(caught.value)
