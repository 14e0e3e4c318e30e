"""Laws of groups that act on weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any, Literal, get_args, get_origin

from torch import Tensor

from wspace.interfaces import Symmetry, Target
from wspace.support.errors import UserError
from wspace.testing.every import repeats, rows_alone
from wspace.testing.law import check
from wspace.testing.subject import FEATURES, TEXTS, Instance, Subject, apart, normal, rng_of
from wspace.testing.verdicts import Unbuilt
from wspace.weights.proof import TOLERANCE, symmetry_error

COUNT = 5
EXACT = 1e-4  # relative, float32: an order above rounding
VARIANTS = 24  # of one target's choices, at most


@check("symmetry")
def check_elements_are_rows_of_one_tensor(subject: Subject) -> None:
    for group, _ in _groups(subject):
        drawn, identity = group.sample(COUNT, rng_of("sample")), group.identity(COUNT)
        subject.hold(
            drawn.ndim == 2 and len(drawn) == COUNT and drawn.shape == identity.shape,
            f"{COUNT} elements and {COUNT} identities should have one shape ({COUNT}, E), and have {tuple(drawn.shape)} "
            f"and {tuple(identity.shape)}",
        )


@check("symmetry")
def check_elements_follow_the_seed(subject: Subject) -> None:
    for group, _ in _groups(subject):
        repeats(subject, "its elements", lambda rng, group=group: group.sample(COUNT, rng))


@check("symmetry")
def check_it_is_not_the_trivial_group(subject: Subject) -> None:
    """Unless its elements say so, by being empty."""
    for group, weights in _groups(subject):
        elements = group.sample(COUNT, rng_of("sample"))
        moved = apart(group.act(elements, weights), weights) > EXACT
        subject.hold(moved or not elements.shape[1], "its elements should move weights, and none of five does")


@check("symmetry")
def check_identity_moves_nothing(subject: Subject) -> None:
    for group, weights in _groups(subject):
        subject.near("weights moved by the identity", group.act(group.identity(COUNT), weights), weights, EXACT)


@check("symmetry")
def check_inverse_moves_back(subject: Subject) -> None:
    for group, weights in _groups(subject):
        elements = group.sample(COUNT, rng_of("sample"))
        back = group.act(group.inverse(elements), group.act(elements, weights))
        subject.near("weights moved, and moved back by the inverse", back, weights, EXACT)


@check("symmetry")
def check_composition_is_one_after_the_other(subject: Subject) -> None:
    for group, weights in _groups(subject):
        left, right = group.sample(COUNT, rng_of("left")), group.sample(COUNT, rng_of("right"))
        both = group.act(group.compose(left, right), weights)
        subject.near("compose(g, h)·w against g·(h·w)", both, group.act(left, group.act(right, weights)), EXACT)


@check("symmetry")
def check_acts_linearly(subject: Subject) -> None:
    for group, weights in _groups(subject):
        elements, others = group.sample(COUNT, rng_of("sample")), normal(*weights.shape, seed=8)
        apart_ = 2 * group.act(elements, weights) - 3 * group.act(elements, others)
        subject.near(
            "g·(2 v - 3 w) against 2 g·v - 3 g·w", group.act(elements, 2 * weights - 3 * others), apart_, EXACT
        )


@check("symmetry")
def check_networks_are_moved_by_themselves(subject: Subject) -> None:
    for group, weights in _groups(subject):
        elements = group.sample(COUNT, rng_of("sample"))

        def alone(row: int, group: Symmetry = group, elements: Tensor = elements, weights: Tensor = weights) -> Tensor:
            return group.act(elements[row : row + 1], weights[row : row + 1])

        rows_alone(subject, "moved network", group.act(elements, weights), alone)


@check("symmetry")
def check_aligns_what_it_moved(subject: Subject) -> None:
    """A reference that was moved comes back near; to where it was, if a single axis was moved."""
    for instance in subject.instances:
        group: Symmetry = instance.made
        reference = _weights(instance)[0]
        moved = group.act(group.sample(COUNT, rng_of("sample")), reference.expand(COUNT, -1))
        before = (moved - reference).norm()
        for what, references in (("one reference", reference), ("a reference for each", reference.expand(COUNT, -1))):
            left = (group.canonicalize(moved, references) - reference).norm()
            single = len(instance.around.spec.free) == 1
            allowed = EXACT * reference.norm() * COUNT if single else before * (1 + EXACT)
            subject.hold(
                left <= allowed,
                f"aligned to the network they were moved from ({what}), networks are {float(left):.2g} from it, and were "
                f"{float(before):.2g} before",
            )


@check("symmetry")
def check_leaves_functions_as_they_are(subject: Subject) -> None:
    """f(g·w) = f(w), for one or more of the targets there are: as their examples have them, with each of their choices."""
    tried: dict[str, float] = {}
    for name, target in _targets(subject):
        try:
            group: Symmetry = subject.bound.build(subject.instances[0].around.given | {"spec": target.spec})
        except UserError:
            continue
        error = symmetry_error(group, target, (FEATURES, TEXTS), rng_of("function"))
        if error < TOLERANCE:
            return
        tried[name] = error
    if not tried:
        subject.fail("it should act on one or more of the targets there are, and takes the weights of none")
    nearest = min(tried, key=tried.__getitem__)
    subject.fail(
        f"f(g·w) = f(w) should hold for one or more of the targets there are, and does for none of {len(tried)}: nearest "
        f"is {nearest}, whose scores change by {tried[nearest]:.2g} of the largest"
    )


@check("symmetry")
def check_parts_are_groups_on_its_axes(subject: Subject) -> None:
    for instance in subject.instances:
        spec = instance.around.spec
        axes = {axis for entry in spec.entries for axis in entry.names}
        for part in instance.made.parts():
            subject.hold(part.axis in axes, f"a part of it moves axis {part.axis!r}, and no tensor has it")
            group, weights = part.on(spec=spec), _weights(instance)
            moved = group.act(group.sample(COUNT, rng_of("part")), weights)
            for entry in spec.entries:
                where = spec.slices[entry.name]
                if part.axis not in entry.names and not any(spec.outer(axis) == part.axis for axis in entry.names):
                    off = apart(moved[:, where], weights[:, where])
                    subject.hold(
                        off <= EXACT,
                        f"its part on axis {part.axis!r} should leave tensor {entry.name!r} alone, and moves it by {off:.2g} "
                        "of its largest value",
                    )


def _weights(instance: Instance) -> Tensor:
    return normal(COUNT, instance.around.spec.size, seed=7)


def _groups(subject: Subject) -> Iterator[tuple[Symmetry, Tensor]]:
    """On each spec that it takes, with weights (COUNT, P) for it."""
    for instance in subject.instances:
        yield instance.made, _weights(instance)


def _targets(subject: Subject) -> Iterator[tuple[str, Target]]:
    """Every registered target, with every combination of its choices."""
    for component in subject.registry.all("target"):
        other = Subject(component, subject.registry)
        try:
            around = other.instances[0].around
        except (UserError, Unbuilt):  # told by that target's own checks
            continue
        choices = {p.name: _choices(p.annotation) for p in other.bound.signature.settable.values()}
        choices = {name: indices for name, indices in choices.items() if indices}
        for chosen in list(product(*choices.values()))[:VARIANTS]:
            picked = dict(zip(choices, chosen, strict=True))
            try:
                target = replace(other.bound, arguments=other.bound.arguments | picked).build(around.given)
            except UserError:
                continue
            yield f"target {component.name!r} with {picked}" if picked else f"target {component.name!r}", target


def _choices(annotation: Any) -> tuple[Any, ...]:
    """Values of a Literal or a bool; nothing for what has no end."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return (False, True) if annotation is bool else ()
