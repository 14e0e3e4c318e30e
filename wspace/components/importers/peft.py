"""PEFT adapters of one base model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wspace.interfaces import Collection, Description, ImportedNetwork, Importer
from wspace.support.errors import DataError, FileError
from wspace.weights.files.peft import CONFIG, PICKLE, WEIGHTS, AdapterFolder, NotUnderstood, write_adapter
from wspace.weights.lowrank import lora_spec, padded
from wspace.weights.zoo.leftover import below, left_over
from wspace.weights.zoo.sidecars import Sidecars


class Peft(Importer):
    """A folder of PEFT adapters (plain LoRA of linear layers) of one base model, each a folder of its own.

    Ranks may differ: adapters of smaller rank are padded with zeros to the greatest, and scaled to the first one's
    alpha / r. If one has to be scaled, all are held in float32 at least, so that none is rounded to 16 bits again.
    """

    version = 2
    takes = f"PEFT adapters ({CONFIG})"

    def recognises(self, folder: Path) -> bool:
        return bool(_adapter_folders(folder))

    def collect(self, folder: Path) -> Collection:
        adapters, opened, others = _adapter_folders(folder), list[AdapterFolder](), list[str]()
        for adapter in adapters:
            try:
                opened.append(AdapterFolder.open(adapter))
            except NotUnderstood as error:
                others.append(str(error))
        others += left_over(folder, {a / name for a in adapters for name in (CONFIG, WEIGHTS, PICKLE)}, self.takes)
        if not opened:
            raise FileError(others[0]) if others else DataError(f"{folder}: holds no {self.takes}")
        first = opened[0]
        for other in opened[1:]:
            _check(other, first)
        scaled = any(a.layers[name].scale != layer.scale for a in opened for name, layer in first.layers.items())
        rank = max(layer.rank for adapter in opened for layer in adapter.layers.values())
        sidecars, names = Sidecars(folder), frozenset(adapter.relative_to(folder).as_posix() for adapter in adapters)
        networks = []
        for adapter in opened:
            description = sidecars.of(adapter.folder, names) or Description(adapter.texts, adapter.classes)
            name = adapter.folder.relative_to(folder).as_posix()
            name = adapter.folder.resolve().name if name == "." else name
            described = _with_ranks(description, adapter, rank)
            networks.append(
                ImportedNetwork(name, adapter.folder, described, partial(_read, adapter, first, rank, scaled))
            )
        scale = {name: layer.scale for name, layer in first.layers.items()}
        spec = lora_spec({name: (layer.out, layer.width) for name, layer in first.layers.items()}, rank, scale)
        made_with = {"base_model": first.base_model, "base_model_revision": first.revision}
        made_with: dict[str, Any] = {key: value for key, value in made_with.items() if value}
        return Collection(networks, spec, {"use": "lora", "rank": rank}, made_with, others)

    def example(self, folder: Path) -> None:
        spec = lora_spec({"layer": (6, 7)}, 2, {"layer": 1.0})
        for number, text in enumerate(("cats and dogs", "cups and saucers")):
            tensors = {entry.name: torch.full(entry.shape, number + 1.0) for entry in spec.entries}
            made = folder / str(number)
            made.mkdir()
            write_adapter(made, spec, tensors, base_model="base", texts=(text,), classes=())


def _adapter_folders(root: Path) -> list[Path]:
    return [file.parent for file in below(root) if file.name == CONFIG]


def _check(adapter: AdapterFolder, first: AdapterFolder) -> None:
    if adapter.base_model != first.base_model:
        raise FileError(
            f"{adapter.folder}: is for base model {adapter.base_model!r}; {first.folder} is for {first.base_model!r}"
        )
    if adapter.revision != first.revision:
        raise FileError(
            f"{adapter.folder}: is for revision {adapter.revision or 'main'!r} of its base model; {first.folder} is for "
            f"{first.revision or 'main'!r}"
        )
    more, fewer = set(adapter.layers) - set(first.layers), set(first.layers) - set(adapter.layers)
    if more or fewer:
        verb = "adapts" if more else "does not adapt"
        also = "does not" if more else "does"
        raise FileError(f"{adapter.folder}: {verb} {min(more or fewer)!r}, and {first.folder} {also}")
    for name, layer in adapter.layers.items():
        other = first.layers[name]
        if (layer.out, layer.width) != (other.out, other.width):
            raise FileError(
                f"{adapter.folder}: layer {name!r} is {layer.out} x {layer.width}; in {first.folder} it is "
                f"{other.out} x {other.width}"
            )


def _with_ranks(description: Description, adapter: AdapterFolder, rank: int) -> Description:
    """The ranks it had, where they were smaller."""
    ranks = {name: layer.rank for name, layer in adapter.layers.items() if layer.rank != rank}
    return replace(description, extra={"ranks": ranks} if ranks else {})


def _read(adapter: AdapterFolder, first: AdapterFolder, rank: int, scaled: bool) -> Mapping[str, Tensor]:
    tensors = {}
    for name, (b, a) in adapter.read().items():
        if scaled:
            a, b = (tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in (a, b))
        factor = adapter.layers[name].scale / first.layers[name].scale
        b, a = padded(b if factor == 1 else b * factor, a, rank)  # multiplied only if need be: bytes stay the same
        tensors |= {f"{name}.lora_A": a, f"{name}.lora_B": b}
    return tensors
