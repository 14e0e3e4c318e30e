"""Checkpoints of one model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from wspace.interfaces import Collection, Description, ImportedNetwork, Importer
from wspace.support.checkpoints import plain_names
from wspace.support.errors import DataError, FileError
from wspace.weights.files.network import METADATA
from wspace.weights.files.peft import CONFIG, is_adapter, pickled
from wspace.weights.zoo.leftover import PICKLES, SAFE, below, is_of_training, left_over
from wspace.weights.zoo.sidecars import Sidecars

PART = re.compile(r".+-\d{5}-of-\d{5}\.safetensors", re.IGNORECASE)


class Checkpoints(Importer):
    """A folder of checkpoints of one model: safetensors files, each with what it was trained for beside it.

    That is a text, a JSON file, or one CSV for all (docs/zoo-format.md). Files of `wspace generate` say it themselves.
    """

    version = 2
    takes = "checkpoints (.safetensors)"

    def recognises(self, folder: Path) -> bool:
        files = below(folder)
        weights = any(file.suffix.lower() in {SAFE, *PICKLES} for file in files)
        return weights and not any(file.name == CONFIG for file in files)

    def collect(self, folder: Path) -> Collection:
        files = [file for file in below(folder) if file.is_file() and not is_of_training(file)]
        safe = [file for file in files if file.suffix.lower() == SAFE]
        pickles = [file for file in files if file.suffix.lower() in PICKLES]
        refused = {file: why for file in safe if (why := _no_network(file))}
        weights = [file for file in safe if file not in refused]
        converted = {file.with_suffix("") for file in weights}
        others = [f"{file}: {why}" for file, why in refused.items()]
        others += [str(pickled(file)) for file in pickles if file.with_suffix("") not in converted]
        others += left_over(folder, {*safe, *pickles}, self.takes)
        if not weights:
            raise FileError(others[0]) if others else DataError(f"{folder}: holds no {self.takes}")
        names = frozenset(file.relative_to(folder).as_posix() for file in (*safe, *pickles))
        sidecars = Sidecars(folder)
        networks = []
        for file in weights:
            description = sidecars.of(file, names) or _described_inside(file)
            name = file.relative_to(folder).with_suffix("").as_posix()
            networks.append(ImportedNetwork(name, file, description, partial(_read, file)))
        return Collection(networks, left_over=others)

    def example(self, folder: Path) -> None:
        for number, text in enumerate(("cats and dogs", "cups and saucers")):
            save_file({"w": torch.full((2, 3), float(number)), "b": torch.ones(3)}, folder / f"{number}.safetensors")
            (folder / f"{number}.txt").write_text(f"{text}\n", encoding="utf-8")


def _no_network(file: Path) -> str:
    """Why a safetensors file is not a network of its own; empty if it is, or if it cannot be read."""
    if PART.fullmatch(file.name):
        return "a part of a network that was saved in several files: save it as one"
    try:
        with safe_open(file, "pt") as opened:
            names = list(opened.keys())
    except SafetensorError:
        return ""
    if is_adapter(names):
        return f"holds an adapter ({names[0]}, ...) and no network; of adapters, folders that PEFT wrote can be read"
    return ""


def _read(file: Path) -> Mapping[str, Tensor]:
    try:
        with safe_open(file, "pt") as opened:
            names = plain_names(opened.keys())  # as the network calls them, not a wrapper around it
            return {name: opened.get_tensor(written) for written, name in names.items()}
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
