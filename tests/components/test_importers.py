"""Importers from outside, and which of them takes a folder."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from wspace.components.importers.checkpoints import Checkpoints
from wspace.components.importers.peft import Peft
from wspace.recipes.plugins import load_plugins
from wspace.support.files import read_json, write_json
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


def test_checkpoints_of_wrapped_networks_have_the_names_of_the_networks_themselves(tmp_path: Path) -> None:
    for number, prefix in enumerate(("module.", "_orig_mod.module.")):
        file = tmp_path / f"{number}.safetensors"
        save_file({f"{prefix}weight": torch.full((2,), float(number)), f"{prefix}bias": torch.ones(1)}, file)
        file.with_suffix(".txt").write_text("cats and dogs\n")
    networks = Checkpoints().collect(tmp_path).networks
    assert [dict(network.read())["weight"].tolist() for network in networks] == [[0, 0], [1, 1]]
    assert all(set(network.read()) == {"weight", "bias"} for network in networks)


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


# ---------------------------------------------------------------- what is left over


def adapters(folder: Path) -> Path:
    folder.mkdir()
    Peft().example(folder)
    return folder


def checkpoints(folder: Path) -> Path:
    folder.mkdir()
    Checkpoints().example(folder)
    return folder


def kohya(file: Path) -> None:
    name = "lora_unet_down_blocks_0"
    factors = {f"{name}.lora_down.weight": torch.ones(2, 3), f"{name}.lora_up.weight": torch.ones(3, 2)}
    save_file(factors | {f"{name}.alpha": torch.tensor(1.0)}, file)


def without_configuration(folder: Path) -> None:
    shutil.copytree(folder / "0", folder / "late")
    (folder / "late/adapter_config.json").unlink()


def linked(folder: Path) -> None:
    (folder / "0").rename(folder.with_name("elsewhere"))
    (folder / "more").symlink_to(folder.with_name("elsewhere"), target_is_directory=True)


def otherwise_written(folder: Path) -> None:
    shutil.copytree(folder / "0", folder / "shouting")
    (folder / "shouting/adapter_config.json").rename(folder / "shouting/ADAPTER_CONFIG.JSON")


def dora(folder: Path) -> None:
    shutil.copytree(folder / "0", folder / "dora")
    write_json(folder / "dora/adapter_config.json", read_json(folder / "0/adapter_config.json") | {"use_dora": True})


def hidden(folder: Path) -> None:
    (folder / ".old").mkdir()
    save_file({"w": torch.ones(2)}, folder / ".old/model.safetensors")


AMONG_ADAPTERS = "not understood among PEFT adapters (adapter_config.json)"
AMONG_CHECKPOINTS = "not understood among checkpoints (.safetensors)"


@pytest.mark.parametrize(
    ("make", "spoil", "message"),
    [
        (adapters, without_configuration, f"late/adapter_model.safetensors: {AMONG_ADAPTERS}"),
        (adapters, linked, "more: a link to a folder, and links are not followed"),
        (adapters, lambda f: kohya(f / "kohya.safetensors"), f"kohya.safetensors: {AMONG_ADAPTERS}"),
        (adapters, otherwise_written, f"shouting/adapter_model.safetensors: {AMONG_ADAPTERS}"),
        (adapters, dora, "dora/adapter_config.json: use_dora is True, and only plain LoRA can be read"),
        (
            adapters,
            lambda f: save_file({"w": torch.ones(2)}, f / "plain.safetensors"),
            f"plain.safetensors: {AMONG_ADAPTERS}",
        ),
        (adapters, lambda f: torch.save({}, f / "plain.pt"), f"plain.pt: {AMONG_ADAPTERS}"),
        (
            checkpoints,
            lambda f: kohya(f / "kohya.safetensors"),
            "kohya.safetensors: holds an adapter (lora_unet_down_blocks_0.alpha, ...) and no network; of adapters, folders "
            "that PEFT wrote can be read",
        ),
        (checkpoints, lambda f: (f / "model.gguf").write_bytes(b"GGUF"), f"model.gguf: {AMONG_CHECKPOINTS}"),
        (adapters, hidden, f".old/model.safetensors: {AMONG_ADAPTERS}"),
        (checkpoints, lambda f: (f / "a.npz").symlink_to(f / "gone"), "a.npz: a link to a file that is not there"),
        (
            checkpoints,
            lambda f: save_file({"w": torch.ones(2)}, f / "model-00001-of-00002.safetensors"),
            "model-00001-of-00002.safetensors: a part of a network that was saved in several files: save it as one",
        ),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_named_and_ends_the_import_unless_it_is_to_be_left_out(
    make: Callable[[Path], Path], spoil: Any, message: str, inside: Inside, tmp_path: Path
) -> None:
    folder = make(tmp_path / "source")
    spoil(folder)
    command = ("zoo", "import", folder, "--out", tmp_path / "zoo")
    done = inside(*command)
    assert (done.returncode, done.stderr) == (2, f"error: {folder}/{message}; --skip-unknown leaves it out\n")
    assert not (tmp_path / "zoo").exists()
    done = inside(*command, "--skip-unknown")
    assert (done.returncode, done.stderr) == (0, f"note: left out: {folder}/{message}\n")
    assert {entry.name for entry in StoredZoo.open(tmp_path / "zoo").entries} <= {"0", "1"}


def test_all_that_is_not_understood_is_named(inside: Inside, tmp_path: Path) -> None:
    folder = adapters(tmp_path / "source")
    without_configuration(folder)
    kohya(folder / "kohya.safetensors")
    done = inside("zoo", "import", folder, "--out", tmp_path / "zoo")
    assert (done.returncode, done.stderr) == (
        2,
        f"error: {folder}/kohya.safetensors: {AMONG_ADAPTERS}\n{folder}/late/adapter_model.safetensors: {AMONG_ADAPTERS}\n"
        "--skip-unknown leaves them out\n",
    )


def test_a_folder_of_nothing_that_is_understood_is_refused_for_what_it_is(inside: Inside, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    kohya(tmp_path / "source/kohya.safetensors")
    for options in ((), ("--skip-unknown",)):
        done = inside("zoo", "import", tmp_path / "source", "--out", tmp_path / "zoo", *options)
        assert done.returncode == 2 and "kohya.safetensors: holds an adapter" in done.stderr


def test_what_training_programs_put_beside_networks_is_passed_over(inside: Inside, tmp_path: Path) -> None:
    adapter = adapters(tmp_path / "adapters")
    for name in (
        "optimizer.pt",
        "rng_state_0.pth",
        "scheduler.pt",
        "training_args.bin",
        "tokenizer.json",
        "merges.txt",
    ):
        (adapter / "0" / name).write_bytes(b"x")
        (adapter / "1" / name).write_bytes(b"x")
    (adapter / "LICENSE").write_text("mit")
    (adapter / ".cache").mkdir()
    (adapter / ".cache/0.lock").write_text("")
    done = inside("zoo", "import", adapter, "--out", tmp_path / "zoo")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_checkpoint_is_one_however_its_suffix_is_written(inside: Inside, tmp_path: Path) -> None:
    folder = checkpoints(tmp_path / "source")
    (folder / "1.safetensors").rename(folder / "1.SafeTensors")
    assert inside("zoo", "import", folder, "--out", tmp_path / "zoo").returncode == 0
    assert [entry.name for entry in StoredZoo.open(tmp_path / "zoo").entries] == ["0", "1"]
    shutil.copy(folder / "1.SafeTensors", folder / "1.safetensors")
    done = inside("zoo", "import", folder, "--out", tmp_path / "again")
    assert (done.returncode, done.stderr) == (
        2,
        f"error: {folder}/1.safetensors: is called '1', and so is {folder}/1.SafeTensors\n",
    )


def test_a_table_may_list_what_is_left_out(inside: Inside, tmp_path: Path) -> None:
    folder = checkpoints(tmp_path / "source")
    kohya(folder / "kohya.safetensors")
    (folder / "all.csv").write_text("file,text\n0.safetensors,x\n1.safetensors,y\nkohya.safetensors,z\n")
    assert inside("zoo", "import", folder, "--out", tmp_path / "zoo", "--skip-unknown").returncode == 0


def test_classes_that_a_table_separates_by_commas_are_not_taken_for_one(inside: Inside, tmp_path: Path) -> None:
    folder = checkpoints(tmp_path / "source")
    (folder / "all.csv").write_text('file,classes\n0.safetensors,cat; dog\n1.safetensors,"owl, barn"\n')
    done = inside("zoo", "import", folder, "--out", tmp_path / "zoo")
    message = f"error: {folder}/all.csv:3: classes is 'owl, barn', which is one class: put ; between two\n"
    assert (done.returncode, done.stderr) == (2, message)


def test_a_source_that_is_no_folder_of_networks_is_refused_for_what_it_is(
    inside: Inside, nano: Path, tmp_path: Path
) -> None:
    folder = checkpoints(tmp_path / "source")
    done = inside("zoo", "import", folder / "0.safetensors", "--out", tmp_path / "zoo")
    assert (done.returncode, done.stderr) == (2, f"error: {folder}/0.safetensors: is a file, not a folder\n")
    done = inside("zoo", "import", nano, "--out", tmp_path / "zoo")
    assert (done.returncode, done.stderr) == (2, f"error: {nano}: is a run; `wspace zoo export` writes its zoo\n")


def test_one_text_for_all_networks_is_said(inside: Inside, tmp_path: Path) -> None:
    folder = checkpoints(tmp_path / "source")
    for name in ("0.txt", "1.txt"):
        (folder / name).write_text("a network")
    done = inside("zoo", "import", folder, "--out", tmp_path / "zoo")
    assert (done.returncode, done.stderr) == (
        0,
        "note: all 2 networks are described alike ('a network'): nothing can be learnt from them of what a text asks for; a "
        "text of its own beside each says it\n",
    )
