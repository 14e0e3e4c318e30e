"""Folders of networks that others trained, made into a zoo by an importer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wspace.interfaces import Collection, ImportedNetwork, Importer, WeightSpec
from wspace.support.errors import DataError, FileError
from wspace.support.files import new_folder, save_tensors
from wspace.support.names import ZOO_HEADER
from wspace.support.progress import Progress
from wspace.weights.zoo.format import (
    MOST_PROBLEMS,
    SHARD,
    Entry,
    Header,
    StoredTensor,
    StoredZoo,
    name_of_dtype,
    not_finite,
    seal,
    sha256_of,
)

SHARD_BYTES = 64 * 2**20  # at most, unless one network alone is larger


def import_zoo(
    source: Path,
    out: Path,
    importer: Importer,
    *,
    name: str | None = None,
    licence: str = "unknown",
    target: tuple[dict[str, Any], WeightSpec] | None = None,
    base_model: str = "",
    skip_unknown: bool = False,
    progress: Progress | None = None,
) -> StoredZoo:
    """The networks of a folder, copied into a zoo at `out`, which is not there yet; all of them, or nothing.

    With `skip_unknown`, what the importer does not understand is left out; else it ends the import. `progress` says so, and
    what else is worth knowing.

    `target`, as a recipe writes it, and its spec say whose weights these are, where the importer does not know; so does
    `base_model` (`Target.base_model`), unless the importer does. Raises UserError.
    """
    if not source.is_dir():
        raise DataError(f"{source}: no such folder")
    if (source / ZOO_HEADER).is_file():
        raise DataError(f"{source}: is a zoo already: a recipe takes it as it is, by zoo.source")
    collection = importer.collect(source)
    say = (progress or Progress()).say
    _check_left_over(collection, skip_unknown, say)
    written, spec = target or (collection.target, collection.spec)
    _check_described(collection.networks, say)
    with new_folder(out) as folder:
        tensors = _tensors(collection.networks[0], spec)
        header = Header(
            name=name or out.resolve().name,
            source=f"imported from {source.resolve().name}",
            licence=licence,
            target=written,
            made_with=({"base_model": base_model} if base_model else {}) | collection.made_with,
            tensors=tensors,
            free=spec.free if spec else (),
            products=spec.products if spec else (),
        )
        seal(folder, header, _copied(collection, header, folder))
    return StoredZoo.open(out)


def _check_left_over(collection: Collection, skip: bool, say: Callable[[str], None]) -> None:
    others = collection.left_over
    if others and not skip:
        if len(others) == 1:
            raise FileError(f"{others[0]}; --skip-unknown leaves it out")
        more = [f"and {len(others) - MOST_PROBLEMS} more"] if len(others) > MOST_PROBLEMS else []
        raise FileError("\n".join([*others[:MOST_PROBLEMS], *more, "--skip-unknown leaves them out"]))
    for sentence in others:
        say(f"note: left out: {sentence}")


def _check_described(networks: Sequence[ImportedNetwork], say: Callable[[str], None]) -> None:
    named, described = dict[str, ImportedNetwork](), set[tuple[tuple[str, ...], tuple[str, ...]]]()
    for network in networks:
        texts, classes = network.description.texts, network.description.classes
        if not texts and not classes:
            beside = network.file.name if network.file.is_dir() else network.file.stem
            raise FileError(
                f"{network.file}: nothing says what it was trained for; put a {beside}.txt or .json beside it, "
                "or one CSV for all into the folder"
            )
        if network.name in named:
            raise FileError(f"{network.file}: is called {network.name!r}, and so is {named[network.name].file}")
        named[network.name] = network
        described.add((texts, classes))
    if len(networks) > 1 and len(described) == 1:
        first = networks[0].description
        say(
            f"note: all {len(networks)} networks are described alike ({'; '.join(first.texts or first.classes)!r}): nothing "
            "can be learnt from them of what a text asks for; a text of its own beside each says it"
        )


def _tensors(first: ImportedNetwork, spec: WeightSpec | None) -> tuple[StoredTensor, ...]:
    """Of every network, by the first; those of the spec in its order, then what else there is."""
    read = first.read()
    if not read:
        raise FileError(f"{first.file}: holds no tensors")
    axes = {entry.name: entry.axes for entry in spec.entries} if spec else {}
    if spec:
        weights = {key: t for key, t in read.items() if key in axes or t.is_floating_point()}
        spec.validate(weights, str(first.file))
    return tuple(
        StoredTensor(
            key,
            tuple(read[key].shape),
            axes.get(key, tuple(f"{key}.{dim}" for dim in range(read[key].ndim))),
            name_of_dtype(read[key].dtype),
        )
        for key in (*axes, *(key for key in read if key not in axes))
    )


def _copied(collection: Collection, header: Header, folder: Path) -> list[Entry]:
    """Every network into shards; what the index is to say of it."""
    entries, seen = list[Entry](), dict[str, ImportedNetwork]()
    shard, rows = 0, list[Mapping[str, Tensor]]()
    size = sum(t.numel() * t.element_size() for t in collection.networks[0].read().values())
    most = max(1, SHARD_BYTES // max(1, size))
    for number, network in enumerate(collection.networks):
        read = network.read()
        _check(network, read, collection.networks[0], header.tensors)
        digest = sha256_of(read)
        if digest in seen:
            raise FileError(f"{network.file}: holds the same weights as {seen[digest].file}")
        seen[digest] = network
        description = network.description
        entries.append(
            Entry(
                name=network.name,
                texts=description.texts or description.classes,
                classes=description.classes,
                shard=SHARD.format(shard),
                row=len(rows),
                metrics=dict(description.metrics),
                seed=description.seed,
                parent=description.parent,
                extra=dict(description.extra),
            )
        )
        rows.append(read)
        if len(rows) == most or number == len(collection.networks) - 1:
            save_tensors(
                folder / SHARD.format(shard), {t.name: torch.stack([r[t.name] for r in rows]) for t in header.tensors}
            )
            shard, rows = shard + 1, []
    return entries


def _check(
    network: ImportedNetwork, read: Mapping[str, Tensor], first: ImportedNetwork, tensors: Sequence[StoredTensor]
) -> None:
    """Raises FileError unless these are the tensors of the first network again, and finite."""
    expected = {t.name: t for t in tensors}
    missing, more = [key for key in expected if key not in read], [key for key in read if key not in expected]
    if missing or more:
        key, has, other = (missing[0], "has no", "has one") if missing else (more[0], "has a", "has none")
        raise FileError(f"{network.file}: {has} tensor {key!r}; {first.file} {other}")
    for key, tensor in expected.items():
        shape, dtype = tuple(read[key].shape), name_of_dtype(read[key].dtype)
        if shape != tensor.shape:
            raise FileError(f"{network.file}: {key} has shape {shape}; in {first.file} it has {tensor.shape}")
        if dtype != tensor.dtype:
            raise FileError(f"{network.file}: {key} is {dtype}; in {first.file} it is {tensor.dtype}")
    for key in not_finite(read):
        raise FileError(f"{network.file}: {key} holds values that are not finite numbers")
