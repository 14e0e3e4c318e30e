"""The paper's own settings, from data to report, on a stand-in that is painted here: fewer and smaller by `--set` alone."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.support.undrawn import undrawn
from wspace.recipes.bind import bind
from wspace.recipes.plugins import load_plugins
from wspace.recipes.schema import BoundRecipe
from wspace.recipes.source import read_recipe
from wspace.runs import pipeline
from wspace.support.progress import Progress

pytestmark = pytest.mark.plugins("t2w")

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes/paper").glob("*.yaml"))

SMALLER = (
    "dataset.size=32",
    "backbone.model=resnet10t", "backbone.pretrained=false", "backbone.size=null",
    "text=minilm",
    "target.rank=2",
    "tasks.seen=40", "tasks.unseen=8", "tasks.classes=[2,5]", "tasks.evaluate=6",
    "zoo.base_steps=10", "zoo.steps=10", "zoo.batch=8",
    "opponents.steps=20", "opponents.universal_steps=40",
    "generator.denoiser.width=16", "generator.denoiser.depth=1", "generator.denoiser.heads=2", "discriminator.width=8",
    "train.steps=12", "train.batch=4", "train.check_every=6", "adversary.turn=3",
    "generate.steps=8",
    "evaluate.bootstrap=100",
)  # fmt: skip

STAND_IN = {
    "t2w-cifar100": ("name=torch/image_folder", "test=test", "download=false"),
    "t2w-caltech256": (),
    "t2w-tinyimagenet": ("name=torch/image_folder", "test=test", "download=false"),
}
CLASSES = {  # as the data sets call them -> as a sentence does
    "t2w-cifar100": {"aquarium_fish": "aquarium fish", "maple_tree": "maple tree"},
    "t2w-caltech256": {"001.ak47": "ak47", "257.clutter": None},
    "t2w-tinyimagenet": {"n02124075": "Egyptian cat", "n04399382": "teddy"},
}


def paint(folder: Path, classes: list[str], count: int) -> None:
    """Noise of a hue, and a shape on it: by class."""
    rng = np.random.default_rng(sum(map(len, classes)) + count)
    for k, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            noise = rng.integers(0, 90, (32, 32, 3)) + np.array([20 * k % 120, 50 * k % 120, 80 * k % 120])
            image = Image.fromarray(noise.astype(np.uint8))
            x, y = rng.integers(2, 10, 2).tolist()
            draw = ImageDraw.Draw(image)
            (draw.ellipse, draw.rectangle)[k % 2]((x, y, x + 12 + k, y + 20 - k), fill=(200, 15 * k, 255 - 15 * k))
            image.save(folder / name / f"{i}.png")


def bound(recipe: Path, *changes: str) -> BoundRecipe:
    return bind(read_recipe(recipe, changes), load_plugins().registry)


def test_every_paper_recipe_is_looked_at() -> None:
    assert {recipe.stem for recipe in RECIPES} == set(STAND_IN)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda file: file.stem)
def test_a_paper_recipe_has_the_papers_settings(recipe: Path) -> None:
    """Sections 3.4 and 4.1, written down a second time."""
    said = bound(recipe).filled
    assert (
        said["dataset"]["use"] == "timm" and said["backbone"]["model"] == "resnet18" and said["backbone"]["pretrained"]
    )
    assert (said["text"]["model"], said["text"]["pretrained"]) == ("ViT-B-32", "openai")
    assert said["target"] | {"use": "", "temperature": 0} == {
        "use": "", "rank": 16, "activation": "none", "bias": False, "temperature": 0,
    }  # fmt: skip
    tasks = said["tasks"]
    assert (tasks["seen"], tasks["unseen"], list(tasks["classes"])) == (9600, 2400, [8, 32])
    assert (tasks["template"], tasks["unseen_classes"]) == ("A photo of {}", 0)
    assert said["tokenizer"] == {"use": "chunk", "size": 576, "scale": "minmax"}
    assert said["conditioner"]["use"] == "prior-fusion"
    generator = said["generator"]
    assert (generator["levels"], generator["prediction"], generator["predictor"]) == (1000, "epsilon", None)
    assert generator["denoiser"]["use"] == "prior-attention" and generator["denoiser"]["width"] == 1024
    train, epoch = said["train"], 9600 // 32
    assert (train["batch"], train["lr"], train["clip"]) == (32, 4e-4, 0.1)
    assert train["steps"] * train["warmup"] == 5 * epoch
    assert said["losses"]["symmetry"] == 0.1 and said["losses"]["adversarial"] > 0
    assert said["symmetry"]["use"] == "permutation" and said["discriminator"]["use"] == "mlp"
    assert (said["adversary"]["lr"], said["adversary"]["turn"]) == (1e-2, epoch)
    assert said["generate"]["sampler"] == "ddpm"
    assert (said["generate"]["steps"], said["generate"]["temperature"]) == (1000, 1)
    assert said["precision"] == "auto" and said["seed"] == 42
    assert said["task_loss"]["steps"] == 0


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda file: file.stem)
def test_a_paper_recipe_says_what_it_takes_and_what_to_compare(recipe: Path) -> None:
    lines = recipe.read_text(encoding="utf-8").splitlines()
    header = "\n".join(line for line in lines if line.startswith("#"))
    assert lines[0].startswith(f"# wspace run recipes/paper/{recipe.name}  ")
    for part in (
        "torchrun --nproc-per-node 4 -m wspace run",
        "# Data:",
        "# Hardware.",
        "Universal Model",
        "T2W-NL",
        "lambda_2",
    ):
        assert part in header


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda file: file.stem)
@pytest.mark.slow
def test_a_paper_recipe_runs_from_data_to_report(recipe: Path, tmp_path: Path) -> None:
    own = CLASSES[recipe.stem]
    classes = [*own, *(f"thing_{k}" for k in range(10))]
    if recipe.stem == "t2w-caltech256":
        paint(tmp_path / "data", classes, 16)
    else:
        paint(tmp_path / "data" / "train", classes, 10)
        paint(tmp_path / "data" / "test", classes, 6)
    changes = [
        f"dataset.path={tmp_path / 'data'}",
        *(f"dataset.{change}" for change in STAND_IN[recipe.stem]),
        *SMALLER,
    ]
    with contextlib.nullcontext() if recipe == RECIPES[0] else undrawn():
        run, _ = pipeline.run(bound(recipe, *changes), tmp_path, Progress())
    report = json.loads(next(run.glob("report-*/report.json")).read_text(encoding="utf-8"))
    scored = {(row["method"], row["split"], row["metric"]) for row in report["scores"]}
    assert {
        (m, s, "accuracy") for m in ("generated", "universal", "oracle") for s in ("seen", "unseen-tasks")
    } <= scored
    named = json.loads(next(run.glob("zoo-*/world.json")).read_text(encoding="utf-8"))["classes"]
    assert set(named) == {f"thing {k}" for k in range(10)} | {words for words in own.values() if words}
    log = [json.loads(line) for line in next(run.glob("train-*/log.jsonl")).read_text(encoding="utf-8").splitlines()]
    turns = ["adversarial" if "adversarial" in entry["terms"] else "discriminator" for entry in log]
    assert turns == ["discriminator"] * 3 + ["adversarial"] * 3 + ["discriminator"] * 3 + ["adversarial"] * 3
    assert all({"denoising", "symmetry"} <= set(entry["terms"]) for entry in log)
    assert report["training"]["processes"] == 1
