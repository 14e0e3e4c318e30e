"""Which hidden units of two networks do the same on given inputs, and the moves that bring one network near the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from wspace.interfaces.axes import Block
from wspace.interfaces.weights import WeightSpec
from wspace.support.errors import UserError, reason
from wspace.weights.matching.by_weights import Move, assigned, axes_of, families_of

Measure = Literal["correlation", "product"]
MATCHING = "activation matching"
ROUNDING = 1e-6  # of a unit's size: what varies less is a constant


def match_activations(
    network: nn.Module,
    reference: nn.Module,
    batches: Iterable[Tensor],
    spec: WeightSpec,
    axes: Sequence[str] | None = None,
    measure: Measure = "correlation",
) -> dict[str, Move]:
    """Moves of these axes, or of all free ones, under which units of `network` do most nearly what the reference's do.

    Activation matching (Li et al., 2015, "Convergent Learning", section 3; Ainsworth et al., 2022, section 3.1): one linear
    assignment for each axis, whatever becomes of the others. What a unit is worth in another's place is the correlation of
    the two over all inputs and positions, or their mean product, which is what the latter paper's least squares come to.
    Units are read where linear layers, convolutions and embeddings make them, before any normalisation or nonlinearity;
    where several layers add to one axis (a residual stream), what they find is added.

    `spec` calls tensors as the modules do. Beside one network's activations on one batch only sums are held: a number for
    each pair of units of a layer. Both networks run as for evaluation. Raises UserError.
    """
    axes = axes_of(spec, axes, MATCHING)
    families, made = families_of(spec, axes), _made(network, spec, axes)
    others = reference.state_dict()
    for entry in spec.entries:
        if entry.name not in others or others[entry.name].shape != entry.shape:
            raise UserError(f"{MATCHING}: the networks differ in the shape of {entry.name!r}")
    with evaluating(network, reference):
        for inputs in batches:
            _add(network, reference, inputs, made)
    moves: dict[str, Move] = {}
    for family in families:
        worth = {axis: torch.zeros(1, spec.axis_size(axis), spec.axis_size(axis)) for axis in family}
        seen = [along for layer in made.values() for along in layer if along.axis in family and along.samples]
        for axis in family[1:] or family:  # an outer axis is worth what those within it are
            if all(along.axis != axis for along in seen):
                raise UserError(
                    f"{MATCHING}: no linear layer, convolution or embedding was seen to make axis {axis!r}: "
                    "give inputs that reach one, or match weights"
                )
        for along in seen:
            worth[along.axis] += along.worth(measure).float().cpu()
        if not all(value.isfinite().all() for value in worth.values()):
            raise UserError(
                f"{MATCHING}: what a network does along axis {family[0]!r} is not a finite number: look for nan or inf in "
                "the inputs and the weights"
            )
        moves |= assigned(worth, spec)
    return moves


class _Made:
    """A stretch of a layer's output, made along one axis, and sums over what two networks did there."""

    def __init__(self, axis: str, units: int, dim: int, block: Block):
        self.axis, self.units, self.dim, self.block = axis, units, dim, block
        self.samples = 0

    def rows(self, output: Tensor) -> Tensor:
        """(samples, units): every other dimension, and every slice of a unit, is one more sample."""
        stretch = output.narrow(self.dim, self.block.start, self.block.length).movedim(self.dim, -1)
        rows = stretch.unflatten(-1, (self.units, -1)).transpose(-1, -2).reshape(-1, self.units)
        return rows.to(torch.promote_types(rows.dtype, torch.float32))  # sums of half precision round

    def add(self, ours: Tensor, theirs: Tensor) -> None:
        """(samples, units) each. Sums are taken about the first batch's means, so that large ones cancel nothing."""
        if not self.samples:
            self.centre = torch.stack([ours.mean(0), theirs.mean(0)]).double()
            self.first, self.second = torch.zeros_like(self.centre), torch.zeros_like(self.centre)
            self.cross = self.centre.new_zeros(self.units, self.units)  # of theirs i and ours j
        ours, theirs = (rows - mean for rows, mean in zip((ours, theirs), self.centre.to(ours.dtype), strict=True))
        self.samples += len(ours)
        self.first += torch.stack([ours.sum(0), theirs.sum(0)])
        self.second += torch.stack([ours.square().sum(0), theirs.square().sum(0)])
        self.cross += theirs.T @ ours

    def worth(self, measure: Measure) -> Tensor:
        """(units, units): of unit j of ours in the place of unit i of theirs."""
        ours, theirs = shift = self.first / self.samples
        covariance = self.cross / self.samples - theirs[:, None] * ours
        ours, theirs = mean = self.centre + shift
        if measure == "product":
            return covariance + theirs[:, None] * ours
        deviation = (self.second / self.samples - shift.square()).clamp_min(0).sqrt()
        ours, theirs = torch.where(deviation > ROUNDING * mean.abs(), deviation, torch.inf)
        return covariance / (theirs[:, None] * ours)


def _made(network: nn.Module, spec: WeightSpec, axes: tuple[str, ...]) -> dict[str, list[_Made]]:
    """By the name of the layer, what it makes along these axes."""
    entries, by_layer = {entry.name: entry for entry in spec.entries}, dict[str, list[_Made]]()
    for name, layer in network.named_modules():
        entry, sides = entries.get(f"{name}.weight" if name else "weight"), _sides(layer)
        if entry is None or sides is None:
            continue
        of_weight, of_output = sides
        for block in spec.layout(entry)[of_weight]:
            axis = block.axis if block.axis in axes else block.outer
            if axis in axes:
                by_layer.setdefault(name, []).append(_Made(axis, spec.axis_size(axis), of_output, block))
    return by_layer


def _sides(layer: nn.Module) -> tuple[int, int] | None:
    """Along which dimension of its weight, and of its output, a layer makes units; None if it makes none."""
    match layer:
        case nn.Linear():
            return 0, -1
        case nn.Embedding():
            return 1, -1
        case _ConvTransposeNd(groups=1):
            return 1, -1 - len(layer.kernel_size)
        case _ConvTransposeNd():
            return None
        case _ConvNd():
            return 0, -1 - len(layer.kernel_size)
    return None


def _add(network: nn.Module, reference: nn.Module, inputs: Tensor, made: Mapping[str, list[_Made]]) -> None:
    """What both do on one batch; the reference's activations are let go at once."""
    ours: dict[str, list[Tensor]] = {name: [] for name in made}

    def keep(name: str, output: Tensor) -> None:
        ours[name].append(output.clone())  # what follows may change it in place

    def compare(name: str, output: Tensor) -> None:
        activations = ours[name].pop(0)  # a layer may be called again
        for along in made[name]:
            along.add(along.rows(activations), along.rows(output))

    with torch.no_grad():
        for module, hook in ((network, keep), (reference, compare)):
            with _watched(module, made, hook):
                try:
                    module(inputs)
                except Exception as error:  # of the module's own code
                    dtype = str(inputs.dtype).removeprefix("torch.")
                    raise UserError(
                        f"activation matching: a network fails on inputs of {dtype}: {reason(error)}"
                    ) from error


@contextmanager
def _watched(network: nn.Module, names: Iterable[str], hook: Callable[[str, Tensor], None]) -> Iterator[None]:
    with ExitStack() as stack:
        for name in names:

            def called(_layer: nn.Module, _inputs: object, output: Tensor, name: str = name) -> None:
                hook(name, output)

            stack.callback(network.get_submodule(name).register_forward_hook(called).remove)
        yield


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """As for evaluation; afterwards every layer is in the mode it was in."""
    modes = {layer: layer.training for network in networks for layer in network.modules()}
    try:
        for network in networks:
            network.eval()
        yield
    finally:
        for layer, training in modes.items():
            layer.training = training
