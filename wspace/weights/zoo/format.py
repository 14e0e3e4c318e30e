"""A zoo as data: a folder of networks of one kind, each with what it was trained for. docs/zoo-format.md describes it.

zoo.json                    what all of them share: tensors, target, origin, licence; a hash of everything
index.jsonl                 a line for each network: texts, classes, metrics, where its weights are, their hash
networks-0000.safetensors   of every tensor a stack (n, *shape): row i belongs to the i-th network of this shard
base.safetensors            a network that the others were started from, where there was one
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wspace import __version__
from wspace.interfaces.weights import Product, WeightEntry, WeightSpec
from wspace.support.errors import FileError, UserError
from wspace.support.files import read_json, write_json, write_text
from wspace.support.fingerprint import of_content, of_json, sha256_of_file
from wspace.support.invalid import first
from wspace.support.names import ZOO_HEADER

FORMAT = 1
INDEX = "index.jsonl"
SHARD = "networks-{:04d}.safetensors"
BASE = "base.safetensors"
MOST_PROBLEMS = 20  # told at once
_ANOTHER_HASH = f"its sha256 is not the one in {ZOO_HEADER}"


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
    row: int  # where in each of the shard's tensors
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


@dataclass(frozen=True)
class StoredZoo:
    """A zoo's folder. Nothing but the rows that are asked for is read of its shards."""

    folder: Path  # of the zoo
    header: Header  # zoo.json
    entries: tuple[Entry, ...]  # index.jsonl: one for each network

    @classmethod
    def open(cls, folder: Path) -> StoredZoo:
        """Raises FileError unless header and index are whole, of this format, and as they were written."""
        header = _read_header(folder)
        file = folder / INDEX
        try:
            content = file.read_bytes()
        except OSError as error:
            raise FileError(f"{file}: cannot be read: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != header.index:
            raise FileError(f"{file}: changed since it was written: {_ANOTHER_HASH}")
        entries = []
        for number, line in enumerate(content.splitlines(), start=1):
            try:
                entries.append(_entry().validate_json(line, strict=True))
            except ValidationError as error:
                raise FileError(f"{file}:{number}: {first(error)}") from error
        if len(entries) != header.networks:
            raise FileError(f"{file}: has {len(entries)} lines for the {header.networks} networks of {ZOO_HEADER}")
        strangers = [entry for entry in entries if entry.shard not in header.shards]
        if strangers:
            name = strangers[0].name
            raise FileError(f"{file}: network {name!r} is in {strangers[0].shard!r}, which {ZOO_HEADER} does not list")
        return cls(folder, header, tuple(entries))

    @cached_property
    def spec(self) -> WeightSpec:
        """The header's: how `weights` are laid out."""
        return self.header.spec

    def number(self, name: str) -> int:
        """Raises UserError if no network is called so."""
        for number, entry in enumerate(self.entries):
            if entry.name == name:
                return number
        raise UserError(f"{self.folder}: no network is named {name!r}; the first is {self.entries[0].name!r}")

    def read(self, number: int) -> dict[str, Tensor]:
        """All tensors of one network, in their own types. Raises FileError."""
        entry = self.entries[number]
        with _opened(self.folder / entry.shard) as shard:
            self._check_rows(entry.shard, shard, [number])
            rows = {t.name: shard.get_slice(t.name)[entry.row : entry.row + 1] for t in self.header.tensors}
        tensors = {name: row[0] for name, row in rows.items()}
        if sha256_of(tensors) != entry.sha256:
            raise FileError(f"{self.folder / entry.shard}: network {entry.name!r} changed since it was written")
        return tensors

    def weights(self) -> Tensor:
        """(n, P) float32, in the order of the index. Raises FileError, also for a file that changed since it was written."""
        places: dict[str, list[int]] = {}
        for number, entry in enumerate(self.entries):
            places.setdefault(entry.shard, []).append(number)
        for name, numbers in places.items():  # all of them first: what does not fit is not made room for
            with _opened(self.folder / name) as shard:
                self._check_rows(name, shard, numbers)
        flat = torch.empty(len(self.entries), self.spec.size)
        for name, numbers in places.items():
            rows = torch.tensor([self.entries[number].row for number in numbers])
            with _opened(self.folder / name) as shard:
                if of_content(self.folder / name) != self.header.shards[name]:
                    raise FileError(f"{self.folder / name}: changed since it was written: {_ANOTHER_HASH}")
                for tensor, part in self.spec.slices.items():
                    flat[torch.tensor(numbers), part] = shard.get_tensor(tensor)[rows].flatten(1).float()
        return flat

    def _check_rows(self, name: str, shard: Any, numbers: Sequence[int]) -> None:
        """Raises FileError unless an open shard has these networks, each in a row of its own, of the header's shapes."""
        file, rows = self.folder / name, {self.entries[number].row: self.entries[number].name for number in numbers}
        if len(rows) != len(numbers):
            raise FileError(f"{file}: two networks of {INDEX} are one row of it")
        for tensor in self.header.tensors:
            count, *shape = shard.get_slice(tensor.name).get_shape() or [0]
            if tuple(shape) != tensor.shape:
                raise FileError(f"{file}: {tensor.name} has shape {tuple(shape)}; {ZOO_HEADER} says {tensor.shape}")
            for row in rows.keys() - range(count):
                raise FileError(f"{file}: has no row {row}, where network {rows[row]!r} should be")

    def parent(self, name: str) -> Tensor | None:
        """(P,), or None if the zoo has none of this name. Raises FileError."""
        for parent in self.header.parents:
            if parent.name == name:
                if problems := self._of_parent(parent):
                    raise FileError(f"{self.folder / problems[0]}")
                with _opened(self.folder / parent.file) as opened:
                    weights = {t.name: opened.get_tensor(t.name).float() for t in self.header.tensors if t.is_weight}
                return self.spec.flatten(weights)
        return None

    # ---------------------------------------------------------------- verifying

    def problems(self) -> list[str]:
        """Everything that is not as it was written, a sentence each: files, networks, shapes, values."""
        problems = self._misfiled()
        for name, digest in self.header.shards.items():
            problems += self._of_shard(name, digest)
        for parent in self.header.parents:
            problems += self._of_parent(parent)
        return problems

    def _misfiled(self) -> list[str]:
        problems, names, rows = [], dict[str, Entry](), dict[tuple[str, int], Entry]()
        for entry in self.entries:
            if entry.name in names:
                problems.append(f"{INDEX}: two networks are named {entry.name!r}")
            other = rows.get((entry.shard, entry.row))
            if other is not None:
                problems.append(
                    f"{INDEX}: networks {other.name!r} and {entry.name!r} are both row {entry.row} of {entry.shard}"
                )
            names[entry.name] = rows[entry.shard, entry.row] = entry
        listed = {*self.header.shards, *(parent.file for parent in self.header.parents)}
        strays = sorted({file.name for file in self.folder.glob(SHARD.replace("{:04d}", "*"))} - listed)
        return problems + [f"{name}: is in the folder but not in {ZOO_HEADER}" for name in strays]

    def _of_shard(self, name: str, digest: str) -> list[str]:
        file, mine = self.folder / name, [entry for entry in self.entries if entry.shard == name]
        if not file.is_file():
            return [f"{name}: is missing, and with it {len(mine)} networks"]
        try:
            with _opened(file) as shard:
                stacks = {key: shard.get_tensor(key) for key in shard.keys()}  # noqa: SIM118 (not a dict)
        except FileError:
            return [f"{name}: truncated, or not a safetensors file"]
        problems = _misshapen(name, stacks, self.header.tensors)
        if problems:
            return problems
        count = len(next(iter(stacks.values())))
        for entry in mine:
            where = f"{name}: network {entry.name!r} (row {entry.row})"
            if not 0 <= entry.row < count:
                problems.append(f"{where}: there are only {count} rows")
                continue
            row = {t.name: stacks[t.name][entry.row] for t in self.header.tensors}
            if sha256_of(row) != entry.sha256:
                problems.append(
                    f"{where}: its weights changed since they were written: their sha256 is not the one in {INDEX}"
                )
            problems += [f"{where}: {key} holds values that are not finite numbers" for key in not_finite(row)]
        if not problems and sha256_of_file(file) != digest:
            problems.append(
                f"{name}: changed outside of its networks' weights: its sha256 is not the one in {ZOO_HEADER}"
            )
        return problems

    def _of_parent(self, parent: Parent) -> list[str]:
        try:
            with _opened(self.folder / parent.file) as opened:
                tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (not a dict)
        except FileError as error:
            return [f"{parent.file}: {str(error).rpartition(': ')[2]}"]
        weights = [t for t in self.header.tensors if t.is_weight]
        if any(t.name not in tensors or tuple(tensors[t.name].shape) != t.shape for t in weights):
            return [f"{parent.file}: its tensors are not those of {ZOO_HEADER}"]
        if sha256_of(tensors) != parent.sha256:
            return [f"{parent.file}: changed since it was written: {_ANOTHER_HASH}"]
        return []


def _read_header(folder: Path) -> Header:
    file = folder / ZOO_HEADER
    if not file.is_file():
        raise FileError(f"{folder}: {f'not a zoo: it has no {ZOO_HEADER}' if folder.exists() else 'no such folder'}")
    raw = read_json(file)
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


def _misshapen(file: str, stacks: Mapping[str, Tensor], tensors: Sequence[StoredTensor]) -> list[str]:
    expected = {t.name: t for t in tensors}
    if set(stacks) != set(expected):
        return [
            f"{file}: holds tensors {', '.join(sorted(stacks)) or '(none)'}; {ZOO_HEADER} says {', '.join(expected)}"
        ]
    problems, counts = [], {len(stack) if stack.ndim else 0 for stack in stacks.values()}
    for name, tensor in expected.items():
        shape, dtype = tuple(stacks[name].shape[1:]), name_of_dtype(stacks[name].dtype)
        if shape != tensor.shape:
            problems.append(f"{file}: {name} has shape {shape}; {ZOO_HEADER} says {tensor.shape}")
        elif dtype != tensor.dtype:
            problems.append(f"{file}: {name} is {dtype}; {ZOO_HEADER} says {tensor.dtype}")
    if not problems and len(counts) > 1:
        problems.append(f"{file}: its tensors have different numbers of rows: {', '.join(map(str, sorted(counts)))}")
    return problems


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


# ---------------------------------------------------------------- writing


def seal(folder: Path, header: Header, entries: Sequence[Entry]) -> StoredZoo:
    """Make a zoo of a folder whose shards are there: hash the networks, write the index, then the header."""
    shards: dict[str, str] = {}
    hashed: dict[tuple[str, int], str] = {}
    for name in sorted({entry.shard for entry in entries}):
        with _opened(folder / name) as opened:
            stacks = {t.name: opened.get_tensor(t.name) for t in header.tensors}
        for row in {entry.row for entry in entries if entry.shard == name}:
            hashed[name, row] = sha256_of({key: stack[row] for key, stack in stacks.items()})
        shards[name] = sha256_of_file(folder / name)
    entries = [replace(entry, sha256=hashed[entry.shard, entry.row]) for entry in entries]
    lines = "".join(json.dumps(_plain(entry), ensure_ascii=False, allow_nan=False) + "\n" for entry in entries)
    write_text(folder / INDEX, lines)
    header = replace(header, networks=len(entries), shards=shards, index=hashlib.sha256(lines.encode()).hexdigest())
    write_header(folder, header)
    return StoredZoo.open(folder)


def write_header(folder: Path, header: Header) -> None:
    content = {key: value for key, value in _plain(header).items() if key != "sha256"}
    write_json(folder / ZOO_HEADER, content | {"sha256": of_json(content)})


def _plain(value: Any) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(value), allow_nan=False))
