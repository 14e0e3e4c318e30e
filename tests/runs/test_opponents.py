"""Opponents from outside: a plugin of one file, from a recipe's `against` to the scores; and what keys know of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.stand_ins import registry
from tests.support.synthetic import RECIPE, bench_of, run
from wspace.recipes.bind import bind
from wspace.recipes.plugins import load_plugins
from wspace.recipes.schema import BoundRecipe
from wspace.recipes.source import read_recipe
from wspace.runs.artifacts import TrainedOpponents, Zoo, chosen_of
from wspace.runs.keys import keys, slots_of
from wspace.runs.pipeline import STAGES
from wspace.runs.report.methods import methods_of
from wspace.support.errors import RecipeError, UserError, WspaceError
from wspace.support.files import read_json

PLUGIN = '''import wspace
from wspace.api import Opponent


@wspace.hookimpl
def wspace_register(register):
    register("opponent", "half-way", "rivals:HalfWay")
    register("opponent", "one-step", "rivals:OneStep")
    register("opponent", "too-few", "rivals:TooFew")


class HalfWay(Opponent):
    """Half-way from the base to the zoo's mean, or a share of the way that is set."""

    what = "half-way from the base to the mean of the training weights"
    called = "the half-way point"
    place = 45

    def __init__(self, share: float = 0.5):
        self.share = share

    def choose(self, evidence):
        return {"share": self.share}

    def weights(self, evidence, contest):
        return evidence.base.lerp(evidence.weights.mean(0), self.share)


class OneStep(Opponent):
    """A few steps from the base, on images."""

    what = "a few steps of training on the task's images"
    called = "a few steps"
    place = 55
    prominence = "headline"
    trains_on_images = True

    def choose(self, evidence):
        return {"steps": 9.0}

    def weights(self, evidence, contest):
        start = evidence.base.expand(len(contest.tasks), -1)
        rng = evidence.rng("one-step", contest.split)
        return evidence.fit(start, contest.tasks, rng, steps=9, batch=16, lr=0.05, check_every=1, patience=9)[0]


class TooFew(Opponent):
    """One task is left out."""

    what = "all but one"
    called = "too few"
    place = 1

    def weights(self, evidence, contest):
        return evidence.base.expand(len(contest.tasks) - 1, -1)
'''
AGAINST = "against=[oracle, ridge, {use: half-way, share: 0.25}, one-step]"
MADE = ("zoo", "opponents", "train", "generate", "evaluate")


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "rivals.py"
    file.write_text(PLUGIN, encoding="utf-8")
    yield file
    sys.modules.pop("rivals", None)


def bound(folder: Path, *settings: str, plugins: tuple[Path, ...] = ()) -> BoundRecipe:
    file = folder / "synthetic.yaml"
    file.write_text(RECIPE, encoding="utf-8")
    return bind(read_recipe(file, settings), registry(plugins))


def test_a_plugin_of_one_file_adds_opponents_of_both_sorts(plugin: Path, tmp_path: Path) -> None:
    recipe = bound(tmp_path, AGAINST, plugins=(plugin,))
    run(recipe, bench_of(recipe), tmp_path, *MADE)
    scores = read_json(tmp_path / "evaluate/scores.json")["scores"]
    assert list(dict.fromkeys(row["method"] for row in scores)) == [
        "generated",
        "oracle",
        "ridge",
        "half-way",
        "one-step",
    ]
    assert {row["split"] for row in scores if row["method"] == "one-step"} == {"seen", "unseen-tasks", "unseen-classes"}
    zoo, trained = Zoo(tmp_path / "zoo"), TrainedOpponents(tmp_path / "opponents")
    tasks = zoo.tasks.scored("seen")
    expected = bench_of(recipe).accuracies(
        zoo.base.lerp(zoo.weights.mean(0), 0.25).expand(len(tasks), -1), tasks, bench_of(recipe).test
    )
    assert torch.equal(load_file(tmp_path / "evaluate/per-task.safetensors")["seen/accuracy/half-way"], expected)
    steps = trained.weights("one-step", "seen")
    assert steps.shape == (len(tasks), zoo.base.shape[0]) and (steps != zoo.base).any()
    chosen = chosen_of(tmp_path / "evaluate")
    assert chosen.pop("ridge_penalty") > 0
    assert chosen == {"oracle_rate": 0.01, "half-way_share": 0.25, "one-step_steps": 9.0}
    assert not (tmp_path / "opponents/universal.safetensors").exists()
    with pytest.raises(
        UserError, match=r"^this run has no opponent 'universal' that trains on images; its recipe leaves it"
    ):
        _ = trained.universal


def test_tables_have_a_plugins_opponents_in_their_place(plugin: Path) -> None:
    table = methods_of(load_plugins((plugin,), allowed="").registry.all("opponent"))
    assert table.order == [
        "oracle", "too-few", "generated", "more-pictures", "few-pictures", "ridge", "retrieval", "aligned-soup", "zoo-mean",
        "tip-linear", "half-way", "text-prototype", "eszsl", "shrunk-mean", "logistic", "base", "nearest-mean", "one-step",
        "universal", "last-layer", "pca-gaussian", "gaussian", "noise", "mismatched", "random",
    ]  # fmt: skip
    assert table.headline == ("last-layer", "universal", "one-step", "ridge", "oracle")
    assert table.novel == ("generated", "noise", "gaussian", "pca-gaussian", "aligned-soup", "retrieval", "oracle")
    assert table.of_several == (
        "oracle", "too-few", "generated", "more-pictures", "few-pictures", "ridge", "retrieval", "aligned-soup", "zoo-mean",
        "tip-linear", "half-way", "text-prototype", "eszsl", "shrunk-mean", "logistic", "nearest-mean", "one-step", "universal",
        "last-layer", "random",
    )  # fmt: skip
    assert table.what("half-way") == "half-way from the base to the mean of the training weights"
    assert (table.called("one-step"), table.called("of no plugin here")) == ("a few steps", "of no plugin here")


def test_networks_of_another_shape_are_told(plugin: Path, tmp_path: Path) -> None:
    recipe = bound(tmp_path, "against=[oracle, too-few]", plugins=(plugin,))
    size = bench_of(recipe).target.spec.size
    with pytest.raises(WspaceError) as caught:
        run(recipe, bench_of(recipe), tmp_path, *MADE)
    assert str(caught.value) == (
        f"opponent 'too-few' gave weights of shape (5, {size}) for 6 tasks; (6, {size}) is right, or ({size},) for one network"
    )


def test_an_interrupted_stage_keeps_what_is_whole(tmp_path: Path) -> None:
    recipe = bound(tmp_path)
    run(recipe, bench_of(recipe), tmp_path, "zoo", "opponents")
    folder = tmp_path / "opponents"
    before = {file.name: file.read_bytes() for file in folder.glob("*.safetensors")}
    assert sorted(before) == [
        "oracle-seen.safetensors", "oracle-unseen-classes.safetensors", "oracle-unseen-tasks.safetensors",
        "universal.safetensors",
    ]  # fmt: skip
    kept = folder / "oracle-seen.safetensors"
    mark = kept.stat().st_mtime_ns
    (folder / "oracle-unseen-tasks.safetensors").unlink()
    (folder / "universal.safetensors").write_bytes(before["universal.safetensors"][:100])
    run(recipe, bench_of(recipe), tmp_path, "opponents")
    assert {file.name: file.read_bytes() for file in folder.glob("*.safetensors")} == before
    assert kept.stat().st_mtime_ns == mark


# ---------------------------------------------------------------- recipes and keys


@pytest.mark.parametrize(
    ("against", "message"),
    [
        ("[universal]", "against: name 'oracle' among them: metrics are measured from its networks"),
        ("[oracle, base, base]", "against.2: the opponent 'base' is named twice"),
        ("[oracle, ridge-line]", "against.1.use: no opponent named 'ridge-line'. Did you mean 'ridge'?"),
        ("oracle", "against: expected a list, got 'oracle'"),
    ],
)
def test_what_a_recipe_may_not_name(tmp_path: Path, against: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        bound(tmp_path, f"against={against}")
    assert message in str(caught.value)


def test_keys_know_of_opponents_where_a_recipe_chooses_them_alone(plugin: Path, tmp_path: Path) -> None:
    """The stages' artifacts are older than the choice."""
    default = bound(tmp_path)
    for stage in STAGES:
        assert not any(name.startswith("against") for name in slots_of(default, stage))

    def changed(against: str) -> list[str]:
        other = keys(bound(tmp_path, f"against={against}", plugins=(plugin,)), STAGES)
        return [name for name, key in keys(default, STAGES).items() if other[name] != key]

    assert changed(f"[{', '.join(bound.name for bound in default.against)}]") == []
    assert changed("[oracle, universal, ridge]") == ["evaluate", "report"]
    assert changed("[oracle, universal, half-way]") == ["evaluate", "report"]
    assert changed("[oracle, one-step]") == ["opponents", "evaluate", "report"]
