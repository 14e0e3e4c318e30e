"""A folder of checkpoints of one model: safetensors files, each with what it was trained for beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from wspace.support.errors import DataError, FileError
from wspace.weights.files.network import METADATA
from wspace.weights.files.peft import pickled
from wspace.weights.zoo.importers.found import Collection, Found, Said
from wspace.weights.zoo.importers.sidecars import Sidecars

PICKLES = frozenset({".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle"})


def collect(root: Path) -> Collection:
    """Raises FileError or DataError."""
    files = sorted(file for file in root.rglob("*") if file.is_file())
    for file in files:
        if file.suffix.lower() in PICKLES and not file.with_suffix(".safetensors").is_file():
            raise pickled(file)
    weights = [file for file in files if file.suffix == ".safetensors"]
    if not weights:
        raise DataError(f"{root}: holds no checkpoints (.safetensors), and no PEFT adapters (adapter_config.json)")
    sidecars, known = Sidecars(root), frozenset(file.relative_to(root).as_posix() for file in weights)
    networks = []
    for file in weights:
        said = sidecars.of(file, known) or _said_inside(file)
        name = file.relative_to(root).with_suffix("").as_posix()
        networks.append(Found(name, file, said, partial(_read, file)))
    return Collection(networks)


def _read(file: Path) -> Mapping[str, Tensor]:
    try:
        with safe_open(file, "pt") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise FileError(f"{file}: truncated, or not a safetensors file") from error


def _said_inside(file: Path) -> Said:
    """What `wspace generate` writes into its files."""
    try:
        with safe_open(file, "pt") as opened:
            about = json.loads((opened.metadata() or {}).get(METADATA, "{}"))
    except SafetensorError as error:
        raise FileError(f"{file}: truncated, or not a safetensors file") from error
    except ValueError:
        return Said()
    return Said(classes=tuple(map(str, about.get("classes", ())))) if isinstance(about, dict) else Said()
