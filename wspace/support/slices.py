"""A row of things, in parts."""

from __future__ import annotations


def even(total: int, count: int) -> list[slice]:
    """So many parts of a row of `total`, as long as each other or by one longer."""
    return [slice(number * total // count, (number + 1) * total // count) for number in range(count)]
