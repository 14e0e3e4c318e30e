"""Networks on disk, read and written a part at a time: the same numbers as read whole, whatever type they have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.support.errors import FileError
from wspace.weights.stretches import Stretches, squared_distances
from wspace.weights.zoo.format import SHARD, Entry, Header, StoredZoo, seal, stored

SPEC = WeightSpec((WeightEntry("w", (5, 3), ("in", "out")), WeightEntry("b", (4,), ("unit",))))
WHERE = torch.tensor([[0, 4], [4, 4], [8, 4], [12, 3], [15, 4]])
"""Of tokens of four weights."""


def networks(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, SPEC.size, generator=torch.Generator().manual_seed(seed))


def zoo_of(folder: Path, *shards: Tensor) -> StoredZoo:
    entries = []
    folder.mkdir()
    for number, weights in enumerate(shards):
        save_file({n: t.contiguous() for n, t in SPEC.unflatten(weights).items()}, folder / SHARD.format(number))
        names = [(f"{number}.{row}", row) for row in range(len(weights))]
        entries += [Entry(name, ("text",), ("a", "b"), SHARD.format(number), row) for name, row in names]
    return seal(folder, Header(name="toy", source="a test", tensors=stored(SPEC)), entries)


def tokens_of(weights: Tensor) -> Tensor:
    """(n, 5, 4)."""
    padded = torch.zeros(len(weights), 20)
    padded[:, :15], padded[:, 16:] = weights[:, :15], weights[:, 15:]
    return padded.unflatten(1, (5, 4))


def test_parts_of_a_zoo_are_those_of_its_weights_in_any_order(tmp_path: Path) -> None:
    first, second = networks(2), networks(3, seed=1)
    zoo = zoo_of(tmp_path / "zoo", first, second)
    opened = Stretches.of_zoo(zoo, [3, 0, 4], SPEC)
    expected = tokens_of(torch.cat([first, second])[[3, 0, 4]])
    assert len(opened) == 3 and opened.size == SPEC.size
    for number in range(3):
        for rows in ([0, 1, 2, 3, 4], [4, 1], [2], [3, 2, 1, 0]):
            assert torch.equal(opened.read(number, WHERE[rows], 4), expected[number, rows])
        assert torch.equal(opened.whole(number), zoo.weights()[[3, 0, 4][number]])
    assert opened.read(0, WHERE[:0], 4).shape == (0, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_read_as_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = networks(1).to(dtype)
    file = tmp_path / "one.safetensors"
    save_file({name: tensor[0].contiguous() for name, tensor in SPEC.unflatten(weights).items()}, file)
    opened = Stretches.of_file(file, SPEC)
    assert torch.equal(opened.read(0, WHERE, 4), tokens_of(weights.float())[0])


def test_what_is_written_in_parts_is_a_file_that_safetensors_reads(tmp_path: Path) -> None:
    weights, file, rows = networks(2), tmp_path / "one.safetensors", tmp_path / "rows.safetensors"
    written, drawn = Stretches.create_file(file, SPEC), Stretches.create_rows(rows, 2, SPEC.size)
    for part in ([3, 4], [0, 1, 2]):
        written.write(0, WHERE[part], tokens_of(weights)[0, part])
        for number in range(2):
            drawn.write(number, WHERE[part], tokens_of(weights)[number, part])
    assert torch.equal(SPEC.flatten(load_file(file)), weights[0])
    assert torch.equal(load_file(rows)["weights"], weights)
    written.put(0, 13, weights[1, 13:17])  # across two tensors
    drawn.put(1, 13, weights[0, 13:17])
    assert torch.equal(SPEC.flatten(load_file(file)), torch.cat([weights[0, :13], weights[1, 13:17], weights[0, 17:]]))
    assert torch.equal(Stretches.of_rows(rows).whole(1)[13:17], weights[0, 13:17])
    assert torch.equal(Stretches.of_rows(rows).whole(1)[:13], weights[1, :13])


def test_distances_are_those_of_networks_that_are_there_whole(tmp_path: Path) -> None:
    weights = 100 + networks(5)
    opened = Stretches.of_zoo(zoo_of(tmp_path / "zoo", weights), range(5), SPEC)
    found = squared_distances([(opened, number) for number in range(5)], WHERE, 4)
    torch.testing.assert_close(found, torch.cdist(weights.double(), weights.double()).square())


def test_a_file_that_is_no_such_one_is_told_in_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "file.safetensors"
    with pytest.raises(FileError, match=r"file.safetensors: cannot be read: No such file"):
        Stretches.of_rows(file)
    file.write_bytes(b"not this")
    with pytest.raises(FileError, match=r"file.safetensors: truncated, or not a safetensors file"):
        Stretches.of_rows(file)
    save_file({"weights": torch.zeros(3)}, file)
    with pytest.raises(FileError, match=r"file.safetensors: holds no weights of networks"):
        Stretches.of_rows(file)
    with pytest.raises(FileError, match=r"file.safetensors: has no w of shape \(5, 3\)"):
        Stretches.of_file(file, SPEC)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(FileError, match=r"file.safetensors: truncated, or not a safetensors file"):
        Stretches.of_rows(file)


def test_a_zoo_that_was_changed_since_is_not_read(tmp_path: Path) -> None:
    zoo = zoo_of(tmp_path / "zoo", networks(2))
    file = tmp_path / "zoo" / SHARD.format(0)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(FileError, match=r"changed since it was written: its sha256 is not the one in zoo.json"):
        Stretches.of_zoo(zoo, [0], SPEC)
