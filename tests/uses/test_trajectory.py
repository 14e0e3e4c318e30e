"""Accuracy along the denoising steps: what stage evaluate follows, and the figure drawn of it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from tests.support import synthetic
from wspace.data.prompts import prompts_of
from wspace.data.splits import UNSEEN_TASKS
from wspace.learning.fitting import accuracies
from wspace.runs.artifacts import Zoo
from wspace.runs.assemble import build_system, load_system
from wspace.runs.report import figures
from wspace.runs.report.intervals import interval
from wspace.runs.stages.evaluate import MARKED, _followed
from wspace.support.progress import Bar
from wspace.support.seeding import stream
from wspace.support.settings import Generate

Evaluated = Callable[..., tuple[Path, dict[str, Any]]]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """Folder and scores of a run with these settings of `generate` and `generator`; zoo and training are shared."""
    folder = tmp_path_factory.mktemp("run")
    shared = synthetic.recipe_of(folder)
    synthetic.run(shared, synthetic.bench_of(shared), folder, "zoo", "opponents", "train")

    def evaluate(*settings: str) -> tuple[Path, dict[str, Any]]:
        recipe = synthetic.recipe_of(folder, *settings)
        synthetic.run(recipe, synthetic.bench_of(recipe), folder, "generate", "evaluate")
        return folder, json.loads((folder / "evaluate/scores.json").read_text())

    return evaluate


def steps_of(scores: dict[str, Any], temperature: float) -> list[int]:
    return [row["step"] for row in scores["trajectory"] if row["temperature"] == temperature]


def test_every_step_is_scored_at_the_recipes_temperature_and_at_one(evaluated: Evaluated) -> None:
    _, scores = evaluated("generate.steps=4")
    assert steps_of(scores, 0.0) == steps_of(scores, 1.0) == [1, 2, 3, 4] and len(scores["trajectory"]) == 8
    assert all(row["n"] == 6 and row["ci_low"] <= row["mean"] <= row["ci_high"] for row in scores["trajectory"])


def test_it_ends_where_the_generated_networks_do_beside_their_oracle(evaluated: Evaluated) -> None:
    _, scores = evaluated("generate.steps=4")
    table = {s["method"]: s for s in scores["scores"] if (s["split"], s["metric"]) == (UNSEEN_TASKS, "accuracy")}
    last = next(row for row in scores["trajectory"] if (row["temperature"], row["step"]) == (0.0, 4))
    for row, method in ((last, "generated"), (scores["trajectory_oracle"], "oracle")):
        for name in ("mean", "ci_low", "ci_high", "n"):
            assert row[name] == pytest.approx(table[method][name], abs=1e-6), (method, name)


def test_a_step_is_scored_by_the_networks_as_they_would_then_end(evaluated: Evaluated) -> None:
    folder, scores = evaluated("generate.steps=4")
    recipe = synthetic.recipe_of(folder)
    bench, tasks = synthetic.bench_of(recipe), Zoo(folder / "zoo").tasks.scored(UNSEEN_TASKS)
    system = load_system(build_system(recipe, bench.target, synthetic.TEXTS), folder / "train/generator.safetensors")
    prompts = prompts_of(tasks, load_file(folder / "train/said.safetensors")["texts"])
    looks: list[Tensor] = []
    how, rng = Generate(steps=4, temperature=1.0), stream(recipe.seed, "trajectory", 1.0)
    system.sample(prompts, how, rng, lambda step, weights: looks.append(weights))
    for row, weights in zip((r for r in scores["trajectory"] if r["temperature"] == 1), looks, strict=True):
        values = accuracies(bench.target, weights, tasks, bench.test, bench.class_texts)
        assert row["mean"] == pytest.approx(float(values.mean()), abs=1e-6)
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(interval(values, recipe), abs=1e-6)
    assert len({row["mean"] for row in scores["trajectory"]}) > 2


def test_of_many_steps_some_are_scored_evenly_from_the_first_to_the_last(evaluated: Evaluated) -> None:
    _, scores = evaluated("generate.steps=100")
    for temperature in (0.0, 1.0):
        steps = steps_of(scores, temperature)
        assert len(steps) == MARKED and (steps[0], steps[-1]) == (1, 100)
        assert {after - before for before, after in pairwise(steps)} <= {5, 6}


def test_a_generator_that_takes_fewer_steps_ends_at_its_own_last(evaluated: Evaluated) -> None:
    _, scores = evaluated("generate.steps=90", "generator.levels=12", "generate.temperature=1")
    assert steps_of(scores, 1.0) == [1, 6, 10, 12] and len(scores["trajectory"]) == 4  # 1.0 is followed once


def test_a_flow_is_followed_step_by_step(evaluated: Evaluated) -> None:
    _, scores = evaluated("generator={use: flow, denoiser: {use: mlp, width: 16, depth: 1}}", "generate.steps=3")
    assert steps_of(scores, 0.0) == steps_of(scores, 1.0) == [1, 2, 3]


def test_a_generator_without_steps_has_no_trajectory() -> None:
    class AtOnce:
        def sample(self, prompts: Any, how: Generate, rng: torch.Generator, watch: Any) -> Tensor:
            return torch.zeros(3, 2)

    system: Any = AtOnce()
    prompts: Any = None
    found = _followed(system, prompts, Generate(), stream(0), lambda weights: weights.mean(1), Bar("trajectory", 20))
    assert found == {}


@pytest.mark.slow
def test_the_report_carries_it_and_shows_it(evaluated: Evaluated) -> None:
    folder, scores = evaluated("generate.steps=2")
    recipe = synthetic.recipe_of(folder, "generate.steps=2")
    bench = synthetic.bench_of(recipe)
    vars(bench.images)["read"] = lambda rows: np.zeros((len(rows), 8, 8, 3), np.uint8)
    for name in ("zoo", "opponents", "train", "generate", "evaluate"):
        (folder / name / "artifact.json").write_text('{"seconds": 1, "versions": {}, "machine": {}}')
    synthetic.run(recipe, bench, folder, "report")
    report = json.loads((folder / "report/report.json").read_text())
    assert {name: report[name] for name in ("trajectory", "trajectory_oracle")} == {
        name: scores[name] for name in ("trajectory", "trajectory_oracle")
    }
    page = (folder / "report/report.html").read_text()
    assert page.count('<figure id="trajectory">') == 1 and "Accuracy along the denoising steps" in page


# ---------------------------------------------------------------- the figure


def rows_of(temperature: float, steps: range, mean: float) -> list[dict[str, Any]]:
    return [
        {"temperature": temperature, "step": n, "mean": mean, "ci_low": mean - 0.02, "ci_high": mean + 0.02, "n": 32}
        for n in steps
    ]


def height_of(uri: str, colour: str) -> float:
    """Mean place of a colour's pixels from the top, over the upper four fifths of a figure: below is the legend."""
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"), validate=True)
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    pixels = pixels[: pixels.shape[0] * 4 // 5]
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    found = np.nonzero((np.abs(pixels - wanted) < 12).all(2))[0]
    assert len(found) > 40, f"no {colour} in the figure"
    return float(found.mean())


def test_the_figure_has_a_line_for_each_temperature_and_one_for_the_oracle() -> None:
    rows = rows_of(0.0, range(1, 21), 0.8) + rows_of(1.0, range(1, 21), 0.7)
    uri = figures.accuracy_along_steps(rows, {"mean": 0.9})
    heights = [height_of(uri, colour) for colour in (figures.ORANGE, figures.BLUE, figures.GREEN)]
    assert heights == sorted(heights) and heights[2] - heights[1] == pytest.approx(heights[1] - heights[0], rel=0.1)
    assert uri == figures.accuracy_along_steps(rows, {"mean": 0.9})


def test_the_figure_stands_a_single_step_and_a_single_line() -> None:
    uri = figures.accuracy_along_steps(rows_of(0.5, range(1, 2), 0.8), {"mean": 0.8})
    assert height_of(uri, figures.ORANGE) == pytest.approx(height_of(uri, figures.BLUE), abs=8)
    with pytest.raises(AssertionError, match="no #009E73 in the figure"):
        height_of(uri, figures.GREEN)
