"""Frozen features of a data set's images, extracted once per (images, backbone) and cached."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isqrt
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wspace.interfaces import Backbone, Images
from wspace.support.checkpoints import fingerprint_of
from wspace.support.errors import DataError, UserError
from wspace.support.files import save_tensors
from wspace.support.fingerprint import of_json
from wspace.support.progress import Progress

BLOCK = 512  # images encoded between two steps of the progress display


@dataclass(frozen=True)
class Extraction:
    """Features of a data set's images by a backbone, in the cache: a block at a time, until all are there and are one file."""

    images: Images
    backbone: Backbone
    cache: Path

    @cached_property
    def file(self) -> Path:
        key = of_json({"images": self.images.fingerprint, "backbone": self.backbone.fingerprint})
        return self.cache / "features" / f"{key[:32]}.safetensors"

    def load(self) -> Tensor | None:
        """(M, F) float32, in the order of `images.labels`; None if they are not there, or not whole."""
        features = _read(self.file)
        whole = features is not None and features.shape == (len(self.images), self.backbone.dim)
        return features if whole else None

    def images_of(self, block: int) -> range:
        return range(block * BLOCK, min((block + 1) * BLOCK, len(self.images)))

    @property
    def left(self) -> list[int]:
        """Blocks that have to be encoded yet."""
        return [block for block in range(self._blocks) if _read(self._of(block)) is None]

    def encode(self, block: int) -> int:
        """Into the cache. Returns its number."""
        features = self.backbone.encode(self.images.read(self.images_of(block)))
        self._of(block).parent.mkdir(parents=True, exist_ok=True)
        try:
            _write(self._of(block), features)
        except FileNotFoundError:  # another run has joined what it had, and taken the folder away
            if self.load() is None:
                raise
        return block

    def join(self) -> Tensor:
        """Of all blocks, once they are there: (M, F)."""
        parts = [part for block in range(self._blocks) if (part := _read(self._of(block))) is not None]
        if len(parts) == self._blocks:
            features = torch.cat([part.float() for part in parts])
            _write(self.file, features)
        elif (features := self.load()) is None:  # else another run was faster, and took the blocks away
            raise DataError(f"{self._of(0).parent}: features are gone or damaged; the same command makes them again")
        shutil.rmtree(self._of(0).parent, ignore_errors=True)
        return features

    @property
    def _blocks(self) -> int:
        return -(-len(self.images) // BLOCK)

    def _of(self, block: int) -> Path:
        return self.file.with_suffix("") / f"{block:05}.safetensors"


def _write(file: Path, features: Tensor) -> None:
    save_tensors(file, {"features": features}, {"sha256": fingerprint_of({"features": features})})


def _read(file: Path) -> Tensor | None:
    """None for a file that is not there, or not as it was written: it is made anew. Older versions wrote no hash."""
    try:
        with safe_open(file, "pt") as opened:
            features, metadata = opened.get_tensor("features"), opened.metadata() or {}
    except (SafetensorError, FileNotFoundError):
        return None
    return features if metadata.get("sha256") in (None, fingerprint_of({"features": features})) else None


def extract(
    extraction: Extraction, progress: Progress, encoded: Callable[[Sequence[int]], Iterable[int]] | None = None
) -> Tensor:
    """(M, F) float32, in the order of `images.labels`; `encoded` has blocks encoded, and gives each when it is."""
    if (features := extraction.load()) is not None:
        return features
    with progress.bar("features", len(extraction.images)) as bar:
        left = extraction.left
        bar.resume(len(extraction.images) - sum(len(extraction.images_of(block)) for block in left))
        for block in map(extraction.encode, left) if encoded is None else encoded(left):
            bar.advance(len(extraction.images_of(block)))
    return extraction.join()


def picture_shape(width: int, who: str, instead: str) -> tuple[int, int, int]:
    """Of the pictures that `backbone: pixels` has flattened to so many values. Raises UserError if there are no such ones."""
    side = isqrt(width // 3)
    if 3 * side**2 != width:
        raise UserError(f"{who}: features of width {width} are no pictures: use `backbone: pixels`, or {instead}")
    return 3, side, side


@dataclass(frozen=True)
class Pool:
    """Labelled features to draw from: those of one split, on one device."""

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

    def to(self, device: torch.device) -> Pool:
        """The same, on this device."""
        return Pool(*(tensor.to(device) for tensor in (self.features, self.labels, self.table, self.counts)))

    @property
    def device(self) -> torch.device:
        return self.features.device

    def of_task(self, task: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Every image of a task's classes: features (m, F), and labels (m,) counted within the task; on the CPU."""
        features, labels = next(self.of_tasks([task]))
        return features.cpu(), labels.cpu()

    def of_tasks(self, tasks: Sequence[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """As `of_task`, task by task, on the pool's device, which is told once which images these are."""
        rows = [self.rows_of(task) for task in tasks]
        labels = [torch.repeat_interleave(torch.arange(len(task)), self._at_hand[1][list(task)]) for task in tasks]
        sizes = [len(of_task) for of_task in rows]
        of_each = (torch.cat(parts).to(self.device).split(sizes) for parts in (rows, labels))
        for of_task, label in zip(*of_each, strict=True):
            yield self.features.index_select(0, of_task), label

    def few(self, count: int, rng: torch.Generator) -> Pool:
        """At most so many images of each class, drawn once."""
        table = torch.stack(
            [
                row[torch.randperm(int(n), generator=rng)[:count]].tile(-(-count // max(1, min(int(n), count))))[:count]
                for row, n in zip(*self._at_hand, strict=True)
            ]
        )
        return Pool(self.features, self.labels, table.to(self.device), self.counts.clamp_max(count))

    def count(self, task: Sequence[int]) -> int:
        """Images of a task's classes."""
        return int(self._at_hand[1][list(task)].sum())

    def rows_of(self, task: Sequence[int]) -> Tensor:
        """Rows of `features`, in the order of `of_task`, on the CPU: images count as they do within this split."""
        table, counts = self._at_hand
        return torch.cat([table[c, : counts[c]] for c in task])

    @cached_property
    def _at_hand(self) -> tuple[Tensor, Tensor]:
        """`table` and `counts`, on the CPU."""
        return self.table.cpu(), self.counts.cpu()


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
