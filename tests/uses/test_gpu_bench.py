"""`wspace bench gpu` at tiny sizes: on the CPU, and every stage of a recipe on a device that is pretended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.support import synthetic
from tests.support.pretended import DEVICE, pretended
from wspace.runs import workbench
from wspace.support.progress import Progress
from wspace.uses.bench.gpu import Without, gpu

SHAPE = (12, 9, 6, 5)  # classes, images of each, width of features and of texts


def on_random_features(folder: Path, *settings: str) -> Without:
    return Without(synthetic.recipe_of(folder, *settings), Progress(), *SHAPE)


def test_every_stage_and_the_rates_come_from_the_recipes_real_code(tmp_path: Path) -> None:
    ticks = iter(range(10_000))
    result = gpu(
        on_random_features(tmp_path), heads=100, together=(3, 5), steps=2, share=0.1, clock=lambda: next(ticks), side=8
    )
    assert result["tflops_of_a_product"] == 20 * 2 * 8**3 / 1e12  # of twenty in a second
    assert [row["together"] for row in result["zoo"]] == [3, 5]
    train = result["train"]
    assert train["seconds_per_step"] == 1 / 4 and train["networks_per_second"] == 8 * 4
    assert train["gflop_per_step"] > 0 and train["waits_per_step"] is None
    assert list(result["stages"]) == ["zoo", "opponents", "train", "generate", "evaluate"]


@pytest.mark.slow
def test_it_measures_another_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pretended() as counts:
        monkeypatch.setattr(workbench, "device_of", lambda _: DEVICE)
        result = gpu(on_random_features(tmp_path), heads=8, together=(4,), steps=1, share=0.5, side=8)
    assert result["device"] == str(DEVICE)
    assert counts.launched > 5000  # all of it was there


def test_the_command_prints_a_line_of_each(inside: Callable[..., CompletedProcess[str]]) -> None:
    sizes = (
        "--heads 50 --together 4 --steps 1 --share 0.1 --classes 12 --images 9 --feature-dim 6 --text-dim 5 --side 8"
    )
    settings = ("tasks.seen=24", "tasks.unseen=6", "tasks.evaluate=4", "evaluate.bootstrap=100", "device=cpu")
    words = (word for setting in settings for word in ("--set", setting))
    done = inside("bench", "gpu", "--recipe", "nano", *sizes.split(), *words)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["nano", "a", "zoo,", "generator:", "stages"]
