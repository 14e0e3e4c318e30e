"""How the dimensions of a network's tensors are made of its axes, as a `WeightSpec` writes it.

hidden             the dimension is this axis: a permutation of it moves slices
7                  seven slices whose order means something
conv/16            each unit of `conv` has 16 slices, which stay together: channels of 4 x 4 pixels, flattened
heads/keys         each unit of `heads` has units of `keys` of its own: keys are permuted within their head
2*gate             the same axis twice, one stretch after the other, moved alike
left + right       stretches of several axes
heads[3]/keys[16]  with sizes, which are needed where the length of the dimension leaves them open
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from wspace.support.errors import UserError

_NAME = r"([^\s*/+\[\]]+)(?:\[(\d+)\])?"
_TERM = re.compile(rf"(?:(\d+)\*)?{_NAME}(?:/{_NAME})?")


@dataclass(frozen=True)
class Term:
    """One stretch of a dimension, `repeat` times."""

    repeat: int
    factors: tuple[str | int, ...]  # from the outermost: axes, and at the end perhaps a number of slices

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple(factor for factor in self.factors if isinstance(factor, str))

    def length(self, sizes: Mapping[str, int]) -> int:
        """All repeats together. Raises KeyError for an axis of unknown size."""
        length = self.repeat
        for factor in self.factors:
            length *= sizes[factor] if isinstance(factor, str) else factor
        return length


@dataclass(frozen=True)
class Block:
    """A stretch of a dimension that moves with one axis, or with none."""

    axis: str | None
    outer: str | None  # the axis each of whose units has units of `axis` of its own
    start: int
    length: int


@cache
def read(text: str) -> tuple[tuple[Term, ...], tuple[tuple[str, int], ...]]:
    """Terms of a dimension, and the sizes written in brackets. Raises UserError."""
    terms, sizes = [], list[tuple[str, int]]()
    for part in text.split("+"):
        match = _TERM.fullmatch(part.strip())
        if match is None:
            raise UserError(f"{text!r} says no axis of a dimension; 'hidden', '7', 'conv/16', '2*gate' and 'a + b' do")
        repeat, outer, outer_size, inner, inner_size = match.groups()
        factors = [int(name) if name.isdigit() else name for name in (outer, inner) if name]
        if isinstance(factors[0], int) and len(factors) > 1:
            raise UserError(
                f"{text!r} has a number before '/', where an axis stands; stretches are repeated as in '2*gate'"
            )
        terms.append(Term(int(repeat or 1), tuple(factors)))
        sizes += [(name, int(size)) for name, size in ((outer, outer_size), (inner, inner_size)) if size]
    return tuple(terms), tuple(sizes)


def names_in(text: str) -> tuple[str, ...]:
    """Of the axes in it, each once. Raises UserError."""
    return tuple(dict.fromkeys(axis for term in read(text)[0] for axis in term.axes))


def solved(text: str, length: int, sizes: Mapping[str, int]) -> tuple[str, int] | None:
    """The one axis of a dimension whose size is not known, and that size; None if there is no such one."""
    terms, _ = read(text)
    unknown = [axis for axis in names_in(text) if axis not in sizes]
    if len(unknown) != 1:
        return None
    axis = unknown[0]
    without = sum(term.length({**sizes, axis: 0}) for term in terms)
    each = sum(term.length({**sizes, axis: 1}) for term in terms) - without
    size, rest = divmod(length - without, each)
    return None if rest or size < 1 else (axis, size)


def blocks_of(text: str, sizes: Mapping[str, int]) -> tuple[Block, ...]:
    """The stretches of a dimension, in order. Raises KeyError for an axis of unknown size."""
    blocks, start = [], 0
    for term in read(text)[0]:
        length = term.length(sizes) // term.repeat
        axis = term.axes[-1] if term.axes else None
        outer = term.axes[0] if len(term.axes) == 2 else None
        for _ in range(term.repeat):
            blocks.append(Block(axis, outer, start, length))
            start += length
    return tuple(blocks)
