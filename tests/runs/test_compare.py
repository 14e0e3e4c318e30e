"""Systems side by side: one zoo for all members of recipes/compare.yaml, and what a study's table says of generators."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from wspace.recipes.plugins import load_plugins
from wspace.recipes.source import read_recipe
from wspace.runs import keys as stage_keys
from wspace.runs.pipeline import STAGES
from wspace.runs.report import table
from wspace.runs.study import comparing
from wspace.runs.study import file as study

pytestmark = pytest.mark.plugins("igpg", "t2w", "taskid")

ROOT = Path(__file__).parents[2]


def compared() -> study.Study:
    return study.bind_study(read_recipe(ROOT / "recipes/compare.yaml"), load_plugins().registry)


def test_all_systems_are_compared_on_the_same_zoo_tasks_images_and_seeds() -> None:
    made = compared()
    assert made.seeds == (42, 34)
    keys = {(m.variant, m.seed): stage_keys.keys(m.recipe, STAGES) for m in made.members}
    for seed in made.seeds:
        of_seed = [own for (_, other), own in keys.items() if other == seed]
        assert len({(own["zoo"], own["opponents"]) for own in of_seed}) == 1
        assert len({own["train"] for own in of_seed}) == len(of_seed) == 7
    assert len({own["zoo"] for own in keys.values()}) == 2


def test_each_system_is_what_its_row_says() -> None:
    recipes = {m.variant: m.recipe for m in compared().members}
    generators = {variant: recipe.generator.name for variant, recipe in recipes.items()}
    assert generators == {
        "t2w": "diffusion", "t2w from weights": "diffusion", "flow": "flow", "hypernetwork": "hypernetwork",
        "ridge": "ridge", "task-id": "diffusion", "igpg": "autoregressive",
    }  # fmt: skip
    for variant, recipe in recipes.items():
        from_images = variant in ("t2w", "flow", "hypernetwork", "ridge")  # of which ridge has nothing for it to train
        assert (recipe.task_loss.steps > 0) == from_images
        told = {"task-id": "task-id", "igpg": "instruction"}.get(variant, "text-set")
        assert recipe.conditioner.name == told


# ---------------------------------------------------------------- what generators cost


def result(novelty: list[float] | None, **costs: float) -> Any:
    scores = {} if novelty is None else {"unseen-tasks/novelty/generated": torch.tensor(novelty)}
    return SimpleNamespace(scores=scores, costs=costs)


def generators(results: dict[tuple[str, int], Any], rows: list[study.Row], splits: list[str]) -> list[dict[str, Any]]:
    made = cast(study.Study, SimpleNamespace(rows=rows, seeds=(1, 2)))
    return comparing._generators(made, results, splits)


ROWS = [study.Row(variant="a", label="A"), study.Row(variant="a", method="ridge"), study.Row(variant="b")]
RESULTS = {
    ("a", 1): result([1.0, 3.0], parameters=1500, train_seconds=10, seconds_per_network=0.001, bytes=2**20),
    ("a", 2): result([4.0, 4.0], parameters=1500, train_seconds=30, seconds_per_network=0.003, bytes=2**21),
    ("b", 1): result(None, train_seconds=5),
    ("b", 2): result([1.0, 1.0], train_seconds=5),
}


def test_generators_are_described_by_their_means_over_seeds() -> None:
    first, second = generators(RESULTS, ROWS, ["seen", "unseen-tasks"])
    assert (first["label"], first["split"], first["novelty"]["mean"]) == ("A", "unseen-tasks", 3.0)
    assert (first["train_seconds"], first["seconds_per_network"], first["bytes"]) == (20, 0.002, 1.5 * 2**20)
    assert second["label"] == "b" and second["novelty"] is None and second["bytes"] is None
    assert generators(RESULTS, ROWS, ["seen"])[0]["split"] == "seen"


def test_what_generators_cost_is_printed_and_what_is_not_known_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    table._print_generators(generators(RESULTS, ROWS, ["unseen-tasks"]), markdown=True)
    assert capsys.readouterr().out == (
        "| generator | novelty on unseen-tasks | parameters | training, s | drawing one, ms | MiB |\n"
        "|---|---|---|---|---|---|\n"
        "| A | 3 | 1,500 | 20 | 2 | 1.5 |\n"
        "| b |  |  | 5 |  |  |\n\n"
    )
    table._print_generators([], markdown=True)
    assert capsys.readouterr().out == ""
