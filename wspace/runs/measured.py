"""What was measured of a recipe's work on a machine: by `wspace.runs.rates`, for `wspace.runs.plan`."""

from __future__ import annotations

from dataclasses import dataclass

FLOAT = 4  # bytes
TRIED_WITH = 4096  # networks, at most


@dataclass(frozen=True)
class Rate:
    """What a unit of work takes: here, and as counts that another machine's speed can be laid on."""

    seconds: float = 0.0
    processor_seconds: float = 0.0  # of all threads
    flops: float = 0.0  # of products of matrices and convolutions
    bytes: float = 0.0  # that operations read and write, each by itself
    calls: float = 0.0  # of operations

    def __add__(self, other: Rate) -> Rate:
        return Rate(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def __mul__(self, factor: float) -> Rate:
        return Rate(*(factor * value for value in vars(self).values()))


@dataclass(frozen=True)
class Measured:
    """Counts of a recipe's shapes, a rate for each kind of work, and memory."""

    counts: dict[str, int]
    rates: dict[str, Rate]
    resident: dict[str, int]
    """Stage -> bytes of a process that has done each kind of its work, and of those before: libraries, encoders, features,
    the generator, and what steps need."""
    copies: dict[str, float]
    """Stage -> bytes that it has at the most for each byte of the zoo's networks, beside these."""
