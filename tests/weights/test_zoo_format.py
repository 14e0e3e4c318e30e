"""Zoos as data: what is written is read back, every flipped byte is found, others' checkpoints come in whole or not at all."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.support.elsewhere import into_memory
from tests.support.synthetic import bench_of, recipe_of, run
from wspace import __version__
from wspace.data.tasks import FEWEST_UNSEEN, tasks_around
from wspace.interfaces.weights import Product, WeightEntry, WeightSpec
from wspace.runs.artifacts import Zoo
from wspace.runs.keys import keys
from wspace.runs.pipeline import STAGES
from wspace.support.elsewhere import Address
from wspace.support.errors import DataError, FileError, RecipeError, UserError
from wspace.support.files import new_folder, read_json, write_json
from wspace.support.fingerprint import of_json
from wspace.support.settings import Tasks
from wspace.uses.hub.packing import paths_in
from wspace.weights.zoo import format
from wspace.weights.zoo.export import export
from wspace.weights.zoo.format import (
    BASE,
    INDEX,
    SHARD,
    Entry,
    Header,
    Parent,
    StoredTensor,
    StoredZoo,
    seal,
    sha256_of,
    stored,
)

SPEC = WeightSpec(
    (WeightEntry("a", (3, 2), ("in", "hidden")), WeightEntry("b", (2,), ("hidden",))),
    free=("hidden",),
    products=(Product("layer", "a", "a", 0.5),),
)
COUNTER = StoredTensor("seen", (), (), "int64")
ROWS = (3, 1, 2)  # networks of each shard


def tensors_of(count: int, seed: int) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {
        "a": torch.randn(count, 3, 2, generator=rng),
        "b": torch.randn(count, 2, generator=rng),
        "seen": torch.arange(count) + 10 * seed,
    }


def build(folder: Path) -> StoredZoo:
    folder.mkdir(parents=True, exist_ok=True)
    base = {name: t[0] for name, t in tensors_of(1, 99).items() if name != "seen"}
    save_file(base, folder / BASE)
    parent = Parent("base", BASE, sha256_of(base))
    entries = []
    for number, count in enumerate(ROWS):
        save_file(tensors_of(count, number), folder / SHARD.format(number))
        for row in range(count):
            name = f"net {number}.{row}"
            entries.append(
                Entry(name, (f"tells {name} apart",), ("ä", name), SHARD.format(number), row, {"acc": 0.1 * row})
            )
    header = Header(
        name="toy",
        source="a test",
        tensors=(*stored(SPEC), COUNTER),
        free=SPEC.free,
        products=SPEC.products,
        parents=(parent,),
    )
    return seal(folder, header, entries)


@pytest.fixture
def zoo(tmp_path: Path) -> StoredZoo:
    return build(tmp_path / "zoo")


def said_by(call: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    return str(caught.value)


# ---------------------------------------------------------------- reading


def test_what_was_written_is_read(zoo: StoredZoo) -> None:
    assert [entry.name for entry in zoo.entries] == ["net 0.0", "net 0.1", "net 0.2", "net 1.0", "net 2.0", "net 2.1"]
    assert zoo.spec == SPEC and zoo.header.networks == 6 and zoo.problems() == []
    written = [tensors_of(count, number) for number, count in enumerate(ROWS)]
    for number, entry in enumerate(zoo.entries):
        shard = written[int(entry.name[4])]
        read = zoo.read(number)
        assert list(read) == ["a", "b", "seen"]
        for name, tensor in read.items():
            assert torch.equal(tensor, shard[name][entry.row]) and tensor.dtype == shard[name].dtype
    flat = torch.cat([SPEC.flatten({name: shard[name] for name in ("a", "b")}) for shard in written])
    assert torch.equal(zoo.weights(), flat)
    base = tensors_of(1, 99)
    assert torch.equal(zoo.parent("base"), torch.cat([base["a"].flatten(), base["b"].flatten()]))
    assert zoo.parent("other") is None
    assert StoredZoo.open(zoo.folder) == zoo


@pytest.mark.parametrize("block", [1, 100, format.BLOCK])  # a network at a time, three, all
def test_any_networks_are_read_and_hashed_alike_however_many_at_a_time(
    zoo: StoredZoo, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(format, "BLOCK", block)
    picked = [5, 0, 2, 0, 3]
    assert torch.equal(zoo.rows(picked), zoo.weights()[picked]) and zoo.rows([]).shape == (0, 8)
    assert seal(zoo.folder, zoo.header, zoo.entries) == zoo and zoo.problems() == []
    for outside in (6, -1):
        with pytest.raises(IndexError, match="networks are numbered 0 to 5"):
            zoo.rows([0, outside])


@pytest.mark.parametrize("near", [0, 1, 8])
def test_rows_that_are_far_apart_are_read_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, near: int
) -> None:
    monkeypatch.setattr(format, "NEAR", near)
    save_file({"w": torch.arange(60.0).reshape(30, 2)}, tmp_path / SHARD.format(0))
    header = Header(name="wide", source="a test", tensors=(StoredTensor("w", (2,), ("x",)),))
    zoo = seal(tmp_path, header, [Entry(f"{row}", ("t",), (), SHARD.format(0), row) for row in range(29, -1, -1)])
    assert zoo.rows([29, 0, 14, 13, 13, 20])[:, 0].tolist() == [0, 58, 30, 32, 32, 18]


def test_an_index_is_what_it_was_when_it_was_opened(zoo: StoredZoo) -> None:
    entries = list(zoo.entries)
    assert zoo.entries[1:3] == tuple(entries[1:3]) and zoo.entries[-1] == entries[5] and len(zoo.entries) == 6
    with pytest.raises(IndexError):
        zoo.entries[6]
    other = pickle.loads(pickle.dumps(zoo))
    assert other == zoo and list(other.entries) == entries
    less = seal(zoo.folder, zoo.header, entries[3:])
    assert list(zoo.entries) == entries and list(less.entries) == entries[3:] and less != zoo


def test_an_index_of_many_networks_takes_little_memory(tmp_path: Path) -> None:
    count = 4000
    save_file({"w": torch.arange(float(count))[:, None]}, tmp_path / SHARD.format(0))
    header = Header(name="many", source="a test", tensors=(StoredTensor("w", (1,), ("x",)),))
    seal(tmp_path, header, [Entry(f"{row}", ("text",), ("a", "b"), SHARD.format(0), row) for row in range(count)])
    tracemalloc.start()
    try:
        zoo = StoredZoo.open(tmp_path)
        opened, _ = tracemalloc.get_traced_memory()
        assert zoo.problems() == [] and zoo.number("3999") == 3999
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert opened < 64 * count and most < 512 * count, "an Entry takes about 1000 bytes"


def test_the_index_says_which_networks_there_are_and_in_which_order(zoo: StoredZoo) -> None:
    picked = [zoo.entries[number] for number in (4, 0, 3)]
    sealed = seal(zoo.folder, zoo.header, picked)
    assert torch.equal(sealed.weights(), zoo.weights()[[4, 0, 3]])
    assert sealed.problems() == [] and set(sealed.header.shards) == {SHARD.format(n) for n in range(3)}


def test_a_hash_is_that_of_raw_bytes_in_the_order_of_names(zoo: StoredZoo) -> None:
    import hashlib

    read = zoo.read(1)
    raw = b"".join(read[name].numpy().tobytes() for name in ("a", "b", "seen"))
    assert zoo.entries[1].sha256 == hashlib.sha256(raw).hexdigest()
    header = read_json(zoo.folder / "zoo.json")
    assert header.pop("sha256") == of_json(header)
    assert header["index"] == hashlib.sha256((zoo.folder / INDEX).read_bytes()).hexdigest()


def test_types_of_half_precision_are_kept_and_computed_with_in_float32(tmp_path: Path) -> None:
    w = torch.randn(4, 5).to(torch.bfloat16)
    save_file({"w": w}, tmp_path / SHARD.format(0))
    header = Header(name="half", source="a test", tensors=(StoredTensor("w", (5,), ("x",), "bfloat16"),))
    zoo = seal(tmp_path, header, [Entry(f"{row}", ("t",), (), SHARD.format(0), row) for row in range(4)])
    assert zoo.problems() == [] and torch.equal(zoo.read(2)["w"], w[2])
    assert zoo.weights().dtype == torch.float32 and torch.equal(zoo.weights(), w.float())


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc")
def test_reading_one_network_does_not_read_its_shard(tmp_path: Path) -> None:
    count, width = 64, 2**18  # 64 MiB
    save_file({"w": torch.zeros(count, width)}, tmp_path / SHARD.format(0))
    header = Header(name="large", source="a test", tensors=(StoredTensor("w", (width,), ("x",)),))
    seal(tmp_path, header, [Entry(f"{row}", ("t",), (), SHARD.format(0), row) for row in range(count)])
    script = (
        "import sys\nfrom pathlib import Path\nfrom wspace.weights.zoo.format import StoredZoo\n"
        "def peak(): return int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])\n"
        "zoo = StoredZoo.open(Path(sys.argv[1]))\nzoo.read(0)\nbefore = peak()\nzoo.read(40)\none = peak() - before\n"
        "zoo.weights()\nprint(one, peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    one, everything = map(int, done.stdout.split())  # KiB
    assert one < 8 * 1024 and everything > 56 * 1024


# ---------------------------------------------------------------- damage


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def found_in(folder: Path) -> list[str]:
    try:
        return StoredZoo.open(folder).problems()
    except FileError as error:
        return [str(error)]


def test_a_flipped_byte_of_a_network_is_found_and_named_with_its_shard(zoo: StoredZoo) -> None:
    file = zoo.folder / SHARD.format(2)
    flip(file, len(file.read_bytes()) - 1)  # the last byte of the last row of the last tensor, which is b
    assert zoo.problems() == [
        "networks-0002.safetensors: network 'net 2.1' (row 1): its weights changed since they were written: their sha256 is "
        "not the one in index.jsonl"
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_flipped_bit_goes_unseen(zoo: StoredZoo, data: st.DataObject) -> None:
    files = sorted(file for file in zoo.folder.iterdir())
    file = data.draw(st.sampled_from(files))
    content = file.read_bytes()
    place, bit = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 7))
    damaged = bytearray(content)
    damaged[place] ^= 1 << bit
    file.write_bytes(damaged)
    try:
        assert found_in(zoo.folder) != []
    finally:
        file.write_bytes(content)


def with_header(zoo: StoredZoo, **changed: Any) -> None:
    """A header that says something else, and whose hash agrees."""
    said = read_json(zoo.folder / "zoo.json") | changed
    said.pop("sha256")
    write_json(zoo.folder / "zoo.json", said | {"sha256": of_json(said)})


def with_index(zoo: StoredZoo, *lines: str) -> None:
    import hashlib

    content = "".join(f"{line}\n" for line in lines)
    (zoo.folder / INDEX).write_text(content, encoding="utf-8")
    with_header(zoo, index=hashlib.sha256(content.encode()).hexdigest(), networks=len(lines))


def nan(zoo: StoredZoo) -> None:
    file = zoo.folder / SHARD.format(1)
    tensors = load_file(file)
    tensors["a"][0, 0, 0] = float("nan")
    save_file(tensors, file)
    seal(zoo.folder, zoo.header, zoo.entries)


def reshaped(zoo: StoredZoo) -> None:
    save_file(tensors_of(1, 1) | {"a": torch.zeros(1, 3, 3)}, zoo.folder / SHARD.format(1))


def retyped(zoo: StoredZoo) -> None:
    tensors = tensors_of(1, 1)
    save_file(tensors | {"a": tensors["a"].half()}, zoo.folder / SHARD.format(1))


def renamed(zoo: StoredZoo) -> None:
    save_file({"x": torch.zeros(1)}, zoo.folder / SHARD.format(1))


def uneven(zoo: StoredZoo) -> None:
    save_file(tensors_of(1, 1) | {"b": torch.zeros(2, 2)}, zoo.folder / SHARD.format(1))


def shorter(zoo: StoredZoo) -> None:
    save_file(tensors_of(1, 2), zoo.folder / SHARD.format(2))


def twice(zoo: StoredZoo) -> None:
    seal(zoo.folder, zoo.header, [*zoo.entries, replace(zoo.entries[3], name="net 0.0")])


def cut(zoo: StoredZoo) -> None:
    file = zoo.folder / SHARD.format(0)
    file.write_bytes(file.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("damage", "problems"),
    [
        (nan, ["networks-0001.safetensors: network 'net 1.0' (row 0): a holds values that are not finite numbers"]),
        (reshaped, ["networks-0001.safetensors: a has shape (3, 3); zoo.json says (3, 2)"]),
        (retyped, ["networks-0001.safetensors: a is float16; zoo.json says float32"]),
        (renamed, ["networks-0001.safetensors: holds tensors x; zoo.json says a, b, seen"]),
        (uneven, ["networks-0001.safetensors: its tensors have different numbers of rows: 1, 2"]),
        (shorter, ["networks-0002.safetensors: network 'net 2.1' (row 1): there is only 1 row"]),
        (
            twice,
            [
                "index.jsonl: two networks are named 'net 0.0'",
                "index.jsonl: networks 'net 1.0' and 'net 0.0' are both row 0 of networks-0001.safetensors",
            ],
        ),
        (cut, ["networks-0000.safetensors: truncated, or not a safetensors file"]),
        (
            lambda zoo: (zoo.folder / SHARD.format(0)).unlink(),
            ["networks-0000.safetensors: is missing, and with it 3 networks"],
        ),
        (
            lambda zoo: shutil.copy(zoo.folder / SHARD.format(0), zoo.folder / SHARD.format(9)),
            ["networks-0009.safetensors: is in the folder but not in zoo.json"],
        ),
        (
            lambda zoo: save_file({"a": torch.zeros(3, 2)}, zoo.folder / BASE),
            ["base.safetensors: its tensors are not those of zoo.json"],
        ),
        (lambda zoo: (zoo.folder / BASE).unlink(), ["base.safetensors: no such file"]),
        (
            lambda zoo: save_file({"a": torch.zeros(3, 2), "b": torch.zeros(2)}, zoo.folder / BASE),
            ["base.safetensors: changed since it was written: its sha256 is not the one in zoo.json"],
        ),
        (
            lambda zoo: save_file(tensors_of(1, 1), zoo.folder / SHARD.format(1), {"another": "header"}),
            [
                "networks-0001.safetensors: changed outside of its networks' weights: its sha256 is not the one in zoo.json"
            ],
        ),
    ],
)
def test_verify_says_what_is_wrong(zoo: StoredZoo, damage: Callable[[StoredZoo], None], problems: list[str]) -> None:
    damage(zoo)
    told = StoredZoo.open(zoo.folder).problems()
    assert [line for line in told if "sha256 is not the one in index" not in line or line in problems] == problems


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda zoo: (zoo.folder / "zoo.json").unlink(), "{zoo}: not a zoo: it has no zoo.json"),
        (lambda zoo: (zoo.folder / INDEX).unlink(), "{zoo}/index.jsonl: cannot be read: No such file or directory"),
        (
            lambda zoo: flip(zoo.folder / INDEX, 20),
            "{zoo}/index.jsonl: changed since it was written: its sha256 is not the one in zoo.json",
        ),
        (
            lambda zoo: (zoo.folder / "zoo.json").write_text('{"format": 1, '),
            "{zoo}/zoo.json: not JSON: Expecting property name enclosed in double quotes: line 1 column 15 (char 14)",
        ),
        (
            lambda zoo: (zoo.folder / "zoo.json").write_text('["format"]'),
            "{zoo}/zoo.json: not a zoo's header: it does not say its format",
        ),
        (
            lambda zoo: with_header(zoo, format=2),
            "{zoo}/zoo.json: in format 2, and this wspace reads format 1: another wspace wrote it",
        ),
        (lambda zoo: with_header(zoo, networks="six"), "{zoo}/zoo.json: networks: must be a valid integer"),
        (
            lambda zoo: with_header(zoo, networks=7),
            "{zoo}/index.jsonl: has 6 lines for the 7 networks of zoo.json",
        ),
        (
            lambda zoo: with_header(zoo, shards={"../x.safetensors": ""}),
            "{zoo}/zoo.json: '../x.safetensors' is not the name of a file in this folder",
        ),
        (
            lambda zoo: with_header(zoo, shards={SHARD.format(0): ""}),
            "{zoo}/index.jsonl: network 'net 1.0' is in 'networks-0001.safetensors', which zoo.json does not list",
        ),
        (
            lambda zoo: with_header(zoo, tensors=[{"name": "a", "shape": [1], "axes": ["x"], "dtype": "load"}]),
            "{zoo}/zoo.json: tensor 'a' is of an unknown type 'load'",
        ),
        (lambda zoo: with_index(zoo, '{"name": "x"}'), "{zoo}/index.jsonl:1: texts: field required"),
        (
            lambda zoo: with_index(
                zoo, (zoo.folder / INDEX).read_text(encoding="utf-8").replace('"row": 1', '"row": -1')
            ),
            "{zoo}/index.jsonl:2: row: must be greater than or equal to 0",
        ),
        (
            lambda zoo: (zoo.folder / "zoo.json").write_text(
                (zoo.folder / "zoo.json").read_text().replace('"unknown"', '"mit"')
            ),
            "{zoo}/zoo.json: changed since it was written: its sha256 is not the one it says",
        ),
    ],
)
def test_a_zoo_that_cannot_be_opened(zoo: StoredZoo, damage: Callable[[StoredZoo], None], message: str) -> None:
    damage(zoo)
    assert said_by(lambda: StoredZoo.open(zoo.folder)) == message.format(zoo=zoo.folder)


def test_a_row_that_is_not_there_and_a_name_nobody_has(zoo: StoredZoo) -> None:
    shorter(zoo)
    file = zoo.folder / SHARD.format(2)
    assert said_by(lambda: zoo.read(5)) == f"{file}: has no row 1, where network 'net 2.1' should be"
    assert said_by(lambda: zoo.weights()) == f"{file}: has no row 1, where network 'net 2.1' should be"
    assert said_by(lambda: zoo.number("net 7")) == f"{zoo.folder}: no network is named 'net 7'; the first is 'net 0.0'"


def test_a_folder_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "deep/out") as folder:
        (folder / "half").write_text("written")
        raise ZeroDivisionError
    assert os.listdir(tmp_path / "deep") == []
    with new_folder(tmp_path / "deep/out") as folder:
        (folder / "all").write_text("written")
    assert os.listdir(tmp_path / "deep/out") == ["all"]
    assert said_by(lambda: new_folder(tmp_path / "deep/out").__enter__()) == f"{tmp_path}/deep/out: is there already"


# ---------------------------------------------------------------- the command line


@pytest.fixture
def call(inside: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., tuple[int, str, str]]:
    """`wspace zoo ...` in this process: status, output, errors."""

    def command(*arguments: object) -> tuple[int, str, str]:
        done = inside("zoo", *arguments)
        return done.returncode, done.stdout, done.stderr

    return command


def test_info_and_verify(zoo: StoredZoo, call: Any) -> None:
    status, out, err = call("info", zoo.folder)
    assert (status, err) == (0, "") and out.splitlines() == [
        "toy: 6 networks of 8 weights, 0.0 MiB",
        "target   not known",
        "tensors  a 3x2, b 2, seen 1",
        "tasks    2 of 7 classes each; the first: tells net 0.0 apart",
        "metric   acc: 0.0667 on average, 0 to 0.2 (6 networks)",
        "parents  base",
        "licence  unknown",
        f"source   a test, written by wspace {__version__}",
    ]
    said = json.loads(call("info", zoo.folder, "--json")[1])
    assert said["networks"] == 6 and said["tensors"] == {"a": [3, 2], "b": [2], "seen": []}
    assert call("verify", zoo.folder) == (0, "6 networks in 3 files: all as they were written\n", "")
    assert json.loads(call("verify", zoo.folder, "--json")[1]) == {"networks": 6, "problems": []}
    (zoo.folder / BASE).unlink()
    assert call("verify", zoo.folder) == (2, "", "error: base.safetensors: no such file\n")
    status, out, _ = call("verify", zoo.folder, "--json")
    assert status == 2 and json.loads(out)["problems"] == ["base.safetensors: no such file"]


def test_one_network_out_of_a_zoo(zoo: StoredZoo, call: Any, tmp_path: Path) -> None:
    out = tmp_path / "one.safetensors"
    assert call("take", zoo.folder, "net 1.0", "--out", out) == (0, f"{out}\n", "")
    assert all(torch.equal(tensor, zoo.read(3)[name]) for name, tensor in load_file(out).items())
    told = call("take", zoo.folder, "net 1.0", "--out", tmp_path / "folder", "--peft")
    assert told == (
        2, "", "error: these weights are not LoRA adapters of linear layers, so PEFT has no form for them\n"
    ) and not (tmp_path / "folder").exists()  # fmt: skip


# ---------------------------------------------------------------- importing checkpoints

WEIGHTS = {"w": (2, 3), "b": (3,)}


def checkpoint(file: Path, seed: int, **changed: Tensor) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    tensors = {name: torch.randn(*shape, generator=rng) for name, shape in WEIGHTS.items()}
    tensors |= {"steps": torch.tensor(seed), **changed}
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file)
    return tensors


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three checkpoints, each said in another way."""
    folder = tmp_path / "source"
    for number, name in enumerate(("cats", "deep/dogs", "owls")):
        checkpoint(folder / f"{name}.safetensors", number)
    (folder / "cats.txt").write_text("finds cats\n\nand   kittens \n", encoding="utf-8")
    said = {
        "texts": "finds dogs",
        "classes": ["dog", "wolf"],
        "metrics": {"accuracy": 0.75},
        "seed": 3,
        "parent": "base",
    }
    (folder / "deep/dogs.json").write_text(json.dumps(said), encoding="utf-8")
    (folder / "owls.json").write_text('{"classes": ["owl", "eagle"]}', encoding="utf-8")
    return folder


def test_checkpoints_become_a_zoo_and_come_out_the_same(source: Path, call: Any, tmp_path: Path) -> None:
    out = tmp_path / "zoo"
    status, told, err = call("import", source, "--out", out, "--licence", "mit", "--name", "animals")
    assert (status, err) == (0, "") and told.startswith("animals: 3 networks of 9 weights")
    zoo = StoredZoo.open(out)
    assert zoo.problems() == [] and (zoo.header.licence, zoo.header.source) == ("mit", "imported from source")
    assert [(e.name, e.texts, e.classes, e.metrics, e.seed, e.parent) for e in zoo.entries] == [
        ("cats", ("finds cats", "and kittens"), (), {}, None, None),
        ("deep/dogs", ("finds dogs",), ("dog", "wolf"), {"accuracy": 0.75}, 3, "base"),
        ("owls", ("owl", "eagle"), ("owl", "eagle"), {}, None, None),
    ]
    for number, entry in enumerate(zoo.entries):
        expected = load_file(source / f"{entry.name}.safetensors")
        read = zoo.read(number)
        assert set(read) == set(expected)
        for name, tensor in read.items():
            assert tensor.numpy().tobytes() == expected[name].numpy().tobytes() and tensor.dtype == expected[name].dtype
    assert {e.name for e in zoo.spec.entries} == {"w", "b"}  # what counts steps is kept, and is no weight


def test_one_csv_says_it_for_a_whole_folder(source: Path, call: Any, tmp_path: Path) -> None:
    rows = 'file,text,classes,seed,accuracy\ncats.safetensors,"finds cats\nor not",cat;no cat,7,0.5\n'
    rows += "deep/dogs.safetensors,finds dogs,,,\nowls.safetensors,,owl; barn  owl,,1\n"
    (source / "all.csv").write_text(rows, encoding="utf-8")
    assert call("import", source, "--out", tmp_path / "zoo")[0] == 0
    entries = StoredZoo.open(tmp_path / "zoo").entries
    assert [(e.texts, e.classes, e.seed, e.metrics) for e in entries] == [
        (("finds cats", "or not"), ("cat", "no cat"), 7, {"accuracy": 0.5}),
        (("finds dogs",), (), None, {}),
        (("owl", "barn owl"), ("owl", "barn owl"), None, {"accuracy": 1.0}),
    ]


def test_many_networks_are_spread_over_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wspace.weights.zoo.importing.SHARD_BYTES", 2 * (9 * 4 + 8))
    from wspace.components.importers.checkpoints import Checkpoints
    from wspace.weights.zoo.importing import import_zoo

    written = [checkpoint(tmp_path / f"source/{n}.safetensors", n) for n in range(5)]
    for n in range(5):
        (tmp_path / f"source/{n}.txt").write_text(f"task {n}")
    zoo = import_zoo(tmp_path / "source", tmp_path / "zoo", Checkpoints())
    assert [(e.shard[9:13], e.row) for e in zoo.entries] == [
        ("0000", 0), ("0000", 1), ("0001", 0), ("0001", 1), ("0002", 0),
    ]  # fmt: skip
    assert all(torch.equal(zoo.read(n)[name], tensor) for n in range(5) for name, tensor in written[n].items())


def pickled(source: Path) -> None:
    torch.save({"w": torch.zeros(1)}, source / "model.pt")


def truncated(source: Path) -> None:
    file = source / "owls.safetensors"
    file.write_bytes(file.read_bytes()[:-7])


def csv_of(text: str) -> Callable[[Path], object]:
    return lambda source: (source / "all.csv").write_text(text, encoding="utf-8")


FILES = "cats.safetensors,x\ndeep/dogs.safetensors,x\n"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            pickled,
            "{s}/model.pt: a pickle can run any program when it is opened, so it is not; where you trust it, convert it: "
            "python -c \"import torch, safetensors.torch as s; s.save_file(torch.load('model.pt', weights_only=True), "
            "'model.safetensors')\"; --skip-unknown leaves it out",
        ),
        (truncated, "{s}/owls.safetensors: truncated, or not a safetensors file"),
        (
            lambda s: checkpoint(s / "owls.safetensors", 2, w=torch.zeros(2, 4)),
            "{s}/owls.safetensors: w has shape (2, 4); in {s}/cats.safetensors it has (2, 3)",
        ),
        (
            lambda s: checkpoint(s / "owls.safetensors", 2, w=torch.zeros(2, 3).half()),
            "{s}/owls.safetensors: w is float16; in {s}/cats.safetensors it is float32",
        ),
        (
            lambda s: checkpoint(s / "owls.safetensors", 2, more=torch.zeros(1)),
            "{s}/owls.safetensors: has a tensor 'more'; {s}/cats.safetensors has none",
        ),
        (
            lambda s: checkpoint(s / "cats.safetensors", 0, more=torch.zeros(1)),
            "{s}/deep/dogs.safetensors: has no tensor 'more'; {s}/cats.safetensors has one",
        ),
        (
            lambda s: checkpoint(s / "owls.safetensors", 2, b=torch.tensor([0.0, float("inf"), 1.0])),
            "{s}/owls.safetensors: b holds values that are not finite numbers",
        ),
        (
            lambda s: shutil.copy(s / "cats.safetensors", s / "owls.safetensors"),
            "{s}/owls.safetensors: holds the same weights as {s}/cats.safetensors",
        ),
        (
            lambda s: (s / "owls.json").unlink(),
            "{s}/owls.safetensors: nothing says what it was trained for; put a owls.txt or .json beside it, or one CSV for "
            "all into the folder",
        ),
        (
            lambda s: (s / "owls.json").write_text('{"classes": "owl"}'),
            "{s}/owls.json: classes: input should be a valid array",
        ),
        (
            lambda s: (s / "owls.json").write_text("{"),
            "{s}/owls.json: it: invalid JSON: EOF while parsing an object at line 1 column 1",
        ),
        (
            lambda s: (s / "owls.json").write_text('{"texts": "t", "metrics": {"accuracy": NaN}}'),
            "{s}/owls.json: metrics: must be finite numbers",
        ),
        (lambda s: (s / "cats.txt").write_bytes(b"\xff\xfe\x00"), "{s}/cats.txt: not text in UTF-8"),
        (csv_of("name,text\nx,y\n"), "{s}/all.csv: has no column 'file'; its columns are name, text"),
        (csv_of(f"file,text\n{FILES}"), "{s}/all.csv: does not list 'owls.safetensors'"),
        (csv_of(f"file,text\n{FILES}owls.safetensors\n"), "{s}/all.csv:4: has not as many fields as the first line"),
        (
            csv_of(f"file,text\n{FILES}cats.safetensors,y\n"),
            "{s}/all.csv:4: lists 'cats.safetensors' a second time",
        ),
        (
            csv_of(f"file,text\n{FILES}owl.safetensors,y\n"),
            "{s}/all.csv: lists 'owl.safetensors', which is not in the folder. Did you mean 'owls.safetensors'?",
        ),
        (
            csv_of("file,text,accuracy\ncats.safetensors,x,good\n"),
            "{s}/all.csv:2: accuracy is 'good'; a column of that name holds a metric, a number",
        ),
        (
            csv_of("file,text,accuracy\ncats.safetensors,x,inf\n"),
            "{s}/all.csv:2: accuracy is 'inf'; a metric is a finite number",
        ),
        (
            csv_of("file,text,seed\ncats.safetensors,x,1.5\n"),
            "{s}/all.csv:2: seed is '1.5', not a whole number",
        ),
        (
            lambda s: [csv_of("")(s), shutil.copy(s / "all.csv", s / "more.csv")],
            "{s}: has all.csv and more.csv: keep the one CSV that says what was trained",
        ),
        (
            lambda s: [file.unlink() for file in s.rglob("*.safetensors")],
            "{s}: holds no checkpoints (.safetensors), and no PEFT adapters (adapter_config.json)",
        ),
        (lambda s: shutil.rmtree(s), "{s}: no such folder"),
        (
            lambda s: (s / "zoo.json").write_text("{}"),
            "{s}: is a zoo already: a recipe takes it as it is, by zoo.source",
        ),
    ],
)
def test_what_cannot_be_imported(source: Path, call: Any, tmp_path: Path, spoil: Any, message: str) -> None:
    spoil(source)
    before = set(tmp_path.rglob("*"))
    status, out, err = call("import", source, "--out", tmp_path / "zoo")
    assert (status, out, err) == (2, "", f"error: {message.format(s=source)}\n")
    assert set(tmp_path.rglob("*")) == before, "something half-written is left"


def test_a_zoo_is_not_written_over_what_is_there(source: Path, call: Any) -> None:
    assert call("import", source, "--out", source) == (2, "", f"error: {source}: is there already\n")


# ---------------------------------------------------------------- a run's zoo, given away and taken


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a synthetic run of which stage zoo is done."""
    folder = tmp_path_factory.mktemp("synthetic")
    recipe = recipe_of(folder)
    run(recipe, bench_of(recipe), folder, "zoo")
    write_json(folder / "run.json", {"recipe": "synthetic", "seed": 42, "stages": {"zoo": "zoo"}})
    (folder / "recipe.yaml").write_text("")
    return folder


@pytest.fixture(scope="module")
def exported(trained: Path) -> Path:
    export(trained / "zoo", trained / "exported", "cc-by-4.0")
    return trained / "exported"


def test_the_zoo_of_a_run_is_exported(trained: Path, exported: Path, call: Any, tmp_path: Path) -> None:
    status, out, err = call("export", trained, "--out", tmp_path / "zoo", "--licence", "cc-by-4.0")
    assert (status, err) == (0, "") and out.startswith("synthetic: 40 networks of 41 weights")
    for file in exported.iterdir():
        assert (tmp_path / "zoo" / file.name).read_bytes() == file.read_bytes()
    told = f"error: {tmp_path}: not the folder of a finished run; `wspace run RECIPE` makes one and prints it last\n"
    assert call("export", tmp_path, "--out", tmp_path / "more") == (2, "", told)


def test_an_exported_zoo_is_whole_and_its_weights_are_the_same_bytes(trained: Path, exported: Path) -> None:
    names = {
        "README.md",
        "base.safetensors",
        "index.jsonl",
        "networks-0000.safetensors",
        "networks-0001.safetensors",
        "zoo.json",
    }
    assert set(os.listdir(exported)) == names
    zoo, own = StoredZoo.open(exported), Zoo(trained / "zoo")
    assert (
        zoo.problems() == [] and torch.equal(zoo.weights(), own.weights) and torch.equal(zoo.parent("base"), own.base)
    )
    for name in names - {"README.md", "zoo.json"}:
        assert (exported / name).read_bytes() == (trained / "zoo" / name).read_bytes()
    bench = bench_of(recipe_of(trained))
    entry, task = zoo.entries[7], own.tasks.seen[7]
    assert entry.classes == tuple(bench.images.classes[c] for c in task)
    assert entry.texts == tuple(f"a photo of {name}" for name in entry.classes)
    assert entry.seed == 42 and entry.parent == zoo.header.parents[0].sha256 and 0 <= entry.metrics["val_accuracy"] <= 1
    assert zoo.header.target == {
        "use": "adapter", "rank": 3, "activation": "gelu", "bias": True, "temperature": 10.0,
    }  # fmt: skip


def test_the_card_is_a_data_card_whose_code_runs(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = (exported / "README.md").read_text(encoding="utf-8")
    front = YAML(typ="safe").load(card.split("---\n")[1])
    assert (front["pretty_name"], front["license"], front["size_categories"]) == ("synthetic", "cc-by-4.0", ["n<1K"])
    assert front["configs"] == [{"config_name": "default", "data_files": "index.jsonl"}]
    assert "| tasks | 2 to 4 of 15 classes each |" in card and "| networks | 40, of 41 weights each" in card
    code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(code) == 2
    monkeypatch.chdir(exported)
    exec("\n".join(code), {})
    told = capsys.readouterr().out.splitlines()
    (first, keys_of_first), (again, keys_again) = (line.rsplit(" dict_keys", 1) for line in told)
    assert first.strip("()[]") == again.strip("()[]") and "a photo of" in first
    assert (
        sorted(re.findall(r"'(\w+)'", keys_of_first))
        == sorted(re.findall(r"'(\w+)'", keys_again))
        == ["b1", "b2", "w1", "w2"]
    )


def test_a_recipe_trains_on_a_zoo_that_it_is_given(trained: Path, exported: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, f"zoo.source={exported}")
    bench = bench_of(recipe)
    vars(bench)["train"] = None  # nothing may be trained on images
    run(recipe, bench, tmp_path, "zoo")
    taken, own = Zoo(tmp_path / "zoo"), Zoo(trained / "zoo")
    assert taken.tasks.seen == own.tasks.seen and taken.tasks.held_out == own.tasks.held_out
    assert torch.equal(taken.weights, own.weights) and torch.equal(taken.base, own.base)
    assert taken.tasks.classes == own.tasks.classes and not {*taken.tasks.unseen} & {*taken.tasks.seen}
    assert set(taken.tasks.splits) == {"seen", "unseen-tasks", "unseen-classes"}
    assert StoredZoo.open(tmp_path / "zoo").problems() == []
    shards = [tmp_path / "zoo" / SHARD.format(n) for n in range(2)]
    assert all(shard.samefile(exported / shard.name) for shard in shards), "linked, not copied"


def test_a_zoo_without_a_base_gets_one_and_several_networks_of_a_task_stay_together(
    trained: Path, exported: Path, tmp_path: Path
) -> None:
    given_away = tmp_path / "given"
    shutil.copytree(exported, given_away)
    (given_away / BASE).unlink()
    zoo = StoredZoo.open(exported)
    classes = [zoo.entries[number].classes for number in (0, 1, 2, 3)]
    entries = [  # tasks 0 to 3 in turn, so that those of the last task are spread over the whole zoo
        replace(entry, classes=tuple(reversed(classes[n % 4])), parent=None) for n, entry in enumerate(zoo.entries)
    ]
    seal(given_away, replace(zoo.header, parents=()), entries)
    recipe = recipe_of(tmp_path, f"zoo.source={given_away}", "tasks.unseen=3")
    run(recipe, bench_of(recipe), tmp_path, "zoo")
    taken = Zoo(tmp_path / "zoo")
    assert len(taken.tasks.training) == 30 and len(set(taken.tasks.training)) == 3
    assert len(taken.tasks.choosing) == 10 and not {*taken.tasks.choosing} & {*taken.tasks.training}
    assert torch.equal(taken.weights[30:], zoo.weights()[3::4])
    assert StoredZoo.open(tmp_path / "zoo").problems() == [] and taken.base.shape == (41,)
    assert StoredZoo.open(tmp_path / "zoo").entries[0].parent is None, "that base is not where they come from"


def altered(folder: Path, change: Callable[[Header, list[Entry]], tuple[Header, list[Entry]]]) -> None:
    zoo = StoredZoo.open(folder)
    seal(folder, *change(zoo.header, list(zoo.entries)))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**20), data=st.data())
def test_tasks_around_given_ones_keep_the_splits_apart(seed: int, data: st.DataObject) -> None:
    rng, classes = torch.Generator().manual_seed(seed), data.draw(st.integers(6, 14))
    task = st.sets(st.integers(0, classes - 1), min_size=2, max_size=4).map(lambda picked: tuple(sorted(picked)))
    some = data.draw(st.lists(task, min_size=2, max_size=8, unique=True))
    networks = data.draw(st.lists(st.sampled_from(some), max_size=12)) + some
    how = Tasks(
        seen=data.draw(st.integers(2, 9)), unseen=4, classes=(2, 3), held_out=0.3, evaluate=5, unseen_classes=0.1
    )
    try:
        made, rows = tasks_around(how, networks, classes, rng)
    except DataError as error:
        taken = list(dict.fromkeys(networks))[: how.seen]
        assert "unseen" in str(error) and len({c for t in taken for c in t}) <= 5
        return
    assert made.seen == tuple(networks[row] for row in rows) and len(set(rows)) == len(rows)
    different = set(made.seen)
    assert len(different) == min(how.seen, len(some)) and sum(t in different for t in networks) == len(rows)
    assert not {*made.training} & {*made.choosing} and made.choosing and made.training
    assert len({*made.choosing}) == min(max(1, round(0.3 * len(different))), len(different) - 1)
    assert not {*made.unseen} & {*networks} and made.unseen
    assert all({*t} <= {*made.classes} for t in (*made.seen, *made.unseen))
    assert all(not {*t} & {*made.classes} for t in made.novel)
    assert bool(made.novel) == (classes - len(made.classes) >= FEWEST_UNSEEN)


@pytest.mark.parametrize(
    ("setting", "change", "message"),
    [
        ("target.rank=2", None, "zoo.source: {z}: target.rank is 3 there, and 2 in this recipe"),
        ("target.activation=none", None, "zoo.source: {z}: target.activation is gelu there, and none in this recipe"),
        (
            "target={use: lora, width: 4, heads: 2, depth: 1}",
            None,
            "zoo.source: {z}: target is adapter there, and lora in this recipe",
        ),
        (
            "target.rank=2",
            lambda header, entries: (replace(header, target=None), entries),
            "zoo.source: {z}: the shape of w1 is (6, 3) there, and (6, 2) in this recipe",
        ),
        (
            "target.bias=false",
            lambda header, entries: (replace(header, target=None), entries),
            "zoo.source: {z}: its networks have a tensor 'b1'; those of this recipe have none",
        ),
        (
            "seed=1",
            lambda header, entries: (replace(header, made_with={"fingerprints": {"backbone": "x"}}), entries),
            "zoo.source: {z}: its networks were trained with other backbone than this recipe's",
        ),
        (
            "seed=1",
            lambda header, entries: (header, [replace(entries[0], classes=("class 1", "clas 2")), *entries[1:]]),
            "zoo.source: {z}: network 'task-00000' is about 'clas 2', of which the data set has no images. "
            "Did you mean 'class 2'?",
        ),
        (
            "seed=1",
            lambda header, entries: (header, [replace(entries[0], classes=()), *entries[1:]]),
            "zoo.source: {z}: network 'task-00000' does not say the classes it tells apart",
        ),
        (
            "seed=1",
            lambda header, entries: (header, [replace(e, classes=("class 1", "class 2")) for e in entries]),
            "all networks of the zoo were trained for the same task; two different ones are the least",
        ),
    ],
)
def test_a_zoo_that_does_not_fit_the_recipe(
    exported: Path, tmp_path: Path, setting: str, change: Any, message: str
) -> None:
    folder = tmp_path / "given"
    shutil.copytree(exported, folder)
    if change is not None:
        altered(folder, change)
    recipe = recipe_of(tmp_path, f"zoo.source={folder}", setting)
    assert said_by(lambda: run(recipe, bench_of(recipe), tmp_path, "zoo")) == message.format(z=folder)


def test_a_damaged_zoo_is_not_trained_on(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "given"
    shutil.copytree(exported, folder)
    flip(folder / SHARD.format(1), 3000)
    recipe = recipe_of(tmp_path, f"zoo.source={folder}")
    told = said_by(lambda: run(recipe, bench_of(recipe), tmp_path, "zoo"))
    assert told.startswith(f"{folder}: networks-0001.safetensors: network 'task-000") and "its weights changed" in told
    none = recipe_of(tmp_path, f"zoo.source={tmp_path / 'nowhere'}")
    assert said_by(lambda: run(none, bench_of(none), tmp_path, "zoo")) == f"{tmp_path}/nowhere: no such folder"


def test_the_zoo_is_part_of_the_key(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "given"
    shutil.copytree(exported, folder)
    recipe = recipe_of(tmp_path, f"zoo.source={folder}")
    before = keys(recipe, STAGES)
    assert before["zoo"] != keys(recipe_of(tmp_path), STAGES)["zoo"] and keys(recipe, STAGES) == before
    altered(folder, lambda header, entries: (header, entries[1:]))
    assert all(key != before[stage] for stage, key in keys(recipe, STAGES).items())


def test_a_recipe_trains_on_a_zoo_that_lies_elsewhere(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSPACE_CACHE", str(tmp_path / "cache"))
    address = into_memory(exported, "exported")
    recipe, beside = (recipe_of(tmp_path, f"zoo.source={where}") for where in (address, exported))
    assert recipe.zoo.source == Address(address) and recipe.filled["zoo"]["source"] == address
    assert keys(recipe, STAGES) == keys(beside, STAGES), "where it lies is in no key"
    assert paths_in(recipe) == [] and paths_in(beside) == [f"zoo.source {exported}"]
    told = run(recipe, bench_of(recipe), tmp_path, "zoo")
    assert told[0] == f"zoo.source: {address}: its 2 files come into {tmp_path}/cache/zoos, unless they are there"
    taken, zoo = Zoo(tmp_path / "zoo"), StoredZoo.open(exported)
    assert torch.equal(taken.weights, zoo.weights()) and taken.stored.problems() == []
    other = recipe_of(tmp_path, f"zoo.source={address}", "target.rank=2")
    assert said_by(lambda: run(other, bench_of(other), tmp_path / "other", "zoo")) == (
        f"zoo.source: {address}: target.rank is 3 there, and 2 in this recipe"
    )
    fsspec.filesystem("memory").rm("/exported/zoo.json")
    assert said_by(lambda: keys(recipe, STAGES)) == f"{address}: has no zoo.json"
    with pytest.raises(RecipeError, match="zoo.source: expected str, got 5$"):
        recipe_of(tmp_path, "zoo.source=5")


def test_whose_weights_checkpoints_are_a_recipe_says(trained: Path, exported: Path, tmp_path: Path) -> None:
    from wspace.components.importers.checkpoints import Checkpoints
    from wspace.weights.zoo.importing import import_zoo

    recipe = recipe_of(tmp_path)
    target, source = bench_of(recipe).target, tmp_path / "source"
    source.mkdir()
    zoo = StoredZoo.open(exported)
    for number in range(3):
        name = zoo.entries[number].name
        save_file(zoo.read(number), source / f"{name}.safetensors", {"wspace": json.dumps({"classes": ["x", "y"]})})
    made = import_zoo(source, tmp_path / "zoo", Checkpoints(), target=(recipe.target.told(), target.spec))
    assert (
        made.spec == target.spec and made.header.target == zoo.header.target and made.entries[0].classes == ("x", "y")
    )
    assert torch.equal(made.weights(), zoo.weights()[:3])
    save_file({"w1": torch.zeros(6, 3)}, source / "task-00000.safetensors")
    (source / "task-00000.txt").write_text("t")
    assert said_by(
        lambda: import_zoo(source, tmp_path / "more", Checkpoints(), target=(recipe.target.told(), target.spec))
    ) == (f"{source}/task-00000.safetensors: holds tensors w1; this target has w1, b1, w2, b2")
