"""How time and memory grow: slopes of what is measured at a few sizes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.support.synthetic import bench_of, recipe_of
from wspace.recipes.schema import BoundRecipe
from wspace.runs.workbench import Workbench
from wspace.support.progress import Progress
from wspace.uses.bench import scaling as benchmark
from wspace.uses.bench.scaling import AXES, WORKS, Axis, scaling, slope


def with_pictures(recipe: BoundRecipe) -> Workbench:
    bench = bench_of(recipe)
    bench.images.read = lambda rows: np.zeros((len(rows), 2, 2, 3), np.uint8)
    return bench


def test_every_work_is_done_at_every_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "ENOUGH", 0)
    axes = (
        Axis("tasks", "tasks.seen={}", (8, 16, 32), ("networks trained",)),
        Axis("batch", "train.batch={}", (4, 8), tuple(work for work in WORKS if work != "networks trained")),
    )
    made = scaling(lambda setting: recipe_of(tmp_path, setting), Progress(), axes, with_pictures, repeats=1)
    assert [row["work"] for row in made["rows"]] == [work for axis in axes for work in axis.works]
    trained = made["rows"][0]
    assert trained["sizes"] == [8, 16, 32] and all(seconds > 0 for seconds in trained["seconds"])
    assert trained["bytes"] == sorted(trained["bytes"]) and trained["memory_slope"]["slope"] == pytest.approx(
        1, abs=0.3
    )
    assert json.loads(json.dumps(made))["benchmark"] == "scaling"
    assert {work for axis in AXES for work in axis.works} == set(WORKS)


def test_a_slope_is_that_of_the_power_and_its_interval_that_of_the_scatter() -> None:
    exact = slope([(x, 3 * x**2) for x in (1, 2, 4, 8)])
    assert exact["slope"] == pytest.approx(2) and exact["high"] - exact["low"] < 1e-6
    scattered = slope([(x, x * by) for x in (1, 2, 4, 8) for by in (0.9, 1.1)])
    assert scattered["low"] < 1 < scattered["high"] and 0.05 < scattered["high"] - scattered["low"] < 0.5


def test_what_is_worse_than_linear_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def quadratic(point: SimpleNamespace) -> object:
        size = point.recipe.tasks.seen
        return lambda: torch.zeros(size, size)

    monkeypatch.setattr(benchmark, "ENOUGH", 0)
    monkeypatch.setitem(WORKS, "squares", quadratic)  # type: ignore[arg-type]
    axis = Axis("tasks", "tasks.seen={}", (16, 32, 40), ("squares",))
    made = scaling(lambda setting: recipe_of(tmp_path, setting), Progress(), [axis], with_pictures, repeats=1)
    assert made["rows"][0]["memory_slope"]["slope"] == pytest.approx(2, abs=0.05)
    assert "memory of 'squares' by tasks" in made["worse"]
