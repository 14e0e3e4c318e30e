"""Frozen features of a data set's images, extracted once per (images, backbone) and cached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wspace.interfaces import Backbone, Images
from wspace.support.errors import UserError
from wspace.support.files import save_tensors
from wspace.support.fingerprint import of_json
from wspace.support.progress import Progress

BLOCK = 512  # images encoded between two steps of the progress display


def extract(images: Images, backbone: Backbone, cache: Path, progress: Progress) -> Tensor:
    """(M, F) float32, in the order of `images.labels`."""
    key = of_json({"images": images.fingerprint, "backbone": backbone.fingerprint})
    file = cache / "features" / f"{key[:32]}.safetensors"
    if file.is_file():
        try:
            cached = load_file(file)["features"]
            if cached.shape == (len(images), backbone.dim):
                return cached
        except (SafetensorError, KeyError):
            file.unlink()  # truncated by a kill or a full disk: made anew
    features = torch.empty(len(images), backbone.dim)
    with progress.bar("features", len(images)) as bar:
        for start in range(0, len(images), BLOCK):
            indices = range(start, min(start + BLOCK, len(images)))
            features[indices.start : indices.stop] = backbone.encode(images.read(indices))
            bar.advance(len(indices))
    file.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(file, {"features": features})
    return features


def picture_shape(width: int, who: str, instead: str) -> tuple[int, int, int]:
    """Of the pictures that `backbone: pixels` has flattened to so many values. Raises UserError if there are no such ones."""
    side = isqrt(width // 3)
    if 3 * side**2 != width:
        raise UserError(f"{who}: features of width {width} are no pictures: use `backbone: pixels`, or {instead}")
    return 3, side, side


@dataclass(frozen=True)
class Pool:
    """Labelled features to draw from: those of one split."""

    features: Tensor  # (M, F)
    labels: Tensor  # (M,)
    table: Tensor  # (n, most images of a class), rows of `features` by class, repeated to fill
    counts: Tensor  # (n,), images of each class

    @classmethod
    def of(cls, features: Tensor, labels: Tensor, classes: int) -> Pool:
        rows = [torch.nonzero(labels == c).flatten() for c in range(classes)]
        counts = torch.tensor([len(r) for r in rows])
        table = torch.zeros(classes, int(counts.max()), dtype=torch.long)
        for c, r in enumerate(rows):
            if len(r):
                table[c] = r[torch.arange(table.shape[1]) % len(r)]
        return cls(features, labels, table, counts)

    def of_task(self, task: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Every image of a task's classes: features (m, F), and labels (m,) counted within the task."""
        labels = torch.repeat_interleave(torch.arange(len(task)), self.counts[list(task)])
        return self.features[self.rows_of(task)], labels

    def few(self, count: int, rng: torch.Generator) -> Pool:
        """At most so many images of each class, drawn once."""
        table = torch.stack(
            [
                row[torch.randperm(int(n), generator=rng)[:count]].tile(-(-count // max(1, min(int(n), count))))[:count]
                for row, n in zip(self.table, self.counts, strict=True)
            ]
        )
        return Pool(self.features, self.labels, table, self.counts.clamp_max(count))

    def rows_of(self, task: Sequence[int]) -> Tensor:
        """Rows of `features`, in the order of `of_task`: images count as they do within this split."""
        return torch.cat([self.table[c, : self.counts[c]] for c in task])


@dataclass(frozen=True)
class FeatureScale:
    """Features over their root mean square on training images, so that one learning rate suits every backbone.

    One number for all of them: scaling each feature by itself lifts the rarely active ones, and cost 2 to 3 points of
    accuracy on held-out styles.
    """

    rms: Tensor  # ()

    @classmethod
    def of(cls, features: Tensor) -> FeatureScale:
        return cls(features.square().mean().sqrt().clamp_min(1e-12))

    def __call__(self, features: Tensor) -> Tensor:
        return features / self.rms
