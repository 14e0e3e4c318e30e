"""What is said before anything runs: shapes and sizes by count, and the steps that training really takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from tests.support.stand_ins import Judge
from tests.support.synthetic import FEATURES, TEXTS, bench_of, recipe_of
from wspace.components.denoisers.mlp import MLP
from wspace.runs.plan import plan, plan_of_model


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Any]:
    """The plan of the synthetic recipe with some `--set`s, and how often denoiser and discriminator were asked for it."""
    asked = {"denoiser": 0, "discriminator": 0}

    def count(module: nn.Module, *_: object) -> None:
        for name, part in (("denoiser", MLP), ("discriminator", Judge)):
            asked[name] += isinstance(module, part) and torch.is_grad_enabled()  # in training, not in drawing

    def call(*settings: str) -> tuple[dict[str, Any], dict[str, int]]:
        asked.update(denoiser=0, discriminator=0)
        recipe = recipe_of(tmp_path, *settings)
        return plan(recipe, bench_of(recipe)), dict(asked)

    with register_module_forward_hook(count):
        yield call


def test_shapes_and_sizes_are_those_of_the_recipe(made: Any) -> None:
    said, _ = made("losses={}")
    weights = 3 * (FEATURES + 1 + TEXTS) + TEXTS
    assert (said["weights"], said["tokens"], said["token_width"]) == (weights, 4, FEATURES + 1 + TEXTS)
    assert [stage["stage"] for stage in said["stages"]] == ["zoo", "opponents", "train", "generate", "evaluate"]
    disk = {stage["stage"]: stage["disk"] for stage in said["stages"]}
    assert disk["zoo"] == 40 * weights * 4
    assert disk["opponents"] == 3 * 6 * weights * 4  # three splits
    assert made("losses={}", "tasks.unseen_classes=0")[0]["stages"][1]["disk"] == 2 * 6 * weights * 4


def test_the_step_that_is_timed_has_the_terms_that_the_recipe_gives_a_weight(made: Any) -> None:
    """Two batches, each timed at its second time round; where the discriminator learns, estimates need no gradient."""
    assert made("losses={}")[1] == {"denoiser": 4, "discriminator": 0}
    assert made("losses={symmetry: 0.1}")[1] == {"denoiser": 8, "discriminator": 0}
    assert made("losses={adversarial: 0.1}")[1] == {"denoiser": 6, "discriminator": 6}


def test_a_generator_whose_own_loss_trains_nothing_is_planned(made: Any) -> None:
    said, _ = made("losses={}", "generator={use: predicted, predictor: linear}", "task_loss.steps=0")
    assert next(stage["seconds"] for stage in said["stages"] if stage["stage"] == "train") == 0


def test_a_model_is_planned_at_the_workbench_that_is_given(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, "losses={}", "symmetry=null", "tokenizer=chunk")
    planned = plan_of_model(recipe, "test_resnet", bench_of(recipe))
    assert planned["weights"] > 100_000 and planned["tokens"] * planned["token_width"] >= planned["weights"]
    assert planned["seconds"] == pytest.approx(planned["tokens"] / planned["tokens_per_second"])
