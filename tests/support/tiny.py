"""Tiny components of every kind, without torch and apart from the built-in ones, and a recipe of them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from wspace.recipes.bind import bind
from wspace.recipes.plugins import load_plugins
from wspace.recipes.registry import Component, Registry
from wspace.recipes.schema import BoundRecipe
from wspace.recipes.source import parse_recipe, read_recipe
from wspace.runs.keys import Stage
from wspace.runs.pipeline import Workshop

PARTS = '''"""One component of every kind, and some more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from wspace.support.parameters import Default


class Grid:
    """Points on a grid.

    More of it.
    """

    def __init__(self, size: Annotated[int, Ge(1)] = 8):
        self.size = size


class Files:
    def __init__(self, path: Path, more: tuple[Path, ...] = ()):
        self.path, self.more = path, more


class Flat:
    def __init__(self, *, device: object):
        self.device = device


class Letters:
    def __init__(self, *, device: object):
        self.device = device


class Worded:
    def __init__(self, file: Path | None = None):
        self.file = file


class Linear:
    def __init__(
        self, rank: Annotated[int, Ge(1)] = 4, bias: bool = True, *, feature_dim: int, text_dim: int
    ):
        self.rank, self.bias, self.dims = rank, bias, (feature_dim, text_dim)


class Flip:
    def __init__(self, axes: tuple[str, ...] = ("hidden",), *, spec: object):
        self.axes = axes


class Whole:
    def __init__(self, scale: Literal["none", "unit"] = "none", *, spec: object):
        self.scale = scale


class Pieces:
    version: ClassVar[int] = 3

    def __init__(self, size: Annotated[int, Gt(0)], *, spec: object):
        self.size = size


class Plain:
    def __init__(self, dropout: Annotated[float, Ge(0), Le(1)] = 0, *, text_dim: int):
        self.dropout = dropout


class Net:
    def __init__(
        self,
        width: int,
        depth: Annotated[int, Ge(1)] = 1,
        rate: float = 1e-3,
        title: str = "net",
        pair: tuple[int, int] = (1, 2),
        rates: list[float] = [0.5],  # noqa: B006
        cap: Annotated[float, Gt(0)] | None = None,
        *,
        layout: object,
    ):
        self.width, self.depth, self.layout = width, depth, layout


class Judge:
    def __init__(self, width: int = 2, *, layout: object):
        self.width = width


class Noise:
    samplers: ClassVar[tuple[str, ...]] = ("euler", "heun")

    def __init__(
        self, denoiser: Denoiser, helper: Denoiser | None = None, levels: int = 10, *, pooled_width: int
    ):
        self.denoiser, self.helper, self.levels, self.pooled_width = denoiser, helper, levels, pooled_width


class Defaulted:
    def __init__(self, denoiser: Denoiser = Default("net")):
        self.denoiser = denoiser


class Count:
    def __init__(self, most: int = 3):
        self.most = most


class Broken:
    def __init__(self, anything):
        self.anything = anything
'''

COMPONENTS = {
    ("dataset", "grid"): "Grid",
    ("dataset", "files"): "Files",
    ("backbone", "flat"): "Flat",
    ("text", "letters"): "Letters",
    ("wording", "template"): "Worded",
    ("target", "linear"): "Linear",
    ("symmetry", "flip"): "Flip",
    ("tokenizer", "whole"): "Whole",
    ("tokenizer", "pieces"): "Pieces",
    ("conditioner", "plain"): "Plain",
    ("denoiser", "net"): "Net",
    ("discriminator", "mlp"): "Judge",
    ("generator", "noise"): "Noise",
    ("generator", "defaulted"): "Defaulted",
    ("metric", "count"): "Count",
    ("metric", "broken"): "Broken",
}

RECIPE = """dataset: grid
backbone: flat
text: letters
target: {use: linear, rank: 4}
tokenizer:
  use: pieces
  size: 16
conditioner: plain
generator:
  use: noise
  denoiser:
    use: net
    width: 8
    depth: 2
metrics: [count]
train: {steps: 10}
"""


BUILT_IN = [("wording", "template"), ("discriminator", "mlp")]
"""Defaults of a recipe, which beside the built-in components are theirs."""

PLUGIN = f"""import wspace

@wspace.hookimpl
def wspace_register(register):
    for (kind, name), target in { ({k: v for k, v in COMPONENTS.items() if k not in BUILT_IN})!r}.items():
        register(kind, name, "tiny_parts:" + target)
"""

STAGES = '''"""Stages that write down what they were called with, and fail when told to."""

from wspace.support.files import write_json

calls = []  # (stage, files found in its folder, stages it takes)
fails = {}  # stage -> the exception it raises, half-way


def _stage(name):
    def run(job):
        calls.append((name, sorted(file.name for file in job.folder.iterdir()), list(job.inputs)))
        (job.folder / "half.txt").write_text(name)
        if name in fails:
            raise fails[name]
        assert all((folder / "artifact.json").is_file() for folder in job.inputs.values())
        report = {"recipe": job.recipe.name, "seed": job.recipe.seed, "scores": []}
        write_json(job.folder / "report.json", report)
        (job.folder / "report.html").write_text("<p>All of it.")

    return run


zoo, opponents, train = _stage("zoo"), _stage("opponents"), _stage("train")
generate, evaluate, report = _stage("generate"), _stage("evaluate"), _stage("report")
'''

TINY_STAGES = (
    Stage("zoo", "tiny_stages:zoo", ("seed", "dataset", "backbone", "text", "target", "tasks", "zoo"), ()),
    Stage("opponents", "tiny_stages:opponents", ("opponents",), ("zoo",)),
    Stage("train", "tiny_stages:train", ("symmetry", "tokenizer", "conditioner", "generator", "train"), ("zoo",)),
    Stage("generate", "tiny_stages:generate", ("generate",), ("zoo", "train")),
    Stage("evaluate", "tiny_stages:evaluate", ("metrics", "evaluate"), ("zoo", "opponents", "train", "generate")),
    Stage("report", "tiny_stages:report", (), ("zoo", "opponents", "train", "generate", "evaluate")),
)


class Tiny:
    """The tiny components in a registry of their own, and what to bind with it."""

    recipe = RECIPE
    components = COMPONENTS

    def __init__(self, folder: Path):
        self.folder = folder
        self.file = folder / "tiny_parts.py"
        self.file.write_text(PARTS, encoding="utf-8")
        self.plugin = folder / "tiny_plugin.py"
        self.plugin.write_text(PLUGIN, encoding="utf-8")
        (folder / "tiny_stages.py").write_text(STAGES, encoding="utf-8")
        self.registry = Registry()
        self.registry.add(*(Component(*key, f"tiny_parts:{name}", "tiny") for key, name in COMPONENTS.items()))
        self.registry.add(*load_plugins(allowed="").registry.all("opponent"))  # a recipe's defaults

    def bind(self, text: str = RECIPE, name: str = "tiny.yaml") -> BoundRecipe:
        return bind(parse_recipe(text, name), self.registry)

    def bind_file(self, file: Path, *settings: str) -> BoundRecipe:
        return bind(read_recipe(file, settings), self.registry)


@pytest.fixture(name="tiny")
def tiny_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tiny]:
    folder = tmp_path / "tiny-components"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    yield Tiny(folder)
    for name in ("tiny_parts", "tiny_plugin", "tiny_stages"):
        sys.modules.pop(name, None)


WORKSHOP = Workshop(TINY_STAGES, lambda recipe, progress: None, lambda recipes, workbench: None)
"""Tiny stages in place of the real ones, and no data behind them; whatever is asked suits them."""


@pytest.fixture(name="stages")
def stages_fixture(tiny: Tiny) -> ModuleType:
    """The module of WORKSHOP's stages."""
    return importlib.import_module("tiny_stages")
