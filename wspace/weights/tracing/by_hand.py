"""Axes that somebody wrote, in a file or as an architecture's own word: whether they can be those of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wspace.interfaces.axes import names_in, read
from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.support.errors import UserError, nearest
from wspace.weights.tracing.infer import Inferred

Shapes = Mapping[str, tuple[int, ...]]


def checked(written: Mapping[str, Any], shapes: Shapes, free: Sequence[str] | None = None) -> Inferred:
    """What is written of a network with tensors of these shapes; if `free` is left out, every axis that has a name is.

    Raises UserError, which names tensor and dimension.
    """
    for name in written:
        if name not in shapes:
            raise UserError(f"the network has no tensor {name!r}{nearest(name, list(shapes))}")
    for name in shapes:
        if name not in written:
            raise UserError(f"tensor {name!r} is missing; write {[*shapes[name]]} if nothing of it moves")
    axes = {name: _axes(name, written[name], shapes[name]) for name in shapes}
    spec = WeightSpec(tuple(WeightEntry(name, shapes[name], dims) for name, dims in axes.items()))
    for entry in spec.entries:
        spec.layout(entry)  # every dimension is as long as its axes
    axis_names = tuple(dict.fromkeys(axis for dims in axes.values() for text in dims for axis in names_in(text)))
    for axis in free or ():
        if axis not in axis_names:
            raise UserError(f"free: no tensor has an axis {axis!r}{nearest(axis, axis_names)}")
    return Inferred(axes, axis_names if free is None else tuple(free))


def _axes(name: str, written: Any, shape: tuple[int, ...]) -> tuple[str, ...]:
    if not isinstance(written, list | tuple) or not all(isinstance(text, str | int) for text in written):
        raise UserError(f"tensor {name!r} is not a list with an axis, or a number, for each dimension")
    if len(written) != len(shape):
        raise UserError(f"tensor {name!r} has {len(shape)} dimensions, {[*shape]}, and {len(written)} are written")
    for dim, text in enumerate(written):
        try:
            read(str(text))
        except UserError as error:
            raise UserError(f"tensor {name!r}, dimension {dim}: {error}") from error
    return tuple(str(text) for text in written)
