"""Recipe files: YAML 1.2 with line numbers, `--set`, and back to YAML."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from wspace.recipes.source import find_recipe, packaged_recipes, parse_recipe, read_recipe
from wspace.support.errors import FileError, RecipeError, UserError
from wspace.support.yaml import dump


def refused(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "r.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("3e-4", 3e-4), ("1e3", 1000.0), (".5", 0.5), ("-2", -2), ("no", "no"), ("yes", "yes"), ("on", "on"),
        ("off", "off"), ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("'3'", "3"), ("0x10", 16),
        ("0o17", 15), ("017", 17), ("12:30", "12:30"), ("[8, 32]", [8, 32]), ("{a: {b: 1}}", {"a": {"b": 1}}),
        ("a photo of {}", "a photo of {}"),
    ],
)  # fmt: skip
def test_values_are_those_of_yaml_1_2(written: str, value: object) -> None:
    read = parse_recipe(f"key: {written}\n", "r.yaml").values["key"]
    assert read == value and type(read) is type(value)


def test_an_anchor_that_is_given_twice_is_the_later_one_from_there() -> None:
    assert parse_recipe("a: &x 1\nb: *x\nc: &x 2\nd: *x\n", "r.yaml").values == {"a": 1, "b": 1, "c": 2, "d": 2}


def test_values_are_plain_python_ones_even_behind_anchors() -> None:
    values = parse_recipe("a: &x true\nb: *x\nc: &y 3\nd: &z {e: *y}\nf: 1.50\n", "r.yaml").values
    assert values == {"a": True, "b": True, "c": 3, "d": {"e": 3}, "f": 1.5}
    assert [type(values[k]) for k in "abcdf"] == [bool, bool, int, dict, float]


def test_merged_mappings_are_merged() -> None:
    source = parse_recipe("a: &x {p: 1, q: 2}\nb:\n  <<: *x\n  q: 3\n", "r.yaml")
    assert source.values["b"] == {"p": 1, "q": 3}
    assert source.line(("b", "q")) == 4 and source.line(("b", "p")) == 2


def test_every_key_and_item_knows_its_line() -> None:
    source = parse_recipe("a: 1\n\nb:\n  c:\n    - x\n    - y\n  d: {e: 1,\n      f: 2}\n", "r.yaml")
    paths = [("a",), ("b",), ("b", "c"), ("b", "c", 1), ("b", "d", "e"), ("b", "d", "f")]
    assert [source.line(path) for path in paths] == [1, 3, 4, 6, 7, 8]
    assert source.line(("b", "d", "missing")) == 7, "the line of what encloses it"
    assert source.line(("missing",)) is None


UNFIT = "r.yaml: not YAML: a value does not fit its tag or form"
REFUSED = {
    "": "r.yaml: the recipe is empty",
    "# nothing but a comment\n": "r.yaml: the recipe is empty",
    "- a\n": "r.yaml:1: a recipe is a mapping of keys to values",
    "hello\n": "r.yaml:1: a recipe is a mapping of keys to values",
    "a: 1\nb: 2\na: 3\n": "r.yaml:3: a: this key is written twice",
    "a: 1\nb: {c: 1,\n c: 2}\n": "r.yaml:3: c: this key is written twice",
    "a: [1\nb: 2\n": "r.yaml:2: not YAML: expected ',' or ']', but got ':'",
    "a: 1\n b: 2\n": "r.yaml:2: not YAML: mapping values are not allowed here",
    "a:\n\t- 1\n": "r.yaml:2: not YAML: found character '\\t' that cannot start any token",
    "a: 1\n---\nb: 2\n": "r.yaml:2: not YAML: but found another document",
    "a: *x\n": "r.yaml:1: not YAML: found undefined alias 'x'",
    "a: 2020-13-45\n": f"{UNFIT}: month must be in 1..12",
    "a: !!int x\n": f"{UNFIT}: invalid literal for int() with base 10: 'x'",
    "a: !!bool x\n": f"{UNFIT}: 'x'",
    "a: " + "[" * 500 + "]" * 500: "r.yaml: not YAML: nested too deeply: more than 100 brackets are open at once",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: repr(text[:20]))
def test_what_is_no_recipe_is_refused_with_its_line(text: str) -> None:
    assert refused(text) == REFUSED[text]


def test_a_file_that_cannot_be_read_is_a_file_error(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    for name in ("missing.yaml", "binary.yaml", "."):
        with pytest.raises(FileError, match="cannot be read"):
            read_recipe(tmp_path / name)


# ---------------------------------------------------------------- --set

BASE = """tokenizer: chunk
generator:
  use: diffusion
  levels: 10
  denoiser: {use: mlp, width: 8}
train: {steps: 10, lr: 1e-3}
metrics: [accuracy]
"""


@pytest.fixture
def changed(tmp_path: Path):
    """The base recipe's values after some `--set`s."""
    file = tmp_path / "r.yaml"
    file.write_text(BASE, encoding="utf-8")
    return lambda *settings: read_recipe(file, settings).values


def test_set_changes_a_nested_value_and_leaves_the_others(changed) -> None:
    before, after = changed(), changed("generator.denoiser.width=16", "train.lr=3e-4")
    assert after["generator"]["denoiser"] == {"use": "mlp", "width": 16} and after["train"] == {
        "steps": 10,
        "lr": 3e-4,
    }
    assert {k: v for k, v in after.items() if k not in ("generator", "train")} == {
        k: v for k, v in before.items() if k not in ("generator", "train")
    }


def test_set_values_are_yaml(changed) -> None:
    after = changed("metrics=[a, b]", "seed=7", "symmetry=null", "train.text=a = b", "tokenizer={use: neuron, k: no}")
    assert after["metrics"] == ["a", "b"] and after["seed"] == 7 and after["symmetry"] is None
    assert after["train"]["text"] == "a = b" and after["tokenizer"] == {"use": "neuron", "k": "no"}


def test_set_opens_the_shorthand_of_a_name(changed) -> None:
    assert changed("tokenizer.size=16")["tokenizer"] == {"use": "chunk", "size": 16}


def test_set_makes_sections_that_are_not_there(changed) -> None:
    assert changed("zoo.steps=5")["zoo"] == {"steps": 5}


def test_a_new_use_drops_the_old_arguments(changed) -> None:
    assert changed("generator.use=other")["generator"] == {"use": "other"}
    assert changed("generator.denoiser.use=big")["generator"]["denoiser"] == {"use": "big"}
    assert changed("tokenizer.use=neuron")["tokenizer"] == {"use": "neuron"}


def test_the_same_use_keeps_the_arguments(changed) -> None:
    assert changed("generator.use=diffusion") == changed()


def test_settings_of_one_block_may_come_in_any_order(changed) -> None:
    settings = (
        "generator.use=flow",
        "generator.denoiser=mlp",
        "generator.denoiser.use=big",
        "generator.denoiser.depth=2",
        "generator.p=1",
    )
    expected = {"use": "flow", "p": 1, "denoiser": {"use": "big", "depth": 2}}
    for order in itertools.permutations(settings):
        assert changed(*order)["generator"] == expected, order


def test_a_later_setting_of_one_path_wins(changed) -> None:
    assert changed("seed=1", "seed=2")["seed"] == 2


def test_what_was_set_has_the_option_for_a_line(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(BASE)
    source = read_recipe(file, ["train.steps=5", "generator.use=flow"])
    assert source.line(("train", "steps")) == "--set" and source.line(("train", "lr")) == 6
    assert source.line(("generator", "denoiser", "width")) == "--set", (
        "dropped with the old use: its line would mislead"
    )


@pytest.mark.parametrize("setting", ["train.steps", "=5", "train..steps=5", ".a=1", "a.=1", ""])
def test_a_malformed_set_says_what_is_expected(changed, setting: str) -> None:
    with pytest.raises(UserError) as caught:
        changed(setting)
    assert str(caught.value) == f"--set {setting}: expected PATH=VALUE, as in --set train.steps=500"


@pytest.mark.parametrize("setting", ["a=[1", "a=2020-99-99", "a=*x", "a={b: 1, b: 2}"])
def test_a_set_value_that_is_not_yaml_is_refused(changed, setting: str) -> None:
    with pytest.raises(UserError) as caught:
        changed(setting)
    way_out = "text that YAML cannot read goes in quotes: a='...'"
    assert str(caught.value) == f"--set {setting}: the value is not YAML; {way_out}"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("D/x #1", "D/x #1"),
        ("#1 of {}", "#1 of {}"),
        (" D/x #1 ", "D/x #1"),
        ("C#", "C#"),
        ("5 # five", "5 # five"),
        ("true #", "true #"),
        ("&D /x", "&D /x"),
        ("--- x", "--- x"),
        ("x ...", "x ..."),
        ("'D/x #1'", "D/x #1"),
        ('"a" # b', "a"),
        ("[a, 2] # b", ["a", 2]),
        ("{use: a} # b", {"use": "a"}),
        ("|\n a #b", "a #b"),
        ("a\n b", "a b"),
        ("5", 5),
        ("1e-3", 0.001),
        ("", None),
        ("~", None),
    ],
)
def test_a_bare_set_value_is_what_was_written(changed, written: str, value: object) -> None:
    result = changed(f"a={written}")["a"]
    assert result == value and type(result) is type(value)


# ---------------------------------------------------------------- aliases


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: &x {b: *x}\n", 1),
        ("a: &x [1, *x]\n", 1),
        ("seed: 1\na:\n  &x\n  b: *x\n", 3),
        ("a: &x\n  b: &y\n    c: *x\n", 1),
        ("seed: 1\nb: &x\n  <<: *x\n", 2),
        ("? &x [*x]\n: 1\n", 1),
    ],
)
def test_an_alias_within_what_it_names_is_refused(text: str, line: int) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "r.yaml")
    sentence = "not YAML: the alias *x stands within what it names, which so has no end"
    assert str(caught.value) == f"r.yaml:{line}: {sentence}"


def test_aliases_of_aliases_end_where_they_stand_for_too_much() -> None:
    lines = [f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]" for before, name in itertools.pairwise("abcdefghi")]
    with pytest.raises(RecipeError) as caught:
        parse_recipe("\n".join(["a: &a [1, 2]", *lines]), "bomb.yaml")
    assert str(caught.value) == "bomb.yaml: not YAML: its aliases (*NAME) stand for more than 100,000 values"


def test_an_alias_of_what_is_whole_is_taken() -> None:
    assert parse_recipe("a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}\n", "r.yaml").values == {
        "a": {"b": 1},
        "c": {"b": 1},
        "d": {"b": 1, "e": 2},
    }


# ---------------------------------------------------------------- dump

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=200)
TRICKY = st.sampled_from(
    ["", "no", "true", "null", "~", "3e-4", "1", "0x1", "2020-01-01", "a: b", "# c", " x ", "- a", "{}",
     "[x", "&a", "*a", "!t", "'", '"', "%a", "@b", "`",
     "a\nb", "?x", "? x", ":0", "\x85", "\n", "---", "<<", "="]
)  # fmt: skip
KEYS = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | TRICKY
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@examples(max_examples=200, deadline=None)
@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=4))
def test_what_is_dumped_is_read_back_as_it_was(values: dict[str, object]) -> None:
    read = parse_recipe(dump(values), "r.yaml").values
    assert repr(read) == repr(values)


# ---------------------------------------------------------------- packaged recipes


def test_packaged_recipes_are_named_by_their_path() -> None:
    recipes = packaged_recipes()
    assert {"nano", "t2w", "paper/t2w-cifar100"} <= set(recipes)
    for name, file in recipes.items():
        assert file.is_file() and find_recipe(name) == file
    assert find_recipe("nano.yaml") == recipes["nano"]


def test_a_file_goes_before_a_packaged_recipe_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe("recipes/nano.yaml") == packaged_recipes()["nano"]
    (tmp_path / "nano").write_text("a: 1\n")
    assert find_recipe("nano") == Path("nano")


def test_an_unknown_recipe_is_told_the_nearest_name() -> None:
    with pytest.raises(FileError) as caught:
        find_recipe("nanoo")
    assert str(caught.value) == (
        "nanoo: no such file, and no packaged recipe of that name: did you mean nano, igpg-nano or apart/nano-ordered? "
        "`wspace ls` has all there are"
    )


def test_a_folder_is_no_recipe_and_may_have_one_or_pictures(tmp_path: Path) -> None:
    with pytest.raises(FileError) as caught:
        find_recipe(str(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path}: is a folder, not a recipe; `wspace new-recipe` writes one for pictures in it"
    )
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(
        FileError, match=rf"{tmp_path}: is a folder, not a recipe; its recipe is {tmp_path}/recipe.yaml$"
    ):
        find_recipe(str(tmp_path))


def test_a_name_too_long_for_a_file_is_merely_unknown() -> None:
    with pytest.raises(FileError, match="no such file, and no packaged recipe of that name"):
        find_recipe("x" * 5000)
