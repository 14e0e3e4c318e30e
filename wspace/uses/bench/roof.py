"""What this machine can do at most, which other figures of speed are shares of: `wspace bench roof`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

SECONDS = 0.2  # of each measurement
LARGE = 512  # rows and columns of matrices whose product has no overhead, and that is soon done on a busy machine
STREAMED = 64 * 2**20  # bytes of each array that is streamed: more than caches hold

Clock = Callable[[], float]


@dataclass(frozen=True)
class Product:
    """Of `count` pairs of matrices, rows x inner and inner x columns."""

    what: str
    count: int
    rows: int
    inner: int
    columns: int

    @property
    def flops(self) -> int:
        return 2 * self.count * self.rows * self.inner * self.columns


PRODUCTS = (
    Product("a large product", 1, LARGE, LARGE, LARGE),
    Product("heads' first layer: features (32, 1280) of 16 heads", 16, 32, 1280, 16),
    Product("its gradient", 16, 1280, 32, 16),
    Product("their second layer and the texts, (17, 384) and (384, 32)", 16, 17, 384, 32),
    Product("its gradient", 16, 17, 32, 384),
)
"""What the zoo of the default recipe multiplies."""


@dataclass(frozen=True)
class Roof:
    """Of a machine, by all threads of torch together."""

    flops: float  # a second, in float32, of a large product
    bytes: float  # a second, read from memory and written to it

    def seconds(self, flops: float, bytes_: float) -> float:
        """That so much takes at least."""
        return max(flops / self.flops, bytes_ / self.bytes)


def measured(clock: Clock = time.perf_counter) -> Roof:
    """In about half a second. `clock` gives seconds."""
    return Roof(PRODUCTS[0].flops / _of_product(PRODUCTS[0], torch.float32, clock), _bandwidth(clock))


def roof(products: Sequence[Product] = PRODUCTS, clock: Clock = time.perf_counter) -> dict[str, Any]:
    """Rates of matrix products in float32 and bfloat16, and of memory, in a few seconds; the best of many short repeats."""
    rows = [
        {"what": product.what, "count": product.count, "shape": [product.rows, product.inner, product.columns]}
        | {
            name: product.flops / _of_product(product, dtype, clock)
            for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
        }
        for product in products
    ]
    return {
        "benchmark": "roof",
        "threads": torch.get_num_threads(),
        "flops_per_second": rows,
        "bytes_per_second": _bandwidth(clock),
    }


def _of_product(product: Product, dtype: torch.dtype, clock: Clock) -> float:
    """Seconds."""
    left = torch.rand(product.count, product.rows, product.inner).to(dtype)
    right = torch.rand(product.count, product.inner, product.columns).to(dtype)
    into = torch.empty(product.count, product.rows, product.columns, dtype=dtype)
    return _best(lambda: torch.bmm(left, right, out=into), clock)


def _bandwidth(clock: Clock) -> float:
    """Of a = b + s c, bytes a second: two arrays are read and one is written."""
    into, left, right = (torch.ones(STREAMED // 4) for _ in range(3))
    return 3 * STREAMED / _best(lambda: torch.add(left, right, alpha=0.5, out=into), clock)


def _best(do: Callable[[], object], clock: Clock) -> float:
    """Seconds of one time, of the fastest of many."""
    do()
    best, began = float("inf"), clock()
    while True:
        started = clock()
        do()
        ended = clock()
        best = min(best, ended - started)
        if ended - began > SECONDS:
            return best
