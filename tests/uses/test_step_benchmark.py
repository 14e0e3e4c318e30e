"""A step of training against the plain one, at sizes of nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from subprocess import CompletedProcess

import pytest
import torch

from wspace.cli.run import bind_recipe
from wspace.recipes.schema import BoundRecipe
from wspace.support.errors import UserError
from wspace.support.progress import Progress
from wspace.uses.bench import step as bench_step

SMALL = (
    "target.rank=2",
    "tokenizer.size=9",
    "generator.denoiser={use: prior-attention, width: 16, depth: 1, heads: 2, projections: own, skip: false}",
    "discriminator.width=8",
    "train.batch=4",
    "device=cpu",
)
DIMS = {"feature_dim": 12, "text_dim": 10}
TASK = (
    "target.rank=2",
    "generator.denoiser={use: prior-attention, width: 16, depth: 1, heads: 2}",
    "task_loss.batch=8",
    "task_loss.images=8",
    "task_loss.lr=1e-2",
    "device=cpu",
)


def small(*settings: str) -> BoundRecipe:
    return bind_recipe("paper/t2w-cifar100", [*SMALL, *settings], None)


def plain_of(*settings: str) -> tuple[bench_step.PlainTraining, list[int]]:
    contestants, kinds, _ = bench_step._train(bench_step._Setting.of(small(*settings), DIMS, Progress()))
    plain = contestants["plain"]
    assert isinstance(plain, bench_step.PlainTraining)
    return plain, kinds


def test_the_command_sets_ours_against_the_plain_one(inside: Callable[..., CompletedProcess[str]]) -> None:
    arguments: Sequence[object] = ["--features", 12, "--texts", 10, "--steps", 1]
    settings = [part for setting in (*SMALL, "precision=bfloat16") for part in ("--set", setting)]
    done = inside("bench", "step", *arguments, *settings, "--json")
    result = json.loads(done.stdout)
    assert (done.returncode, result["benchmark"], result["recipe"]) == (0, "step", "t2w-cifar100")
    assert result["batch"] == "4 networks of 6 tokens of 9 values"  # 12 x 2 and 2 x 10 weights, in pieces of at most 9
    assert result["precision"] == {"ours": "bfloat16", "plain": "float32"}
    ours, plain = result["parameters"]["ours"], result["parameters"]["plain"]
    assert abs(ours / plain - 1) < 0.05  # a bias and a gate here and there
    for clock in ("seconds", "processor_seconds"):
        assert result["speedup"][clock] == pytest.approx(result[clock]["plain"] / result[clock]["ours"])
    lines = inside("bench", "step", *arguments, *settings).stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1] if line] == ["t2w-cifar100,", "parameters", "plain", "ours"]
    assert lines[-1].endswith("x by processor time")


def test_a_time_is_the_mean_over_kinds_of_medians_after_a_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now, taken = 0.0, list[tuple[str, int]]()

    def taking(who: str, seconds: dict[int, list[float]]) -> bench_step.Take:
        def take(number: int) -> None:
            nonlocal now
            now += seconds[number].pop(0)
            taken.append((who, number))

        return take

    contestants = {
        "ours": taking("ours", {0: [90, 1, 9, 2], 7: [90, 4, 4, 4]}),
        "plain": taking("plain", {0: [5, 6, 6, 60], 7: [5, 12, 1, 12]}),
    }
    monkeypatch.setattr(bench_step, "PHASES", {"train": lambda _: (contestants, [0, 7], {})})
    result = bench_step.step(small(), DIMS, 3, Progress(), clocks={"seconds": lambda: now})
    assert result["seconds"] == {"ours": 3, "plain": 9} and result["speedup"] == {"seconds": 3}
    assert taken[:4] == [("ours", 0), ("plain", 0), ("ours", 7), ("plain", 7)]


def test_the_plain_network_learns_in_both_turns_and_its_judge_in_one() -> None:
    plain, (learning, judging) = plain_of("train.lr=1e-2")
    assert plain.judge is not None
    for number, learns in ((learning, True), (judging, False)):
        before = [[p.clone() for p in module.parameters()] for module in (plain.network, plain.judge)]
        plain(number)
        moved = [
            any(not torch.equal(one, p) for one, p in zip(were, module.parameters(), strict=True))
            for were, module in zip(before, (plain.network, plain.judge), strict=True)
        ]
        assert moved == [True, learns]
    torch.manual_seed(0)
    losses = [float(plain(learning)) for _ in range(100)]
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])


def test_without_a_discriminator_there_is_one_kind_of_step() -> None:
    plain, kinds = plain_of("losses.adversarial=0")
    assert plain.judge is None and len(kinds) == 1


def test_by_the_task_loss_both_descend() -> None:
    recipe = bind_recipe("t2w", list(TASK), None)
    result = bench_step.step(recipe, DIMS, 1, Progress(), "task")
    assert (result["phase"], result["batch"]) == ("task", "8 tasks of 8 images")
    contestants, _, _ = bench_step._task(bench_step._Setting.of(recipe, DIMS, Progress()))
    plain = contestants["plain"]
    assert isinstance(plain, bench_step.PlainTaskTraining)
    torch.manual_seed(0)
    losses = [float(plain(0)) for _ in range(120)]
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20])


def test_a_generator_that_no_task_loss_trains_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        bench_step.step(small(), DIMS, 1, Progress(), "task")
    assert str(caught.value) == "bench step: generator 'diffusion' has nothing that a task loss trains"


def test_a_denoiser_that_is_no_transformer_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        bench_step.step(small("generator.denoiser=mlp"), DIMS, 1, Progress())
    assert str(caught.value) == (
        "bench step: the plain step is a transformer's, and denoiser 'mlp' has no width, depth and heads"
    )
