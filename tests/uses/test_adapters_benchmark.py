"""`wspace bench adapters`: the same adapters by both ways, and what is refused."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from wspace.cli import bench as commands
from wspace.components.targets.lora import Lora
from wspace.recipes.source import find_recipe
from wspace.support.files import write_json
from wspace.support.names import RECIPE, RUN
from wspace.support.progress import Progress
from wspace.uses.bench import adapters as benchmark
from wspace.weights.files.network import Network

pytestmark = pytest.mark.plugins("t2w")
TASKS = ((0, 1), (2, 0), (1, 2))


class Finished:
    """As much of a run as is asked for."""

    folder, recipe = Path("runs/lora"), SimpleNamespace(seed=0)

    def __init__(self, target: Any):
        self.target, rng = target, torch.Generator().manual_seed(0)
        test = SimpleNamespace(features=torch.randn(9, 12, generator=rng))
        self.bench = SimpleNamespace(test=test, class_texts=torch.randn(3, 6, generator=rng), progress=Progress())

    def unseen(self, count: int) -> tuple[tuple[int, ...], ...]:
        return TASKS[:count]

    def sample(self, tasks: tuple[tuple[int, ...], ...], rng: torch.Generator) -> torch.Tensor:
        return torch.randn(len(tasks), self.target.spec.size, generator=rng)

    def names_of(self, task: tuple[int, ...]) -> tuple[str, ...]:
        return tuple(map(str, task))

    def network(self, names: tuple[str, ...], weights: torch.Tensor, origin: str) -> Network:
        return Network(names, self.target.spec.unflatten(weights), origin)


def folder_of_run(folder: Path, recipe: str) -> Path:
    """As much of a finished run's as is looked at before torch is imported."""
    write_json(folder / RUN, {"recipe": recipe, "stages": {}})
    shutil.copy(find_recipe(recipe), folder / RECIPE)
    return folder


@pytest.fixture
def finished() -> Finished:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages it imports
        pytest.importorskip("peft", reason='peft is not installed: pip install "wspace[lora]"')
    return Finished(Lora(width=8, heads=2, rank=2, alpha=3.0, feature_dim=12, text_dim=6))


def test_both_ways_give_the_same_scores_and_are_told_side_by_side(
    finished: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, inside: Callable[..., CompletedProcess[str]]
) -> None:
    result = benchmark.adapters(finished, 8, 5, 2)
    assert (result["adapters"], result["images"], result["difference"] < 1e-5) == (3, 5, True)
    assert result["seconds"].keys() == {"load", "one by one", "together"}
    assert all(seconds > 0 for of in result["seconds"].values() for seconds in of.values())
    monkeypatch.setattr(commands, "open_run", lambda *_: finished)
    lines = inside(
        "bench", "adapters", folder_of_run(tmp_path, "lora"), "--turns", 1, "--images", 2
    ).stdout.splitlines()
    assert lines[0].startswith("3 adapters of") and lines[2].split() == ["wspace", "peft"]
    assert [line[:10].strip() for line in lines[3:6]] == ["load", "one by one", "together"]


def test_weights_that_are_mixed_up_show(finished: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark._Peers, "scores", lambda self, number, *given: self.together(*given)[number - 1])
    assert benchmark.adapters(finished, 8, 5, 1)["difference"] > 1e-2


REFUSED = """
import sys
from wspace.cli import main

for gone in sys.argv[2:]:
    sys.modules[gone] = None
sys.argv = ["wspace", "bench", "adapters", sys.argv[1]]
try:
    main()
except SystemExit as end:
    print(end.code, [name for name in ("torch", "timm", "peft") if sys.modules.get(name)])
"""


@pytest.mark.parametrize(
    ("recipe", "gone", "told"),
    [
        (None, (), "{run}: not the folder of a finished run; `wspace run RECIPE` makes one and prints it last"),
        ("core", (), "bench adapters: {run} has no LoRA adapters: name a run of a recipe with target lora"),
        ("lora", ("peft",), 'bench adapters needs PEFT: pip install "wspace[lora]"'),
    ],
)
def test_what_it_cannot_measure_is_refused_before_torch_is_imported(
    tmp_path: Path, recipe: str | None, gone: tuple[str, ...], told: str
) -> None:
    run = tmp_path / "nowhere" if recipe is None else folder_of_run(tmp_path, recipe)
    command = [sys.executable, "-c", REFUSED, str(run), *gone]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr) == ("2 []\n", f"error: {told.format(run=run)}\n")
