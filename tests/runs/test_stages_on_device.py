"""Every stage of a run on a device that is not the CPU: nothing is mixed, and of the same draws come the same networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.support import synthetic
from tests.support.pretended import DEVICE, pretended
from wspace.support.names import PER_TASK

CPU = torch.device("cpu")
ALIKE = ("zoo", "opponents")  # by the CPU's draws alone
STAGES = (*ALIKE, "train", "generate", "evaluate")


def tensors(folder: Path) -> dict[str, Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    return {f"{file.name} {name}": value for file in files for name, value in load_file(file).items()}


@pytest.fixture
def on(tmp_path: Path) -> Callable[..., Path]:
    """The folders of stages, made on a device."""

    def made(device: torch.device, stages: Sequence[str], *settings: str) -> Path:
        folder = tmp_path / device.type
        folder.mkdir()
        bench = synthetic.bench_of(synthetic.recipe_of(folder, "generate.steps=2", *settings))
        bench.device = device
        synthetic.run(bench.recipe, bench, folder, *stages)
        return folder

    return made


def test_zoo_and_opponents_made_there_are_those_of_the_cpu(on: Callable[..., Path]) -> None:
    on_cpu = on(CPU, ALIKE)
    with pretended():
        there = on(DEVICE, ALIKE)
    for stage in ALIKE:
        ours, theirs = tensors(there / stage), tensors(on_cpu / stage)
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.slow
def test_scores_of_opponents_are_those_of_the_cpu(on: Callable[..., Path]) -> None:
    on_cpu = on(CPU, STAGES)
    with pretended():
        there = on(DEVICE, STAGES)
    ours, theirs = (load_file(folder / "evaluate" / PER_TASK) for folder in (there, on_cpu))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if name.endswith(("/oracle", "/universal")))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ("generator={use: flow, denoiser: {use: mlp, width: 16, depth: 1}}", "train.align=true"),
        ("zoo.start=fresh", "losses.adversarial=0", "precision=bfloat16"),
        ("task_loss.zoo=0.1", "train.accumulate=2", "train.augment=0.5"),
    ],
)
def test_other_recipes_run_there(on: Callable[..., Path], settings: tuple[str, ...]) -> None:
    with pretended():
        assert tensors(on(DEVICE, STAGES, *settings) / "evaluate")
