"""Which hidden units of two networks do the same on given inputs, and the moves that bring one network near the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.overrides import TorchFunctionMode

from wspace.interfaces.axes import Block
from wspace.interfaces.weights import WeightEntry, WeightSpec
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
    Units are read where linear maps, convolutions and embeddings make them, before any normalisation or nonlinearity,
    in layers, in torch's attention and wherever a module applies a weight itself; where several add to one axis (a residual
    stream), what they find is added.

    `spec` calls tensors as the modules do. Beside one network's activations on one batch only sums are held: a number for
    each pair of units of a layer. Both networks run as for evaluation. Raises UserError.
    """
    axes = axes_of(spec, axes, MATCHING)
    families, made = families_of(spec, axes), _Stretches(spec, axes)
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


@dataclass(frozen=True)
class _Use:
    """Of a stretch of a tensor, whose units are along dimension `side` of it and `dim` of what is made of it."""

    name: str
    side: int
    start: int
    length: int
    dim: int


class _Stretches(dict[_Use, list[_Made]]):
    """What each use makes along these axes."""

    def __init__(self, spec: WeightSpec, axes: tuple[str, ...]):
        super().__init__()
        self.spec, self.axes = spec, axes
        self.entries = {entry.name: entry for entry in spec.entries}

    def __missing__(self, use: _Use) -> list[_Made]:
        made = []
        for block in self.spec.layout(self.entries[use.name])[use.side]:
            axis = block.axis if block.axis in self.axes else block.outer
            inside = use.start <= block.start and block.start + block.length <= use.start + use.length
            if axis in self.axes and axis is not None and inside:
                stretch = replace(block, start=block.start - use.start)
                made.append(_Made(axis, self.spec.axis_size(axis), use.dim, stretch))
        self[use] = made
        return made


def _add(network: nn.Module, reference: nn.Module, inputs: Tensor, made: _Stretches) -> None:
    """What both do on one batch; the reference's activations are let go at once."""
    ours: dict[_Use, list[Tensor]] = defaultdict(list)

    def keep(use: _Use, output: Tensor) -> None:
        if made[use]:
            ours[use].append(output.clone())  # what follows may change it in place

    def compare(use: _Use, output: Tensor) -> None:
        activations = ours[use].pop(0) if made[use] else output  # a weight may be used again
        for along in made[use]:
            along.add(along.rows(activations), along.rows(output))

    with torch.no_grad():
        for module, hear in ((network, keep), (reference, compare)):
            with _watched(module, made.entries, hear):
                try:
                    module(inputs)
                except Exception as error:  # of the module's own code
                    dtype = str(inputs.dtype).removeprefix("torch.")
                    raise UserError(f"{MATCHING}: a network fails on inputs of {dtype}: {reason(error)}") from error


# ---------------------------------------------------------------- where weights are used


WEIGHTS = ("weight", "parametrizations.weight.original", "parametrizations.weight.original1", "weight_v", "weight_orig")
"""What a layer's weight is called, or what has its shape and it is made of, by a parametrisation or an older hook."""


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


OPERATIONS: dict[Any, tuple[int, str, int, int]] = {  # where the weight is given, and which sides its units are on
    functional.linear: (1, "weight", 0, -1),
    functional.embedding: (1, "weight", 1, -1),
    torch.conv1d: (1, "weight", 0, -2),
    torch.conv2d: (1, "weight", 0, -3),
    torch.conv3d: (1, "weight", 0, -4),
    torch.matmul: (1, "other", 1, -1),
    Tensor.matmul: (1, "other", 1, -1),
    Tensor.__matmul__: (1, "other", 1, -1),
    torch.mm: (1, "mat2", 1, -1),
    Tensor.mm: (1, "mat2", 1, -1),
    torch.addmm: (2, "mat2", 1, -1),
}

Hear = Callable[[_Use, Tensor], None]


class _Operations(TorchFunctionMode):
    """Hears of what is made of the network's tensors outside layers: by torch's attention, or by a module's own code."""

    def __init__(self, network: nn.Module, names: Container[str], hear: Hear):
        super().__init__()
        self.hear, self.in_layers = hear, 0
        matrices = ((n, w) for n, w in network.named_parameters() if n in names and w.ndim > 1)
        self.by_storage = {weight.untyped_storage().data_ptr(): (name, weight) for name, weight in matrices}

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if self.in_layers:
            return output
        if func is functional.multi_head_attention_forward:
            given = signature(func).bind(*args, **kwargs).arguments
            for weight, made in [*_projections(given), (given["out_proj_weight"], output[0])]:
                self._made_of(weight, 0, -1, made)
        elif func in OPERATIONS:
            place, name, side, dim = OPERATIONS[func]
            self._made_of(args[place] if len(args) > place else kwargs[name], side, dim, output)
        return output

    def _made_of(self, weight: Tensor, side: int, dim: int, output: Tensor) -> None:
        """Of a weight as it is or transposed, or of a stretch of one, such as a third of packed queries, keys and values."""
        name, whole = self.by_storage.get(weight.untyped_storage().data_ptr(), ("", weight))
        if not name or weight.ndim != whole.ndim:
            return
        units = weight.shape[side]
        if weight.stride() != whole.stride():
            if weight.ndim != 2 or weight.stride() != whole.stride()[::-1]:
                return
            side = 1 - side
        start = int(weight.storage_offset() - whole.storage_offset()) // whole.stride(side)
        self.hear(_Use(name, side, start, units, dim), output)


def _projections(given: Mapping[str, Any]) -> Iterator[tuple[Tensor, Tensor]]:
    """The weights of queries, keys and values, and what they make, before heads are split."""
    if given.get("use_separate_proj_weight"):
        weights = [given[f"{name}_proj_weight"] for name in ("q", "k", "v")]
    else:
        weights = given["in_proj_weight"].chunk(3)
    biases = [None] * 3 if given["in_proj_bias"] is None else given["in_proj_bias"].chunk(3)
    for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
        yield weight, functional.linear(given[name], weight, bias)


@contextmanager
def _watched(network: nn.Module, entries: Mapping[str, WeightEntry], hear: Hear) -> Iterator[None]:
    with ExitStack() as stack:
        operations = stack.enter_context(_Operations(network, entries, hear))

        def called(_layer: nn.Module, _inputs: object) -> None:
            operations.in_layers += 1

        for name, layer in network.named_modules():
            names = (f"{name}.{tensor}" if name else tensor for tensor in WEIGHTS)
            entry = next((entries[tensor] for tensor in names if tensor in entries), None)
            if entry is None or (sides := _sides(layer)) is None:
                continue
            use = _Use(entry.name, sides[0], 0, entry.shape[sides[0]], sides[1])

            def done(_layer: nn.Module, _inputs: object, output: Tensor, use: _Use = use) -> None:
                operations.in_layers -= 1
                hear(use, output)

            stack.callback(layer.register_forward_pre_hook(called).remove)
            stack.callback(layer.register_forward_hook(done).remove)
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
