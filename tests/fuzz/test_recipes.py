"""Recipes, and `--set`s, that anybody may have written."""

from __future__ import annotations

from contextlib import suppress
from copy import deepcopy

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml.error import YAMLError

from tests.support.hostile import as_json, cases, held, mutated, names, refused_or_done, values
from wspace.recipes.bind import bind
from wspace.recipes.plugins import load_plugins
from wspace.recipes.source import change, packaged_recipes, parse_recipe, read_value
from wspace.runs.joint.file import bind_joint, is_joint
from wspace.runs.study.file import bind_study, is_study
from wspace.support.yaml import load

REGISTRY = load_plugins().registry
RECIPES = [file.read_text(encoding="utf-8") for file in packaged_recipes().values() if file.stat().st_size < 1100]
READ = parse_recipe(RECIPES[0], "hostile.yaml")
ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def bound(text: str) -> object:
    source = parse_recipe(text, "hostile.yaml")
    if is_study(source):
        return bind_study(source, REGISTRY)
    return bind_joint(source, REGISTRY) if is_joint(source) else bind(source, REGISTRY)


@st.composite
def recipes(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(RECIPES))
    if draw(st.booleans()):
        return draw(mutated(text.encode())).decode("utf-8", "replace")
    lines = text.splitlines()
    lines.insert(draw(st.integers(0, len(lines))), f"{draw(names)}: {as_json(draw(values))}")
    return "\n".join(lines)


pieces = st.sampled_from(
    [
        "&a ", "*a", "<<: ", "!!int ", "!!binary ", "!!set ", "!!python/object:os.system ", "? ", ": ", "- ", "[", "]", "{",
        "}", ", ", "|\n", ">\n", "\n", "  ", '"', "'", "#", "%YAML 1.1\n", "---\n", "...\n", "use", "dataset", "2026-13-45",
        "1e999", "0x", ".nan", "~", "\t", "é", "\u2028", "\0", "9" * 5000,
    ]
)  # fmt: skip


@cases(8_000)
@given(recipes())
@example(ALIASES)
@example("dataset: &a [*a]\n")
@example("[" * 5000)
@example("{a: " * 3000)
@example("- " * 5_000)
@example("? " * 5_000)
@example("a: 1\n" * 15_000)
@example("dataset: !!python/object/apply:os.system [touch /hostile]\n")
@example("seed: " + "9" * 5000)
def test_a_recipe_is_bound_or_refused(text: str) -> None:
    with held():
        refused_or_done(lambda: bound(text))


@cases(16_000)
@given(st.lists(pieces, max_size=30).map("".join))
def test_any_text_is_yaml_or_not(text: str) -> None:
    with held():
        with suppress(YAMLError):
            load(text)
        refused_or_done(lambda: bound(text))


@cases(8_000)
@given(st.lists(st.tuples(st.sampled_from(["train.steps", "generator", "generator.use", "target", "seed", "against", "a.b.c",
                                           "tasks.classes", "texts.use", "wording", "dataset.path"]) | names,
                          st.lists(pieces, max_size=6).map("".join) | values.map(as_json)), max_size=3))  # fmt: skip
def test_settings_are_taken_or_refused(settings: list[tuple[str, str]]) -> None:
    written = [f"{name}={value}" for name, value in settings]

    def changed() -> object:
        source = deepcopy(READ)
        change(source, written)
        return bind(source, REGISTRY)

    with held():
        refused_or_done(changed)
        for name, value in settings:
            refused_or_done(lambda name=name, value=value: read_value(value, "--set", name))


@pytest.mark.parametrize("text", ["a: 1\n" * 40_000, "[" * 200])
def test_a_text_too_long_or_too_deep_is_refused_at_once(text: str) -> None:
    with pytest.raises(YAMLError, match="characters long|nested too deeply"):
        load(text, 100_000)
