"""A zoo, or one network of it, as a folder of its own."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from wspace.support.elsewhere import Address
from wspace.support.errors import FileError
from wspace.support.files import check_new_folder, new_folder, write_text
from wspace.weights.files.network import Network
from wspace.weights.files.peft import write_adapter
from wspace.weights.zoo.card import README, card
from wspace.weights.zoo.format import INDEX, StoredZoo, write_header


def export(folder: Path, out: Path, licence: str | None = None) -> StoredZoo:
    """A zoo's folder, copied to `out` with a card, and nothing else of what lies beside it. Raises UserError."""
    zoo = StoredZoo.open(folder)
    check_new_folder(out)
    problems = zoo.problems()
    if problems:
        raise FileError(f"{folder}: {problems[0]}")
    with new_folder(out) as made:
        for name in (INDEX, *zoo.header.shards, *(parent.file for parent in zoo.header.parents)):
            shutil.copyfile(folder / name, made / name)
        write_header(made, replace(zoo.header, licence=licence or zoo.header.licence))
        write_text(made / README, card(StoredZoo.open(made)))
    return StoredZoo.open(out)


def _base_model_of_0_1(target: Mapping[str, Any]) -> str:
    """In zoos of 0.1, which do not record it: the name is an argument of their target `lora`, and there alone."""
    return str(target.get("model", "")) if target.get("use") == "lora" and target.get("base") == "timm" else ""


def take(where: Path | Address | str, name: str, out: Path, peft: bool) -> None:
    """One network: a file that `wspace score` reads, or with `peft` a folder of adapters. Raises UserError."""
    zoo = StoredZoo.open(where)
    number = zoo.number(name)
    entry, tensors = zoo.entries[number], zoo.read(number)
    if peft:
        base = str(zoo.header.made_with.get("base_model") or _base_model_of_0_1(zoo.header.target or {}))
        with new_folder(out) as made:
            write_adapter(
                made,
                zoo.spec,
                tensors,
                base_model=base,
                revision=str(zoo.header.made_with.get("base_model_revision") or ""),
                texts=entry.texts,
                classes=entry.classes,
            )
    else:
        Network(entry.classes, tensors, f"network {name} of zoo {zoo.header.name}").save(out)
