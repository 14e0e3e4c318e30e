"""The stages from zoo to generate on synthetic classes: which losses are computed, what is kept apart, what is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from tests.support.stand_ins import Adapter, Judge
from tests.support.synthetic import CLASSES, FEATURES, TEXTS, bench_of, recipe_of, run
from wspace.components.denoisers.mlp import MLP
from wspace.components.generators.diffusion import Diffusion
from wspace.components.opponents.oracle import RATE_TASKS
from wspace.interfaces import Generator, Prompts
from wspace.learning import fitting
from wspace.learning.denoising import Denoising
from wspace.learning.system import System
from wspace.runs.artifacts import TrainedOpponents, Zoo
from wspace.runs.run import Run
from wspace.runs.stages import train as train_stage
from wspace.runs.stages import zoo as zoo_stage
from wspace.support.errors import UserError
from wspace.support.files import read_json
from wspace.support.progress import Progress

Go = Callable[..., Path]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which stage zoo is done."""
    folder = tmp_path_factory.mktemp("synthetic")
    recipe = recipe_of(folder)
    run(recipe, bench_of(recipe), folder, "zoo")
    return folder


@pytest.fixture
def go(zoo: Path, tmp_path: Path) -> Go:
    """Train on that zoo with some `--set`s; the folder of stage train."""

    def call(*settings: str, name: str = "run", texts: Tensor | None = None, said: list[str] | None = None) -> Path:
        folder, recipe = tmp_path / name, recipe_of(tmp_path, *settings)
        shutil.copytree(zoo / "zoo", folder / "zoo")
        bench = bench_of(recipe)
        if texts is not None:
            bench.prompt_texts = texts
        lines = run(recipe, bench, folder, "train")
        if said is not None:
            said += lines
        return folder / "train"

    return call


def log_of(folder: Path, phase: str = "train") -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [entry for entry in entries if entry["phase"] == phase]


# ---------------------------------------------------------------- the losses of a recipe


def test_the_log_has_every_term_and_the_health_of_the_discriminator(go: Go) -> None:
    folder = go("adversary.warmup=0.3", "train.steps=8")
    log, summary = log_of(folder), read_json(folder / "summary.json")
    for entry in log:
        terms = entry["terms"]
        assert {"denoising", "symmetry"} <= set(terms)
        assert entry.get("discriminator", {}).keys() == (
            set() if "adversarial" in terms else {"loss", "accuracy", "gradient"}
        )
        total = terms["denoising"] + 0.1 * terms["symmetry"] + 0.1 * terms.get("adversarial", 0)
        assert entry["loss"] == pytest.approx(total, rel=1e-5)
    assert ["adversarial" in entry["terms"] for entry in log] == [False] * 3 + [True, False, True, False, True]
    assert 0 < summary["discriminator_accuracy"] < 1 and summary["equivariance_error"] > 0
    assert not any("discriminator" in name for name in load_file(folder / "generator.safetensors"))


def test_weights_of_zero_leave_the_denoising_term_alone(go: Go) -> None:
    folder = go("losses={}")
    for entry in log_of(folder):
        assert set(entry) - {"phase", "validation_accuracy"} == {"step", "loss", "gradient", "terms"}
        assert entry["terms"] == {"denoising": entry["loss"]}
    assert "discriminator_accuracy" not in read_json(folder / "summary.json")


def test_a_symmetry_loss_of_zero_asks_the_denoiser_no_second_time(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, forward = [0], MLP.forward

    def counting(self: MLP, *arguments: Any) -> Tensor:
        asked[0] += 1
        return forward(self, *arguments)

    monkeypatch.setattr(MLP, "forward", counting)
    counts = {}
    for weight in (0, 0.1):
        asked[0] = 0
        go(f"losses={{symmetry: {weight}}}", name=str(weight))
        counts[weight] = asked[0]
    assert counts[0.1] - counts[0] == 6  # one for each step; looks and the measured error ask as often


def test_an_adversarial_loss_of_zero_builds_no_discriminator(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("built")

    monkeypatch.setattr(Judge, "__init__", refuse)
    go("losses.adversarial=0", name="without")
    with pytest.raises(AssertionError, match="built"):
        go(name="with")


def test_a_discriminator_that_is_not_asked_changes_nothing(go: Go) -> None:
    plain = go("losses.adversarial=0", name="plain")
    other = go("losses.adversarial=0", "discriminator={use: judge, width: 7}", "adversary.turn=3", name="other")
    assert (plain / "generator.safetensors").read_bytes() == (other / "generator.safetensors").read_bytes()
    judged = go("adversary.warmup=0", name="judged")
    assert (plain / "generator.safetensors").read_bytes() != (judged / "generator.safetensors").read_bytes()


def test_an_optimiser_that_nobody_shares_changes_nothing_and_is_told(go: Go) -> None:
    said: list[str] = []
    plain, shared = go("train.steps=3", name="plain"), go("train.steps=3", "train.shard_optimizer=true", said=said)
    assert (plain / "generator.safetensors").read_bytes() == (shared / "generator.safetensors").read_bytes()
    assert "note: train.shard_optimizer: one process trains, which keeps all that the optimiser keeps" in said


def test_a_discriminator_that_wins_outright_is_told(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    estimate, said = Denoising.estimate, list[str]()
    monkeypatch.setattr(Denoising, "estimate", lambda *given: estimate(*given) + 9)  # none could take it for real
    folder = go("train.steps=160", "train.check_every=80", "adversary={warmup: 0.99, lr: 1e-2}", said=said)
    accuracy = read_json(folder / "summary.json")["discriminator_accuracy"]
    assert accuracy > 0.99
    assert said[-1] == (
        f"warning: the discriminator wins outright (it is right {accuracy:.1%} of the time), "
        "so the adversarial loss teaches the generator nothing: lower adversary.lr, or raise adversary.noise"
    )
    said.clear()
    go("train.steps=3", name="short", said=said)
    assert not any("discriminator" in line for line in said)


def test_a_generator_that_ignores_its_condition_is_told(go: Go) -> None:
    said: list[str] = []
    folder = go("generator.predictor=null", "train.steps=0", said=said)
    summary = read_json(folder / "summary.json")
    assert summary["collapsed"] and summary["validation_accuracy"] == summary["validation_accuracy_of_zoo_mean"]
    assert said == [
        "note: task_loss: this generator has nothing that a task loss trains, so it is left out",
        "warning: the generator ignores its condition: its networks for held-out tasks reach "
        f"{summary['validation_accuracy']:.1%} on validation images, the zoo's mean "
        f"{summary['validation_accuracy_of_zoo_mean']:.1%}",
    ]


def test_networks_that_are_the_same_for_all_tasks_are_told_while_training_goes_on(go: Go) -> None:
    said: list[str] = []
    go("train.steps=8", "train.check_every=2", "task_loss.steps=0", texts=torch.ones(CLASSES, TEXTS), said=said)
    (line,) = [line for line in said if "are one network" in line]
    assert line == (
        "warning: train: at step 4 the networks of different tasks are one network: they differ by 0.0% of what the zoo's do, "
        "so the condition counts for nothing"
    )
    said.clear()
    go("train.steps=8", "train.check_every=2", "task_loss.steps=0", name="told apart", said=said)
    assert not [line for line in said if "are one network" in line]


@pytest.mark.parametrize(
    ("reached", "mean", "ignores"),
    [
        (0.6, 0.6, True),
        (0.604, 0.6, True),
        (0.61, 0.6, False),
        (1.0, 1.0, False),
        (0.996, 1.0, False),
        (0.99, 1.0, True),
    ],
)
def test_of_a_mean_that_is_all_but_perfect_nobody_can_say_whether_words_are_heard(
    reached: float, mean: float, ignores: bool
) -> None:
    assert train_stage.ignores_condition(reached, mean) == ignores


def test_a_generator_that_its_condition_misleads_is_not_said_to_ignore_it(
    go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = {"validation_accuracy": 0.3, "validation_accuracy_of_zoo_mean": 0.6, "collapsed": True}
    monkeypatch.setattr(train_stage, "_accuracies", lambda *given: reached)
    said: list[str] = []
    go("train.steps=0", said=said)
    assert said[-1] == (
        "warning: the generator does worse than one that ignores its condition: its networks for held-out tasks reach 30.0% on "
        "validation images, the zoo's mean 60.0%"
    )


# ---------------------------------------------------------------- generators that have no such terms


def test_a_generator_without_estimates_takes_no_adversarial_loss(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Denoising, "estimate", Generator.estimate)
    with pytest.raises(UserError) as caught:
        go()
    assert str(caught.value) == (
        "losses.adversarial: this generator makes no estimates for a discriminator to judge; set it to 0"
    )


def test_a_generator_without_a_symmetry_term_takes_no_symmetry_loss(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = Diffusion.loss
    monkeypatch.setattr(Diffusion, "loss", lambda *given: {"denoising": loss(*given)["denoising"]})
    with pytest.raises(UserError) as caught:
        go()
    assert str(caught.value) == "losses.symmetry: this generator has no such term; set it to 0"


# ---------------------------------------------------------------- alignment


def test_aligned_networks_are_near_the_base_and_compute_what_they_did(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: dict[bool, tuple[Tensor, Tensor]] = {}
    fit = System.fit

    def spy(self: System, weights: Tensor, prompts: Prompts, held_out: tuple[Tensor, Prompts]) -> None:
        fitted[align] = weights, held_out[0]
        fit(self, weights, prompts, held_out)

    monkeypatch.setattr(System, "fit", spy)
    for align in (False, True):
        folder = go(f"train.align={str(align).lower()}", name=str(align))
    zoo, target = Zoo(folder.parent / "zoo"), Adapter(3, temperature=10, feature_dim=FEATURES, text_dim=TEXTS)
    features, texts = torch.randn(1, 9, 6), torch.randn(1, 4, 5)
    for plain, aligned in zip(fitted[False], fitted[True], strict=True):
        assert torch.cat(fitted[False]).equal(zoo.weights)
        before, after = ((w - zoo.base).norm(dim=1) for w in (plain, aligned))
        assert (after <= before + 1e-5).all()
        for one, other in zip(plain, aligned, strict=True):
            expected = target.logits(one[None], features, texts)
            torch.testing.assert_close(target.logits(other[None], features, texts), expected, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- classes set apart


def test_nothing_is_trained_on_images_of_classes_set_apart(zoo: Path, tmp_path: Path) -> None:
    """With other images of them, every byte is as before but the networks trained for their own tasks."""
    recipe, stages = recipe_of(tmp_path), ("zoo", "opponents", "train")
    known = frozenset(Zoo(zoo / "zoo").tasks.classes)
    others = frozenset(range(CLASSES)) - known
    assert len(others) == 5
    run(recipe, bench_of(recipe), tmp_path / "before", *stages)
    run(recipe, bench_of(recipe, others), tmp_path / "after", *stages)
    differing = [
        file.name
        for file in sorted((tmp_path / "before").rglob("*"))
        if file.is_file()
        and file.read_bytes() != (tmp_path / "after" / file.relative_to(tmp_path / "before")).read_bytes()
    ]
    assert set(differing) == {"oracle-unseen-classes.safetensors"}  # and what is noted of it
    run(recipe, bench_of(recipe, frozenset({min(known)})), tmp_path / "seen", "zoo")  # and the test would see it
    assert not torch.equal(Zoo(tmp_path / "seen/zoo").base, Zoo(tmp_path / "before/zoo").base)


def test_base_and_universal_are_trained_on_one_task_of_all_known_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[list[tuple[int, ...]]] = []
    for module, name in ((zoo_stage, "fit"), (fitting, "fit_until_validated")):
        original = getattr(module, name)

        def spy(target: Any, start: Tensor, tasks: Any, *rest: Any, original: Any = original, **more: Any) -> Any:
            fitted.append(list(tasks))
            return original(target, start, tasks, *rest, **more)

        monkeypatch.setattr(module, name, spy)
    recipe = recipe_of(tmp_path)
    run(recipe, bench_of(recipe), tmp_path, "zoo", "opponents")
    tasks = Zoo(tmp_path / "zoo").tasks
    assert fitted[0] == [tasks.classes]  # the base
    assert [t for group in fitted[1:3] for t in group] == list(tasks.seen)
    assert fitted[3] == list(tasks.choosing)[:RATE_TASKS]
    first, *others = [list(tasks.scored(split)) for split in tasks.splits]
    assert fitted[4:6] == [
        first,
        [tasks.classes],
    ]  # what each chooses comes first: the universal network is all of that one
    assert fitted[6:] == others
    assert (
        TrainedOpponents(tmp_path / "opponents").oracle("unseen-classes").shape[0]
        == len(tasks.scored("unseen-classes"))
        == 6
    )


def test_fresh_tasks_of_the_task_loss_are_none_that_are_kept_back(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[bool, set[tuple[int, ...]]] = {True: set(), False: set()}
    for fresh in (True, False):
        batches = __import__("wspace.learning.phases", fromlist=["TaskBatches"]).TaskBatches

        def spy(tasks: Any, *rest: Any, fresh: bool = fresh, batches: Any = batches) -> Any:
            drawn[fresh] |= set(tasks)
            return batches(tasks, *rest)

        with monkeypatch.context() as patched:
            patched.setattr("wspace.learning.phases.TaskBatches", spy)
            folder = go(f"task_loss={{steps: 20, batch: 16, fresh: {str(fresh).lower()}}}", name=str(fresh))
    tasks = Zoo(folder.parent / "zoo").tasks
    assert drawn[False] <= set(tasks.training) and len(drawn[False]) > 20
    assert len(drawn[True] - set(tasks.training)) > 100 and not drawn[True] & tasks.kept_back
    assert {c for task in drawn[True] for c in task} == set(tasks.classes)


# ---------------------------------------------------------------- what the generator is told


@pytest.mark.parametrize("last", [False, True])
def test_a_task_loss_comes_before_the_generators_own_or_goes_on_from_it(
    go: Go, monkeypatch: pytest.MonkeyPatch, last: bool
) -> None:
    monkeypatch.setattr(Diffusion, "task_loss_last", last)
    folder = go("task_loss.steps=2", "train.steps=2")
    phases = [json.loads(line)["phase"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert phases == (["train", "train", "task", "task"] if last else ["task", "task", "train", "train"])


def test_generate_tells_the_generator_what_train_was_told(go: Go, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    bench = bench_of(recipe)
    texts = bench.class_texts.flip(0).contiguous()  # other words than networks are scored against
    folder = go(texts=texts)
    written = load_file(folder / "said.safetensors")["texts"]
    assert torch.equal(written, texts)
    blind: Any = SimpleNamespace(  # knows no texts
        device=bench.device, target=bench.target, calibrated=lambda weights, tasks: weights
    )

    def generated() -> Tensor:
        run(recipe, blind, folder.parent, "generate")
        return load_file(folder.parent / "generate/generated-unseen-tasks.safetensors")["weights"]

    first = generated()
    save_file({"texts": written.roll(1, 0)}, folder / "said.safetensors")
    assert not torch.equal(generated(), first)
    save_file({"texts": written}, folder / "said.safetensors")
    assert torch.equal(generated(), first)


def test_in_every_phase_the_generator_is_told_what_is_said_and_not_what_networks_are_scored_against(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_texts = bench_of(recipe_of(tmp_path)).class_texts
    prompt_texts = functional.normalize(class_texts + 0.1, dim=1)
    heard: dict[str, set[tuple[float, ...]]] = {"fit": set(), "pairs": set(), "typical": set(), "sample": set()}
    for name, rows in heard.items():
        method = getattr(System, name)

        def spy(self: System, *given: Any, rows: Any = rows, method: Any = method, **more: Any) -> Any:
            prompts = [g for g in given if isinstance(g, Prompts)]
            prompts += [g[1] for g in given if isinstance(g, tuple) and len(g) == 2 and isinstance(g[1], Prompts)]
            for prompt in prompts:
                rows |= {tuple(row.tolist()) for row in prompt.texts[prompt.mask]}
            return method(self, *given, **more)

        monkeypatch.setattr(System, name, spy)
    go(texts=prompt_texts)
    given = {tuple(row.tolist()) for row in prompt_texts}
    assert all(len(rows) > 5 and rows <= given for rows in heard.values())


def test_a_run_is_told_classes_in_the_words_of_its_recipe(go: Go, tmp_path: Path) -> None:
    folder, file = go().parent, tmp_path / "described.yaml"
    file.write_text("class 3: [It looks like class 7, 'A picture of class 7']\n", encoding="utf-8")

    def weights(classes: tuple[str, str], *settings: str) -> dict[str, Tensor]:
        recipe = recipe_of(tmp_path, *settings)
        finished = Run(folder, recipe, {name: folder / name for name in ("zoo", "train", "evaluate")}, Progress())
        finished.bench = bench_of(recipe)
        return finished.generate(classes).tensors

    described = weights(("class 3", "class 5"), f"wording={{use: descriptions, file: {file}, missing: template}}")
    templated = weights(("class 7", "class 5"))
    for name, tensor in described.items():
        torch.testing.assert_close(tensor, templated[name])
    assert not torch.allclose(weights(("class 3", "class 5"))["w1"], described["w1"], atol=1e-3)
    with pytest.raises(UserError, match="does not describe 'class 5': did you mean class 3"):
        weights(("class 3", "class 5"), f"wording={{use: descriptions, file: {file}}}")
