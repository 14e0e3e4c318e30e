"""What is known of a run's classes, and of its target, for a conditioner that asks; stored beside the generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from wspace.data.twins import APART
from wspace.interfaces import PICTURE, PICTURE_SIDE, TRAIN, ClassStatistics, Conditioner, Images, Told
from wspace.learning.prototypes import class_statistics, with_others
from wspace.learning.system import System
from wspace.runs.store import intact
from wspace.runs.workbench import Workbench
from wspace.support.errors import DataError
from wspace.support.files import save_tensors
from wspace.support.names import DRAWN_FROM_TOLD, PROMPT_TEXTS
from wspace.support.seeding import stream

PICTURES = 8  # training images of each class that a conditioner is shown


def tell(system: System, folder: Path, bench: Workbench, classes: Sequence[int]) -> None:
    """Tell a new system's conditioner what it asks for, if it does, and write that in the folder for `retell`.

    `classes` are those known. The texts of every class of the data set are written as well.
    """
    context = context_for(system.conditioner, bench, classes)
    tensors = {"texts": bench.prompt_texts}
    for field in fields(Told) if context is not None else ():
        if (value := getattr(context, field.name)) is not None:
            tensors[f"told.{field.name}"] = value
    save_tensors(folder / PROMPT_TEXTS, tensors)
    system.tell(context)
    if drawn := system.conditioner.drawn_from_told():
        save_tensors(folder / DRAWN_FROM_TOLD, drawn)


def read_context(file: Path) -> Told:
    tensors = load_file(intact(file.parent, file.name))
    prefix = "told."
    return Told(**{name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)})


def retell(system: System, folder: Path) -> None:
    """Tell a system again what `tell` has written. Before 0.2, what a conditioner drew from that was not stored."""
    drawn = folder / DRAWN_FROM_TOLD
    if drawn.is_file():
        tensors = load_file(intact(folder, DRAWN_FROM_TOLD))
        system.recall({name: tensor.clone() for name, tensor in tensors.items()})  # aligned, or rounding would differ
    else:
        system.tell(read_context(folder / PROMPT_TEXTS))


def context_for(conditioner: Conditioner, bench: Workbench, classes: Sequence[int]) -> Told | None:
    """If it asks: what it looks at of these classes' training images, and the target in words."""
    if not conditioner.asks:
        return None
    texts = bench.prompt_texts[list(classes)]
    words = bench.text.encode([in_words(bench.recipe.target.told(later=False))])[0]
    if conditioner.looks_at == "pictures":
        return Told(texts, _small_pictures(bench.images, classes), words)
    every = statistics_of(bench, classes, lambda other: other.prompt_texts)
    no_pictures = torch.zeros(len(every.texts), 0, PICTURE)
    return Told(every.texts, no_pictures, words, every.means, every.within)


def statistics_of(bench: Workbench, known: Sequence[int], texts: Callable[[Workbench], Tensor]) -> ClassStatistics:
    """Of the known classes, and of those of auxiliary data sets after them."""
    ours = ClassStatistics(texts(bench)[list(known)], *class_statistics(*bench.train.of_task(known), len(known)))
    return with_others(ours, auxiliary(bench, known, texts))


def auxiliary(bench: Workbench, known: Sequence[int], texts: Callable[[Workbench], Tensor]) -> list[ClassStatistics]:
    """Of each auxiliary data set, by the recipe's encoders and on its scale of features.

    Classes of the recipe's own data set that are not `known` are set apart. Under the name of one, or the same text,
    nothing is known from elsewhere either. Raises DataError where that leaves fewer than two classes.
    """
    apart = sorted(set(range(len(bench.images.classes))) - set(known))
    statistics = []
    for bound in bench.recipe.auxiliary:
        recipe = replace(bench.recipe, dataset=bound, auxiliary=())
        other = Workbench(recipe, bench.progress, bench.cache, bench.dims, bench.scale)
        distances = torch.cdist(other.class_texts.double(), bench.class_texts[apart].double())
        kept = torch.nonzero((distances >= APART).all(1)).flatten().tolist()
        if len(kept) < 2:
            raise DataError(
                f"auxiliary: of the classes of data set {bound.name!r} all but {len(kept)} are set apart as unseen; "
                "two are the least that say anything"
            )
        of_images = class_statistics(*other.train.of_task(kept), len(kept))
        statistics.append(ClassStatistics(texts(other)[kept], *of_images))
    return statistics


def _small_pictures(images: Images, classes: Sequence[int]) -> Tensor:
    """Some training images of each class, made small: (n, PICTURES, PICTURE)."""
    pictures, rng = [], stream(0, "pictures")
    for number in classes:
        rows = np.flatnonzero((images.labels == number) & (images.split == TRAIN))
        if not len(rows):
            name = images.classes[number]
            raise DataError(
                f"class {name!r} has no training images, and the recipe's conditioner looks at some of each"
            )
        chosen = rows[(torch.rand(PICTURES, generator=rng) * len(rows)).long().numpy()]
        pixels = torch.as_tensor(images.read(chosen)).permute(0, 3, 1, 2).float() / 127.5 - 1  # (S, 3, s, s)
        pictures.append(functional.adaptive_avg_pool2d(pixels, PICTURE_SIDE).flatten(1))
    return torch.stack(pictures)


def in_words(block: Mapping[str, Any]) -> str:
    """A component's block of a recipe as a text encoder may read it: "module, architecture mlp, hidden 32 32"."""
    parts = []
    for name, value in block.items():
        if isinstance(value, Mapping):
            text = in_words(value)
        else:
            text = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        parts.append(text if name == "use" else f"{name.replace('_', ' ')} {text}")
    return ", ".join(parts)
