"""Zoos that anybody may have written: hashes are right where somebody took the trouble."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.support.hostile import (
    altered,
    as_json,
    cases,
    headers,
    held,
    mutated,
    refused_or_done,
    safetensors_file,
    values,
)
from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.support.errors import FileError
from wspace.support.files import save_tensors
from wspace.support.fingerprint import of_json
from wspace.support.names import ZOO_HEADER
from wspace.weights.zoo.format import BASE, INDEX, SHARD, Entry, Header, Parent, StoredZoo, seal, sha256_of, stored

SPEC = WeightSpec((WeightEntry("w", (2, 3), ("a", "b")), WeightEntry("b", (2,), ("a",))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    base = {"w": torch.ones(2, 3), "b": torch.zeros(2)}
    save_tensors(folder / SHARD.format(0), {"w": torch.randn(3, 2, 3), "b": torch.randn(3, 2)})
    save_tensors(folder / BASE, base)
    header = Header(
        name="hostile", source="nobody", tensors=stored(SPEC), parents=(Parent("base", BASE, sha256_of(base)),)
    )
    entries = [Entry(f"n{row}", ("a text",), ("x", "y"), SHARD.format(0), row, {"val": 0.5}) for row in range(3)]
    seal(folder, header, entries)
    return folder


@pytest.fixture(scope="module")
def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def look(folder: Path) -> None:
    zoo = StoredZoo.open(folder)
    refused_or_done(zoo.problems)
    refused_or_done(zoo.weights)
    refused_or_done(lambda: zoo.parent("base"))
    for number in range(len(zoo.entries)):
        refused_or_done(lambda number=number: zoo.read(number))


def put(folder: Path, content: dict[str, bytes]) -> None:
    for name in set(os.listdir(folder)) - set(content):
        (folder / name).unlink()
    for name, held_there in content.items():
        (folder / name).write_bytes(held_there)


def sealed(header: Any, lines: list[Any], shard: bytes) -> tuple[bytes, bytes]:
    """Header and index with the hashes that they should have."""
    index = "".join(as_json(line) + "\n" for line in lines).encode()
    if isinstance(header, dict):
        header["index"], header["networks"] = hashlib.sha256(index).hexdigest(), len(lines)
        if isinstance(header.get("shards"), dict):
            header["shards"] = {name: hashlib.sha256(shard).hexdigest() for name in header["shards"]}
        header.pop("sha256", None)
        header["sha256"] = of_json(header)
    return as_json(header).encode(), index


HUGE = {"tensors": [{"name": "w", "shape": [2**40, 2**20], "axes": ["a", "b"], "dtype": "float32"}]}


@cases(4_000)
@given(st.data())
def test_a_forged_zoo_is_read_or_refused(folder: Path, content: dict[str, bytes], data: st.DataObject) -> None:
    header = json.loads(content[ZOO_HEADER])
    lines = [json.loads(line) for line in content[INDEX].splitlines()]
    shard = content[SHARD.format(0)]
    what = data.draw(st.sampled_from(["header", "lines", "shard", "all"]))
    if what in ("header", "all"):
        header = data.draw(altered(header) | st.just(header | HUGE))
    if what in ("lines", "all"):
        lines = data.draw(altered(lines))
        row = data.draw(st.sampled_from([-1, 0, 3, 2**31, 2**63, 2**70]))
        if isinstance(lines, list) and lines and isinstance(lines[0], dict):
            lines[0]["row"] = row
    if what in ("shard", "all"):
        shard = data.draw(headers(st.sampled_from(["w", "b", "x"]), 96).map(lambda h: safetensors_file(h, bytes(96))))
    written, index = sealed(header, lines if isinstance(lines, list) else [lines], shard)
    put(folder, content | {ZOO_HEADER: written, INDEX: index, SHARD.format(0): shard})
    with held(folder):
        refused_or_done(lambda: look(folder))


@cases(4_000)
@given(st.sampled_from([ZOO_HEADER, INDEX, SHARD.format(0), BASE]), st.data())
def test_a_damaged_zoo_is_read_or_refused(
    folder: Path, content: dict[str, bytes], name: str, data: st.DataObject
) -> None:
    put(folder, content | {name: data.draw(mutated(content[name]) | values.map(lambda v: as_json(v).encode()))})
    with held(folder):
        refused_or_done(lambda: look(folder))


def test_a_zoo_whose_networks_have_no_weights_is_refused(folder: Path, content: dict[str, bytes]) -> None:
    header, lines = json.loads(content[ZOO_HEADER]), content[INDEX].splitlines()
    written, index = sealed(header | {"tensors": []}, [json.loads(line) for line in lines], content[SHARD.format(0)])
    put(folder, content | {ZOO_HEADER: written, INDEX: index})
    with pytest.raises(FileError, match=r"zoo.json: its networks have no weights$"):
        StoredZoo.open(folder)
