"""The real stages on classes that are clouds of points: no images, no encoders, a second a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tests.support.stand_ins import registry
from wspace.data.features import FeatureScale
from wspace.interfaces import TEST, TRAIN, VAL, Images, Text
from wspace.recipes.bind import bind
from wspace.recipes.schema import BoundRecipe
from wspace.recipes.source import read_recipe
from wspace.runs.pipeline import STAGES
from wspace.runs.stages import Job
from wspace.runs.workbench import Workbench
from wspace.support.progress import Progress

CLASSES, FEATURES, TEXTS = 20, 6, 5
RECIPE = """dataset: icons
backbone: pixels
text: minilm
target: {use: adapter, rank: 3, temperature: 10}
tasks: {seen: 40, unseen: 10, classes: [2, 4], evaluate: 6, unseen_classes: 0.25}
zoo: {base_steps: 20, base_batch: 32, steps: 10, batch: 8, lr: 1e-2, together: 20}
opponents: {steps: 10, universal_steps: 20, check_every: 5, patience: 1, rates: [1e-2]}
symmetry: units
tokenizer: neuron
conditioner: text-set
generator: {use: diffusion, denoiser: {use: mlp, width: 16, depth: 1}}
task_loss: {steps: 4, batch: 4, images: 8, check_every: 2}
train: {steps: 6, batch: 8, check_every: 3, lr: 1e-2}
losses: {symmetry: 0.1, adversarial: 0.1}
discriminator: judge
adversary: {warmup: 0.3}
generate: {steps: 3}
metrics: [accuracy]
device: cpu
"""


class Said(Progress):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def recipe_of(folder: Path, *settings: str) -> BoundRecipe:
    file = folder / "synthetic.yaml"
    file.write_text(RECIPE, encoding="utf-8")
    return bind(read_recipe(file, settings), registry())


class Points(Images):
    """Clouds of points, a class each; those of `others` are other points."""

    fingerprint = "points"

    def __init__(self, others: frozenset[int] = frozenset()):
        rng = torch.Generator().manual_seed(0)
        self.classes = tuple(f"class {c}" for c in range(CLASSES))
        self.labels = np.repeat(np.arange(CLASSES), 24)
        self.split = np.tile(np.repeat(np.array([TRAIN, VAL, TEST], dtype=np.int8), (12, 6, 6)), CLASSES)
        noise = torch.randn(len(self), FEATURES, generator=rng)
        self.features = means()[torch.as_tensor(self.labels)] + 0.5 * noise
        other = torch.isin(torch.as_tensor(self.labels), torch.tensor(sorted(others)))
        self.features = torch.where(other[:, None], 7 * self.features.flip(0) - 3, self.features)

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        raise NotImplementedError


class Numbers(Text):
    """Of "a photo of class 7" a fixed vector for 7, in which its images' mean shows."""

    dim = TEXTS
    fingerprint = "numbers"

    def encode(self, sentences: Sequence[str]) -> Tensor:
        mixing = torch.randn(FEATURES, TEXTS, generator=torch.Generator().manual_seed(2))
        return functional.normalize(means()[[int(s.rpartition(" ")[2]) for s in sentences]] @ mixing, dim=1)


def means() -> Tensor:
    return torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(1))


def bench_of(recipe: BoundRecipe, others: frozenset[int] = frozenset()) -> Workbench:
    """A workbench with points in place of images, which need no scaling; its target is the recipe's."""
    bench = Workbench(recipe, Progress(), Path("no-cache"))
    images = Points(others)
    backbone = SimpleNamespace(
        dim=FEATURES, fingerprint="none", encode=lambda pixels: torch.zeros(len(pixels), FEATURES)
    )
    extraction = SimpleNamespace(load=lambda: images.features)  # done
    given = {"images": images, "backbone": backbone, "text": Numbers(), "extraction": extraction}
    vars(bench).update(given, scale=FeatureScale(torch.ones(())))
    return bench


def run(recipe: BoundRecipe, bench: Workbench, folder: Path, *names: str) -> list[str]:
    """Do these stages, each in a folder of its name. What they said."""
    progress = Said()
    for stage in (stage for stage in STAGES if stage.name in names):
        (folder / stage.name).mkdir(parents=True, exist_ok=True)
        inputs = {name: folder / name for name in stage.takes}
        stage.load()(Job(recipe, bench, folder / stage.name, inputs, progress))
    return progress.lines
