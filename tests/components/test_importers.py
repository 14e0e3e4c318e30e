"""Importers from outside, and which of them takes a folder."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wspace.components.importers.checkpoints import Checkpoints
from wspace.components.importers.peft import Peft
from wspace.recipes.plugins import load_plugins
from wspace.testing import cases
from wspace.weights.zoo.format import StoredZoo

Inside = Callable[..., subprocess.CompletedProcess[str]]

PAGE = (Path(__file__).parents[2] / "docs/writing-plugins.md").read_text(encoding="utf-8")
(NUMBERS,) = re.findall(r"^```python number_files\.py\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

NAMED = '{use: columns, separator: " "}'


@pytest.fixture
def numbers(tmp_path: Path):
    file = tmp_path / "number_files.py"
    file.write_text(NUMBERS)
    yield file
    sys.modules.pop("number_files", None)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "cat.numbers").write_text("1 2 3")
    (folder / "dog.numbers").write_text("4 5 6")
    return folder


def test_an_importer_of_a_one_file_plugin_makes_a_zoo(
    numbers: Path, source: Path, inside: Inside, tmp_path: Path
) -> None:
    done = inside("zoo", "import", source, "--out", tmp_path / "zoo", "--plugin", numbers)
    assert (done.returncode, done.stderr) == (0, "")
    zoo = StoredZoo.open(tmp_path / "zoo")
    assert [entry.texts for entry in zoo.entries] == [("cat",), ("dog",)]
    assert zoo.weights().tolist() == [[1, 2, 3], [4, 5, 6]]


def test_it_keeps_every_law(numbers: Path) -> None:
    ran = [case.name for case in cases(str(numbers)) if case.run() is None]
    assert "importer/numbers-networks_are_named_and_described" in ran and len(ran) == 10


def test_importers_are_listed(numbers: Path, inside: Inside) -> None:
    lines = inside("list", "importer", "--plugin", numbers).stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["checkpoints", "numbers", "peft"]


def test_a_folder_that_several_recognise_asks_for_a_name(
    numbers: Path, source: Path, inside: Inside, tmp_path: Path
) -> None:
    Checkpoints().example(source)
    command = ("zoo", "import", source, "--out", tmp_path / "zoo", "--plugin", numbers)
    done = inside(*command)
    assert (done.returncode, done.stderr) == (
        2,
        f"error: {source}: importers checkpoints and numbers recognise it: name one with --importer\n",
    )
    assert inside(*command, "--importer", "numbers").returncode == 0
    assert [entry.name for entry in StoredZoo.open(tmp_path / "zoo").entries] == ["cat", "dog"]


def test_a_folder_that_none_recognises_is_told_what_they_take(numbers: Path, inside: Inside, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = inside("zoo", "import", empty, "--out", tmp_path / "zoo", "--plugin", numbers)
    assert (done.returncode, done.stderr) == (
        2,
        f"error: {empty}: holds no checkpoints (.safetensors), and no files of numbers (.numbers), and no PEFT adapters "
        "(adapter_config.json)\n",
    )


def test_an_importer_that_needs_arguments_is_noted_and_the_others_are_tried(
    numbers: Path, source: Path, inside: Inside, tmp_path: Path
) -> None:
    columns = numbers.with_name("plug_columns.py")
    columns.write_text(
        NUMBERS.replace('"numbers", "number_files:', '"columns", "plug_columns:').replace(
            "    def recognises",
            "    def __init__(self, separator: str):\n        self.separator = separator\n\n    def recognises",
        )
    )
    command = ("zoo", "import", source, "--out", tmp_path / "zoo", "--plugin", columns)
    try:
        done = inside(*command, "--plugin", numbers)
        note = (
            "note: importer 'columns' is not tried (missing; importer 'columns' needs separator: str); "
            "--importer names it\n"
        )
        assert (done.returncode, done.stderr) == (0, note)
        assert len(StoredZoo.open(tmp_path / "zoo").entries) == 2
        named = inside("zoo", "import", source, "--out", tmp_path / "named", "--plugin", columns, "--importer", NAMED)
        assert (named.returncode, named.stderr) == (0, "")
    finally:
        sys.modules.pop("plug_columns", None)


def test_an_importer_that_is_not_there(source: Path, inside: Inside, tmp_path: Path) -> None:
    done = inside("zoo", "import", source, "--out", tmp_path / "zoo", "--importer", "pefft")
    assert done.returncode == 2
    assert done.stderr == (
        "error: --importer: use: no importer named 'pefft'. Did you mean 'peft'? Known: checkpoints, peft\n"
    )


@pytest.mark.parametrize("importer", [Checkpoints(), Peft()], ids=["checkpoints", "peft"])
def test_each_recognises_its_own_folders_alone(importer, tmp_path: Path) -> None:
    for name, other in (("a", Checkpoints()), ("b", Peft())):
        folder = tmp_path / name
        folder.mkdir()
        other.example(folder)
        assert importer.recognises(folder) == (type(other) is type(importer))


def test_the_laws_of_importers_hold_of_the_built_in_ones() -> None:
    registry = load_plugins(allowed="").registry
    from wspace.testing import cases_of

    for component in registry.all("importer"):
        for case in cases_of(component, registry):
            case.run()
