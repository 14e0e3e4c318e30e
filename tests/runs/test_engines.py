"""Engines: whoever does the parts of a run, and in whatever order, its bytes are the same; what goes wrong is one sentence."""

from __future__ import annotations

import json
import os
import platform
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from tests.support.synthetic import Said
from tests.support.undrawn import undrawn
from wspace.api import Engine
from wspace.components.engines.local import Local
from wspace.recipes.bind import bind
from wspace.recipes.plugins import load_plugins
from wspace.recipes.registry import Component
from wspace.recipes.schema import BoundRecipe
from wspace.recipes.source import find_recipe, read_recipe
from wspace.runs import pipeline
from wspace.runs.joint import running as joint
from wspace.runs.joint.file import bind_joint
from wspace.runs.keys import keys
from wspace.runs.pieces import Noted, answered, bound_of, do_part, told_of, work_off
from wspace.runs.pipeline import STAGES
from wspace.runs.study import running as study
from wspace.runs.study.file import bind_study
from wspace.support.errors import UserError, WspaceError
from wspace.support.progress import Progress

pytestmark = pytest.mark.plugins("t2w")
SMALL = (
    "tasks.seen=24", "tasks.unseen=8", "tasks.unseen_orders=0", "tasks.evaluate=4", "zoo.together=8", "zoo.base_steps=10",
    "zoo.steps=5", "opponents.steps=5", "task_loss.steps=2", "task_loss.check_every=1", "train.steps=2", "train.check_every=1",
    "evaluate.bootstrap=100",
)  # fmt: skip


class Scattered(Engine):
    """Does each piece twice, the last one first, as other processes would: by its text alone."""

    opened: ClassVar[list[str]] = []

    def open(self) -> None:
        self.opened.append("opened")

    def work(self, do: Callable[[str], str], pieces: Sequence[str]) -> Iterator[tuple[int, str]]:
        for number in reversed(range(len(pieces))):
            first = do(pieces[number])
            assert json.loads(do(pieces[number]))["result"] == json.loads(first)["result"]
            yield number, first

    def close(self) -> None:
        self.opened.append("closed")


class Unreachable(Scattered):
    def __init__(self) -> None: ...

    def open(self) -> None:
        raise UserError("nobody answers")


def registry() -> Any:
    components = load_plugins().registry
    for name in ("Scattered", "Unreachable"):
        components.add(Component("engine", name.lower(), f"{__name__}:{name}", "tests"))
    return components


def recipe_of(*settings: str) -> BoundRecipe:
    return bind(read_recipe(find_recipe("apart/nano-ordered"), (*SMALL, *settings)), registry())


def contents(folder: Path) -> dict[str, bytes]:
    """Of every file but those that say when it was made, and how long that took."""
    told = ("artifact.json", "elapsed.json", "report.json", "report.html", "summary.json")
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name not in told]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


# ---------------------------------------------------------------- the same bytes


@pytest.fixture(scope="module", autouse=True)
def no_figures() -> Iterator[None]:
    with undrawn():
        yield


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, by this process alone."""
    return pipeline.run(recipe_of(), tmp_path_factory.mktemp("alone"), Progress())[0]


def test_no_byte_depends_on_who_does_the_parts_nor_in_which_order(alone: Path, tmp_path: Path) -> None:
    Scattered.opened.clear()
    scattered, _ = pipeline.run(recipe_of("engine=scattered"), tmp_path / "scattered", Progress())
    assert contents(alone) == contents(scattered) and len(contents(alone)) > 15
    assert Scattered.opened == ["opened", "closed"]
    assert all(
        step.action == "cached" for step in pipeline.run(recipe_of("engine=scattered"), alone.parent, Progress())[1]
    )
    assert Scattered.opened == ["opened", "closed"]  # nobody is asked for nothing


@pytest.mark.slow
def test_members_of_a_study_run_elsewhere_stage_by_stage_and_share_what_they_can(alone: Path, tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(
        "study: apart/nano-ordered\nseeds: [42]\nvariants: {as it is: {}, narrow: {generator.denoiser.width: 8}}\n",
        "utf-8",
    )
    settings, said = [*SMALL, "engine=scattered"], Said()
    folder, _ = study.run(bind_study(read_recipe(tmp_path / "two.yaml"), registry(), settings), tmp_path / "runs", said)
    here, there = contents(alone), contents(folder / "as-it-is-42")
    assert {file: there[file] for file in here if Path(file).suffix == ".safetensors"} == {
        file: content for file, content in here.items() if Path(file).suffix == ".safetensors"
    }
    assert (
        said.lines.count("zoo starts") == 1 and said.lines.count("train starts") == 1
    )  # a note of several is said once
    made = [file.stat().st_ino for file in sorted(folder.glob("*/zoo-*/networks-0000.safetensors"))]
    assert len(made) == 2 and len(set(made)) == 1  # made once, linked once


# ---------------------------------------------------------------- what goes wrong


def test_an_engine_that_cannot_be_reached_ends_the_run_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="^nobody answers$"):
        pipeline.run(recipe_of("engine=unreachable"), tmp_path / "runs", Progress())
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_cannot_be_reached_ends_a_study_and_a_joint_recipe_so(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(
        "study: apart/nano-ordered\nseeds: [42]\nvariants: {as it is: {}, narrow: {generator.denoiser.width: 8}}\n",
        "utf-8",
    )
    (tmp_path / "joined.yaml").write_text("joint: igpg-member\nmembers: {a: {}}\n", "utf-8")
    two = bind_study(read_recipe(tmp_path / "two.yaml"), registry(), [*SMALL, "engine=unreachable"])
    joined = bind_joint(read_recipe(tmp_path / "joined.yaml"), registry(), ["tasks.seen=20", "engine=unreachable"])
    workshop = replace(pipeline.WORKSHOP, check=lambda recipes, workbench: None)  # which would render pictures
    for run in (
        lambda: study.run(two, tmp_path / "runs", Progress(), workshop=workshop),
        lambda: joint.run(joined, tmp_path / "runs", Progress(), workshop=workshop),
    ):
        with pytest.raises(UserError, match="^nobody answers$"):
            run()
        assert not (tmp_path / "runs").exists()


def test_an_engine_that_cannot_be_reached_throws_nothing_away(alone: Path, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("study: apart/nano-ordered\nseeds: [42]\nvariants: {as it is: {}}\n", "utf-8")

    def run(*settings: str, **force: Sequence[str]) -> Path:
        bound = bind_study(read_recipe(tmp_path / "one.yaml"), registry(), [*SMALL, *settings])
        return study.run(bound, alone.parent, Progress(), **force)[0]

    before = contents(run())
    with pytest.raises(UserError, match="^nobody answers$"):
        run("engine=unreachable", force=["report"])
    assert contents(alone.parent / "one") == before


def test_an_engine_cannot_be_had_beside_a_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError) as caught:
        pipeline.run(recipe_of("engine=scattered"), tmp_path, Progress())
    assert (
        str(caught.value)
        == "engine 'scattered': the processes of a launcher are an engine by themselves; leave one out"
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"versions": {"wspace": "0.1"}}, "has wspace 0.2.0.dev0, and the run 0.1: install the same"),
        ({"plugins": {"t2w": "wspace-t2w 9"}}, "has wspace-t2w {}, and the run has wspace-t2w 9: install the same"),
        ({"plugins": {"x": "its-x 1"}}, "lacks the plugin 'x', and the run has its-x 1: install the same"),
        ({"plugin_files": ["/no/x.py"]}, "/no/x.py: no such plugin file"),
        ({"folder": "/no"}, "there is no folder /no: the run's folder has to lie where every worker sees it"),
    ],
)
def test_a_worker_that_cannot_help_says_who_it_is_and_why(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    from importlib.metadata import version

    told = (
        told_of(recipe_of()) | {"folder": str(tmp_path), "inputs": {}, "cache": str(tmp_path), "host": "desk"} | change
    )
    answer = json.loads(do_part(json.dumps({"job": told, "function": "zoo:shard", "part": 0})))
    expected = sentence.format(version("wspace-t2w"))
    assert answer["error"] == [
        "FileError" if "plugin_files" in change else "UserError",
        f"worker {platform.node()}: {expected}",
    ]


def test_an_error_in_a_piece_ends_the_run_as_it_would_have_here(tmp_path: Path) -> None:
    def failing(piece: str) -> str:
        def work(notes: list[str]) -> None:
            notes.append("note: first")
            raise WspaceError("it went wrong")

        return answered(told_of(recipe_of()), work)

    said = Said()
    with pytest.raises(WspaceError, match="^it went wrong$") as caught:
        list(work_off(Scattered(), failing, [{}, {}], said, "work"))
    assert type(caught.value) is WspaceError and said.lines == ["note: first"]


def test_a_warning_of_a_member_says_whose_it_is() -> None:
    ours, of_member = Noted([]), Noted([], "narrow-42")
    for progress in (ours, of_member):
        for text in ("zoo starts", "warning: it ignores: all", "note: seen"):
            progress.say(text)
    assert ours.texts == ["zoo starts", "warning: it ignores: all", "note: seen"]
    assert of_member.texts == ["zoo starts", "warning: narrow-42: it ignores: all", "note: narrow-42: seen"]


def test_a_recipe_is_the_same_recipe_elsewhere() -> None:
    recipe = recipe_of("engine=scattered")
    there = bound_of(json.loads(json.dumps(told_of(recipe))))
    assert there.decisive == recipe.decisive and there.engine is None
    assert keys(there, STAGES) == keys(recipe, STAGES)


def killed(piece: str) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return piece


def cores(piece: str) -> str:
    return f"{piece} {torch.get_num_threads()}"


@pytest.mark.slow
def test_workers_of_this_machine_share_its_cores_and_one_that_is_killed_is_one_sentence() -> None:
    engine = Local(2)
    engine.open()
    share = max(1, torch.get_num_threads() // 2)
    assert dict(engine.work(cores, ["a", "b"])) == {0: f"a {share}", 1: f"b {share}"}
    with pytest.raises(WspaceError) as caught:
        list(engine.work(killed, ["a"]))
    engine.close()
    assert str(caught.value) == (
        "engine 'local': a worker process was killed, perhaps for want of memory; the same command goes on from here"
    )
