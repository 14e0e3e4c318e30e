"""Which indices of a network's tensors are one index: first-order unification, over dimensions made of parts.

An index along a dimension is written in *digits*: a dimension of 12 channels that a view splits into (3, 4) has two, of
sizes 3 and 4, the outer one first. Digits are the unknowns. Each is permutable until something pins it. Two digits that
meet, in a product or a sum, are the same from then on; one that is split or cut is from then on made of others.

The inner digit of a split may be permuted differently for each value of the outer one (dimensions of a head, for each
head): it is `within` it. That holds only while both stand in one tensor, so it is given up where they part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod

Term = list["Digit"]
"""Digits of one stretch, from the outermost; none: a stretch of one."""

Dim = list[Term]
"""Stretches of one dimension, in order."""

Layout = list[Dim]
"""Of a tensor."""


@dataclass(eq=False)
class Digit:
    size: int
    within: set[Digit] | None = field(default_factory=set)  # None: whatever it meets, for the same value repeated
    pinned: bool = False  # its order means something
    role: str = ""  # what it counts, if others are within it
    made_of: Dim | None = None  # what it turned out to be
    members: list[tuple[Digit, int, Digit]] = field(default_factory=list)  # (outer, k, this one where outer is k)
    selected: bool = False  # pinned because single values of it were taken


def fixed(size: int) -> Dim:
    return [[Digit(size, pinned=True)]] if size != 1 else [[]]


def repeated(size: int) -> Dim:
    """A dimension along which every value is the same: any permutation leaves it as it is."""
    return [[Digit(size, within=None)]] if size != 1 else [[]]


def renewed(layout: Layout) -> Layout:
    """For one more reader: where values repeat, it need not permute them as another reader does."""
    return [
        [[Digit(d.size, within=None) if d.within is None and not d.pinned else d for d in term] for term in normal(dim)]
        for dim in layout
    ]


def length(dim: Dim) -> int:
    return sum(prod(digit.size for digit in term) for term in dim)


def normal(dim: Dim) -> Dim:
    """The same in digits that are not known to be made of others."""
    return [term for written in dim for term in _normal_term(written)]


def _normal_term(term: Term) -> Dim:
    terms: Dim = [[]]
    for digit in term:
        if digit.size == 1:
            continue
        parts = [[digit]] if digit.made_of is None else normal(digit.made_of)
        if len(parts) > 1 and terms != [[]]:  # stretches within each unit of another digit
            pin([parts])
            parts = digit.made_of = fixed(digit.size)
        terms = parts if terms == [[]] else [[*before, *parts[0]] for before in terms]
    return terms


def digits_of(layout: Layout) -> Iterator[Digit]:
    for dim in layout:
        for term in normal(dim):
            yield from term


def outers(digit: Digit) -> set[Digit]:
    """The digits on whose values its permutation may depend."""
    return set(digits_of([[[w] for w in digit.within]])) if digit.within else set()


def pin(layout: Layout) -> None:
    for digit in list(digits_of(layout)):
        digit.pinned = True
        pin([[[member]] for _, _, member in digit.members])


def is_pinned(dim: Dim) -> bool:
    return all(digit.pinned for digit in digits_of([dim]))


def restrict(digit: Digit, allowed: set[Digit]) -> None:
    """Let it depend on no other digits than these."""
    if digit.within is None:
        return
    before = outers(digit)
    digit.within = before & allowed
    if digit.within != before:
        _join_members(digit)


def settle(layout: Layout) -> None:
    """Let digits of one tensor depend only on those that stand in it, in one place."""
    digits = list(digits_of(layout))
    counts = Counter(digits)
    for digit in digits:
        restrict(digit, {outer for outer, count in counts.items() if count == 1})


def _join_members(digit: Digit) -> None:
    """Of digits that it no longer depends on, or on a part of them alone: it is the same for every value."""
    still = outers(digit)
    gone = [m for m in digit.members if not set(digits_of([[[m[0]]]])) <= still]
    digit.members = [m for m in digit.members if m not in gone]
    for _, _, member in gone:
        unify([[digit]], [[member]])


# ---------------------------------------------------------------- two that are the same


def unify(left: Dim, right: Dim) -> None:
    """From now on these dimensions of one length are permuted alike."""
    left, right = normal(left), normal(right)
    if len(left) == 1 and len(left[0]) == 1:
        _bind(left[0][0], right)
    elif len(right) == 1 and len(right[0]) == 1:
        _bind(right[0][0], left)
    elif is_pinned(left) or is_pinned(right):
        pin([left, right])
    elif len(left) == len(right) == 1:
        _unify_products(left[0], right[0])
    elif [length([t]) for t in left] == [length([t]) for t in right]:
        for ours, theirs in zip(left, right, strict=True):
            unify([ours], [theirs])
    elif min(len(left), len(right)) == 1 and len({length([term]) for term in max(left, right, key=len)}) == 1:
        unify([as_product(left)], [as_product(right)])
    else:
        (ours, *left), (theirs, *right) = left, right
        at = min(length([ours]), length([theirs]))
        (ours, left_rest), (theirs, right_rest) = cut([ours], at), cut([theirs], at)
        unify(ours, theirs)
        unify(left_rest + left, right_rest + right)


def _bind(digit: Digit, dim: Dim) -> None:
    parts = list(digits_of([dim]))
    if digit in parts:
        if parts != [digit]:
            pin([dim])
        return
    if digit.pinned:
        pin([dim])
    if len(parts) == 1 and len(dim) == 1:
        _merge(digit, parts[0])
        return
    if digit.within is not None:
        for place, part in enumerate(parts):
            if part.within is None:
                part.within = outers(digit) | set(parts[:place])
            restrict(part, outers(digit) | set(parts))
    digit.made_of = dim
    for outer, value, member in digit.members:
        unify([[member]], _at([dim], outer, value)[0])


def _merge(digit: Digit, into: Digit) -> None:
    if into.pinned:
        pin([[[digit]]])
    ours, theirs = outers(digit), outers(into)
    if into.within is None:
        into.within = None if digit.within is None else ours - {into}
    elif digit.within is not None:
        into.within = ours & theirs
    into.role = into.role or digit.role
    into.selected |= digit.selected
    digit.made_of = [[into]]
    members_before = list(into.members)
    into.members = members_before + digit.members
    for outer, value, member in digit.members:
        for other, same, twin in members_before:
            if same == value and _same(outer, other):
                unify([[member]], [[twin]])
    for outer, _, _ in digit.members[:1]:
        _select_by(into, outer)
    _join_members(into)


def _same(left: Digit, right: Digit) -> bool:
    return list(digits_of([[[left]]])) == list(digits_of([[[right]]]))


def _unify_products(left: Term, right: Term) -> None:
    """From the outermost digit: one that is longer than its counterpart is split."""
    while left and right:
        ours, theirs = left[0], right[0]
        if ours.size != theirs.size:
            size = min(ours.size, theirs.size)
            if max(ours.size, theirs.size) % size:
                break
            split(ours if ours.size > size else theirs, size)
        else:
            unify([[ours]], [[theirs]])
            left, right = left[1:], right[1:]
        dims = normal([left]), normal([right])
        if any(len(dim) > 1 for dim in dims):
            break
        left, right = dims[0][0], dims[1][0]
    pin([[left], [right]])


def split(digit: Digit, outer_size: int, role: str = "heads") -> Term:
    """Make it of two, of which the outer has this size."""
    outer = Digit(outer_size, None if digit.within is None else outers(digit), role=role)
    within = None if digit.within is None else {*outers(digit), outer}
    inner = Digit(digit.size // outer_size, within)
    _bind(digit, [[outer, inner]])
    return [outer, inner]


def cut(dim: Dim, at: int) -> tuple[Dim, Dim]:
    """Its first `at` values, and the others."""
    before, rest = list[Term](), normal(dim)
    while at:
        term, *after = rest
        size = length([term])
        if size > at:
            rest = [*_cut_term(term, at), *after]
            continue
        before.append(term)
        rest, at = after, at - size
    return before, rest


def _cut_term(term: Term, at: int) -> Dim:
    first, *inner = term
    if not inner:
        _bind(first, [[Digit(n, None if first.within is None else outers(first))] for n in (at, first.size - at)])
        return normal([[first]])
    if first.selected:
        return members_of(term)
    each = prod(digit.size for digit in inner)
    if at % each == 0:
        for digit in inner:
            restrict(digit, outers(digit) - {first})
        units, others = cut([[first]], at // each)
        return [[*outer, *inner] for outer in (*units, *others)]
    pin([[term]])
    return [*fixed(at), *fixed(length([term]) - at)]


# ---------------------------------------------------------------- single values of a digit


def members_of(term: Term) -> Dim:
    """A stretch whose outermost digit has single values taken: one stretch for each value."""
    first, *inner = term
    return [term for value in range(first.size) for term in normal(_at([[inner]], first, value)[0])]


def at(layout: Layout, dim: Dim, index: int) -> Layout:
    """Dimensions of a tensor where another of its dimensions has this index."""
    for term in normal(dim):
        size = length([term])
        if not 0 <= index < size:
            index -= size
            continue
        for digit in term:
            size //= digit.size
            pin([[[digit]]])
            digit.selected = True
            layout = _at(layout, digit, index // size)
            index %= size
        break
    return layout


def _at(layout: Layout, outer: Digit, value: int) -> Layout:
    for digit in list(digits_of(layout)):
        _select_by(digit, outer)
    return [[[_member(digit, outer, value) for digit in term] for term in normal(dim)] for dim in layout]


def _select_by(digit: Digit, outer: Digit) -> None:
    """Let it depend on no other digit of which single values were taken: they would have to agree where both are."""
    others = {d for of_outer, _, _ in digit.members for d in digits_of([[[of_outer]]])} - set(digits_of([[[outer]]]))
    if others & outers(digit):
        restrict(digit, outers(digit) - others)


def _member(digit: Digit, outer: Digit, value: int) -> Digit:
    depends = outers(digit)
    selected = set(digits_of([[[outer]]]))
    if not depends & selected or digit.pinned:
        return digit
    for of_outer, at_value, member in digit.members:
        if at_value == value and _same(of_outer, outer):
            return member
    within = {_member(d, outer, value) for d in depends - selected}
    member = Digit(digit.size, within, role=digit.role)
    digit.members.append((outer, value, member))
    return member


def as_product(dim: Dim) -> Term:
    """Several stretches of one length as one, of an outer digit that says which and an inner one of that length."""
    stretches = normal(dim)
    if len(stretches) == 1:
        return stretches[0]
    lengths = {length([term]) for term in stretches}
    if len(lengths) > 1 or is_pinned(stretches):
        pin([stretches])
        return fixed(length(stretches))[0]
    which = selector(len(stretches))
    return [which, *one_of(which, [[term] for term in stretches])[0]]


def selector(size: int) -> Digit:
    """Of which each value stands for something of its own."""
    return Digit(size, pinned=True, selected=True)


def one_of(which: Digit, dims: Sequence[Dim]) -> Dim:
    """One dimension in place of several of one length: where `which` is k, the k-th of them."""
    if all(normal(dim) == normal(dims[0]) for dim in dims):
        return dims[0]
    each = Digit(length(dims[0]), {which})
    for value, dim in enumerate(dims):
        unify([[_member(each, which, value)]], dim)
    return [[each]]


# ---------------------------------------------------------------- other shapes


def reshaped(layout: Layout, shape: Sequence[int]) -> Layout:
    """As a view of this shape has it."""
    dims, sizes = [d for d in layout if length(d) != 1], [n for n in shape if n != 1]
    regrouped: Layout = []
    while dims:
        ins, outs = [dims.pop(0)], [sizes.pop(0)]
        while (have := prod(map(length, ins))) != (want := prod(outs)):
            if have < want:
                ins.append(dims.pop(0))
            else:
                outs.append(sizes.pop(0))
        regrouped += _regrouped(ins, outs)
    return [regrouped.pop(0) if n != 1 else [[]] for n in shape]


def _regrouped(ins: Layout, outs: list[int]) -> Layout:
    if len(ins) == len(outs) == 1:
        return ins
    if len(outs) == 1 and all(len(normal(dim)) == 1 for dim in ins[1:]):
        inner = [digit for dim in ins[1:] for digit in normal(dim)[0]]
        return [[[*term, *inner] for term in normal(ins[0])]]
    digits = [digit for dim in ins for digit in as_product(dim)]
    dims: Layout = []
    for size in outs:
        taken: Term = []
        while (have := prod(digit.size for digit in taken)) != size:
            first, *rest = _flat(digits)
            missing = size // have
            if first.size > missing:
                if size % have or first.size % missing:
                    pin([[digits]])
                    return [fixed(n) for n in outs]
                split(first, missing)
                digits = [first, *rest]
                continue
            if size % (have * first.size):
                pin([[taken], [digits]])
                return [fixed(n) for n in outs]
            taken.append(first)
            digits = rest
        dims.append([taken])
    return dims


def _flat(digits: Iterable[Digit]) -> Term:
    return [part for digit in digits for part in as_product([[digit]])]
