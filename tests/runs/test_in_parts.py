"""Runs whose networks are taken in parts (`train.tokens`): every stage, what they leave out, and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

import wspace
from tests.conftest import RunOnce
from tests.support.synthetic import bench_of, recipe_of, run
from wspace.recipes.schema import BoundRecipe
from wspace.runs.artifacts import Zoo
from wspace.runs.assemble import build_system, load_system
from wspace.runs.checking import check
from wspace.runs.finished import report_of
from wspace.runs.keys import keys
from wspace.runs.machines import Machine
from wspace.runs.pipeline import STAGES
from wspace.runs.plan import plan
from wspace.runs.rates import measure
from wspace.support.errors import UserError
from wspace.support.files import read_json
from wspace.weights.novelty import Neighbourhood
from wspace.weights.stretches import Stretches
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


ALONG = (
    "generator={use: predicted, predictor: {use: directions, directions: 3}}",
    "train.steps=0",
    "generate.temperature=0",
)


def test_along_directions_of_the_zoo_the_same_recipe_draws_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_in_parts(tmp_path, *ALONG, "target.architecture.norm=none")
    bench, once, again = bench_of(recipe), tmp_path / "once", tmp_path / "again"
    monkeypatch.setattr(StoredZoo, "weights", None)  # whoever asks for all networks of the zoo at once
    run(recipe, bench, once, *MADE[:1])
    shutil.copytree(once / "zoo", again / "zoo")
    (once / "opponents").mkdir(), (again / "opponents").mkdir()
    for folder in (once, again):
        run(recipe, bench, folder, "train", "generate")
    names = ("train/generator", "train/mean", "train/directions", "generate/generated-seen", "generate/mismatched-seen")
    for name in names:
        assert (once / f"{name}.safetensors").read_bytes() == (again / f"{name}.safetensors").read_bytes()
    assert Stretches.of_rows(once / "train/directions.safetensors").whole(2).any()
    zoo = Zoo(once / "zoo")
    dims = zoo.dims["text_dim"]
    system = load_system(build_system(recipe, bench.target, dims), once / "train/generator.safetensors")
    prompts = zoo.prompts(zoo.tasks.scored("seen"), bench.prompt_texts)
    drawn = load_file(once / "generate/generated-seen.safetensors")["weights"]
    assert torch.equal(system.sample(prompts, recipe.generate, torch.Generator()), drawn)
    assert not torch.equal(drawn[0], drawn[1])
    others = load_file(once / "generate/mismatched-seen.safetensors")["weights"]
    assert torch.equal(others, drawn[[1, 2, 0]])


def test_steps_of_a_loss_that_trains_nothing_are_left_out_and_that_is_said(tmp_path: Path) -> None:
    recipe = recipe_in_parts(tmp_path, *ALONG, "train.steps=3")
    said = run(recipe, bench_of(recipe), tmp_path, "zoo", "train")
    assert "note: train.steps: all of this generator is in closed form, so it takes none" in said
    assert read_json(tmp_path / "train/summary.json")["steps"] == {}


def test_more_tokens_than_there_are_is_said(tmp_path: Path) -> None:
    recipe = recipe_in_parts(tmp_path, "train.tokens=1000000", "train.steps=1")
    bench = bench_of(recipe)
    said = run(recipe, bench, tmp_path, "zoo", "train")
    count = sum(-(-entry.size // 8) for entry in bench.target.spec.entries)
    (note,) = [text for text in said if text.startswith("note: train.tokens")]
    assert note == f"note: train.tokens: a network has {count} tokens, and a step takes them all"


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
        (
            "generator={use: predicted, predictor: offset}",
            "this predictor is as large as a network: take 'directions', or",
        ),
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


@pytest.mark.parametrize("along", [False, True], ids=["mean", "directions"])
def test_what_is_planned_does_not_grow_with_the_zoo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, along: bool
) -> None:
    monkeypatch.setattr("wspace.runs.rates.ENOUGH", 0)
    recipe = recipe_in_parts(tmp_path, *(ALONG if along else ()))
    bench = bench_of(recipe)
    bench.images.read = lambda rows: np.zeros((len(rows), 2, 2, 3), np.uint8)
    made = measure(recipe, bench)
    twice = replace(recipe, tasks=replace(recipe.tasks, seen=2 * recipe.tasks.seen))
    once, grown = (plan(its, made, Machine(ram=2.0**30)) for its in (recipe, twice))
    assert once["largest_zoo"] is None and once["weights"] == bench.target.spec.size
    for before, after in zip(once["stages"], grown["stages"], strict=True):
        assert before["memory"] == after["memory"] > 0 and 0 < before["seconds"] <= after["seconds"]
    assert made.copies["train"] == 0
    if along:  # a file of the mean, and a direction for each network but one, at most three
        size = 4 * bench.target.spec.size
        assert once["stages"][2]["disk"] == 4 * made.counts["state"] + 4 * size and made.counts["looks_in_parts"] == 96
    else:
        assert made.rates["generator step"].flops > 0


# ---------------------------------------------------------------- recipes/whole/resnet18.yaml, on a small network of timm

NANO = (
    "target.architecture.model=test_resnet", "dataset={use: icons, concepts: 24, renderings: 2, size: 64}",
    "tasks.seen=5", "tasks.evaluate=2", "zoo.base_steps=100", "zoo.steps=5", "opponents.steps=4", "opponents.check_every=4",
    "evaluate.bootstrap=100",
)  # fmt: skip


@pytest.fixture(scope="module")
def nano_parts(run_once: RunOnce) -> Path:
    return run_once("nano-parts-runs", "whole/resnet18", NANO)


@pytest.mark.slow
def test_the_whole_recipe_draws_networks_that_listen_to_their_words(nano_parts: Path) -> None:
    report = report_of(nano_parts)
    rows = {(s["metric"], s["method"], s["split"]): s["mean"] for s in report["scores"]}
    assert {method for _, method, _ in rows} == {"generated", "oracle", "base", "zoo-mean", "mismatched"}
    assert abs(rows["accuracy", "generated", "seen"] - report["accurate_and_new"]["of_zoo"]["seen"]) < 0.1
    per_task = load_file(next(nano_parts.glob("evaluate-*/per-task.safetensors")))
    seen, unseen = (per_task[f"{split}/novelty/generated"] for split in ("seen", "unseen-tasks"))
    assert seen.max() < 0.5 * unseen.min()  # a task that the zoo knows is nearly given its own network
    for split in ("seen", "unseen-tasks", "unseen-classes"):
        heard = per_task[f"{split}/weight_mse/generated"] - per_task[f"{split}/weight_mse/mismatched"]
        assert (heard != 0).all() and rows["weight_mse", "generated", split] > 0
    assert set(report["peak_mib"]) == {"zoo", "opponents", "train", "generate", "evaluate"}
    assert report["trajectory"] == [] and report["draws"]["drawing"] == []
    assert report["training"]["steps"] == {}  # all of it is in closed form


@pytest.mark.slow
def test_a_network_asked_for_by_name_loads_into_plain_timm(nano_parts: Path) -> None:
    opened = wspace.load(nano_parts)
    network = opened.generate([opened.zoo.classes[number] for number in opened.zoo.tasks.classes[:3]])
    again = opened.generate([opened.zoo.classes[number] for number in opened.zoo.tasks.classes[:3]])
    weights = opened.target.spec.flatten(network.tensors)
    assert torch.equal(weights, opened.target.spec.flatten(again.tensors)) and weights.isfinite().all()
    plain = timm.create_model("test_resnet", num_classes=384)
    plain.load_state_dict(opened.target.exported(weights), strict=True)
    images = opened.bench.val.features[:5]
    with torch.no_grad():
        outputs = plain.eval()(images.unflatten(1, (3, 32, 32)))
    texts = opened.bench.class_texts[:4]
    ours = opened.target.logits(weights[None], images[None], texts[None])[0]
    scores = 20 * torch.nn.functional.normalize(outputs, dim=1) @ texts.T
    torch.testing.assert_close(scores, ours, rtol=1e-3, atol=1e-3)
