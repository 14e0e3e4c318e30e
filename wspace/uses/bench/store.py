"""What a zoo on disk is worth: how long it takes to make, open, verify and sample from, and in how much memory."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.support.files import save_tensors
from wspace.support.memory import peak_mib
from wspace.support.progress import Progress
from wspace.weights.zoo.format import SHARD, Entry, Header, StoredZoo, seal, stored

SPEC = WeightSpec(
    (
        WeightEntry("w1", (11, 10), ("in", "hidden")),
        WeightEntry("b1", (10,), ("hidden",)),
        WeightEntry("w2", (10, 1), ("hidden", "out")),
        WeightEntry("b2", (1,), ("out",)),
    ),
    free=("hidden",),
)
"""Of 131 weights."""
BATCH, BATCHES = 256, 20  # networks that are read at once, and how often


def store(sizes: Sequence[int], together: int, progress: Progress) -> dict[str, Any]:
    """Zoos of so many networks, in shards of `together`: each is made, then opened, verified and sampled from.

    That is done in a process of its own, whose peaks of memory are `mib_before`, with what it imports, `mib_verified`, when
    the zoo was opened and verified, and `mib_sampled`, after batches of random networks. `memory` is the greatest
    `mib_verified` over the least.
    """
    rows = []
    with progress.bar("store", len(sizes)) as bar, tempfile.TemporaryDirectory(prefix="wspace-store-") as folder:
        for size in sizes:
            rows.append(in_its_own_process(Path(folder) / str(size), size, together))
            bar.advance(1)
    peaks = [row["mib_verified"] for row in rows]
    return {
        "benchmark": "store",
        "weights": SPEC.size,
        "together": together,
        "batch": BATCH,
        "memory": max(peaks) / min(peaks),
        "rows": rows,
    }


def in_its_own_process(folder: Path, networks: int, together: int) -> dict[str, Any]:
    """What `make` and `measured` say, each in a new process."""
    row: dict[str, Any] = {"networks": networks}
    folder.mkdir()
    for part in (make, measured):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            row |= process.submit(part, folder, networks, together).result()
    return row


def make(folder: Path, networks: int, together: int) -> dict[str, Any]:
    """A zoo in a folder that is there, and how long that took."""
    entries, seconds = list[Entry](), dict[str, Any]()
    with _timed(seconds, "seconds_making"):
        for number, first in enumerate(range(0, networks, together)):
            count, rng = min(together, networks - first), torch.Generator().manual_seed(number)
            save_tensors(folder / SHARD.format(number), SPEC.unflatten(torch.randn(count, SPEC.size, generator=rng)))
            entries += [_entry(first + row, SHARD.format(number), row) for row in range(count)]
        seal(folder, Header(name="store", source="a benchmark", tensors=stored(SPEC), free=SPEC.free), entries)
    return seconds | {
        "shards": -(-networks // together),
        "bytes": sum(file.stat().st_size for file in folder.iterdir()),
    }


def _entry(number: int, shard: str, row: int) -> Entry:
    classes = (f"class {number % 97}", f"class {97 + number % 89}")
    texts = tuple(f"a photo of {name}" for name in classes)
    return Entry(f"task-{number:06}", texts, classes, shard, row, {"val_accuracy": number % 1000 / 1000}, seed=42)


def measured(folder: Path, networks: int, together: int) -> dict[str, Any]:
    """How long it takes to open, verify and sample from such a zoo, and the peaks of this process's memory."""
    row: dict[str, Any] = {"mib_before": peak_mib()}
    with _timed(row, "seconds_opening"):
        zoo = StoredZoo.open(folder)
    with _timed(row, "seconds_verifying"):
        problems = zoo.problems()
    row |= {"problems": len(problems), "mib_verified": peak_mib()}
    rng = torch.Generator().manual_seed(0)
    with _timed(row, "seconds_sampling"):
        for _ in range(BATCHES):
            zoo.rows(torch.randint(networks, (BATCH,), generator=rng).tolist())
    return row | {"seconds_of_a_batch": row.pop("seconds_sampling") / BATCHES, "mib_sampled": peak_mib()}


@contextmanager
def _timed(into: dict[str, Any], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    into[name] = time.perf_counter() - started
