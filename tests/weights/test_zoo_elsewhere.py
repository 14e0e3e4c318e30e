"""Zoos that lie elsewhere: fetched shard by shard into the cache, every hash checked, and whatever goes wrong one sentence."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

import wspace
from tests.support.elsewhere import into_memory, on_the_web
from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.support.elsewhere import Address, is_address, place_of
from wspace.support.errors import FileError, MissingPackage, UserError
from wspace.support.files import read_json, save_tensors
from wspace.support.fingerprint import of_json, sha256_of_file
from wspace.weights.zoo.format import BASE, INDEX, SHARD, Entry, Header, Parent, StoredZoo, seal, sha256_of, stored

SPEC = WeightSpec((WeightEntry("w", (3, 2), ("in", "out")), WeightEntry("b", (2,), ("out",))))
SHARDS, TOGETHER = 3, 4


@pytest.fixture
def zoo(tmp_path: Path) -> StoredZoo:
    folder, entries = tmp_path / "zoo", list[Entry]()
    folder.mkdir()
    rng = torch.Generator().manual_seed(0)
    for number in range(SHARDS):
        save_tensors(folder / SHARD.format(number), SPEC.unflatten(torch.randn(TOGETHER, SPEC.size, generator=rng)))
        for row in range(TOGETHER):
            entries.append(Entry(f"{number}.{row}", ("text",), ("a", "b"), SHARD.format(number), row))
    base = SPEC.unflatten(torch.randn(SPEC.size, generator=rng))
    save_tensors(folder / BASE, base)
    parents = (Parent("base", BASE, sha256_of(base)),)
    return seal(folder, Header(name="toy", source="a test", tensors=stored(SPEC), parents=parents), entries)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where files are kept that were fetched: a cache of the test's own."""
    monkeypatch.setenv("WSPACE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/zoos"


@pytest.fixture
def memory(zoo: StoredZoo, kept: Path) -> Iterator[str]:
    """The address of the zoo in fsspec's memory, where `written` writes."""
    yield into_memory(zoo.folder, "toy")
    fsspec.filesystem("memory").rm("/toy", recursive=True)


def written(name: str, content: bytes) -> None:
    fsspec.filesystem("memory").pipe_file(f"/toy/{name}", content)


def with_header(zoo: StoredZoo, **changed: Any) -> None:
    """A header in memory that says something else, and whose hash agrees."""
    said = read_json(zoo.folder / "zoo.json") | changed
    said.pop("sha256")
    written("zoo.json", json.dumps(said | {"sha256": of_json(said)}).encode())


def said_by(call: Callable[[], Any], kind: type[UserError] = UserError) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert type(caught.value) is kind and "\n" not in str(caught.value)
    return str(caught.value)


def test_an_address_is_told_from_a_path() -> None:
    for text in ("memory://zoo", "https://host/zoo", "s3://bucket/zoo", "zip::https://host/zoo.zip"):
        assert is_address(text) and place_of(text) == Address(text) and str(place_of(text)) == text
    for text in ("zoo", "/data/zoo", "C:/zoo", "a:b/zoo", "~/zoo", "://zoo"):
        assert not is_address(text) and place_of(text) == Path(text)


def test_what_lies_elsewhere_is_what_was_written(zoo: StoredZoo, memory: str) -> None:
    there = wspace.load(memory)
    assert isinstance(there, StoredZoo) and there == StoredZoo.open(Address(memory))
    assert there.header == zoo.header and there.entries == zoo.entries and str(there.where) == memory
    assert torch.equal(there.weights(), zoo.weights()) and torch.equal(there.parent("base"), zoo.parent("base"))
    assert all(torch.equal(tensor, zoo.read(5)[name]) for name, tensor in there.read(5).items())
    assert there.problems() == []


def test_a_shard_is_fetched_when_it_is_needed_and_then_kept_under_its_hash(zoo: StoredZoo, kept: Path) -> None:
    with on_the_web(zoo.folder) as (address, asked):
        there = StoredZoo.open(address)
        assert asked == ["zoo.json", INDEX] and len(there.entries) == 12
        assert torch.equal(there.rows([5]), zoo.rows([5])) and asked[2:] == [SHARD.format(1)]
        assert sorted(file.name for file in kept.iterdir()) == sorted(
            [f"{zoo.header.index}.jsonl", f"{zoo.header.shards[SHARD.format(1)]}.safetensors"]
        )
        assert there.problems() == [] and asked[3:] == [SHARD.format(0), SHARD.format(2), BASE]
        again = StoredZoo.open(address)
        assert torch.equal(again.weights(), zoo.weights()) and again.parent("base") is not None
        assert asked[6:] == ["zoo.json"], "only what says whether it is still the same zoo"


def test_a_file_that_comes_garbled_once_is_fetched_anew(zoo: StoredZoo, memory: str, monkeypatch: Any) -> None:
    fetch, fetched = Address.fetch, list[str]()

    def garbling(self: Address, name: str, file: Path) -> None:
        fetch(self, name, file)
        fetched.append(name)
        if fetched.count(name) == 1:
            file.write_bytes(file.read_bytes()[:-1])

    monkeypatch.setattr(Address, "fetch", garbling)
    there = StoredZoo.open(memory)
    assert torch.equal(there.weights()[:4], zoo.weights()[:4]) and there.problems() == []
    assert fetched[:2] == [INDEX, INDEX] and all(fetched.count(name) == 2 for name in (*zoo.header.shards, BASE))


def test_a_file_of_the_cache_that_was_damaged_is_fetched_anew(zoo: StoredZoo, memory: str, kept: Path) -> None:
    StoredZoo.open(memory).weights()
    file = kept / f"{zoo.header.shards[SHARD.format(0)]}.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert torch.equal(StoredZoo.open(memory).weights(), zoo.weights())
    assert sha256_of_file(file) == zoo.header.shards[SHARD.format(0)]


GARBLED = (
    "{a}: {file} is not what zoo.json says, also when it is fetched again: its sha256 is another; nothing of it is used"
)


@pytest.mark.parametrize("file", [INDEX, SHARD.format(1), BASE])
def test_a_file_of_another_hash_is_refused_and_not_kept(zoo: StoredZoo, memory: str, kept: Path, file: str) -> None:
    written(file, (zoo.folder / file).read_bytes()[:-1] + b"x")

    def read() -> None:
        there = StoredZoo.open(memory)
        assert there.problems() == [GARBLED.format(a=memory, file=file).removeprefix(f"{memory}: ")]
        there.rows([5])
        there.parent("base")

    assert said_by(read, FileError) == GARBLED.format(a=memory, file=file)
    for name in kept.iterdir():
        assert not name.name.startswith("."), "nothing half-written"
    there = {INDEX: zoo.header.index, BASE: zoo.header.parents[0].sha256} | zoo.header.shards
    assert not list(kept.glob(f"{there[file]}.*"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda zoo: fsspec.filesystem("memory").rm("/toy/zoo.json"), "{a}: has no zoo.json"),
        (lambda zoo: fsspec.filesystem("memory").rm(f"/toy/{INDEX}"), "{a}: has no index.jsonl"),
        (lambda zoo: written("zoo.json", b"[]"), "{a}/zoo.json: not a zoo's header: it does not say its format"),
        (
            lambda zoo: written("zoo.json", b"{"),
            "{a}/zoo.json: not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        (
            lambda zoo: with_header(zoo, shards={"../x.safetensors": "0" * 64}),
            "{a}/zoo.json: '../x.safetensors' is not the name of a file in this folder",
        ),
        (
            lambda zoo: with_header(zoo, shards={"%2e%2e%2fx": "0" * 64}),
            "{a}/index.jsonl: network '0.0' is in 'networks-0000.safetensors', which zoo.json does not list",
        ),
        (
            lambda zoo: with_header(zoo, index="../../x"),
            "{a}: '../../x', which zoo.json has of index.jsonl, is no sha256",
        ),
        (lambda zoo: with_header(zoo, networks=7), "{a}/index.jsonl: has 12 lines for the 7 networks of zoo.json"),
    ],
)
def test_a_zoo_elsewhere_that_cannot_be_opened(
    zoo: StoredZoo, memory: str, damage: Callable[[StoredZoo], None], message: str
) -> None:
    damage(zoo)
    assert said_by(lambda: StoredZoo.open(memory), FileError) == message.format(a=memory)


@pytest.mark.parametrize("name", ["%2e%2e%2fx.safetensors", "a?b", ".hidden", "a b", "ä"])
def test_a_name_that_may_lead_out_of_the_zoo_is_not_fetched(memory: str, name: str) -> None:
    told = said_by(lambda: Address(memory).read(name), FileError)
    assert told == f"{memory}: {name!r} is not fetched: only letters, digits, '.', '-' and '_' are safe in a name"


def test_a_shard_that_is_not_there_is_told_by_verify(zoo: StoredZoo, memory: str, inside: Any) -> None:
    fsspec.filesystem("memory").rm(f"/toy/{SHARD.format(2)}")
    done = inside("zoo", "verify", memory)
    assert (done.returncode, done.stderr) == (2, f"error: has no {SHARD.format(2)}\n")
    assert said_by(StoredZoo.open(memory).weights, FileError) == f"{memory}: has no {SHARD.format(2)}"


def test_commands_take_an_address(zoo: StoredZoo, memory: str, kept: Path, inside: Any, tmp_path: Path) -> None:
    info = inside("zoo", "info", memory)
    assert info.returncode == 0 and info.stdout.startswith("toy: 12 networks of 8 weights")
    assert json.loads(inside("zoo", "info", memory, "--json").stdout)["bytes"] == 12 * 8 * 4
    assert [file.suffix for file in kept.iterdir()] == [".jsonl"], "no shard is fetched to be talked about"
    out = tmp_path / "one.safetensors"
    assert inside("zoo", "take", memory, "1.1", "--out", out).stdout == f"{out}\n"
    assert len([*kept.iterdir()]) == 2
    assert inside("zoo", "verify", memory).stdout == "12 networks in 3 files: all as they were written\n"
    assert inside("zoo", "take", memory, "x", "--out", out).stderr == (
        f"error: {memory}: no network is named 'x'; the first is '0.0'\n"
    )


# ---------------------------------------------------------------- addresses that are of no use


def test_an_address_at_which_nobody_answers(kept: Path) -> None:
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/zoo"
        assert said_by(lambda: StoredZoo.open(address)) == f"{address}: nobody answers there"


def test_a_server_that_has_no_such_zoo_and_an_address_that_names_no_folder(zoo: StoredZoo, kept: Path) -> None:
    with on_the_web(zoo.folder) as (address, _):
        assert said_by(lambda: StoredZoo.open(f"{address}/x"), FileError) == f"{address}/x: has no zoo.json"
        assert said_by(lambda: StoredZoo.open(f"{address}/?key=1")) == (
            f"{address}/?key=1: a folder's address ends before any '?' or '#': its files are named behind it"
        )


def test_a_server_that_breaks_off(zoo: StoredZoo, memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise TimeoutError("no word for 60 seconds")

    there = StoredZoo.open(memory)
    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "get_file", broken)
    told = said_by(lambda: there.rows([0]))
    assert told.startswith(f"{memory}: {SHARD.format(0)} cannot be read: TimeoutError: no word for 60 seconds")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, kept: Path, zoo: StoredZoo) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    assert said_by(lambda: StoredZoo.open("s3://bucket/zoo"), MissingPackage) == (
        "s3://bucket/zoo: Install s3fs to access S3"
    )
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with on_the_web(zoo.folder) as (address, asked):
        told = said_by(lambda: StoredZoo.open(address), MissingPackage)
        assert told == f'{address}: needs the package aiohttp: pip install "wspace[remote]"' and asked == []


def test_an_address_that_fsspec_does_not_know(kept: Path) -> None:
    told = said_by(lambda: StoredZoo.open("memmory://zoo"))
    assert told.startswith("memmory://zoo: fsspec knows no addresses of 'memmory': did you mean memory")


def test_a_zoo_that_was_sealed_anew_is_another(zoo: StoredZoo, kept: Path) -> None:
    with on_the_web(zoo.folder) as (address, _):
        before = StoredZoo.open(address)
        seal(zoo.folder, zoo.header, list(zoo.entries)[:8])
        after = StoredZoo.open(address)
        assert len(before.entries) == 12 and len(after.entries) == 8 and after.problems() == []
        assert torch.equal(after.weights(), before.weights()[:8]), "shards that are the same are there already"
