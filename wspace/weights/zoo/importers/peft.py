"""A folder of PEFT adapters of one base model, each a folder of its own. Ranks may differ."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from wspace.support.errors import FileError
from wspace.weights.files.peft import CONFIG, AdapterFolder
from wspace.weights.lowrank import lora_spec, padded
from wspace.weights.zoo.importers.found import Collection, Found, Said
from wspace.weights.zoo.importers.sidecars import Sidecars


def adapter_folders(root: Path) -> list[Path]:
    return sorted(file.parent for file in root.rglob(CONFIG))


def collect(root: Path) -> Collection:
    """Adapters of smaller rank are padded with zeros to the greatest, and scaled to the first one's alpha / r.

    Raises FileError.
    """
    opened = [AdapterFolder.open(folder) for folder in adapter_folders(root)]
    first = opened[0]
    for other in opened[1:]:
        _check(other, first)
    rank = max(layer.rank for adapter in opened for layer in adapter.layers.values())
    sidecars, known = Sidecars(root), frozenset(adapter.folder.relative_to(root).as_posix() for adapter in opened)
    networks = []
    for adapter in opened:
        said = sidecars.of(adapter.folder, known) or Said(adapter.texts, adapter.classes)
        name = adapter.folder.relative_to(root).as_posix()
        name = adapter.folder.resolve().name if name == "." else name
        networks.append(
            Found(name, adapter.folder, _with_ranks(said, adapter, rank), partial(_read, adapter, first, rank))
        )
    scale = {name: layer.scale for name, layer in first.layers.items()}
    spec = lora_spec({name: (layer.out, layer.width) for name, layer in first.layers.items()}, rank, scale)
    made_with: dict[str, Any] = {"base_model": first.base_model} if first.base_model else {}
    return Collection(networks, spec, {"use": "lora", "rank": rank}, made_with)


def _check(adapter: AdapterFolder, first: AdapterFolder) -> None:
    if adapter.base_model != first.base_model:
        raise FileError(
            f"{adapter.folder}: is for base model {adapter.base_model!r}; {first.folder} is for {first.base_model!r}"
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


def _with_ranks(said: Said, adapter: AdapterFolder, rank: int) -> Said:
    """The ranks it had, where they were smaller."""
    ranks = {name: layer.rank for name, layer in adapter.layers.items() if layer.rank != rank}
    return Said(said.texts, said.classes, said.metrics, said.seed, said.parent, {"ranks": ranks} if ranks else {})


def _read(adapter: AdapterFolder, first: AdapterFolder, rank: int) -> Mapping[str, Tensor]:
    tensors = {}
    for name, (b, a) in adapter.read().items():
        factor = adapter.layers[name].scale / first.layers[name].scale
        b, a = padded(b if factor == 1 else b * factor, a, rank)  # multiplied only if need be: bytes stay the same
        tensors |= {f"{name}.lora_A": a, f"{name}.lora_B": b}
    return tensors
