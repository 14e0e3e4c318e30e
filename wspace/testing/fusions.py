"""Laws of fusions."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from wspace.interfaces import Fusion
from wspace.testing.every import repeats, rows_alone
from wspace.testing.law import check
from wspace.testing.subject import Subject, apart, normal

PAIRS = 3
SEEN = 1e-6  # relative: less is rounding


@check("fusion")
def check_fused_networks_are_shaped_as_weights(subject: Subject) -> None:
    for fusion, first, second in _pairs(subject):
        subject.shaped("what it makes of three pairs", fusion.fuse(first, second), tuple(first.shape))


@check("fusion")
def check_networks_that_are_fused_stay_as_they_are(subject: Subject) -> None:
    for fusion, first, second in _pairs(subject):
        for what, given in (("the first", first), ("the second", second)):
            before = given.clone()
            fusion.fuse(first, second)
            subject.equal(f"{what} of the networks it was given, afterwards", given, before)


@check("fusion")
def check_fuses_the_same_twice(subject: Subject) -> None:
    for fusion, first, second in _pairs(subject):
        repeats(subject, "what it makes of two networks", lambda rng, f=fusion, a=first, b=second: f.fuse(a, b))


@check("fusion")
def check_pairs_do_not_see_each_other(subject: Subject) -> None:
    for fusion, first, second in _pairs(subject):

        def alone(row: int, fusion: Fusion = fusion, first: Tensor = first, second: Tensor = second) -> Tensor:
            return fusion.fuse(first[row : row + 1], second[row : row + 1])

        rows_alone(subject, "what it makes of pair", fusion.fuse(first, second), alone)


@check("fusion")
def check_both_networks_matter(subject: Subject) -> None:
    for fusion, first, second in _pairs(subject):
        fused, other = fusion.fuse(first, second), normal(*first.shape, seed=93)
        for what, changed in (("first", fusion.fuse(other, second)), ("second", fusion.fuse(first, other))):
            subject.hold(apart(changed, fused) > SEEN, f"what it makes should hang on the {what} network, and does not")


def _pairs(subject: Subject) -> Iterator[tuple[Fusion, Tensor, Tensor]]:
    """In each of the surroundings that it takes, with networks (3, P) and (3, P)."""
    for instance in subject.instances:
        size = instance.around.spec.size
        yield instance.made, normal(PAIRS, size, seed=91), normal(PAIRS, size, seed=92)
