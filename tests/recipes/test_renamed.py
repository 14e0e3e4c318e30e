"""Keys of recipes that were renamed: the old one works, with a note that names the new one."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from wspace.recipes.source import apply, find_recipe, parse_recipe, read_recipe
from wspace.support.errors import RecipeError, Renamed, UserError

Inside = Callable[..., CompletedProcess[str]]


def notes(call: Callable[[], object]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert {warning.category for warning in caught} <= {Renamed}
    return [str(warning.message) for warning in caught]


def test_an_old_key_is_read_as_the_new_one_with_a_note() -> None:
    with pytest.warns(Renamed, match="^old.yaml:2: texts: is now called wording; write that$"):
        source = parse_recipe("seed: 1\ntexts: {use: descriptions, missing: template}\ndevice: cpu\n", "old.yaml")
    assert list(source.values) == ["seed", "wording", "device"]
    assert source.values["wording"] == {"use": "descriptions", "missing": "template"}
    assert source.line(("wording", "missing")) == 2


def test_the_old_key_and_the_new_one_are_an_error() -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe("wording: template\ntexts: template\n", "both.yaml")
    assert str(caught.value) == "both.yaml:2: texts: is the old name of wording, which is here as well"


@pytest.mark.parametrize(
    ("setting", "value", "note"),
    [
        ("texts=descriptions", "descriptions", "texts: texts is now called wording; write that"),
        (
            "texts.use=descriptions",
            {"use": "descriptions"},
            "texts.use: texts is now called wording; write that",
        ),
    ],
)
def test_an_old_key_can_be_set(setting: str, value: object, note: str) -> None:
    read = []
    assert notes(lambda: read.append(read_recipe(find_recipe("nano"), [setting]))) == [note]
    assert read[0].values["wording"] == value and "texts" not in read[0].values


def test_studies_and_joint_recipes_set_it_as_well() -> None:
    source = read_recipe(find_recipe("nano"))
    assert notes(lambda: apply(source, {"texts": "descriptions"})) == ["texts: texts is now called wording; write that"]
    assert source.values["wording"] == "descriptions"


def test_both_cannot_be_set() -> None:
    with pytest.raises(UserError) as caught:
        read_recipe(find_recipe("nano"), ["texts=template", "wording=template"])
    assert str(caught.value) == "texts is the old name of wording, which is set as well; set wording alone"


def test_the_command_line_says_it_once_on_standard_error(inside: Inside, tmp_path: Path) -> None:
    file = tmp_path / "old.yaml"
    file.write_text(find_recipe("core").read_text(encoding="utf-8") + "texts: template\n", encoding="utf-8")
    line = len(file.read_text(encoding="utf-8").splitlines())
    done = inside("check", file)
    assert (done.returncode, done.stdout) == (0, f"{file}: no problems\n")
    assert done.stderr == f"note: {file}:{line}: texts: is now called wording; write that\n"
    assert inside("check", "core").stderr == ""
    assert "wording: {use: template}" in inside("check", file, "--fill").stdout


def test_a_run_of_an_older_version_opens_silently(nano: Path, inside: Inside, tmp_path: Path) -> None:
    run = tmp_path / "nano"
    shutil.copytree(nano, run)
    recipe = (run / "recipe.yaml").read_text(encoding="utf-8")
    assert "\nwording:" in recipe
    (run / "recipe.yaml").write_text(recipe.replace("\nwording:", "\ntexts:"), encoding="utf-8")
    done = inside("generate", run, "--classes", "camera, book", "--out", tmp_path / "head.safetensors", "--json")
    assert (done.returncode, done.stderr) == (0, "")
