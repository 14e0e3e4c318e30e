"""Whether a symmetry is one: f(g·w) = f(w), tried on random weights and inputs; and what breaks it, if it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations

import torch
from torch import Tensor

from wspace.interfaces import Part, Symmetry, Target
from wspace.interfaces.axes import names_in
from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.support.errors import UserError

TOLERANCE = 1e-4  # relative, float32: an order above rounding, orders below a wrong axis
ELEMENTS, IMAGES, CLASSES = 16, 8, 5  # so many elements that not all are the identity, even of an axis of two units


@torch.no_grad()
def symmetry_error(symmetry: Symmetry, target: Target, dims: tuple[int, int], rng: torch.Generator) -> float:
    """max |f(g·w) - f(w)| / max |f(w)|, over random elements, weights and inputs; `dims` are F and T."""
    features = torch.randn(ELEMENTS, IMAGES, dims[0], generator=rng)
    texts = torch.randn(ELEMENTS, CLASSES, dims[1], generator=rng)
    weights = _weights(target, rng)
    before = target.logits(weights, features, texts)
    after = target.logits(symmetry.act(symmetry.sample(ELEMENTS, rng), weights), features, texts)
    return float((after - before).abs().max() / before.abs().max().clamp_min(1e-12))


def prove(symmetry: Symmetry, target: Target, name: str, dims: tuple[int, int], rng: torch.Generator) -> None:
    """Raise UserError unless the symmetry leaves the function of random networks of this target as it is.

    The message names the axis that breaks it and its tensors, where the symmetry has parts to try one by one; and if the
    target calls that axis free and is wrong about one tensor alone, that tensor.
    """

    def error_of(group: Symmetry) -> float:
        return symmetry_error(group, target, dims, rng)

    prove_by(symmetry, target.spec, error_of, name, "this target's networks compute", "the target's spec")


def prove_by(
    symmetry: Symmetry,
    spec: WeightSpec,
    error_of: Callable[[Symmetry], float],
    name: str,
    computed: str,
    spec_name: str,
) -> None:
    """The same for any function of weights of this spec, of which `error_of` tells how much a group changes it."""
    end = f"what {computed}, by {{:.3g}}% of the largest score{{}}"
    error = error_of(symmetry)
    if error < TOLERANCE:
        return
    for part in symmetry.parts():
        error_of_part = error_of(part.on(spec=spec))
        if not error_of_part < TOLERANCE:
            of = ", ".join(entry.name for entry in spec.entries if part.axis in entry.names)
            if part.axis in spec.free:
                hint = _misdeclared(part, spec, lambda group: error_of(group) < TOLERANCE, spec_name)
            else:
                hint = f"; free axes: {', '.join(spec.free) or 'none'}"
            raise UserError(
                f"symmetry {name!r}: {part.doing} axis {part.axis!r} (of {of}) changes "
                + end.format(100 * error_of_part, hint)
            )
    raise UserError(f"symmetry {name!r}: it changes " + end.format(100 * error, ""))


def _weights(target: Target, rng: torch.Generator) -> Tensor:
    """Weights (B, P) about as large as fresh ones, none of them zero: a bias that starts at 0 would prove anything."""
    fresh = target.init(ELEMENTS, rng)
    return fresh + fresh.square().mean().sqrt().clamp_min(0.01) * torch.randn(fresh.shape, generator=rng)


def _misdeclared(part: Part, spec: WeightSpec, holds: Callable[[Symmetry], bool], spec_name: str) -> str:
    """The tensor without whose axes as declared the symmetry would hold, in words; nothing, if there is no such one."""
    for entry in spec.entries:
        declared = tuple(dim for dim, text in enumerate(entry.axes) if part.axis in names_in(text))
        for dims in _dimensions(entry, declared, spec.axis_size(part.axis)):
            if dims == declared:
                continue
            whole = (entry.axes[dim] if dim in declared else part.axis for dim in range(len(entry.shape)))
            axes = (text if dim in dims else str(entry.shape[dim]) for dim, text in enumerate(whole))
            other = replace(entry, axes=tuple(axes))
            try:
                group = part.on(spec=replace(spec, entries=tuple(other if e is entry else e for e in spec.entries)))
            except UserError:  # no such group on such a spec
                continue
            if holds(group):
                return f"; {spec_name} is wrong about tensor {entry.name!r}: {_corrected(part.axis, declared, dims)}"
    return ""


def _dimensions(entry: WeightEntry, declared: tuple[int, ...], length: int) -> Iterator[tuple[int, ...]]:
    """Every set of dimensions that could be an axis of this length, or are said to have it."""
    fitting = [dim for dim, size in enumerate(entry.shape) if size == length or dim in declared]
    for count in range(len(fitting) + 1):
        yield from combinations(fitting, count)


def _corrected(axis: str, declared: tuple[int, ...], dims: tuple[int, ...]) -> str:
    old, new = (f"dimension{'s' * (len(chosen) > 1)} {' and '.join(map(str, chosen))}" for chosen in (declared, dims))
    if not dims:
        return f"its {old} is not axis {axis!r}"
    return f"axis {axis!r} is its {new}" + (f", not {old}" if declared else "")
