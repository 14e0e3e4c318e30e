"""Generators that draw nothing: ridge against a direct solve, the hypernetwork against its parts; with any recipe."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.support.synthetic import bench_of, recipe_of, run
from wspace.components.generators.hypernetwork import Hypernetwork
from wspace.components.generators.ridge import Ridge
from wspace.interfaces import Closed, Condition, Pairs, TokenLayout
from wspace.learning.ridge_regression import PENALTIES
from wspace.recipes.plugins import load_plugins
from wspace.runs.artifacts import Zoo
from wspace.support.errors import UserError
from wspace.support.seeding import seeded, stream
from wspace.support.settings import Generate
from wspace.testing import cases_of

LAYOUT = TokenLayout(torch.tensor([[True] * 4, [True] * 3 + [False]]))  # (N, D)
POOLED, TASKS = 3, 12
HOW = Generate()


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def condition_of(count: int, seed: int) -> Condition:
    pooled = normal(count, POOLED, seed=seed)
    return Condition(pooled[:, None], torch.ones(count, 1, dtype=torch.bool), pooled)


def zoo_of(condition: Condition, seed: int) -> Tensor:
    """Tokens that follow from the condition by a line, but for some noise."""
    line = normal(POOLED, LAYOUT.mask.numel(), seed=1)
    tokens = (2 + condition.pooled @ line + 0.5 * normal(len(condition.pooled), LAYOUT.mask.numel(), seed=seed)).view(
        -1, *LAYOUT.mask.shape
    )
    return tokens * LAYOUT.mask


CONDITION, OTHERS, ASKED = condition_of(TASKS, 2), condition_of(5, 3), condition_of(4, 4)
CLOSED = Closed(zoo_of(CONDITION, 5), CONDITION, (zoo_of(OTHERS, 6), OTHERS), torch.zeros(LAYOUT.mask.shape))


def solved(x: np.ndarray, y: np.ndarray, penalty: float, asked: np.ndarray) -> np.ndarray:
    """Ridge regression with a free intercept, by augmented rows: another way to the same minimum."""
    centered, strength = x - x.mean(0), penalty * x.var(0).mean()
    rows = np.vstack([centered, np.sqrt(len(x) * strength) * np.eye(x.shape[1])])
    values = np.vstack([y - y.mean(0), np.zeros((x.shape[1], y.shape[1]))])
    return y.mean(0) + (asked - x.mean(0)) @ np.linalg.lstsq(rows, values, rcond=None)[0]


def best_of(x: Tensor, held_out: Tensor, asked: Tensor) -> Tensor:
    """What ridge regression says for `asked`, its penalty the best one for the held-out pairs."""
    given, known = x.double().numpy(), CLOSED.tokens.flatten(1).double().numpy()
    truth = CLOSED.held_out[0].flatten(1).double().numpy()
    errors = [np.square(solved(given, known, p, held_out.double().numpy()) - truth).mean() for p in PENALTIES]
    found = solved(given, known, PENALTIES[int(np.argmin(errors))], asked.double().numpy())
    return torch.from_numpy(found).float().view(-1, *LAYOUT.mask.shape)


def test_ridge_is_ridge_regression_with_the_penalty_that_does_best_on_held_out_tasks() -> None:
    generator = Ridge(layout=LAYOUT, pooled_width=POOLED)
    generator.fit(CLOSED)
    made = generator.sample(ASKED, ASKED, HOW, stream(0))
    torch.testing.assert_close(made, best_of(CONDITION.pooled, OTHERS.pooled, ASKED.pooled), rtol=1e-3, atol=1e-4)
    assert list(generator.parameters()) == [] and generator.task_parameters() == []


def hypernetwork(learns: str = "tasks") -> Hypernetwork:
    with seeded(0):
        made = Hypernetwork(width=6, depth=2, learns=learns, layout=LAYOUT, pooled_width=POOLED)  # type: ignore[arg-type]
    made.fit(CLOSED)
    return made.eval()


def test_a_hypernetwork_starts_at_ridge_regression_on_its_own_features() -> None:
    generator = hypernetwork()
    with torch.no_grad():
        features = [generator._features(c) for c in (CONDITION, OTHERS, ASKED)]
    made = generator.sample(ASKED, ASKED, HOW, stream(0))
    torch.testing.assert_close(made, best_of(*features) * LAYOUT.mask, rtol=1e-2, atol=1e-2)
    assert torch.equal(made, generator.typical(ASKED))


def test_a_hypernetwork_that_learns_weights_descends_their_distance_in_units_of_the_zoos_spread() -> None:
    generator, pairs = hypernetwork("weights"), Pairs(CLOSED.tokens, CONDITION, CONDITION)
    with torch.no_grad():
        made, mean = generator.typical(CONDITION), CLOSED.tokens.mean(0)
    places = [(n, d) for n in range(LAYOUT.count) for d in range(LAYOUT.width) if LAYOUT.mask[n, d]]
    distance = sum(float((made[b, n, d] - CLOSED.tokens[b, n, d]) ** 2) for b in range(TASKS) for n, d in places)
    spread = sum(float((CLOSED.tokens[b, n, d] - mean[n, d]) ** 2) for b in range(TASKS) for n, d in places)
    (loss,) = generator.loss(pairs, stream(0)).values()
    assert float(loss.detach()) == pytest.approx(distance / spread, rel=1e-4)
    assert generator.task_parameters() == []


def test_a_hypernetwork_that_learns_tasks_leaves_all_of_it_to_the_task_loss() -> None:
    generator = hypernetwork("tasks")
    assert generator.loss(Pairs(CLOSED.tokens, CONDITION, CONDITION), stream(0)) == {}
    assert {id(p) for p in generator.task_parameters()} == {id(p) for p in generator.parameters()}


@pytest.mark.parametrize("learns", ["tasks", "weights"])
def test_a_hypernetwork_is_lawful_whatever_it_learns_from(learns: str) -> None:
    registry = load_plugins(allowed="").registry
    component = replace(registry.get("generator", "hypernetwork"), example={"width": 8, "depth": 3, "learns": learns})
    for case in cases_of(component, registry):
        case.run()


@pytest.mark.parametrize("generator", [Ridge(layout=LAYOUT, pooled_width=POOLED), hypernetwork()], ids=["r", "h"])
def test_a_sampler_is_refused(generator: Ridge | Hypernetwork) -> None:
    with pytest.raises(UserError) as caught:
        generator.sample(ASKED, ASKED, replace(HOW, sampler="ddim"), stream(0))
    assert str(caught.value) == "generate.sampler: this generator has no sampler 'ddim'. It has none to choose from."


# ---------------------------------------------------------------- in a run


def trained(folder: Path, *settings: str) -> tuple[Path, list[str]]:
    recipe = recipe_of(folder, *settings)
    said = run(recipe, bench_of(recipe), folder / "run", "zoo", "train", "generate")
    return folder / "run", said


@pytest.mark.parametrize("tokenizer", ["neuron", "{use: chunk, size: 4}"])
@pytest.mark.parametrize("generator", ["ridge", "hypernetwork"])
def test_a_recipe_need_only_name_it(tmp_path: Path, generator: str, tokenizer: str) -> None:
    folder, _ = trained(tmp_path, f"generator={generator}", f"tokenizer={tokenizer}")
    steps = json.loads((folder / "train/summary.json").read_text())["steps"]
    assert steps == ({"task": 4} if generator == "hypernetwork" else {})
    right, wrong = (
        load_file(folder / f"generate/{asked}-seen.safetensors")["weights"] for asked in ("generated", "mismatched")
    )
    assert right.isfinite().all() and not torch.equal(right, wrong)


def test_the_distance_to_the_zoo_joins_the_task_loss_and_holds_networks_near_it(tmp_path: Path) -> None:
    apart = {}
    for weight in (0, 1000):
        (tmp_path / str(weight)).mkdir()
        settings = ("generator=hypernetwork", f"task_loss.zoo={weight}", "task_loss.steps=30", "task_loss.lr=1e-2")
        folder, _ = trained(tmp_path / str(weight), *settings, "task_loss.check_every=30")
        log = [json.loads(line) for line in (folder / "train/log.jsonl").read_text().splitlines()]
        assert ("zoo" in log[0].get("terms", {})) == (weight > 0)
        if weight:
            assert log[-1]["loss"] == pytest.approx(
                log[-1]["terms"]["tasks"] + weight * log[-1]["terms"]["zoo"], rel=1e-4
            )
        made = load_file(folder / "generate/generated-seen.safetensors")["weights"]
        apart[weight] = float((made - Zoo(folder / "zoo").weights[: len(made)]).square().mean())
    assert apart[1000] < apart[0]


def test_a_hypernetwork_from_weights_is_judged_by_the_discriminator(tmp_path: Path) -> None:
    settings = ("generator={use: hypernetwork, learns: weights}", "losses.symmetry=0")
    folder, _ = trained(tmp_path, *settings)
    log = [json.loads(line) for line in (folder / "train/log.jsonl").read_text().splitlines()]
    assert [entry["phase"] for entry in log] == ["train"] * 6
    terms = [entry["terms"] for entry in log]
    assert all(each["weights"] > 0 for each in terms) and any("adversarial" in each for each in terms)


def test_a_symmetry_loss_is_told_to_be_left_out(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        trained(tmp_path, "generator={use: hypernetwork, learns: weights}")
    assert str(caught.value) == "losses.symmetry: this generator has no such term; set it to 0"


def test_a_generator_that_nothing_trains_is_told(tmp_path: Path) -> None:
    _, said = trained(tmp_path, "generator=hypernetwork", "task_loss.steps=0")
    assert "note: task_loss.steps is 0, and this generator learns by a task loss alone: it stays as it began" in said


def test_a_task_loss_that_only_harms_leaves_the_closed_form(tmp_path: Path) -> None:
    made = []
    for name, steps in (("as it began", 0), ("harmed", 4)):
        (tmp_path / name).mkdir()
        settings = ("generator=hypernetwork", f"task_loss.steps={steps}", "task_loss.lr=100", "task_loss.clip=1")
        folder, _ = trained(tmp_path / name, *settings)
        made.append(load_file(folder / "generate/generated-seen.safetensors")["weights"])
    assert torch.equal(*made)
