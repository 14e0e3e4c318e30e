"""Task identity: what a task is called, copies in a zoo, codes of networks, and the three recipes at a small scale."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file
from torch import Tensor
from wspace_taskid.auto_encoder import Autoencoder
from wspace_taskid.task_id import TaskId

from tests.support.synthetic import bench_of, recipe_of, run
from wspace.data.prompts import name_of, prompts_of
from wspace.data.tasks import draw_tasks
from wspace.interfaces import CODES, Prompts
from wspace.recipes.bind import bind
from wspace.recipes.plugins import load_plugins
from wspace.recipes.schema import BoundRecipe
from wspace.recipes.source import apply, read_recipe
from wspace.runs import keys as stage_keys
from wspace.runs import pipeline
from wspace.runs.artifacts import Zoo
from wspace.runs.run import Run
from wspace.runs.study.file import bind_study
from wspace.support.errors import DataError, UserError, WspaceError
from wspace.support.files import read_json
from wspace.support.progress import Progress
from wspace.support.seeding import seeded, stream
from wspace.support.settings import Tasks
from wspace.testing.subject import SPECS
from wspace.uses import interpolate

CLASSES = ("otter", "lamp", "crab", "drum", "kite")
TEXTS = torch.eye(5)
TASKS = [(0, 1), (2, 3, 4), (1, 3)]


def prompts_of_tasks(*tasks: tuple[int, ...]) -> Prompts:
    return prompts_of(tasks, TEXTS, CLASSES)


# ---------------------------------------------------------------- what a task is called


def test_a_task_is_called_the_same_in_whatever_order_its_classes_are_named() -> None:
    assert name_of(["otter", "lamp"]) == name_of(("lamp", "otter")) == "lamp, otter"
    assert prompts_of_tasks(*TASKS).names == ("lamp, otter", "crab, drum, kite", "drum, lamp")
    assert prompts_of(TASKS, TEXTS).names is None


def test_rows_of_prompts_keep_their_names() -> None:
    prompts = prompts_of_tasks(*TASKS)
    for index, expected in ((slice(1, None), [1, 2]), (torch.tensor([2, 0, 2]), [2, 0, 2])):
        part = prompts[index]
        assert part.names == tuple(prompts.names[row] for row in expected)  # type: ignore[index]
        assert torch.equal(part.texts, prompts.texts[expected]) and torch.equal(part.mask, prompts.mask[expected])
    moved = prompts.to(torch.device("meta"))
    assert moved.names == prompts.names and moved.texts.is_meta and moved.mask.is_meta
    assert prompts_of(TASKS, TEXTS)[1:].names is None


def conditioner_of(**arguments: object) -> TaskId:
    with seeded(0):
        conditioner = TaskId(**arguments)  # type: ignore[arg-type]
    conditioner.fit(prompts_of_tasks(*TASKS, *TASKS))
    return conditioner


@pytest.mark.parametrize("ids", ["one-hot", "learned"])
def test_an_identity_is_of_the_name_and_not_of_the_texts(ids: str) -> None:
    conditioner = conditioner_of(ids=ids, room=8)
    other = replace(prompts_of_tasks(*TASKS), texts=torch.zeros(3, 3, 5))
    with torch.no_grad():
        one, two = conditioner(prompts_of_tasks(*TASKS)), conditioner(other)
    assert torch.equal(one.tokens, two.tokens) and torch.equal(one.pooled, two.pooled)
    torch.testing.assert_close(one.pooled @ one.pooled.T, 8 * torch.eye(3))
    assert one.tokens.shape == (3, 1, 8 if ids == "one-hot" else 64)


def test_a_task_that_was_not_in_training_is_told_and_says_nothing() -> None:
    conditioner = conditioner_of(room=3)
    conditioner.check(prompts_of_tasks((1, 0), (3, 2, 4)))
    with pytest.raises(UserError) as caught:
        conditioner.check(prompts_of_tasks((0, 1), (0, 4)))
    assert str(caught.value) == (
        "task 'kite, otter' was not in training; known: lamp, otter; crab, drum, kite; drum, lamp; use a text conditioner"
    )
    condition = conditioner(prompts_of_tasks((0, 1), (0, 4)))
    null = conditioner.null(condition)
    assert torch.equal(condition.tokens[1], null.tokens[1]) and torch.equal(condition.pooled[1], null.pooled[1])
    assert condition.tokens[0].any()


def test_of_many_known_tasks_a_few_are_told_and_long_names_from_their_start() -> None:
    conditioner = TaskId(room=9)
    names = [f"{'long ' * 20}{number}" for number in range(6)]
    conditioner.fit(Prompts(torch.zeros(6, 1, 5), torch.ones(6, 1, dtype=torch.bool), tuple(names)))
    asked = Prompts(torch.zeros(1, 1, 5), torch.ones(1, 1, dtype=torch.bool), (names[0] + "0",))
    with pytest.raises(UserError) as caught:
        conditioner.check(asked)
    shown = "; ".join([f"{names[0][:64]}..."] * 4)
    assert str(caught.value) == (
        f"task '{names[0]}0' was not in training; known: {shown}; and 2 more; use a text conditioner"
    )


def test_too_many_tasks_and_tasks_without_a_name_are_told() -> None:
    with pytest.raises(UserError) as caught:
        conditioner_of(room=2)
    assert str(caught.value) == "conditioner 'task-id': 3 tasks to train on, and room for 2; set conditioner.room to 3"
    with pytest.raises(UserError) as caught:
        conditioner_of(room=3)(prompts_of(TASKS, TEXTS))
    assert str(caught.value) == (
        "conditioner 'task-id': these tasks are told by their texts alone; use a text conditioner"
    )


# ---------------------------------------------------------------- several networks of a task

DRAWN = Tasks(seen=6, unseen=2, classes=(2, 4), held_out=0.34, unseen_classes=0)


def test_copies_of_a_task_are_all_trained_on_or_all_held_out() -> None:
    once, thrice = (draw_tasks(DRAWN, 9, stream(0), copies) for copies in (1, 3))
    assert once.seen == (*thrice.training[:4], *thrice.choosing[:2]) and once.unseen == thrice.unseen
    assert Counter(thrice.training) == dict.fromkeys(once.training, 3)
    assert Counter(thrice.choosing) == dict.fromkeys(once.choosing, 3)
    assert thrice.kept_back == once.kept_back == {*once.choosing, *once.unseen}


def test_with_nothing_held_out_the_last_copy_of_each_task_is() -> None:
    tasks = draw_tasks(replace(DRAWN, held_out=0.0), 9, stream(0), 3)
    assert tasks.training == tasks.choosing * 2 and len(set(tasks.choosing)) == 6
    assert tasks.kept_back == set(tasks.unseen), "fresh tasks may be those that are trained on anyway"
    alone = draw_tasks(replace(DRAWN, seen=1, held_out=0.0), 9, stream(0), 5)
    assert len(set(alone.seen)) == 1 and (len(alone.training), alone.held_out) == (4, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"held_out": 0.0},
            "tasks.held_out: 0 leaves no network to make choices on; set zoo.copies to 2 or more, of which the last is then "
            "held out",
        ),
        (
            {"seen": 1},
            "tasks.seen: 1 leaves no task to hold out; set tasks.held_out to 0, and zoo.copies to 2 or more",
        ),
    ],
)
def test_nothing_to_choose_on_is_told(settings: dict[str, float], message: str) -> None:
    with pytest.raises(DataError) as caught:
        draw_tasks(replace(DRAWN, **settings), 9, stream(0))  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_settings_that_came_later_leave_the_keys_of_older_recipes_as_they_were(tmp_path: Path) -> None:
    plain = stage_keys.keys(recipe_of(tmp_path), pipeline.STAGES)
    for setting, stage, default in (
        ("zoo.copies", "zoo", 1), ("reconstruction.steps", "train", 1000), ("task_loss.zoo", "train", 0.0),
    ):  # fmt: skip
        assert stage_keys.keys(recipe_of(tmp_path, f"{setting}={default}"), pipeline.STAGES) == plain
        assert stage_keys.keys(recipe_of(tmp_path, f"{setting}={default + 1}"), pipeline.STAGES)[stage] != plain[stage]
    slots = {name for stage in pipeline.STAGES for name in stage_keys.slots_of(recipe_of(tmp_path), stage)}
    assert not slots & {"zoo.copies", "task_loss.zoo"}
    assert not any(name.startswith("reconstruction") for name in slots)


# ---------------------------------------------------------------- codes

SPEC = SPECS["one hidden layer"]
ZOO = 1 + torch.linspace(0.1, 2, SPEC.size) * torch.randn(12, SPEC.size, generator=torch.Generator().manual_seed(0))


def autoencoder(tokens: int, width: int) -> Autoencoder:
    with seeded(0):
        made = Autoencoder(tokens, width, hidden=8, spec=SPEC)
    made.fit(ZOO)
    return made


def scaled(weights: Tensor) -> Tensor:
    """About the zoo's mean, each tensor in units of its spread."""
    tensors = SPEC.unflatten(weights - ZOO.mean(0))
    units = {name: tensor.square().mean().sqrt() for name, tensor in SPEC.unflatten(ZOO - ZOO.mean(0)).items()}
    return SPEC.flatten({name: tensor / units[name] for name, tensor in tensors.items()})


@torch.no_grad()
def test_a_fresh_code_is_the_best_linear_one_of_its_size() -> None:
    tokenizer = autoencoder(2, 2)
    left, sizes, right = torch.linalg.svd(scaled(ZOO).double(), full_matrices=False)
    best = (left[:, :4] * sizes[:4]) @ right[:4]
    torch.testing.assert_close(
        scaled(tokenizer.detokenize(tokenizer.tokenize(ZOO))), best.float(), rtol=1e-3, atol=1e-3
    )


@torch.no_grad()
def test_a_code_as_large_as_the_zoo_loses_nothing_of_it() -> None:
    tokenizer = autoencoder(3, 4)
    torch.testing.assert_close(tokenizer.detokenize(tokenizer.tokenize(ZOO)), ZOO, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_codes_have_mean_0_and_variance_1_over_the_zoo_once_fitted_again() -> None:
    tokenizer = autoencoder(2, 2)
    for parameter in tokenizer.parameters():  # as learnt
        parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    changed = tokenizer.tokenize(ZOO)
    assert (changed.var(0, correction=0) - 1).abs().max() > 0.1
    before = tokenizer.detokenize(changed)
    tokenizer.fit(ZOO)
    codes = tokenizer.tokenize(ZOO)
    torch.testing.assert_close(codes.mean(0), torch.zeros(2, 2), rtol=0, atol=1e-5)
    torch.testing.assert_close(codes.var(0, correction=0), torch.ones(2, 2), rtol=1e-4, atol=0)
    torch.testing.assert_close(tokenizer.detokenize(codes), before, rtol=1e-4, atol=1e-4)


def test_the_loss_is_the_share_of_variance_lost_and_the_divergence_from_noise() -> None:
    """Without noise in the code: what `lost` is of the network itself, and Kullback and Leibler's sum written out."""
    tokenizer = autoencoder(2, 2)
    with torch.no_grad():
        tokenizer.doubt.bias.fill_(-60)
        back = tokenizer.detokenize(tokenizer.tokenize(ZOO))
        terms = {name: float(value) for name, value in tokenizer.loss(ZOO, stream(0)).items()}
        codes = tokenizer._code(tokenizer._coordinates(ZOO)).flatten().tolist()
    lost = float(scaled(ZOO - back + ZOO.mean(0)).square().sum() / scaled(ZOO).square().sum())
    assert terms["lost"] == pytest.approx(lost, rel=1e-3)
    divergence = sum(0.5 * (code**2 + 0.0 - 1 + 60) for code in codes) / len(codes)
    assert terms["divergence"] == pytest.approx(tokenizer.kl * divergence, rel=1e-3)


LATENT = (
    "tokenizer={use: autoencoder, tokens: 2, width: 4, hidden: 8}",
    "conditioner={use: task-id, room: 8}",
    "generator.predictor=null",
    "tasks.seen=6",
    "tasks.held_out=0",
    "zoo.copies=5",
    "task_loss.steps=0",
    "losses={symmetry: 0, adversarial: 0}",
    "reconstruction={steps: 6, batch: 8, check_every: 3, most_lost: 1}",
)


def trained(folder: Path, *settings: str) -> tuple[Path, list[str]]:
    recipe = recipe_of(folder, *LATENT, *settings)
    output = run(recipe, bench_of(recipe), folder / "run", "zoo", "train", "generate")
    return folder / "run", output


def test_a_code_is_learnt_before_the_generator_and_then_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: list[dict[str, Tensor]] = []
    fit = Autoencoder.fit

    def spy(self: Autoencoder, weights: Tensor) -> None:
        fit(self, weights)
        learnt.append({name: parameter.detach().clone() for name, parameter in self.named_parameters()})

    monkeypatch.setattr(Autoencoder, "fit", spy)
    folder, _ = trained(tmp_path)
    summary = read_json(folder / "train/summary.json")
    assert summary["steps"] == {"reconstruction": 6, "train": 6}
    assert set(summary["reconstruction"]) == {"before", "after"}
    kept = load_file(folder / "train/generator.safetensors")
    before, after = learnt
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(kept[f"tokenizer.{name}"], value) for name, value in after.items())


@pytest.mark.parametrize("ids", ["one-hot", "learned"])
def test_codes_are_of_whole_small_networks_too(tmp_path: Path, ids: str) -> None:
    target = "target={use: module, architecture: {use: mlp, hidden: [5], norm: batch}}"
    folder, _ = trained(tmp_path, target, "symmetry=null", f"conditioner.ids={ids}", "reconstruction.most_lost=0.1")
    drawn = load_file(folder / "generate/generated-seen.safetensors")["weights"]
    assert drawn.isfinite().all() and drawn.shape[1] == Zoo(folder / "zoo").stored.header.spec.size


def test_a_code_that_loses_too_much_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(WspaceError) as caught:
        trained(
            tmp_path, "reconstruction.most_lost=0", "reconstruction.steps=0", "tokenizer.tokens=1", "tokenizer.width=1"
        )
    assert not isinstance(caught.value, UserError), "it failed while running"
    message = str(caught.value)
    assert message.startswith("the tokenizer loses too much: held-out networks reach ")
    assert message.endswith(
        " less where reconstruction.most_lost allows 0.0%; train it longer (reconstruction.steps), give its code more room, "
        "or allow more"
    )


@pytest.mark.parametrize("setting", ["train.augment=1", "losses.symmetry=0.1"])
def test_no_symmetry_moves_a_code(tmp_path: Path, setting: str) -> None:
    with pytest.raises(UserError) as caught:
        trained(tmp_path, setting)
    assert str(caught.value) == CODES


def test_of_tasks_it_was_not_told_of_the_run_says_so_and_draws_alike(tmp_path: Path) -> None:
    folder, output = trained(tmp_path)
    untold = read_json(folder / "train/summary.json")["untold"]
    assert set(untold) == {"unseen-tasks", "unseen-classes"}
    assert (
        f"note: unseen-tasks: {untold['unseen-tasks']}; the report's networks are drawn for no task in particular"
        in output
    )
    assert untold["unseen-tasks"].endswith("; use a text conditioner")
    drawn = load_file(folder / "generate/generated-unseen-tasks.safetensors")["weights"]
    assert torch.equal(drawn, drawn[:1].expand_as(drawn)), "at temperature 0, and under no condition"
    seen = load_file(folder / "generate/generated-seen.safetensors")["weights"]
    assert not torch.equal(seen, seen[:1].expand_as(seen))


def test_where_held_out_tasks_have_no_identity_choices_are_made_on_those_trained_on(tmp_path: Path) -> None:
    folder, _ = trained(tmp_path, "tasks.held_out=0.34", "zoo.copies=2")
    tasks = Zoo(folder / "zoo").tasks
    assert len(tasks.choosing) == 4 and not set(tasks.choosing) & set(tasks.training)
    log = [json.loads(line) for line in (folder / "train/log.jsonl").read_text().splitlines()]
    looks = [
        entry["validation_accuracy"] for entry in log if entry["phase"] == "train" and "validation_accuracy" in entry
    ]
    assert len(looks) == 2


# ---------------------------------------------------------------- the recipes, small, on points in place of pictures

ROOT = Path(__file__).parents[3]
SMALLER = (
    "target={use: clip-adapter, rank: 3, temperature: 10}", "tasks.evaluate=8",
    "zoo.base_steps=20", "zoo.steps=30", "zoo.batch=16", "zoo.lr=2e-2", "zoo.together=64",
    "opponents={steps: 20, universal_steps: 40, check_every: 10, rates: [1e-2]}",
    "tokenizer.tokens=2", "tokenizer.width=8", "tokenizer.hidden=16",
    "generator.denoiser.width=32", "generator.denoiser.depth=1",
    "reconstruction={steps: 20, check_every: 20, most_lost: 0.3}",
    "train={steps: 200, batch: 32, lr: 3e-3, check_every: 100}",
    "generate.steps=5", "evaluate.bootstrap=100", "device=cpu",
)  # fmt: skip
STAGES = ("zoo", "opponents", "train", "generate", "evaluate")
SETTINGS = {
    "taskid-single": ("tasks.classes=[5,5]", "tasks.unseen=4", "zoo.copies=16"),
    "taskid-several": ("tasks.classes=[2,4]", "tasks.seen=6", "tasks.unseen=4", "zoo.copies=6"),
}


def finished(recipe: BoundRecipe, folder: Path) -> Run:
    bench = bench_of(recipe)
    run(recipe, bench, folder, *STAGES)
    made = Run(folder, recipe, {stage: folder / stage for stage in STAGES}, Progress())
    made.bench = bench
    return made


def means(made: Run, split: str) -> dict[str, float]:
    scores = read_json(made.artifacts["evaluate"] / "scores.json")["scores"]
    return {s["method"]: s["mean"] for s in scores if (s["split"], s["metric"]) == (split, "accuracy")}


@pytest.fixture(scope="module", params=list(SETTINGS))
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    source = read_recipe(ROOT / f"recipes/{request.param}.yaml", (*SMALLER, *SETTINGS[request.param]))
    return finished(bind(source, load_plugins().registry), tmp_path_factory.mktemp(request.param))


def test_seen_tasks_are_drawn_from_their_identities(small: Run) -> None:
    seen = means(small, "seen")
    assert seen["generated"] > seen["random"] + 0.15
    if small.recipe.name == "taskid-several":
        assert seen["generated"] > seen["mismatched"] + 0.1
    else:
        assert set(small.zoo.tasks.seen) == {small.zoo.tasks.seen[0]}


def test_a_task_that_was_not_in_training_is_refused(small: Run) -> None:
    seen, unseen = (
        [small.zoo.classes[c] for c in task] for task in (small.zoo.tasks.seen[0], small.zoo.tasks.unseen[0])
    )
    assert small.generate(seen[::-1]).classes == tuple(seen[::-1])
    with pytest.raises(UserError) as caught:
        small.generate(unseen)
    assert str(caught.value).startswith(f"task '{name_of(unseen)}' was not in training; known: ")
    assert not small.knows([small.zoo.tasks.unseen[0]]) and small.knows(small.zoo.tasks.training)


def test_between_seen_tasks_an_identity_is_mixed_and_the_worst_point_told(small: Run) -> None:
    if small.recipe.name == "taskid-single":
        with pytest.raises(UserError) as caught:
            interpolate.study(small, steps=3)
        assert str(caught.value) == (
            "no two seen tasks of this run are without a class in common: name two by --from and --to"
        )
        return
    section = interpolate.study(small, steps=3)
    assert section.settings["of"] == "seen" and section.says[1].startswith(
        "Worst point of a way, mean over the tasks, %: "
    )
    first = small.zoo.tasks.scored("seen")
    pairs = interpolate.disjoint(first, 2, 20)
    corners = interpolate.Corners(small, list(zip(*pairs, strict=True)), 0)
    middle = corners.networks(interpolate.LINEAR, corners.counts(interpolate.LINEAR, 0.5))
    ids = [small.system.conditioner(small.prompts(tasks)).tokens for tasks in zip(*pairs, strict=True)]
    none = small.system.conditioner.null(small.system.conditioner(small.prompts(first[: len(pairs)])))
    expected = interpolate.generated(
        small, replace(none, tokens=(ids[0] + ids[1]) / 2, pooled=(ids[0] + ids[1])[:, 0] / 2), 0
    )
    torch.testing.assert_close(middle, expected, rtol=1e-4, atol=1e-4)
    assert corners.joined() is None


@pytest.mark.slow
def test_a_text_tells_of_unseen_tasks_what_an_identity_cannot(tmp_path: Path) -> None:
    few = {"tasks.classes": [2, 4], "tasks.seen": 60, "tasks.unseen": 8, "generate.temperature": 1.0}
    few |= {"train.steps": 600, "task_loss": {"steps": 10, "batch": 8, "images": 8}}
    small = {key: YAML(typ="safe").load(value) for key, _, value in (setting.partition("=") for setting in SMALLER)}
    source = read_recipe(ROOT / "recipes/taskid-unseen.yaml")
    members = bind_study(source, load_plugins().registry).members
    assert [member.variant for member in members] == ["identity", "text", "text and images"]
    accuracy = {}
    for member in members:
        recipe = read_recipe(ROOT / "recipes/taskid-several.yaml")
        for changes in (source.values["variants"][member.variant], small, few):
            apply(recipe, changes)
        made = finished(bind(recipe, load_plugins().registry), tmp_path / member.variant)
        accuracy[member.variant] = means(made, "unseen-tasks")
    assert accuracy["text"]["oracle"] == accuracy["identity"]["oracle"], "the same zoo, tasks and images"
    assert accuracy["identity"]["generated"] == accuracy["identity"]["mismatched"], "whatever it is asked for"
    assert accuracy["text"]["generated"] > accuracy["text"]["mismatched"] + 0.05
