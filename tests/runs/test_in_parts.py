"""Runs whose networks are taken in parts (`train.tokens`): every stage, what they leave out, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.synthetic import bench_of, recipe_of, run
from wspace.recipes.schema import BoundRecipe
from wspace.runs.artifacts import Zoo
from wspace.runs.checking import check
from wspace.runs.keys import keys
from wspace.runs.pipeline import STAGES
from wspace.support.errors import UserError
from wspace.support.files import read_json
from wspace.weights.novelty import Neighbourhood
from wspace.weights.zoo.format import StoredZoo

MADE = ("zoo", "opponents", "train", "generate", "evaluate")
SETTINGS = (
    "target={use: module, architecture: {use: mlp, hidden: [8], norm: batch}, temperature: 10}",
    "tasks.evaluate=3",
    "tokenizer={use: chunk, size: 8, scale: none}",
    "generator={use: flow, denoiser: {use: by-token, width: 16, depth: 1}, predictor: null}",
    "symmetry=null",
    "losses={}",
    "task_loss.steps=0",
    "train.tokens=7",
    "metrics=[accuracy, weight_mse]",
)


def recipe_in_parts(folder: Path, *settings: str) -> BoundRecipe:
    return recipe_of(folder, *SETTINGS, *settings)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BoundRecipe, list[str]]:
    folder = tmp_path_factory.mktemp("parts")
    recipe = recipe_in_parts(folder)
    with pytest.MonkeyPatch.context() as patched:  # whoever asks for all networks of the zoo at once
        patched.setattr(StoredZoo, "weights", None)
        return folder, recipe, run(recipe, bench_of(recipe), folder, *MADE)


def test_every_method_that_needs_no_whole_zoo_is_scored_and_the_others_are_left_out(
    made: tuple[Path, BoundRecipe, list[str]],
) -> None:
    folder, _, said = made
    evaluated = read_json(folder / "evaluate/scores.json")
    assert {row["method"] for row in evaluated["scores"]} == {
        "generated", "oracle", "universal", "base", "zoo-mean", "random", "mismatched",
    }  # fmt: skip
    assert set(evaluated["left_out"]) == {"retrieval", "ridge", "noise"}
    assert (
        "note: the opponent 'ridge' is left out: networks are taken in parts (train.tokens), and it goes by all of the zoo's "
        "at once" in said
    )
    per_task = load_file(folder / "evaluate/per-task.safetensors")
    assert per_task["seen/weight_mse/oracle"].tolist() == [0, 0, 0]
    assert all(value.shape == (3,) and value.isfinite().all() for value in per_task.values())


def test_what_is_scored_is_what_whole_networks_score(made: tuple[Path, BoundRecipe, list[str]]) -> None:
    folder, recipe, _ = made
    bench, zoo = bench_of(recipe), Zoo(folder / "zoo")
    per_task = load_file(folder / "evaluate/per-task.safetensors")
    for split in zoo.tasks.splits:
        tasks, drawn = zoo.tasks.scored(split), load_file(folder / f"generate/generated-{split}.safetensors")["weights"]
        torch.testing.assert_close(per_task[f"{split}/accuracy/generated"], bench.accuracies(drawn, tasks, bench.test))
        mean = zoo.weights[: len(zoo.tasks.training)].mean(0).expand(len(tasks), -1)
        torch.testing.assert_close(per_task[f"{split}/accuracy/zoo-mean"], bench.accuracies(mean, tasks, bench.test))
        near = Neighbourhood(zoo.weights, zoo.reference, None, torch.Generator().manual_seed(0)).nearest(drawn)
        torch.testing.assert_close(per_task[f"{split}/novelty/generated"], near.novelty, rtol=1e-3, atol=1e-3)


def test_drawn_networks_have_their_statistics(made: tuple[Path, BoundRecipe, list[str]]) -> None:
    folder, recipe, _ = made
    bench, zoo = bench_of(recipe), Zoo(folder / "zoo")
    drawn = load_file(folder / "generate/generated-seen.safetensors")["weights"]
    assert torch.equal(bench.calibrated(drawn, zoo.tasks.scored("seen")), drawn)
    others = load_file(folder / "generate/mismatched-seen.safetensors")["weights"]
    assert not torch.equal(others, drawn)


def test_the_same_recipe_draws_the_same_bytes(made: tuple[Path, BoundRecipe, list[str]], tmp_path: Path) -> None:
    folder, recipe, _ = made
    run(recipe, bench_of(recipe), tmp_path, *MADE[:4])
    for name in ("train/generator", "train/mean", "generate/generated-unseen-tasks"):
        assert (tmp_path / f"{name}.safetensors").read_bytes() == (folder / f"{name}.safetensors").read_bytes()


def test_only_the_generator_hangs_on_the_setting(tmp_path: Path) -> None:
    some, others, none = (
        keys(recipe_of(tmp_path, *how), STAGES) for how in (["train.tokens=3"], ["train.tokens=4"], [])
    )
    assert some["zoo"] == none["zoo"] and some["opponents"] == none["opponents"] and some["train"] != others["train"]
    assert none == keys(recipe_of(tmp_path, "train.tokens=null"), STAGES)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (
            "symmetry=units",
            "symmetry: this takes whole networks, and with train.tokens they are taken in parts: set it to null",
        ),
        ("losses.adversarial=0.1", "losses.adversarial: this takes whole networks"),
        ("task_loss.steps=1", "task_loss.steps: this takes whole networks, .*: set it to 0"),
        ("tokenizer=chunk", "tokenizer does not say where tokens stand|tokens are not the weights as they are"),
        ("generator.predictor=linear", "set generator.predictor to null; the zoo's mean takes its place"),
        ("generator.denoiser={use: mlp}", "this denoiser looks at all tokens of a network at once"),
        ("generator=ridge", "this generator takes networks whole"),
    ],
)
def test_what_takes_whole_networks_is_refused_before_anything_is_trained(
    tmp_path: Path, setting: str, said: str
) -> None:
    recipe = recipe_in_parts(tmp_path, setting)
    bench = bench_of(recipe)
    with pytest.raises(UserError, match=said):
        check(recipe, bench.target, bench.dims())
