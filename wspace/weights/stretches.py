"""Networks on disk, of which some weights at a time are read or written, so that none has to be in memory as a whole.

A stretch is where weights of one tensor begin in the flat vector (P,), and how many they are (`TokenLayout.stretches`). Bytes
are read by their place in a safetensors file and not mapped: what is mapped counts as memory of whoever looks at it.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wspace.interfaces.weights import WeightSpec
from wspace.support.errors import FileError
from wspace.support.fingerprint import of_content
from wspace.weights.zoo.format import StoredZoo

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Of safetensors' names of types, those that weights have."""

TOGETHER = 2**22
"""Weights that are in memory at once where all are looked at."""

LONGEST = 100 * 2**20  # bytes of a header, as safetensors allows


class TensorFile:
    """A safetensors file whose bytes are read and written where they lie. Closed when nobody has it any more."""

    def __init__(self, path: Path, *, writable: bool = False):
        """Raises FileError for one that is missing, cut short, or no safetensors file."""
        self.path = path
        try:
            self._file = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
        except OSError as error:
            raise FileError(f"{path}: cannot be read: {error.strerror}") from error
        weakref.finalize(self, os.close, self._file)
        size = os.fstat(self._file).st_size
        length = int.from_bytes(os.pread(self._file, 8, 0), "little")
        try:
            header = json.loads(os.pread(self._file, min(length, LONGEST), 8))
            header.pop("__metadata__", None)
            self.tensors = {
                name: (DTYPES.get(its["dtype"]), tuple(its["shape"]), 8 + length + its["data_offsets"][0])
                for name, its in header.items()
            }
            whole = size == 8 + length + max((its["data_offsets"][1] for its in header.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError):
            whole = False
        if not whole:
            raise FileError(f"{path}: truncated, or not a safetensors file")

    @classmethod
    def create(cls, path: Path, shapes: Mapping[str, tuple[int, ...]]) -> TensorFile:
        """A new file of float32, all zero: where a disk can, it takes no room until it is written."""
        begin, header = 0, dict[str, object]()
        for name, shape in shapes.items():
            end = begin + 4 * prod(shape)
            header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}
            begin = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + begin)
        return cls(path, writable=True)

    def read(self, place: int, count: int, dtype: torch.dtype) -> Tensor:
        """(count,) float32, from a place in the file on."""
        raw = bytearray(os.pread(self._file, count * dtype.itemsize, place))
        if len(raw) != count * dtype.itemsize:
            raise FileError(f"{self.path}: truncated")
        return torch.frombuffer(raw, dtype=dtype).float()

    def write(self, place: int, values: Tensor) -> None:
        """Float32 values (n,), from a place in the file on. Raises OSError."""
        raw = memoryview(values.detach().float().contiguous().numpy().tobytes())
        while raw:
            done = os.pwrite(self._file, raw, place)
            place, raw = place + done, raw[done:]


@dataclass(frozen=True)
class _Tensor:
    """Where one tensor of a network lies."""

    start: int  # in the flat vector
    size: int
    dtype: torch.dtype
    begin: int  # in the file, of the first row


@dataclass(frozen=True)
class _Network:
    file: TensorFile
    tensors: tuple[_Tensor, ...]  # in the order of the flat vector
    row: int


class Stretches:
    """Networks (n, P), as far as somebody reads or writes them; of each, where it lies."""

    def __init__(self, size: int, networks: Sequence[_Network]):
        self.size = size
        """P, of one network."""
        self._networks = networks

    @classmethod
    def of_zoo(cls, zoo: StoredZoo, numbers: Sequence[int], spec: WeightSpec) -> Stretches:
        """Networks of a zoo by their numbers in its index, laid out as in `spec`. Each shard's hash is looked at once.

        Raises FileError for a shard that is missing or was changed.
        """
        shards, names, networks = dict[int, tuple[TensorFile, tuple[_Tensor, ...]]](), tuple(zoo.header.shards), []
        for number in numbers:
            shard = int(zoo.entries.shards[number])
            if shard not in shards:
                path = zoo.file(names[shard])
                if of_content(path) != zoo.header.shards[names[shard]]:
                    raise FileError(f"{path}: changed since it was written: its sha256 is not the one in zoo.json")
                file = TensorFile(path)
                shards[shard] = file, _placed(file, spec, stacked=True)
            networks.append(_Network(*shards[shard], int(zoo.entries.rows[number])))
        return cls(spec.size, networks)

    @classmethod
    def of_file(cls, path: Path, spec: WeightSpec) -> Stretches:
        """One network, tensor by tensor. Raises FileError for a file that has not these."""
        file = TensorFile(path)
        return cls(spec.size, [_Network(file, _placed(file, spec, stacked=False), 0)])

    @classmethod
    def create_file(cls, path: Path, spec: WeightSpec) -> Stretches:
        """One network to be written, tensor by tensor. Raises OSError."""
        file = TensorFile.create(path, {entry.name: entry.shape for entry in spec.entries})
        return cls(spec.size, [_Network(file, _placed(file, spec, stacked=False), 0)])

    @classmethod
    def of_rows(cls, path: Path) -> Stretches:
        """The networks of a file that holds `weights` (n, P), as stages `opponents` and `generate` leave them."""
        return cls._rows(TensorFile(path))

    @classmethod
    def create_rows(cls, path: Path, count: int, size: int) -> Stretches:
        """So many networks to be written as `weights` (n, P). Raises OSError."""
        return cls._rows(TensorFile.create(path, {"weights": (count, size)}))

    @classmethod
    def _rows(cls, file: TensorFile) -> Stretches:
        dtype, shape, begin = file.tensors.get("weights", (None, (), 0))
        if dtype is None or len(shape) != 2:
            raise FileError(f"{file.path}: holds no weights of networks")
        count, size = shape
        tensors = (_Tensor(0, size, dtype, begin),)
        return cls(size, [_Network(file, tensors, row) for row in range(count)])

    def __len__(self) -> int:
        return len(self._networks)

    def __getitem__(self, numbers: slice) -> Stretches:
        """Some of these networks."""
        return Stretches(self.size, self._networks[numbers])

    def read(self, number: int, stretches: Tensor, width: int) -> Tensor:
        """Of one network, stretches (n, 2) of at most `width` weights: (n, width) float32, zero where one is shorter."""
        out = torch.zeros(len(stretches), width)
        flat, network = out.view(-1), self._networks[number]
        for first, dtype, place, count in _runs(network, stretches.numpy(), width):
            flat[first * width : first * width + count] = network.file.read(place, count, dtype)
        return out

    def write(self, number: int, stretches: Tensor, values: Tensor) -> None:
        """Into one network, tokens (n, width) whose stretches (n, 2) these are. Raises OSError."""
        flat, width = values.contiguous().view(-1), values.shape[1]
        network = self._networks[number]
        for first, _, place, count in _runs(network, stretches.numpy(), width):
            network.file.write(place, flat[first * width : first * width + count])

    def whole(self, number: int) -> Tensor:
        """(P,) float32, for whoever calls that network."""
        network = self._networks[number]
        parts = [
            network.file.read(t.begin + network.row * t.size * t.dtype.itemsize, t.size, t.dtype)
            for t in network.tensors
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def copy(self, number: int, other: Stretches, its: int) -> None:
        """Make one network what one of another file is, `TOGETHER` weights at a time. Raises OSError."""
        for tensor in other._networks[its].tensors:
            for begin in range(0, tensor.size, TOGETHER):
                count = min(TOGETHER, tensor.size - begin)
                place = (other._networks[its].row * tensor.size + begin) * tensor.dtype.itemsize
                self.put(
                    number,
                    tensor.start + begin,
                    other._networks[its].file.read(tensor.begin + place, count, tensor.dtype),
                )

    def put(self, number: int, start: int, values: Tensor) -> None:
        """Weights (n,) of one network from `start` on, which may be of several tensors. Raises OSError."""
        network, end = self._networks[number], start + len(values)
        for tensor in network.tensors:
            low, high = max(start, tensor.start), min(end, tensor.start + tensor.size)
            if low < high:
                place = tensor.begin + (network.row * tensor.size + low - tensor.start) * tensor.dtype.itemsize
                network.file.write(place, values[low - start : high - start])


def squared_distances(networks: Sequence[tuple[Stretches, int]], where: Tensor, width: int) -> Tensor:
    """Between any two of m networks, each of some networks by its number, in one stream: (m, m), in float64.

    `where` (N, 2): stretches of at most `width` weights, which together are all of a network.
    """
    products = torch.zeros(len(networks), len(networks), dtype=torch.float64)
    for part in where.split(max(1, TOGETHER // (width * len(networks)))):
        values = torch.stack([of.read(number, part, width).flatten() for of, number in networks]).double()
        values -= values[:1].clone()  # distances stay, and products of what is far from zero would round them away
        products += values @ values.mT
    norms = products.diagonal()
    return (norms[:, None] + norms - 2 * products).clamp_min(0)


def _placed(file: TensorFile, spec: WeightSpec, *, stacked: bool) -> tuple[_Tensor, ...]:
    placed = []
    for entry in spec.entries:
        dtype, shape, begin = file.tensors.get(entry.name, (None, (), 0))
        if dtype is None or shape[int(stacked) :] != entry.shape:
            raise FileError(f"{file.path}: has no {entry.name} of shape {entry.shape}")
        placed.append(_Tensor(spec.slices[entry.name].start, entry.size, dtype, begin))
    return tuple(placed)


def _runs(network: _Network, stretches: np.ndarray, width: int) -> Iterator[tuple[int, torch.dtype, int, int]]:
    """Of stretches (n, 2), those that lie side by side in the file as one: which is its first, type, place, and length."""
    if not len(stretches):
        return
    starts = np.array([tensor.start for tensor in network.tensors])
    owners = np.searchsorted(starts, stretches[:, 0], side="right") - 1
    follows = (
        (owners[1:] == owners[:-1])
        & (stretches[:-1, 1] == width)
        & (stretches[1:, 0] == stretches[:-1, 0] + stretches[:-1, 1])
    )
    firsts = np.concatenate([[0], np.flatnonzero(~follows) + 1])
    ends = np.append(firsts[1:], len(stretches))
    for first, end in zip(firsts.tolist(), ends.tolist(), strict=True):
        tensor = network.tensors[int(owners[first])]
        count = int(stretches[first:end, 1].sum())
        offset = network.row * tensor.size + int(stretches[first, 0]) - tensor.start
        yield first, tensor.dtype, tensor.begin + offset * tensor.dtype.itemsize, count
