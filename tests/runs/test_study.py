"""Studies: what their files may say, how members share artifacts, and intervals over seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from filelock import FileLock

from tests.support.synthetic import Said
from tests.support.tiny import RECIPE, TINY_STAGES, WORKSHOP, Tiny, stages_fixture, tiny_fixture  # noqa: F401
from wspace.data import splits
from wspace.data.tasks import TaskSet
from wspace.recipes.plugins import load_plugins
from wspace.recipes.registry import Component
from wspace.recipes.schema import BoundRecipe
from wspace.recipes.source import read_recipe
from wspace.runs import pipeline
from wspace.runs.finished import stages_of
from wspace.runs.report import figures, table
from wspace.runs.report.methods import methods_of
from wspace.runs.store import write_manifest
from wspace.runs.study import comparing, running
from wspace.runs.study import file as study
from wspace.support.errors import NotARun, RecipeError, UserError
from wspace.support.files import read_json, save_tensors, write_json
from wspace.support.names import LOCK, LOCK_HOLDER, PAGE
from wspace.support.progress import Progress

STUDY = """study: tiny.yaml
seeds: [1, 2]
variants:
  full: {}
  with more steps: {train.steps: 20}
"""
MEMBERS = ["full-1", "with-more-steps-1", "full-2", "with-more-steps-2"]
NAMES = [stage.name for stage in TINY_STAGES]
TASKS = 4  # of each split

Bound = Callable[..., study.Study]


@pytest.fixture
def bound(tiny: Tiny, tmp_path: Path) -> Bound:
    """A study of the tiny recipe, which measures accuracy."""
    tiny.registry.add(Component("metric", "accuracy", "tiny_parts:Count", "tiny"))
    (tmp_path / "tiny.yaml").write_text(RECIPE.replace("[count]", "[accuracy]"), encoding="utf-8")

    def call(text: str = STUDY, *settings: str) -> study.Study:
        file = tmp_path / "a-study.yaml"
        file.write_text(text, encoding="utf-8")
        return study.bind_study(read_recipe(file), tiny.registry, settings)

    return call


# ---------------------------------------------------------------- the file


def test_members_are_the_base_recipe_with_what_each_variant_sets(bound: Bound) -> None:
    made = bound(STUDY, "target.rank=7", "train.steps=11")
    assert made.name == "a-study" and [m.recipe.name for m in made.members] == MEMBERS
    assert [m.recipe.seed for m in made.members] == [1, 1, 2, 2] == [m.recipe.filled["seed"] for m in made.members]
    assert [m.recipe.train.steps for m in made.members] == [11, 20, 11, 20], "a variant is about what `--set` says"
    assert {m.recipe.target.arguments["rank"] for m in made.members} == {7}
    assert [(row.variant, row.method, row.title) for row in made.rows] == [
        ("full", "generated", "full"),
        ("with more steps", "generated", "with more steps"),
    ]


def test_a_studys_own_keys_can_be_set(bound: Bound) -> None:
    made = bound(STUDY, "seeds=[7]", "splits=[seen]", "variants.third={train.steps: 30}")
    assert made.seeds == (7,) and made.splits == ("seen",)
    assert [m.recipe.name for m in made.members] == ["full-7", "with-more-steps-7", "third-7"]
    with pytest.raises(UserError) as caught:
        bound(STUDY, "seed=7")
    assert str(caught.value) == "--set seed: the seeds of a study are its own, as in --set seeds=[42]"


TRAIN_KEYS = (
    "accumulate, align, augment, batch, check_every, clip, ema, lr, shard_optimizer, "
    "steps, tokens, warmup, weight_decay"
)
TABLE = methods_of(load_plugins(allowed="").registry.all("opponent"))
ORDER = TABLE.order
METHODS = ", ".join(sorted(ORDER))
ALONG = (
    "adversary, against, auxiliary, backbone, conditioner, dataset, device, discriminator, engine, evaluate, generate, "
    "generator, losses, metrics, opponents, parameters, precision, reconstruction, seed, symmetry, target, task_loss, tasks, "
    "text, tokenizer, tracker, train, wording, zoo"
)
PROBLEMS = [
    (
        STUDY.replace("seeds", "seedz"),
        ":2: seedz: a study takes no 'seedz'. Did you mean 'seeds'? "
        "Known: along, methods, rows, seeds, splits, study, variants\n"
        ": seeds: missing",
    ),
    (STUDY.replace("[1, 2]", "[]"), ":2: seeds: name at least one"),
    (STUDY.replace("[1, 2]", "[1, -2]"), ":2: seeds.1: must be greater than or equal to 0, got -2"),
    (STUDY.replace("[1, 2]", "[1, '2', true]"), ":2: seeds.1: expected int, got '2'\n:2: seeds.2: expected int, got True"),
    (STUDY.replace("[1, 2]", "[1, 2, 1]"), ":2: seeds.2: 1 is named twice"),
    (STUDY.replace("[1, 2]", "3"), ":2: seeds: expected a list, got 3"),
    (STUDY.replace("  full: {}", "  full:"), ":4: variants.full: expected a mapping, got None"),
    ("study: tiny.yaml\nseeds: [1]\nvariants: {}\n", ":3: variants: name at least one"),
    (
        STUDY.replace("train.steps", "train.stepz"),
        f":5: variants.with more steps: train.stepz: 'train' takes no 'stepz'. Did you mean 'steps'? Known: {TRAIN_KEYS}",
    ),
    (
        STUDY.replace("{train.steps: 20}", "\n    train.lr: 1e-4\n    train: {steps: x}"),
        ":7: variants.with more steps: train.steps: expected int, got 'x'",
    ),
    (
        STUDY.replace("train.steps: 20", "symmetry: null, train.align: true"),
        ":5: variants.with more steps: train.align: the recipe names no symmetry; add `symmetry: NAME` (known: flip), "
        "or leave train.align out",
    ),
    (STUDY.replace("train.steps: 20", "seed: 3"), ":5: variants.with more steps.seed: the seeds of a study are its own"),
    (
        STUDY.replace("train.steps: 20", "metrics: [count]"),
        ":5: variants.with more steps: its runs would not measure accuracy, which the table is of",
    ),
    (STUDY.replace("20", "10"), ":5: variants.with more steps: is the same recipe as 'full'"),
    (
        STUDY.replace("{train.steps: 20}", "{each: {train.steps: 20}}"),
        ":5: variants.with more steps.each: expected one setting alone, and a list of its values: {train.steps: [10, 20]}",
    ),
    (
        STUDY.replace("{train.steps: 20}", "{each: {train.steps: [20, 20]}}"),
        ":5: variants.with more steps.each: train.steps is 20 twice",
    ),
    (
        STUDY.replace("{train.steps: 20}", "{each: {train.steps: [20, x]}}"),
        ":5: variants.with more steps, x: train.steps: expected int, got 'x'",
    ),
    (STUDY + "  Full!: {train.steps: 3}\n", ":6: variants.Full!: too like 'full' for a folder"),
    (STUDY + "  '?!': {train.steps: 3}\n", ":6: variants.?!: needs a letter or a digit, for a folder"),
    (
        STUDY + "splits: [sen]\n",
        ":6: splits.0: no 'sen'. Did you mean 'seen'? Known: seen, unseen-classes, unseen-orders, unseen-tasks",
    ),
    (
        STUDY + "rows:\n  - {variant: ful}\n  - {variant: full, method: orakle}\n",
        ":7: rows.0.variant: no 'ful'. Did you mean 'full'? Known: full, with more steps\n"
        f":8: rows.1.method: no 'orakle'. Did you mean 'oracle'? Known: {METHODS}",
    ),
    (
        STUDY + "rows:\n  - {variant: full, papre: {seen: 1}}\n",
        ":7: rows.0.papre: a study takes no 'papre'. Did you mean 'paper'? Known: label, method, paper, variant",
    ),
    (
        STUDY + "splits: [seen]\nrows:\n  - {variant: full, paper: {unseen-tasks: 1}}\n",
        ":8: rows.0.paper.unseen-tasks: no 'unseen-tasks'. Did you mean 'seen'? Known: seen",
    ),
    (
        STUDY + "rows:\n  - {variant: full}\n  - {variant: full, method: ridge}\n  - {variant: full, label: again}\n",
        ":8: rows.1: two rows are called 'full'; give this one another label\n:9: rows.2: the same as row 'full'",
    ),
    (
        STUDY + "methods: [generated, orakle, generated]\nrows: [{variant: full}]\n",
        f":6: methods.1: no 'orakle'. Did you mean 'oracle'? Known: {METHODS}\n:6: methods.2: generated is named twice\n"
        ":6: methods: these are rows of every variant, and `rows` says itself which there are; leave out one",
    ),
    (
        STUDY + "methods: [text-prototype]\n",
        ":6: methods.0: variant 'full' does not name 'text-prototype' in its `against`\n"
        ":6: methods.0: variant 'with more steps' does not name 'text-prototype' in its `against`",
    ),
    (
        STUDY + "along: train.stepz\n",
        ":6: along: the recipe of 'full' has no 'train.stepz': no 'stepz'. Did you mean 'steps'? Known: " + TRAIN_KEYS,
    ),
    (
        STUDY + "along: sed\n",
        ":6: along: the recipe of 'full' has no 'sed'. Did you mean 'seed'? Known: " + ALONG,
    ),
    (
        STUDY + "along: train.align\n",
        ":6: along: train.align is False in 'full', and has to be a number above 0, or null",
    ),
    (STUDY + "along: train.lr\n", ":6: along: train.lr is 0.0004 in 'with more steps', as in 'full'"),
    (STUDY.replace("tiny.yaml", "a-study.yaml"), ":1: study: {folder}/a-study.yaml is a study itself; name a recipe"),
    (STUDY.replace("[1, 2]", "[]") + "  Full!: {train.stepz: 3}\nrows: [{variant: ful}]\n", (
        ":2: seeds: name at least one\n"
        ":6: variants.Full!: too like 'full' for a folder\n"
        f":6: variants.Full!: train.stepz: 'train' takes no 'stepz'. Did you mean 'steps'? Known: {TRAIN_KEYS}\n"
        ":7: rows.0.variant: no 'ful'. Did you mean 'full'? Known: Full!, full, with more steps"
    )),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), PROBLEMS)
def test_problems_of_a_study_have_their_line_and_are_told_at_once(
    bound: Bound, tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        bound(text)
    told = str(caught.value).splitlines()
    file = f"{tmp_path}/a-study.yaml"
    assert all(line.startswith(file) for line in told)
    expected = [line.replace("{folder}", str(tmp_path)) for line in message.splitlines()]
    assert sorted(line.removeprefix(file) for line in told) == sorted(expected)


def test_problems_of_the_base_recipe_are_told_once_with_their_own_line(bound: Bound, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(RECIPE.replace("[count]", "[accuracy]").replace("depth: 2", "depth: 0"))
    with pytest.raises(RecipeError) as caught:
        bound()
    place = f"{tmp_path}/tiny.yaml:14: generator.denoiser.depth"
    assert str(caught.value) == (
        f"{tmp_path}/a-study.yaml:1: study: {place}: must be greater than or equal to 1, got 0"
    )
    fixed = bound("study: tiny.yaml\nseeds: [1]\nvariants: {deep: {generator.denoiser.depth: 4}}\n")
    assert len(fixed.members) == 1, "a variant may set what the recipe lacks"


def test_a_base_recipe_that_is_not_there_is_told_with_the_line(bound: Bound) -> None:
    with pytest.raises(
        RecipeError, match=r"a-study\.yaml:1: study: tinny: no such file, and no packaged recipe of that"
    ):
        bound(STUDY.replace("tiny.yaml", "tinny"))


def test_splits_of_so_many_unseen_classes_are_those_that_the_recipes_ask_for(bound: Bound) -> None:
    asked = "splits: [unseen-far-5]\n"
    assert bound(STUDY + asked, "tasks.unseen_ways=[5]").splits == ("unseen-far-5",)
    with pytest.raises(
        RecipeError, match=r":6: splits\.0: no 'unseen-far-5'\. .*Known: seen, unseen-classes, unseen-class"
    ):
        bound(STUDY + asked, "tasks.unseen_ways=[4]")


# ---------------------------------------------------------------- running


@pytest.fixture
def scored(stages: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Tiny stages that also leave what a table is made of: `generated` is better with more steps of training."""
    plain = {name: getattr(stages, name) for name in ("zoo", "evaluate", "report")}

    def zoo(job: Any) -> None:
        plain["zoo"](job)
        tasks = tuple((c, c + job.recipe.tasks.classes[0]) for c in range(TASKS))
        TaskSet((0,), (*tasks, (9,)), tasks, (), held_out=1, evaluate=9).save(job.folder / "tasks.json")
        write_json(job.folder / "world.json", {"fingerprints": {"images": str(job.recipe.dataset.arguments["size"])}})

    def evaluate(job: Any) -> None:
        plain["evaluate"](job)
        better = {"generated": job.recipe.train.steps / 100, "oracle": 0.3}
        of_seed = 0.1 * job.recipe.seed + 0.01 * torch.arange(TASKS)
        methods = ("generated", "oracle", "ridge", "universal")
        scores = {f"{s}/accuracy/{m}": of_seed + better.get(m, 0.0) for s in ("seen", "unseen-tasks") for m in methods}
        save_tensors(job.folder / "per-task.safetensors", scores)

    def report(job: Any) -> None:
        plain["report"](job)
        made = read_json(job.folder / "report.json")
        write_json(job.folder / "report.json", made | {"training": {"parameters": 3}, "seconds": {"zoo": 1.5}})

    for function in (zoo, evaluate, report):
        monkeypatch.setattr(stages, function.__name__, function)
    return stages


@pytest.fixture
def ran(scored: ModuleType, tmp_path: Path) -> Callable[..., list[str]]:
    """Run a study; the stages that ran."""

    def call(made: study.Study, progress: Progress | None = None, **options: Any) -> list[str]:
        scored.calls.clear()
        running.run(made, tmp_path / "runs", progress or Progress(), workshop=WORKSHOP, **options)
        return [name for name, *_ in scored.calls]

    return call


def test_a_study_runs_its_members_and_shares_what_they_have_in_common(bound: Bound, ran, tmp_path: Path) -> None:
    said = Said()
    calls = ran(bound(), said)
    folder = tmp_path / "runs/a-study"
    expected = {"zoo": 2, "opponents": 2, "train": 4, "generate": 4, "evaluate": 4, "report": 4}
    assert {name: calls.count(name) for name in NAMES} == expected
    for name in MEMBERS:
        assert len(list((folder / name).glob("*-*/artifact.json"))) == 6, "each folder is whole"
    assert [line for line in said.lines if "variant" in line] == [
        "full, seed 1: variant 1 of 2, seed 1 of 2",
        "with more steps, seed 1: variant 2 of 2, seed 1 of 2",
        "full, seed 2: variant 1 of 2, seed 2 of 2",
        "with more steps, seed 2: variant 2 of 2, seed 2 of 2",
    ]
    assert said.lines[8:10] == [f"zoo: made in {folder / 'full-1'}", f"opponents: made in {folder / 'full-1'}"]


def test_a_variant_that_is_refused_is_refused_before_another_is_trained(
    bound: Bound, scored, ran, tmp_path: Path
) -> None:
    def refuse(recipes: Mapping[str, BoundRecipe], workbench: object) -> None:
        asked.append({name: recipe.name for name, recipe in recipes.items()})
        if len(asked) == 1:
            raise UserError("variant 'with more steps': no")

    asked: list[dict[str, str]] = []
    strict = replace(WORKSHOP, check=refuse)
    with pytest.raises(UserError, match="^variant 'with more steps': no$"):
        running.run(bound(), tmp_path / "runs", Progress(), workshop=strict)
    assert asked == [{"variant 'full'": "full-2", "variant 'with more steps'": "with-more-steps-2"}]
    assert scored.calls == [] and not (tmp_path / "runs").exists()
    running.run(bound(), tmp_path / "runs", Progress(), workshop=strict)
    running.run(bound(), tmp_path / "runs", Progress(), workshop=strict)
    assert asked[1:] == [asked[0], {}], "what is trained is asked for no more"


def test_a_second_run_of_a_study_does_nothing(bound: Bound, ran, tmp_path: Path) -> None:
    ran(bound())
    assert ran(bound()) == []
    plans = running.plan(bound(), tmp_path / "runs", workshop=WORKSHOP)
    assert list(plans) == MEMBERS and {step.action for plan in plans.values() for step in plan} == {"cached"}


def test_dry_says_what_members_will_take_from_those_before_them(bound: Bound, scored, tmp_path: Path) -> None:
    plans = running.plan(bound(), tmp_path / "runs", workshop=WORKSHOP)
    assert [[step.action for step in plan] for plan in plans.values()] == [
        ["run"] * 6,
        ["link"] * 2 + ["run"] * 4,
    ] * 2
    assert plans["with-more-steps-2"][0].why == f"made in {tmp_path / 'runs/a-study/full-2'}"
    assert scored.calls == [] and not (tmp_path / "runs").exists()


def test_members_share_with_runs_and_with_other_studies(bound: Bound, ran, tiny: Tiny, tmp_path: Path) -> None:
    made = bound()
    pipeline.run(
        tiny.bind((tmp_path / "tiny.yaml").read_text() + "seed: 1\n"), tmp_path / "runs", Progress(), workshop=WORKSHOP
    )
    assert ran(made).count("zoo") == 1, "that of seed 2"
    (tmp_path / "runs/a-study").rename(tmp_path / "runs/another")
    assert ran(made) == []


def test_force_makes_each_artifact_anew_once(bound: Bound, ran, tiny: Tiny, tmp_path: Path) -> None:
    made = bound()
    pipeline.run(
        tiny.bind((tmp_path / "tiny.yaml").read_text() + "seed: 1\n"), tmp_path / "runs", Progress(), workshop=WORKSHOP
    )
    ran(made)
    plans = running.plan(made, tmp_path / "runs", ["zoo"], workshop=WORKSHOP)
    assert [plan[0].action for plan in plans.values()] == ["run", "link", "run", "link"]
    calls = ran(made, force=["zoo"])
    expected = {"zoo": 2, "opponents": 2, "train": 4, "generate": 4, "evaluate": 4, "report": 4}
    assert {name: calls.count(name) for name in NAMES} == expected
    assert ran(made) == []
    calls = ran(made, force=["train"])
    assert (calls.count("zoo"), calls.count("train")) == (0, 4)


def test_interrupted_after_a_force_nothing_old_passes_for_new(bound: Bound, ran, scored, tiny: Tiny, tmp_path) -> None:
    made = bound()
    ran(made)
    pipeline.run(
        tiny.bind((tmp_path / "tiny.yaml").read_text() + "seed: 2\n"), tmp_path / "runs", Progress(), workshop=WORKSHOP
    )
    scored.fails["train"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        ran(made, force=["zoo"])
    scored.fails.clear()
    calls = ran(made)
    expected = {"zoo": 1, "opponents": 1, "train": 4, "generate": 4, "evaluate": 4, "report": 4}
    assert {name: calls.count(name) for name in NAMES} == expected, "those of seed 1 were made before the interruption"
    assert ran(made) == [] and list((tmp_path / "runs").rglob("*.forced")) == []


def test_a_wrong_force_is_told_before_anything_is_written(bound: Bound, ran, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^no stage 'zooo': the stages are zoo, opponents, train, generate, "):
        ran(bound(), force=["zooo"])
    assert not (tmp_path / "runs").exists()


def test_an_interrupted_study_goes_on(bound: Bound, ran, scored, tmp_path: Path) -> None:
    scored.fails["evaluate"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        ran(bound())
    with pytest.raises(NotARun) as caught:
        comparing.report_of(tmp_path / "runs/a-study")
    assert str(caught.value) == f"{tmp_path}/runs/a-study: this study is not finished; run it again, and it goes on"
    scored.fails.clear()
    calls = ran(bound())
    expected = {"zoo": 1, "opponents": 1, "train": 3, "generate": 3, "evaluate": 4, "report": 4}
    assert {name: calls.count(name) for name in NAMES} == expected


def test_a_study_that_is_being_run_is_left_alone(bound: Bound, ran, tmp_path: Path) -> None:
    folder = tmp_path / "runs/a-study"
    folder.mkdir(parents=True)
    (folder / LOCK_HOLDER).write_text("4711")
    with FileLock(folder / LOCK), pytest.raises(UserError) as caught:
        ran(bound())
    assert str(caught.value) == (
        f"{folder}: is being run by process 4711; wait for it, or give this run another folder with --runs"
    )
    assert {file.name for file in folder.iterdir()} == {LOCK, LOCK_HOLDER}
    assert len(ran(bound())) == 20, "the lock went with its process"


def test_a_study_takes_no_folder_that_is_something_else(bound: Bound, ran, tiny, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    pipeline.run(tiny.bind(name="a-study.yaml"), runs, Progress(), workshop=WORKSHOP)
    with pytest.raises(UserError) as caught:
        ran(bound())
    assert str(caught.value) == (
        f"{runs}/a-study: a run is there already; give the study's file another name, or --runs another folder"
    )
    (runs / "a-study").rename(runs / "run")
    ran(bound())
    with pytest.raises(UserError) as caught:
        pipeline.run(tiny.bind(name="a-study.yaml"), runs, Progress(), workshop=WORKSHOP)
    assert str(caught.value) == (
        f"{runs}/a-study: a study is there already; give the recipe's file another name, or --runs another folder"
    )
    with pytest.raises(NotARun) as caught:
        stages_of(runs / "a-study")
    member = runs / "a-study/full-1"
    assert str(caught.value) == (
        f"{runs}/a-study: the folder of a study, not of a run; name one of its runs, such as {member}"
    )
    with pytest.raises(UserError, match=r"tiny\.yaml: not a folder$"):
        running.run(bound(), tmp_path / "tiny.yaml", Progress(), workshop=WORKSHOP)


# ---------------------------------------------------------------- the report


def report_of(folder: Path) -> dict[str, Any]:
    report = comparing.report_of(folder)
    assert report is not None
    return report


def test_a_report_has_rows_over_seeds_and_paired_differences(bound: Bound, ran, tmp_path: Path) -> None:
    rows = "  - {variant: full, method: universal, label: U, paper: {seen: 55.33}}\n  - {variant: full, label: F}\n"
    ran(bound(STUDY + f"splits: [seen]\nrows:\n{rows}  - {{variant: with more steps, label: M}}\n"))
    report = report_of(tmp_path / "runs/a-study")
    assert list(report) == [
        "study", "run", "seeds", "confidence", "rows", "differences", "training", "generators", "seconds",
    ]  # fmt: skip
    assert (report["study"], report["seeds"], report["confidence"]) == ("a-study", [1, 2], 0.95)
    first = report["rows"][0]
    assert {key: first[key] for key in ("label", "variant", "method", "split", "metric", "paper", "n")} == {
        "label": "U", "variant": "full", "method": "universal", "split": "seen", "metric": "accuracy", "paper": 55.33,
        "n": TASKS,
    }  # fmt: skip
    assert first["seeds"] == pytest.approx([0.115, 0.215]) and first["mean"] == pytest.approx(0.165)
    assert 0.1 <= first["ci_low"] < first["mean"] < first["ci_high"] <= 0.23
    assert [row["paper"] for row in report["rows"]] == [55.33, None, None]
    found = {(row["label"], row["minus"]): row for row in report["differences"]}
    means = {
        ("F", "U"): 0.1, ("M", "U"): 0.2,
        ("F", "its ridge"): 0.1, ("F", "its oracle"): -0.2,
        ("M", "its ridge"): 0.2, ("M", "its universal"): 0.2, ("M", "its oracle"): -0.1,
    }  # fmt: skip
    assert {pair: row["mean"] for pair, row in found.items()} == pytest.approx(means)
    for row in found.values():  # tasks and seeds cancel: these are pairs
        assert row["ci_high"] - row["ci_low"] < 1e-6 and row["seeds"] == pytest.approx([row["mean"]] * 2)


def test_the_time_of_what_members_share_is_counted_once(bound: Bound, ran, tmp_path: Path) -> None:
    made = bound()
    ran(made)
    folder = tmp_path / "runs/a-study"
    for manifest in folder.glob("*/*/artifact.json"):  # linked ones are one file
        write_manifest(manifest.parent, read_json(manifest) | {"seconds": 10.0})
    running.run(made, tmp_path / "runs", Progress(), workshop=WORKSHOP)
    assert report_of(folder)["seconds"] == {
        "zoo": 20.0, "opponents": 20.0, "train": 40.0, "generate": 40.0, "evaluate": 40.0, "report": 40.0,
    }  # fmt: skip


ALONG = """study: tiny.yaml
seeds: [1, 2]
variants:
  "10": &few {train.steps: 10, train.clip: 2.0}
  "20": {<<: *few, train.steps: 20, train.clip: 4.0}
  any: {<<: *few, train.steps: 30, train.clip: null}
methods: [generated, ridge]
along: train.clip
"""


def test_methods_are_rows_of_every_variant_each_compared_with_its_like(bound: Bound, ran, tmp_path: Path) -> None:
    ran(bound(ALONG))
    report = report_of(tmp_path / "runs/a-study")
    assert [(row["variant"], row["method"]) for row in report["rows"] if row["split"] == "seen"] == [
        (variant, method) for method in ("generated", "ridge") for variant in ("10", "20", "any")
    ]
    assert {(row["label"], row["minus"]) for row in report["differences"]} == {
        ("generated, 10", "generated, 20"), ("generated, 10", "generated, any"),
        *((f"generated, {variant}", f"ridge, {variant}") for variant in ("10", "20", "any")),
    }  # fmt: skip


def test_the_page_of_a_study_has_its_table_and_draws_accuracy_along_a_number(bound: Bound, ran, tmp_path: Path) -> None:
    ran(bound(ALONG))
    folder = tmp_path / "runs/a-study"
    assert report_of(folder)["along"] == {"path": "train.clip", "values": {"10": 2.0, "20": 4.0, "any": None}}
    page = (folder / PAGE).read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and page.count('<img src="data:image/png;base64,') == 1
    row = next(r for r in report_of(folder)["rows"] if (r["label"], r["split"]) == ("generated, 20", "seen"))
    assert f"<td>{100 * row['mean']:.1f} <small>[{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]" in page
    assert "Of what is generated" in page and "<th scope=col>parameters</th>" in page
    assert "Accuracy along train.clip" in page and "generated, 10 − ridge, 10" in page
    ran(bound(STUDY + "rows:\n  - {variant: full, label: <F>, paper: {seen: 55.33}}\n"))
    page = (folder / PAGE).read_text(encoding="utf-8")
    assert "<img" not in page and "&lt;F&gt;" in page and "55.33" in page and "<th scope=col>paper</th>" in page


def test_accuracy_is_drawn_against_numbers_with_what_has_none_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(figures, "encoded", lambda figure: drawn.append(figure) or "data:")
    rows = [
        {
            "split": split,
            "method": method,
            "variant": variant,
            "mean": mean,
            "ci_low": mean - 0.1,
            "ci_high": mean + 0.1,
        }
        for split in ("seen", "unseen-classes-5", "unseen-far-5")
        for method in ("generated", "eszsl")
        for variant, mean in (("all", 0.7), ("few", 0.4), ("many", 0.6))
    ]
    figures.accuracy_along_numbers(rows, "tasks.known", {"all": None, "few": 100, "many": 1600})
    (figure,) = drawn
    panels = [panel for panel in figure.axes if panel.axison]
    assert [panel.get_title() for panel in panels] == ["seen tasks", "unseen-classes-5", "unseen-far-5"]
    for panel in panels:
        assert panel.get_xscale() == "log"
        labels = [label.get_text() for label in panel.get_xticklabels()]
        assert dict(zip(panel.get_xticks(), labels, strict=True)) == {100: "100", 1600: "1600", 3200: "all"}
        lines = {line.get_label(): line for line in panel.get_lines()}
        for method in ("generated", "eszsl"):
            assert list(lines[method].get_xdata()) == [100, 1600]
            assert list(lines[method].get_ydata()) == pytest.approx([40, 60])
        ends = [line for line in panel.get_lines() if list(line.get_xdata()) == [3200]]
        assert [list(line.get_ydata()) for line in ends] == [pytest.approx([70])] * 2


@pytest.mark.parametrize("change", ["tasks.classes: [3, 8]", "dataset.size: 9"])
def test_variants_scored_on_other_tasks_or_images_are_not_paired(
    bound: Bound, ran, tmp_path: Path, change: str
) -> None:
    ran(bound(STUDY.replace("train.steps: 20", change)))
    pairs = {(row["label"], row["minus"]) for row in report_of(tmp_path / "runs/a-study")["differences"]}
    methods = ("ridge", "universal", "oracle")
    assert pairs == {(variant, f"its {method}") for variant in ("full", "with more steps") for method in methods}


def test_splits_are_those_of_all_runs_or_those_asked_for(bound: Bound, ran, tmp_path: Path) -> None:
    ran(bound())
    rows = report_of(tmp_path / "runs/a-study")["rows"]
    assert [(row["split"], row["label"]) for row in rows] == [
        (split, variant) for split in ("unseen-tasks", "seen") for variant in ("full", "with more steps")
    ]
    with pytest.raises(UserError) as caught:
        ran(bound(STUDY + "splits: [unseen-classes]\n"))
    assert str(caught.value) == (
        f"{tmp_path}/a-study.yaml: the runs of 'full' have no accuracy of 'generated' on 'unseen-classes'"
    )


# ---------------------------------------------------------------- the command line


@pytest.fixture
def call(
    bound: Bound, tiny: Tiny, scored, inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """The command line in this process, on a study: exit status, output, errors."""
    file = tmp_path / "a-study.yaml"
    file.write_text(STUDY)
    plugged = load_plugins([tiny.plugin]).registry
    monkeypatch.setattr("wspace.cli.run.registry_of", lambda plugins: plugged)

    def command(*arguments: object) -> tuple[int, str, str]:
        done = inside(*arguments, workshop=WORKSHOP)
        return done.returncode, done.stdout, done.stderr

    return command


def test_run_check_and_report_know_a_study(call, scored, tmp_path: Path) -> None:
    file, runs = tmp_path / "a-study.yaml", tmp_path / "runs"
    assert call("check", file) == (0, f"{file}: no problems\n", "")
    status, out, _ = call("run", file, "--runs", runs, "--dry")
    assert status == 0 and out.splitlines()[:2] == ["full-1", "zoo       will run  not done yet"]
    assert out.splitlines()[8] == f"zoo       will link made in {runs / 'a-study/full-1'}" and not runs.exists()

    status, out, _ = call("run", file, "--runs", runs)
    assert (status, out.splitlines()[-1]) == (0, str(runs / "a-study"))
    assert "a-study: mean over seeds 1, 2" in out and "nothing has changed" not in out
    assert "\n95 % intervals, by bootstrap over seeds and the tasks of each: 4 unseen-tasks, 4 seen\n" in out
    status, out, _ = call("run", file, "--runs", runs)
    assert out.splitlines()[0] == "nothing has changed: no stage had to run"
    status, out, err = call("report", runs / "a-study", "--json")
    assert json.loads(out)["run"] == str(runs / "a-study") and err == ""
    assert call("report", runs / "a-study", "--markdown")[1].startswith("| accuracy % | unseen-tasks | seen |\n|---|")
    assert json.loads(call("report", runs / "a-study/full-1", "--json")[1])["recipe"] == "full-1"


def test_other_commands_want_a_recipe(call, tmp_path: Path) -> None:
    file = tmp_path / "a-study.yaml"
    told = f"error: {file}: a study, of which `run`, `check` and `report` know what to do; name its recipe\n"
    assert call("plan", file) == (2, "", told)
    assert call("run", file, "--only", "zoo") == (2, "", "error: --only: a study runs all stages of its members\n")


# ---------------------------------------------------------------- tables


def score(method: str, split: str, metric: str, mean: float) -> dict[str, Any]:
    about = {"method": method, "split": split, "metric": metric}
    return about | {"mean": mean, "ci_low": mean - 0.01, "ci_high": mean + 0.01, "n": 200}


def a_report() -> dict[str, Any]:
    scores = [score(m, s, "accuracy", 0.5) for s in ("seen", "unseen-tasks", "unseen-classes") for m in ORDER]
    scores += [score(m, "unseen-tasks", "weight_mse", 1.234e-5) for m in ORDER]
    scores += [score(m, "seen", "weight_mse", 2.0) for m in ORDER]
    scores += [
        score(m, "unseen-tasks", metric, 0.25) for m in ("generated", "noise") for metric in ("novelty", "overlap")
    ]
    return {"recipe": "t2w", "seed": 42, "confidence": 0.95, "scores": scores}


def test_the_table_of_a_run_fits_a_terminal_with_a_line_for_each_method(capsys: pytest.CaptureFixture[str]) -> None:
    table.print_table(a_report(), TABLE)
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if "intervals" not in line) <= 80
    accuracy = next(line for line in lines if "accuracy %" in line)
    assert accuracy.index("unseen-tasks") < accuracy.index(" seen") < accuracy.index("unseen-classes")
    assert sum("50.0 [49.0, 51.0]" in line for line in lines) == len(ORDER)
    assert "95 % intervals, by bootstrap over tasks: 200 unseen-tasks, 200 seen, 200 unseen-classes" in lines
    assert [line.split()[3:9:2] for line in lines if "1.23e-05" in line and "0.25" in line] == [
        ["1.23e-05", "0.25", "0.25"]
    ] * 2


def test_further_splits_have_tables_of_their_own_with_the_methods_that_say_something_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("unseen-classes-5", "unseen-near-5", "unseen-far-5")
    pictured = tuple(f"unseen-classes-5-pictures-{number}" for number in (1, 2))
    scores = [
        score(m, s, "accuracy", 0.5) for s in ("unseen-tasks", *words, *pictured) for m in ("generated", "oracle")
    ]
    scores += [score("nearest-mean", s, "accuracy", 0.7) for s in pictured]
    scores = [s | {"mean": 0.8} if s["split"] in pictured and s["method"] == "generated" else s for s in scores]
    table.print_table(a_report() | {"scores": scores}, TABLE, markdown=True)
    tables = [
        [line.strip("| ").split(" | ") for line in one.splitlines()]
        for one in capsys.readouterr().out.strip().split("\n\n")
    ]
    assert [lines[0][1:] for lines in tables] == [["unseen-tasks"], [*words], [*pictured]]
    assert [[line[0] for line in lines[2:]] for lines in tables[:3]] == [
        ["oracle", "**generated**"], ["oracle", "**generated**"], ["**generated**", "nearest-mean"],
    ]  # fmt: skip


def test_the_table_of_a_run_as_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    table.print_table(a_report(), TABLE, markdown=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "| accuracy % | unseen-tasks | seen | unseen-classes |",
        "|---|---|---|---|",
        "| oracle | 50.0 [49.0, 51.0] | 50.0 [49.0, 51.0] | 50.0 [49.0, 51.0] |",
        "| **generated** | **50.0 [49.0, 51.0]** | **50.0 [49.0, 51.0]** | **50.0 [49.0, 51.0]** |",
    ]
    assert lines[len(ORDER) + 3 : len(ORDER) + 6] == [
        "| unseen-tasks | weight_mse | novelty | overlap |",
        "|---|---|---|---|",
        "| oracle | 1.23e-05 |  |  |",
    ]


def a_study(label: str = "Full") -> dict[str, Any]:
    row = {"label": label, "split": "seen", "mean": 0.6, "ci_low": 0.5, "ci_high": 0.7, "paper": 65.99, "n": 200}
    difference = {"label": label, "minus": "ridge", "split": "seen", "mean": -0.0001, "ci_low": -0.02, "ci_high": 0.04}
    return {"study": "s", "seeds": [1], "confidence": 0.95, "rows": [row], "differences": [difference]}


def test_a_study_prints_as_markdown_with_the_papers_figures(capsys: pytest.CaptureFixture[str]) -> None:
    table.print_study(a_study(), markdown=True)
    assert capsys.readouterr().out == (
        "| accuracy % | seen | paper |\n|---|---|---|\n| Full | 60.0 [50.0, 70.0] | 65.99 |\n\n"
        "| paired difference, points | seen |\n|---|---|\n| Full - ridge | +0.0 [-2.0, 4.0] |\n\n"
    )


def test_a_study_prints_on_a_terminal_with_no_cell_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    made = a_study("Universal Model [of all classes]")
    made["rows"] = [row | {"split": split} for row in made["rows"] for split in splits.AS_READ]
    made["differences"] = [row | {"split": split} for row in made["differences"] for split in splits.AS_READ]
    table.print_study(made)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.count("60.0 [50.0, 70.0]") for line in lines) == 4 == sum(line.count("65.99") for line in lines)
    assert sum(line.count("+0.0 [-2.0, 4.0]") for line in lines) == 4


def test_the_report_of_a_run_names_that_run_and_is_never_linked() -> None:
    assert [stage.name for stage in pipeline.STAGES if not stage.shared] == ["report"]


LINES = """study: tiny.yaml
seeds: [1, 2]
variants:
  plain: {each: {train.steps: [10, 20]}}
  clipped: {train.clip: 2.0, each: {train.steps: [10, 20, 30]}}
  alone: {train.clip: 3.0}
splits: [seen]
along: train.steps
"""


def test_a_variant_that_gives_a_setting_several_values_is_a_line_of_variants(bound: Bound, ran, tmp_path: Path) -> None:
    made = bound(LINES + "methods: [generated, ridge]\n", "seeds=[1]")
    assert [(m.recipe.name, m.recipe.train.steps, m.recipe.train.clip) for m in made.members] == [
        ("plain-10-1", 10, 1.0), ("plain-20-1", 20, 1.0),
        ("clipped-10-1", 10, 2.0), ("clipped-20-1", 20, 2.0), ("clipped-30-1", 30, 2.0), ("alone-1", 10, 3.0),
    ]  # fmt: skip
    ran(made)
    report = report_of(tmp_path / "runs/a-study")
    assert report["along"] == {
        "path": "train.steps",
        "values": {"plain, 10": 10, "plain, 20": 20, "clipped, 10": 10, "clipped, 20": 20, "clipped, 30": 30, "alone": 10},
        "lines": {
            "plain, 10": "plain", "plain, 20": "plain",
            "clipped, 10": "clipped", "clipped, 20": "clipped", "clipped, 30": "clipped", "alone": "alone",
        },
    }  # fmt: skip
    pairs = {(row["label"], row["minus"]) for row in report["differences"] if "ridge" not in row["minus"]}
    first = "generated, plain, 10"
    assert pairs == {(first, f"generated, {other}") for other in ("clipped, 10", "clipped, 20", "clipped, 30", "alone")}


def test_lines_of_as_many_points_are_compared_place_by_place(bound: Bound, ran, tmp_path: Path) -> None:
    ran(bound(LINES.replace(", 30]", "]").replace("along: train.steps", "along: parameters"), "seeds=[1]"))
    report = report_of(tmp_path / "runs/a-study")
    pairs = {(row["label"], row["minus"]) for row in report["differences"] if not row["minus"].startswith("its ")}
    assert pairs == {("plain, 10", "clipped, 10"), ("plain, 20", "clipped, 20"), ("plain, 10", "alone")}
    of_training = {row["variant"]: row["parameters"] for row in report["training"]}
    assert report["along"]["values"] == of_training and min(of_training.values()) > 0


def test_what_ends_a_name_is_said_and_rows_that_are_alike_are_not_set_off(
    bound: Bound, ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs/a-study"
    ran(bound(LINES, "seeds=[1]"))
    table.print_study(report_of(runs))
    assert "\nafter the last comma: train.steps\n" in capsys.readouterr().out
    page = (runs / PAGE).read_text(encoding="utf-8")
    assert "In names, after the last comma: train.steps." in page and "class=own" not in page
    two = LINES.replace("{train.clip: 2.0, each: {train.steps: [10, 20, 30]}}", "{each: {train.batch: [2, 3]}}")
    ran(bound(two.replace("along: train.steps\n", "methods: [generated, ridge]\n"), "seeds=[1]"))
    table.print_study(report_of(runs))
    assert "\nafter the last comma: train.steps (plain), train.batch (clipped)\n" in capsys.readouterr().out
    assert "class=own" in (runs / PAGE).read_text(encoding="utf-8")


def test_each_line_is_drawn_through_its_points(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(figures, "encoded", lambda figure: drawn.append(figure) or "data:")
    means = {"raw, 8": 0.2, "raw, 64": 0.4, "aligned, 8": 0.5, "aligned, 64": 0.6}
    rows = [
        {"split": "seen", "method": method, "variant": name, "mean": mean, "ci_low": mean - 0.1, "ci_high": mean + 0.1}
        for method in ("generated", "ridge")
        for name, mean in means.items()
    ]
    values = {"raw, 8": 900, "raw, 64": 7000, "aligned, 8": 900, "aligned, 64": 7000}
    figures.accuracy_along_numbers(rows, "parameters", values, {name: name.partition(",")[0] for name in means})
    (panel,) = drawn[0].axes
    lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in panel.get_lines()}
    for name, heights in {
        "raw": [20, 40],
        "aligned": [50, 60],
        "ridge, raw": [20, 40],
        "ridge, aligned": [50, 60],
    }.items():
        assert lines[name][0] == [900, 7000] and lines[name][1] == pytest.approx(heights)
