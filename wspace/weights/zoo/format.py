"""A zoo as data: a folder of networks of one kind, each with what it was trained for. docs/zoo-format.md describes it.

zoo.json                    what all of them share: tensors, target, origin, licence; a hash of everything
index.jsonl                 a line for each network: texts, classes, metrics, where its weights are, their hash
networks-0000.safetensors   of every tensor a stack (n, *shape): row i belongs to the i-th network of this shard
base.safetensors            a network that the others were started from, where there was one
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import weakref
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, overload

import numpy as np
import torch
from annotated_types import Ge, Lt
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wspace import __version__
from wspace.interfaces.weights import Product, WeightEntry, WeightSpec
from wspace.support.elsewhere import Address, place_of
from wspace.support.errors import FileError, UserError
from wspace.support.files import parsed_json, read_json, replacing, write_json
from wspace.support.fingerprint import of_content, of_json, sha256_of_file
from wspace.support.invalid import first
from wspace.support.names import ZOO_HEADER
from wspace.support.quantities import counted
from wspace.weights.zoo.fetched import Fetched

FORMAT = 1
INDEX = "index.jsonl"
SHARD = "networks-{:04d}.safetensors"
BASE = "base.safetensors"
MOST_PROBLEMS = 20  # told at once
BLOCK = 4 * 2**20  # bytes of networks that are in memory at once, where all are looked at
_ANOTHER_HASH = f"its sha256 is not the one in {ZOO_HEADER}"
NEAR = 8  # rows that are read along, where those on either side are asked for: one read costs as much as several rows


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of every network."""

    name: str  # as in the module's state dict
    shape: tuple[int, ...]  # of one network's tensor
    axes: tuple[str, ...]  # one name per dimension; equal names are one axis of the network
    dtype: str = "float32"  # torch's name for it

    @property
    def is_weight(self) -> bool:
        """Whether it can be generated: whole numbers, such as counters, are kept but are no weights."""
        return getattr(torch, self.dtype).is_floating_point


@dataclass(frozen=True)
class Parent:
    """A network that others were started from."""

    name: str  # such as `base`
    file: str  # in the zoo's folder
    sha256: str  # as an Entry's, of those tensors that it has


@dataclass(frozen=True, kw_only=True)
class Header:
    """zoo.json."""

    format: int = FORMAT  # another number is another format
    wspace: str = __version__  # that wrote it
    name: str  # what the zoo is called
    source: str  # where the networks come from, in a sentence
    licence: str = "unknown"  # of the weights
    target: dict[str, Any] | None = None  # as a recipe writes it, as far as it is known
    made_with: dict[str, Any] = field(default_factory=dict)  # data, encoders, base model: what else the networks need
    tensors: tuple[StoredTensor, ...]  # of every network
    free: tuple[str, ...] = ()  # axes whose order means nothing
    products: tuple[Product, ...] = ()  # pairs of matrices of which only the product counts
    networks: int = 0  # how many
    parents: tuple[Parent, ...] = ()  # networks that others were started from
    shards: dict[str, str] = field(default_factory=dict)  # file -> sha256 of all of it
    index: str = ""  # sha256 of index.jsonl
    sha256: str = ""  # of all of the above, by `wspace.support.fingerprint.of_json`

    @property
    def network_bytes(self) -> int:
        """Of one network's tensors."""
        return _bytes_of(self.tensors)

    @property
    def spec(self) -> WeightSpec:
        """Of the tensors that are weights, in the order of the header."""
        entries = (WeightEntry(t.name, t.shape, t.axes) for t in self.tensors if t.is_weight)
        return WeightSpec(tuple(entries), self.free, self.products)


@dataclass(frozen=True)
class Entry:
    """A line of index.jsonl: one network."""

    name: str  # each once
    texts: tuple[str, ...]  # what it was trained for, in sentences
    classes: tuple[str, ...]  # names of what it tells apart, in the order of its scores; none, if it does not classify
    shard: str  # file of the folder that holds its weights
    row: Annotated[int, Ge(0), Lt(2**63)]  # where in each of the shard's tensors
    metrics: dict[str, float] = field(default_factory=dict)  # such as `val_accuracy`
    seed: int | None = None  # of its training
    parent: str | None = None  # the sha256 of a Parent, or a name from outside
    extra: dict[str, Any] = field(default_factory=dict)  # what an importer found worth keeping
    sha256: str = ""  # of its tensors in the order of their names, each as raw little-endian bytes


@cache
def _header() -> TypeAdapter[Header]:
    """Made when one is read, as `_entry`: it takes milliseconds, and most that import this module read no zoo."""
    return TypeAdapter(Header)


@cache
def _entry() -> TypeAdapter[Entry]:
    return TypeAdapter(Entry)


def stored(spec: WeightSpec) -> tuple[StoredTensor, ...]:
    return tuple(StoredTensor(e.name, e.shape, e.axes) for e in spec.entries)


# ---------------------------------------------------------------- reading


class Index(Sequence[Entry]):
    """The lines of index.jsonl. Each is read when it is asked for; in memory is where it stands, and where its network does.

    So a zoo of a million networks takes as much memory as one of a thousand, but for 28 bytes a network. The file is kept
    open: it stays what it was when the zoo was opened, also if another takes its name.
    """

    def __init__(self, file: Path, header: Header, shown: str):
        """Raises FileError, which has the file as `shown`, unless it is whole and of this header."""
        self._file, self._header, self._shown = file, header, shown
        try:
            opened = file.open("rb")
        except OSError as error:
            raise FileError(f"{shown}: cannot be read: {error.strerror}") from error
        weakref.finalize(self, opened.close)
        self._descriptor = opened.fileno()
        if hashlib.file_digest(opened, "sha256").hexdigest() != header.index:
            raise FileError(f"{shown}: changed since it was written: {_ANOTHER_HASH}")
        opened.seek(0)
        numbers = {name: number for number, name in enumerate(header.shards)}
        starts, shards, rows, names = array("q", [0]), array("i"), array("q"), array("q")
        for number, line in enumerate(opened, start=1):
            entry = self._entry(line, number)
            if entry.shard not in numbers:
                raise FileError(
                    f"{shown}: network {entry.name!r} is in {entry.shard!r}, which {ZOO_HEADER} does not list"
                )
            starts.append(starts[-1] + len(line))
            shards.append(numbers[entry.shard])
            rows.append(entry.row)
            names.append(hash(entry.name))
        if len(rows) != header.networks:
            lines, networks = counted(len(rows), "line"), counted(header.networks, "network")
            raise FileError(f"{shown}: has {lines} for the {networks} of {ZOO_HEADER}")
        self._starts, self._names = np.array(starts), np.array(names)
        self.shards = np.array(shards)
        """(n,), of each network the number of its file among the header's."""
        self.rows = np.array(rows)
        """(n,), of each network its row there."""

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, number: int) -> Entry: ...
    @overload
    def __getitem__(self, number: slice) -> tuple[Entry, ...]: ...
    def __getitem__(self, number: int | slice) -> Entry | tuple[Entry, ...]:
        if isinstance(number, slice):
            return tuple(self[place] for place in range(*number.indices(len(self))))
        place = range(len(self))[number]  # raises IndexError, which ends a loop
        start, end = self._starts[place : place + 2].tolist()
        return self._entry(os.pread(self._descriptor, end - start, start), place + 1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Index) and self._header.index == other._header.index

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process goes where it is, and not a file that is open in this one."""
        return Index, (self._file, self._header, self._shown)

    def _entry(self, line: bytes, number: int) -> Entry:
        try:
            return _entry().validate_json(line, strict=True)
        except ValidationError as error:
            raise FileError(f"{self._shown}:{number}: {first(error)}") from error

    def number(self, name: str) -> int | None:
        """Of the first network that is called so."""
        alike = np.flatnonzero(self._names == hash(name)).tolist()
        return next((number for number in alike if self[number].name == name), None)

    def of_shard(self, number: int) -> np.ndarray:
        """(k,), the networks in the file of this number, in the order of their rows."""
        return self._by_shard[number] if number < len(self._by_shard) else np.empty(0, np.int64)

    @cached_property
    def _by_shard(self) -> list[np.ndarray]:
        return np.split(np.lexsort((self.rows, self.shards)), np.cumsum(np.bincount(self.shards)))

    def clashes(self) -> Iterator[str]:
        """A sentence on each network whose name or row another before it has."""
        names, rows = dict[str, Entry](), dict[tuple[str, int], Entry]()
        for number in np.union1d(_repeated(self._names), _repeated(self.rows, self.shards)).tolist():
            entry = self[number]
            if entry.name in names:
                yield f"{INDEX}: two networks are named {entry.name!r}"
            if other := rows.get((entry.shard, entry.row)):
                yield f"{INDEX}: networks {other.name!r} and {entry.name!r} are both row {entry.row} of {entry.shard}"
            names[entry.name] = rows[entry.shard, entry.row] = entry


def _repeated(*columns: np.ndarray) -> np.ndarray:
    """The places at which columns (n,) hold what they hold at another place too."""
    order = np.lexsort(columns)
    same = np.logical_and.reduce([column[order][1:] == column[order][:-1] for column in columns])
    return np.union1d(order[1:][same], order[:-1][same])


@dataclass(frozen=True)
class StoredZoo:
    """A zoo's folder, here or elsewhere. Nothing but what is asked for is read of its index and its shards."""

    folder: Path  # of the zoo; where that lies elsewhere, of the cache
    header: Header  # zoo.json
    entries: Index  # index.jsonl: an Entry for each network
    fetched: Fetched | None = None  # files, where they lie elsewhere

    @classmethod
    def open(cls, where: Path | Address | str) -> StoredZoo:
        """The zoo in a folder, or at an address that fsspec knows, such as `https://...`.

        Of an address, header and index are fetched now, and shards when they are first needed, into the cache. Raises FileError
        unless header and index are whole, of this format, and as they were written; UserError where nobody answers;
        MissingPackage for an address that takes a package which is not here.
        """
        place = place_of(where) if isinstance(where, str) else where
        header, shown = _read_header(place), f"{place}/{INDEX}"
        if isinstance(place, Path):
            return cls(place, header, Index(place / INDEX, header, shown))
        fetched = Fetched(place)
        index = Index(fetched.file(INDEX, header.index), header, shown)
        return cls(fetched.folder, header, index, fetched)

    @property
    def where(self) -> Path | Address:
        """What it was opened by."""
        return self.folder if self.fetched is None else self.fetched.address

    def file(self, name: str) -> Path:
        """Where a shard, or a parent's file, is on this machine; one that lies elsewhere is fetched, unless it is in the cache.

        Raises FileError for one that is not there, or is not what the header says; and as `open`.
        """
        if self.fetched is None:
            return self.folder / name
        if name in self.header.shards:
            return self.fetched.file(name, self.header.shards[name])
        sha256 = next(parent.sha256 for parent in self.header.parents if parent.file == name)
        return self.fetched.file(name, sha256, _sha256_in)

    @cached_property
    def spec(self) -> WeightSpec:
        """The header's: how `weights` are laid out."""
        return self.header.spec

    def number(self, name: str) -> int:
        """Raises UserError if no network is called so."""
        number = self.entries.number(name)
        if number is None:
            raise UserError(f"{self.where}: no network is named {name!r}; the first is {self.entries[0].name!r}")
        return number

    def read(self, number: int) -> dict[str, Tensor]:
        """All tensors of one network, in their own types. Raises FileError."""
        entry = self.entries[number]
        self._check_rows(entry.shard, np.array([number]))
        with _opened(self.file(entry.shard)) as shard:
            rows = {t.name: shard.get_slice(t.name)[entry.row : entry.row + 1] for t in self.header.tensors}
        tensors = {name: row[0] for name, row in rows.items()}
        if sha256_of(tensors) != entry.sha256:
            raise FileError(f"{self.file(entry.shard)}: network {entry.name!r} changed since it was written")
        return tensors

    def weights(self) -> Tensor:
        """(n, P) float32, in the order of the index. Raises FileError, also for a file that changed since it was written."""
        return self.rows(range(len(self.entries)))

    def rows(self, numbers: Sequence[int]) -> Tensor:
        """(k, P) float32: the weights of these networks, by their numbers in the index; no others are in memory.

        Raises FileError, also for a file that changed since it was written, and IndexError for a number that the index does not
        have.
        """
        count, wanted = len(self.entries), np.asarray(numbers, np.int64)
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < count:
            raise IndexError(f"{self.where}: networks are numbered 0 to {count - 1}")
        shards, rows, names = self.entries.shards[wanted], self.entries.rows[wanted], tuple(self.header.shards)
        order = np.lexsort((rows, shards))
        of_shard = {
            names[shards[places[0]]]: places
            for places in np.split(order, np.flatnonzero(np.diff(shards[order])) + 1)
            if len(places)
        }
        for name, places in of_shard.items():  # all of them first: what does not fit is not made room for
            self._check_rows(name, wanted[places])
        flat, weights = torch.empty(len(wanted), self.spec.size), [t for t in self.header.tensors if t.is_weight]
        for name, places in of_shard.items():
            file = self.file(name)
            if of_content(file) != self.header.shards[name]:
                raise FileError(f"{file}: changed since it was written: {_ANOTHER_HASH}")
            for part, stacks in _blocks(file, weights, rows[places]):
                into = torch.from_numpy(places[part])
                for tensor, columns in self.spec.slices.items():
                    flat[into, columns] = stacks[tensor].reshape(len(into), -1).float()
        return flat

    def _check_rows(self, name: str, numbers: np.ndarray) -> None:
        """Raises FileError unless a shard has these networks, each in a row of its own, of the header's shapes."""
        file, numbers = self.file(name), np.unique(numbers)
        rows = self.entries.rows[numbers]
        if len(np.unique(rows)) != len(rows):
            raise FileError(f"{file}: two networks of {INDEX} are one row of it")
        with _opened(file) as shard:
            shapes = {t: shard.get_slice(t.name).get_shape() or [0] for t in self.header.tensors}
        for tensor, (count, *shape) in shapes.items():
            if tuple(shape) != tensor.shape:
                raise FileError(f"{file}: {tensor.name} has shape {tuple(shape)}; {ZOO_HEADER} says {tensor.shape}")
            for number in numbers[rows >= count].tolist():
                entry = self.entries[number]
                raise FileError(f"{file}: has no row {entry.row}, where network {entry.name!r} should be")

    def parent(self, name: str) -> Tensor | None:
        """(P,), or None if the zoo has none of this name. Raises FileError."""
        for parent in self.header.parents:
            if parent.name == name:
                file = self.file(parent.file)
                if problems := self._of_parent(parent):
                    raise FileError(f"{self.where}/{problems[0]}")
                with _opened(file) as opened:
                    weights = {t.name: opened.get_tensor(t.name).float() for t in self.header.tensors if t.is_weight}
                return self.spec.flatten(weights)
        return None

    # ---------------------------------------------------------------- verifying

    def problems(self) -> list[str]:
        """Everything that is not as it was written, a sentence each: files, networks, shapes, values."""
        problems = [*self.entries.clashes(), *self._strays()]
        for number, (name, digest) in enumerate(self.header.shards.items()):
            problems += self._of_shard(name, digest, self.entries.of_shard(number))
        for parent in self.header.parents:
            problems += self._of_parent(parent)
        return problems

    def _strays(self) -> list[str]:
        if self.fetched is not None:  # what else lies there is never fetched
            return []
        listed = {*self.header.shards, *(parent.file for parent in self.header.parents)}
        strays = sorted({file.name for file in self.folder.glob(SHARD.replace("{:04d}", "*"))} - listed)
        return [f"{name}: is in the folder but not in {ZOO_HEADER}" for name in strays]

    def _of_shard(self, name: str, digest: str, mine: np.ndarray) -> list[str]:
        try:
            file = self.file(name)
        except FileError as error:
            return [self._without_where(error)]
        if not file.is_file():
            return [f"{name}: is missing, and with it {counted(len(mine), 'network')}"]
        try:
            with _opened(file) as shard:
                kinds = {key: _kind_of(shard, key) for key in shard.keys()}  # noqa: SIM118 (not a dict)
        except FileError:
            return [f"{name}: truncated, or not a safetensors file"]
        problems = _misshapen(name, kinds, self.header.tensors)
        if problems:
            return problems
        count = next(iter(kinds.values())).count
        rows = self.entries.rows[mine]

        def where(number: int) -> str:
            entry = self.entries[number]
            return f"{name}: network {entry.name!r} (row {entry.row})"

        there, beyond = mine[rows < count], mine[rows >= count]
        for part, stacks in _blocks(file, self.header.tensors, rows[rows < count]):
            endless = {key: ~finite for key, finite in _finite(stacks).items()}
            for place, (number, sha256) in enumerate(zip(there[part].tolist(), _digests(stacks), strict=True)):
                if sha256 != self.entries[number].sha256:
                    problems.append(
                        f"{where(number)}: its weights changed since they were written: their sha256 is not the one in {INDEX}"
                    )
                problems += [
                    f"{where(number)}: {key} holds values that are not finite numbers"
                    for key, rows_of in endless.items()
                    if rows_of[place]
                ]
        problems += [
            f"{where(number)}: there {'is' if count == 1 else 'are'} only {counted(count, 'row')}"
            for number in beyond.tolist()
        ]
        if not problems and sha256_of_file(file) != digest:
            problems.append(
                f"{name}: changed outside of its networks' weights: its sha256 is not the one in {ZOO_HEADER}"
            )
        return problems

    def _without_where(self, error: FileError) -> str:
        return str(error).removeprefix(f"{self.where}: ")

    def _of_parent(self, parent: Parent) -> list[str]:
        try:
            with _opened(self.file(parent.file)) as opened:
                tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (not a dict)
        except FileError as error:
            return [
                f"{parent.file}: {str(error).rpartition(': ')[2]}"
                if self.fetched is None
                else self._without_where(error)
            ]
        weights = [t for t in self.header.tensors if t.is_weight]
        if any(t.name not in tensors or tuple(tensors[t.name].shape) != t.shape for t in weights):
            return [f"{parent.file}: its tensors are not those of {ZOO_HEADER}"]
        if sha256_of(tensors) != parent.sha256:
            return [f"{parent.file}: changed since it was written: {_ANOTHER_HASH}"]
        return []


def _read_header(where: Path | Address) -> Header:
    file = f"{where}/{ZOO_HEADER}"
    if isinstance(where, Address):
        raw = parsed_json(where.read(ZOO_HEADER), file)
    elif not (where / ZOO_HEADER).is_file():
        raise FileError(f"{where}: {f'not a zoo: it has no {ZOO_HEADER}' if where.exists() else 'no such folder'}")
    else:
        raw = read_json(where / ZOO_HEADER)
    if not isinstance(raw, dict) or "format" not in raw:
        raise FileError(f"{file}: not a zoo's header: it does not say its format")
    if raw["format"] != FORMAT:
        raise FileError(
            f"{file}: in format {raw['format']}, and this wspace reads format {FORMAT}: another wspace wrote it"
        )
    try:
        header = _header().validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        raise FileError(f"{file}: {first(error)}") from error
    if of_json({key: value for key, value in raw.items() if key != "sha256"}) != header.sha256:
        raise FileError(f"{file}: changed since it was written: its sha256 is not the one it says")
    names = [*header.shards, *(parent.file for parent in header.parents)]
    outside = [name for name in names if Path(name).name != name or name in ("", ".", "..")]
    if outside:
        raise FileError(f"{file}: {outside[0]!r} is not the name of a file in this folder")
    unknown = [t for t in header.tensors if not isinstance(getattr(torch, t.dtype, None), torch.dtype)]
    if unknown:
        raise FileError(f"{file}: tensor {unknown[0].name!r} is of an unknown type {unknown[0].dtype!r}")
    if not any(t.is_weight for t in header.tensors):
        raise FileError(f"{file}: its networks have no weights")
    return header


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """A safetensors file, mapped. Raises FileError for one that is missing, cut short, or lacks what is asked of it."""
    if not file.is_file():
        raise FileError(f"{file}: no such file")
    try:
        with safe_open(file, "pt") as opened:
            yield opened
    except SafetensorError as error:
        raise FileError(f"{file}: truncated, or not a safetensors file of such networks") from error


def _blocks(file: Path, tensors: Sequence[StoredTensor], rows: np.ndarray) -> Iterator[tuple[slice, dict[str, Tensor]]]:
    """Rows of a shard, which rise: BLOCK bytes of networks at a time, which of `rows` these are and (k, *shape) of each tensor.

    The file is opened anew for each: what has been read of it counts as this process's memory until it is closed.
    Raises FileError.
    """
    step = max(1, BLOCK // max(1, _bytes_of(tensors)))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        with _opened(file) as shard:
            slices = {t.name: shard.get_slice(t.name) for t in tensors}
            if any(rows[part][-1] >= piece.get_shape()[0] for piece in slices.values()):
                raise FileError(f"{file}: has no row {rows[part][-1]}, where a network should be")
            yield part, {name: _rows(piece, rows[part]) for name, piece in slices.items()}


def _bytes_of(tensors: Sequence[StoredTensor]) -> int:
    return sum(math.prod(t.shape) * getattr(torch, t.dtype).itemsize for t in tensors)


def _rows(piece: Any, rows: np.ndarray) -> Tensor:
    """(k, *shape), a copy of rows that rise: those that are near each other by one read."""
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > NEAR) + 1)
    return torch.cat([piece[int(run[0]) : int(run[-1]) + 1][torch.from_numpy(run - run[0])] for run in runs])


@dataclass(frozen=True)
class _Kind:
    """Of a tensor in a shard, before it is read."""

    count: int  # of rows
    shape: tuple[int, ...]  # of one
    dtype: str


def _kind_of(shard: Any, key: str) -> _Kind:
    piece = shard.get_slice(key)
    shape = tuple(piece.get_shape())
    sample = piece[:0] if shape else shard.get_tensor(key)
    return _Kind(shape[0] if shape else 0, shape[1:], name_of_dtype(sample.dtype))


def _misshapen(file: str, kinds: Mapping[str, _Kind], tensors: Sequence[StoredTensor]) -> list[str]:
    expected = {t.name: t for t in tensors}
    if set(kinds) != set(expected):
        return [
            f"{file}: holds tensors {', '.join(sorted(kinds)) or '(none)'}; {ZOO_HEADER} says {', '.join(expected)}"
        ]
    problems, counts = [], {kind.count for kind in kinds.values()}
    for name, tensor in expected.items():
        if kinds[name].shape != tensor.shape:
            problems.append(f"{file}: {name} has shape {kinds[name].shape}; {ZOO_HEADER} says {tensor.shape}")
        elif kinds[name].dtype != tensor.dtype:
            problems.append(f"{file}: {name} is {kinds[name].dtype}; {ZOO_HEADER} says {tensor.dtype}")
    if not problems and len(counts) > 1:
        problems.append(f"{file}: its tensors have different numbers of rows: {', '.join(map(str, sorted(counts)))}")
    return problems


def _finite(stacks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of each stack (k, *shape) of floating-point numbers, (k,): whether all of a row are finite."""
    floating = {name: stack for name, stack in stacks.items() if stack.is_floating_point()}
    return {name: torch.isfinite(stack).reshape(len(stack), -1).all(1) for name, stack in floating.items()}


def _digests(stacks: Mapping[str, Tensor]) -> Iterator[str]:
    """Of each row of stacks (k, *shape), what `sha256_of` says of it."""
    parts = [stack.reshape(len(stack), -1).view(torch.uint8) for _, stack in sorted(stacks.items())]
    for row in torch.cat(parts, dim=1).numpy():
        yield hashlib.sha256(row).hexdigest()


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    return [name for name, t in tensors.items() if t.is_floating_point() and not torch.isfinite(t).all()]


def name_of_dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def sha256_of(tensors: Mapping[str, Tensor]) -> str:
    """Of the raw bytes of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].detach().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _sha256_in(file: Path) -> str:
    """`sha256_of` all tensors of a file; nothing for one that is no whole file of tensors."""
    try:
        with _opened(file) as opened:
            return sha256_of({key: opened.get_tensor(key) for key in opened.keys()})  # noqa: SIM118 (not a dict)
    except FileError:
        return ""


# ---------------------------------------------------------------- writing


def seal(folder: Path, header: Header, entries: Sequence[Entry]) -> StoredZoo:
    """Make a zoo of a folder whose shards are there: hash the networks, write the index, then the header."""
    places = dict[str, list[tuple[int, int]]]()  # of each shard: row, number
    for number, entry in enumerate(entries):
        places.setdefault(entry.shard, []).append((entry.row, number))
    shards, digests = dict[str, str](), [""] * len(entries)
    for name in sorted(places):
        rows, numbers = np.array(sorted(places[name])).T
        for part, stacks in _blocks(folder / name, header.tensors, rows):
            for number, digest in zip(numbers[part].tolist(), _digests(stacks), strict=True):
                digests[number] = digest
        shards[name] = sha256_of_file(folder / name)
    lines = (vars(entry) | {"sha256": digest} for entry, digest in zip(entries, digests, strict=True))
    index = _write_lines(folder / INDEX, lines)
    header = replace(header, networks=len(entries), shards=shards, index=index)
    write_header(folder, header)
    return StoredZoo.open(folder)


def _write_lines(file: Path, lines: Iterable[Mapping[str, Any]]) -> str:
    """Each as JSON, whole or not at all; the sha256 of the file."""
    digest = hashlib.sha256()
    with replacing(file) as temporary, temporary.open("wb") as stream:
        for line in lines:
            content = (json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n").encode()
            stream.write(content)
            digest.update(content)
    return digest.hexdigest()


def write_header(folder: Path, header: Header) -> None:
    content = {key: value for key, value in _plain(header).items() if key != "sha256"}
    write_json(folder / ZOO_HEADER, content | {"sha256": of_json(content)})


def _plain(value: Any) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(value), allow_nan=False))
