"""Binding: a recipe against constructors, every problem at once and word for word."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tiny import RECIPE, Tiny, tiny_fixture  # noqa: F401
from wspace.recipes.registry import Component, Registry
from wspace.recipes.schema import Bound
from wspace.support.errors import RecipeError
from wspace.support.yaml import dump

SECTION_KEYS = (
    "accumulate, align, augment, batch, check_every, clip, ema, lr, shard_optimizer, steps, tokens, warmup, "
    "weight_decay"
)
RECIPE_KEYS = (
    "adversary, against, auxiliary, backbone, conditioner, dataset, device, discriminator, engine, evaluate, generate, "
    "generator, losses, metrics, opponents, precision, reconstruction, seed, symmetry, target, task_loss, tasks, text, "
    "tokenizer, tracker, train, wording, zoo"
)
NET_KEYS = "cap, depth, pair, rate, rates, title, width"


def problems(tiny: Tiny, text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        tiny.bind(text)
    assert caught.value.exit_status == 2
    return str(caught.value)


ONE_PROBLEM = [
    # unknown names
    (
        "dataset: grid",
        "dataset: gird",
        "1: dataset.use: no dataset named 'gird'. Did you mean 'grid'? Known: files, grid",
    ),
    ("use: net", "use: zzz", "12: generator.denoiser.use: no denoiser named 'zzz'. Known: net"),
    (
        "use: noise",
        "use: nose",
        "10: generator.use: no generator named 'nose'. Did you mean 'noise'? Known: defaulted, noise",
    ),
    (
        "[count]",
        "[cuont]",
        "15: metrics.0.use: no metric named 'cuont'. Did you mean 'count'? Known: broken, count",
    ),
    # unknown keys
    (
        "depth: 2",
        "dpth: 2",
        f"14: generator.denoiser.dpth: denoiser 'net' takes no 'dpth'. Did you mean 'depth'? Known: {NET_KEYS}",
    ),
    (
        "{steps: 10}",
        "{stpes: 10}",
        f"16: train.stpes: 'train' takes no 'stpes'. Did you mean 'steps'? Known: {SECTION_KEYS}",
    ),
    ("train:", "trian:", f"16: trian: a recipe takes no 'trian'. Did you mean 'train'? Known: {RECIPE_KEYS}"),
    (
        "backbone: flat",
        "backbone: {use: flat, x: 1}",
        "2: backbone.x: backbone 'flat' takes no 'x'. Known: (none)",
    ),
    # what the run gives
    ("rank: 4", "feature_dim: 4", "4: target.feature_dim: is set by the run; remove it from the recipe"),
    # missing
    ("    width: 8\n", "", "11: generator.denoiser.width: missing; denoiser 'net' needs width: int"),
    ("  size: 16\n", "", "5: tokenizer.size: missing; tokenizer 'pieces' needs size: int, above 0"),
    ("dataset: grid", "dataset: files", "1: dataset.path: missing; dataset 'files' needs path: path"),
    ("dataset: grid\n", "", " dataset: missing; a recipe needs dataset: a dataset"),
    # values
    ("width: 8", "width: 8.5", "13: generator.denoiser.width: expected int, got 8.5"),
    ("width: 8", "width: 8.0", "13: generator.denoiser.width: expected int, got 8.0"),
    ("width: 8", "width: true", "13: generator.denoiser.width: expected int, got True"),
    ("width: 8", "width: '8'", "13: generator.denoiser.width: expected int, got '8'"),
    ("width: 8", "width: null", "13: generator.denoiser.width: expected int, got None"),
    ("width: 8", "width: {a: 1}", "13: generator.denoiser.width: expected int, got {'a': 1}"),
    (
        "width: 8",
        "width: 2026-01-02",
        "13: generator.denoiser.width: expected a plain finite value, got datetime.date(2026, 1, 2)",
    ),
    ("depth: 2", "depth: 0", "14: generator.denoiser.depth: must be greater than or equal to 1, got 0"),
    ("depth: 2", "rate: fast", "14: generator.denoiser.rate: expected float, got 'fast'"),
    ("depth: 2", "rate: true", "14: generator.denoiser.rate: expected float, got True"),
    ("depth: 2", "rate: .nan", "14: generator.denoiser.rate: expected a plain finite value, got nan"),
    ("depth: 2", "rate: nan", "14: generator.denoiser.rate: expected a plain finite value, got 'nan'"),
    ("depth: 2", "rate: -Infinity", "14: generator.denoiser.rate: expected a plain finite value, got '-Infinity'"),
    ("depth: 2", "rate: -.inf", "14: generator.denoiser.rate: expected a plain finite value, got -inf"),
    (
        "depth: 2",
        "rates: [.5, .inf]",
        "14: generator.denoiser.rates: expected a plain finite value, got [0.5, inf]",
    ),
    ("depth: 2", "title: 3", "14: generator.denoiser.title: expected str, got 3"),
    ("depth: 2", "cap: 0", "14: generator.denoiser.cap: must be greater than 0, got 0"),
    ("depth: 2", "cap: x", "14: generator.denoiser.cap: expected float, got 'x'"),
    ("depth: 2", "pair: 5", "14: generator.denoiser.pair: expected a list, got 5"),
    ("depth: 2", "pair: [1]", "14: generator.denoiser.pair: expected a longer list, got [1]"),
    (
        "depth: 2",
        "pair: [1, 2, 3]",
        "14: generator.denoiser.pair: expected a list of 2 or fewer, got [1, 2, 3]",
    ),
    ("depth: 2", "pair: [1, x]", "14: generator.denoiser.pair.1: expected int, got 'x'"),
    ("depth: 2", "rates:\n    - 1\n    - x", "16: generator.denoiser.rates.1: expected float, got 'x'"),
    ("depth: 2", "rates: x", "14: generator.denoiser.rates: expected a list, got 'x'"),
    ("rank: 4", "bias: 1", "4: target.bias: expected bool, got 1"),
    ("rank: 4", "bias: no", "4: target.bias: expected bool, got 'no'"),
    ("dataset: grid", "dataset: {use: files, path: 3}", "1: dataset.path: expected str, got 3"),
    (
        "conditioner: plain",
        "conditioner: {use: plain, dropout: 2}",
        "8: conditioner.dropout: must be less than or equal to 1, got 2",
    ),
    (
        "  use: pieces\n  size: 16",
        "  use: whole\n  scale: max",
        "7: tokenizer.scale: expected one of 'none', 'unit', got 'max'",
    ),
    ("train: {steps: 10}", "device: gpu", "16: device: expected one of 'auto', 'cpu', 'cuda', got 'gpu'"),
    (
        "train: {steps: 10}",
        "opponents: {rates: []}",
        "16: opponents.rates: expected a list of 1 or more, got []",
    ),
    # what needs a symmetry
    (
        "train: {steps: 10}",
        "train: {augment: 0.5}",
        "16: train.augment: the recipe names no symmetry; add `symmetry: NAME` (known: flip), or leave train.augment out",
    ),
    (
        "train: {steps: 10}",
        "train: {align: true}",
        "16: train.align: the recipe names no symmetry; add `symmetry: NAME` (known: flip), or leave train.align out",
    ),
    (
        "train: {steps: 10}",
        "losses:\n  symmetry: 0.1",
        "17: losses.symmetry: the recipe names no symmetry; add `symmetry: NAME` (known: flip), or leave losses.symmetry out",
    ),
    # what the batch must hold
    (
        "train: {steps: 10}",
        "train: {batch: 4, accumulate: 5}",
        "16: train.accumulate: a batch of 4 networks has no 5 parts: set it to 4 at most",
    ),
    # what the generator must have
    (
        "train: {steps: 10}",
        "generate: {sampler: eluer}",
        "16: generate.sampler: generator 'noise' has no sampler 'eluer'. Did you mean 'euler'? Known: euler, heun",
    ),
    # shapes
    ("dataset: grid", "dataset: 3", "1: dataset: expected a dataset: a name, or {use: NAME, ...}, got 3"),
    ("dataset: grid", "dataset:", "1: dataset: expected a dataset: a name, or {use: NAME, ...}, got None"),
    (
        "dataset: grid",
        "dataset: {size: 3}",
        "1: dataset: expected a dataset: a name, or {use: NAME, ...}, got {'size': 3}",
    ),
    (
        "dataset: grid",
        "dataset: {use: 3}",
        "1: dataset: expected a dataset: a name, or {use: NAME, ...}, got {'use': 3}",
    ),
    (
        "depth: 2",
        "depth: 2\n  helper: 7",
        "15: generator.helper: expected a denoiser: a name, or {use: NAME, ...}, got 7",
    ),
    ("train: {steps: 10}", "train: [10]", "16: train: expected a mapping, got [10]"),
    (
        "train: {steps: 10}",
        "train:",
        "16: train: expected a mapping, got None; leave it out for its defaults, and to do without it set train.steps to 0",
    ),
    (
        "train: {steps: 10}",
        "train: {steps: 10}\nzoo: null",
        "17: zoo: expected a mapping, got None; leave it out for its defaults",
    ),
    ("[count]", "count", "15: metrics: expected a list, got 'count'"),
    ("[count]", "[]", "15: metrics: name at least one"),
]


@pytest.mark.parametrize(("old", "new", "message"), ONE_PROBLEM, ids=[m for *_, m in ONE_PROBLEM])
def test_a_problem_is_told_word_for_word_with_its_line(tiny: Tiny, old: str, new: str, message: str) -> None:
    assert tiny.recipe.count(old) == 1
    assert problems(tiny, tiny.recipe.replace(old, new)) == f"tiny.yaml:{message}"


def test_a_generator_without_samplers_takes_none(tiny: Tiny) -> None:
    text = RECIPE.replace("use: noise", "use: defaulted").replace("train:", "generate: {sampler: euler}\ntrain:")
    assert "16: generate.sampler: generator 'defaulted' has no sampler 'euler'. It has none" in problems(tiny, text)


def test_a_component_whose_constructor_cannot_be_read_is_named_as_broken(tiny: Tiny) -> None:
    message = problems(tiny, tiny.recipe.replace("[count]", "[broken]"))
    reason = f"metric 'broken' is broken: {tiny.file}: parameter 'anything' has no annotation"
    assert message == f"tiny.yaml:15: metrics.0.use: {reason}"


def test_all_problems_come_at_once_sorted_by_line(tiny: Tiny) -> None:
    text = (
        tiny.recipe.replace("{steps: 10}", "{steps: -1}").replace("width: 8", "width: x").replace("rank: 4", "rnk: 4")
    )
    text = text.replace("backbone: flat\n", "")
    lines = problems(tiny, text).splitlines()
    assert lines == [
        "tiny.yaml: backbone: missing; a recipe needs backbone: a backbone",
        "tiny.yaml:3: target.rnk: target 'linear' takes no 'rnk'. Did you mean 'rank'? Known: bias, rank",
        "tiny.yaml:12: generator.denoiser.width: expected int, got 'x'",
        "tiny.yaml:15: train.steps: must be greater than or equal to 0, got -1",
    ]


def test_a_problem_of_a_set_value_names_the_option(tiny: Tiny, tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(tiny.recipe)
    with pytest.raises(RecipeError) as caught:
        tiny.bind_file(file, "generator.denoiser.depth=0")
    assert str(caught.value) == "--set generator.denoiser.depth: must be greater than or equal to 1, got 0"


def test_defaults_are_filled_in_and_nested_components_are_bound(tiny: Tiny) -> None:
    recipe = tiny.bind()
    denoiser = recipe.generator.arguments["denoiser"]
    assert isinstance(denoiser, Bound) and denoiser.name == "net"
    assert denoiser.arguments == {
        "width": 8, "depth": 2, "rate": 1e-3, "title": "net", "pair": (1, 2), "rates": [0.5], "cap": None,
    }  # fmt: skip
    assert recipe.generator.arguments["helper"] is None and recipe.symmetry is None
    assert recipe.train.steps == 10 and recipe.train.batch == 64 and recipe.seed == 42
    assert recipe.filled["tokenizer"] == {"use": "pieces", "size": 16}
    assert recipe.filled["zoo"]["steps"] == 120 and recipe.filled["tasks"]["classes"] == [8, 32]
    slots = ("dataset", "backbone", "text", "target", "tokenizer", "conditioner", "generator", "metrics", "symmetry")
    assert [b.name for b in recipe.components(("generator",))] == ["noise", "net"]
    assert [b.name for b in recipe.components(slots)] == [
        "grid", "flat", "letters", "linear", "pieces", "plain", "noise", "net", "count",
    ]  # fmt: skip


def test_an_optional_slot_takes_a_name_a_block_or_null(tiny: Tiny) -> None:
    assert tiny.bind(tiny.recipe + "symmetry: null\n").symmetry is None
    assert tiny.bind(tiny.recipe + "symmetry: flip\n").symmetry.arguments == {"axes": ("hidden",)}
    text = tiny.recipe.replace("  use: noise", "  use: noise\n  helper: {use: net, width: 2}")
    assert tiny.bind(text).generator.arguments["helper"].arguments["width"] == 2


def test_a_slot_may_have_a_default(tiny: Tiny) -> None:
    start, end = tiny.recipe.index("generator:"), tiny.recipe.index("metrics:")
    text = tiny.recipe[:start] + "generator: defaulted\n" + tiny.recipe[end:]
    tiny.file.write_text(tiny.file.read_text().replace("width: int,", "width: int = 5,"))
    bound = tiny.bind(text).generator.arguments["denoiser"]
    assert isinstance(bound, Bound) and bound.arguments["width"] == 5


def test_a_recipe_with_a_symmetry_may_use_it(tiny: Tiny) -> None:
    text = tiny.recipe.replace("{steps: 10}", "{align: true, augment: 0.5}") + "losses: {symmetry: 0.1}\n"
    assert tiny.bind(text + "symmetry: flip\n").train.align
    assert len(problems(tiny, text).splitlines()) == 3
    assert tiny.bind(tiny.recipe + "losses: {adversarial: 0.1}\n").losses.adversarial == 0.1


def test_a_recipe_says_the_template_and_has_an_mlp_for_a_discriminator_unless_told_otherwise(tiny: Tiny) -> None:
    recipe = tiny.bind()
    assert (recipe.wording.name, recipe.discriminator.name) == ("template", "mlp")
    assert recipe.filled["wording"] == {"use": "template", "file": None}
    assert tiny.bind(tiny.recipe + "discriminator: {use: mlp, width: 9}\n").discriminator.arguments == {"width": 9}
    message = problems(tiny, tiny.recipe + "wording: null\n")
    assert message == "tiny.yaml:17: wording: expected a wording: a name, or {use: NAME, ...}, got None"


def without(tiny: Tiny, *components: tuple[str, str]) -> Registry:
    """The tiny components but these."""
    registry = Registry()
    registry.add(*(c for c in tiny.registry.all() if (c.kind, c.name) not in components))
    return registry


def test_a_default_that_may_be_left_out_is_none_where_nobody_registered_it(tiny: Tiny) -> None:
    tiny.registry = without(tiny, ("discriminator", "mlp"))
    recipe = tiny.bind()
    assert recipe.discriminator is None and recipe.filled["discriminator"] is None
    assert tiny.bind(dump(recipe.filled)).filled == recipe.filled


@pytest.mark.parametrize(
    ("components", "message"),
    [
        (
            [],
            "tiny.yaml:17: losses.adversarial: the recipe names no discriminator; no plugin that is in use brings one: "
            "install one that does, or leave losses.adversarial out",
        ),
        (
            [Component("discriminator", "other", "tiny_parts:Judge", "tiny")],
            "tiny.yaml:17: losses.adversarial: the recipe names no discriminator; add `discriminator: NAME` (known: other), "
            "or leave losses.adversarial out",
        ),
    ],
)
def test_an_adversarial_loss_without_a_discriminator_is_told(
    tiny: Tiny, components: list[Component], message: str
) -> None:
    tiny.registry = without(tiny, ("discriminator", "mlp"))
    tiny.registry.add(*components)
    assert problems(tiny, tiny.recipe + "losses: {adversarial: 0.1}\n") == message
    assert problems(tiny, tiny.recipe + "discriminator: {width: 9}\n").startswith(
        "tiny.yaml:17: discriminator.use: no discriminator named 'mlp'."
    )


def test_a_default_that_may_not_be_left_out_is_told_where_nobody_registered_it(tiny: Tiny) -> None:
    tiny.registry = without(tiny, ("wording", "template"))
    assert problems(tiny, tiny.recipe) == "tiny.yaml: wording.use: no wording named 'template'. Known: (none)"


def test_a_task_has_no_fewer_classes_at_most_than_at_least(tiny: Tiny) -> None:
    assert problems(tiny, tiny.recipe + "tasks: {classes: [6, 3]}\n").endswith(
        "tasks.classes: 6 to 3 is an empty range"
    )


def test_an_int_will_do_for_a_float_and_becomes_one(tiny: Tiny) -> None:
    written = tiny.bind(tiny.recipe.replace("plain", "{use: plain, dropout: 0}"))
    assert repr(written.conditioner.arguments["dropout"]) == "0.0"


def test_writing_a_default_out_changes_nothing(tiny: Tiny) -> None:
    """The constructor's default is the int 0 for a float: filled in or written, it must be one value."""
    written = tiny.bind(tiny.recipe.replace("plain", "{use: plain, dropout: 0}"))
    assert repr(tiny.bind().filled) == repr(written.filled)


def test_a_filled_recipe_binds_to_itself(tiny: Tiny, tmp_path: Path) -> None:
    text = tiny.recipe.replace("dataset: grid", f"dataset: {{use: files, path: data, more: [a, {tmp_path}/b]}}")
    once = tiny.bind(text + "symmetry: flip\n")
    twice = tiny.bind(dump(once.filled))
    assert repr(twice.filled) == repr(once.filled)
    assert twice.dataset == once.dataset and twice.generator == once.generator and twice.train == once.train


def test_paths_become_absolute(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    files = tiny.bind(
        tiny.recipe.replace("dataset: grid", "dataset: {use: files, path: data, more: [~/x, /y]}")
    ).dataset
    assert files.arguments["path"] == tmp_path / "data"
    assert files.filled() == {
        "use": "files",
        "path": str(tmp_path / "data"),
        "more": ["/home/somebody/x", "/y"],
    }


def test_building_imports_the_class_and_passes_on_what_it_asks_for(tiny: Tiny) -> None:
    recipe = tiny.bind()
    noise = recipe.generator.build({"layout": "L", "pooled_width": 7, "spec": None})
    assert type(noise).__name__ == "Noise" and noise.pooled_width == 7 and noise.helper is None
    assert type(noise.denoiser).__name__ == "Net" and (noise.denoiser.width, noise.denoiser.layout) == (
        8,
        "L",
    )


def test_a_run_is_named_after_its_recipe_file(tiny: Tiny) -> None:
    assert tiny.bind(name="some/where/t2w.yaml").name == "t2w"


def test_arguments_without_a_use_are_those_of_the_default(tiny: Tiny) -> None:
    before, after = RECIPE.split("generator:")[0], RECIPE[RECIPE.index("metrics:") :]
    bound = tiny.bind(before + "generator: {use: defaulted, denoiser: {width: 9}}\n" + after)
    denoiser = bound.generator.arguments["denoiser"]
    assert denoiser.name == "net" and denoiser.arguments["width"] == 9
