"""Checkpoints of one model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from wspace.interfaces import Collection, Description, ImportedNetwork, Importer
from wspace.support.errors import DataError, FileError
from wspace.weights.files.network import METADATA
from wspace.weights.files.peft import CONFIG, pickled
from wspace.weights.zoo.sidecars import Sidecars

PICKLES = frozenset({".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle"})


class Checkpoints(Importer):
    """A folder of checkpoints of one model: safetensors files, each with what it was trained for beside it.

    That is a text, a JSON file, or one CSV for all (docs/zoo-format.md). Files of `wspace generate` say it themselves.
    """

    takes = "checkpoints (.safetensors)"

    def recognises(self, folder: Path) -> bool:
        files = list(folder.rglob("*"))
        weights = any(file.suffix == ".safetensors" or file.suffix.lower() in PICKLES for file in files)
        return weights and not any(file.name == CONFIG for file in files)

    def collect(self, folder: Path) -> Collection:
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        for file in files:
            if file.suffix.lower() in PICKLES and not file.with_suffix(".safetensors").is_file():
                raise pickled(file)
        weights = [file for file in files if file.suffix == ".safetensors"]
        if not weights:
            raise DataError(f"{folder}: holds no {self.takes}")
        sidecars, names = Sidecars(folder), frozenset(file.relative_to(folder).as_posix() for file in weights)
        networks = []
        for file in weights:
            description = sidecars.of(file, names) or _described_inside(file)
            name = file.relative_to(folder).with_suffix("").as_posix()
            networks.append(ImportedNetwork(name, file, description, partial(_read, file)))
        return Collection(networks)

    def example(self, folder: Path) -> None:
        for number, text in enumerate(("cats and dogs", "cups and saucers")):
            save_file({"w": torch.full((2, 3), float(number)), "b": torch.ones(3)}, folder / f"{number}.safetensors")
            (folder / f"{number}.txt").write_text(f"{text}\n", encoding="utf-8")


def _read(file: Path) -> Mapping[str, Tensor]:
    try:
        with safe_open(file, "pt") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise FileError(f"{file}: truncated, or not a safetensors file") from error


def _described_inside(file: Path) -> Description:
    """What `wspace generate` writes into its files."""
    try:
        with safe_open(file, "pt") as opened:
            about = json.loads((opened.metadata() or {}).get(METADATA, "{}"))
    except SafetensorError as error:
        raise FileError(f"{file}: truncated, or not a safetensors file") from error
    except ValueError:
        return Description()
    classes = about.get("classes", ()) if isinstance(about, dict) else ()
    return Description(classes=tuple(map(str, classes)))
