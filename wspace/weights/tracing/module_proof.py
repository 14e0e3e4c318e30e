"""Whether the permutations said of a module leave what it computes as it is: tried on random weights and inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from math import ceil, log
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from wspace.interfaces.weights import WeightSpec
from wspace.support.errors import UserError, reason
from wspace.support.progress import Progress
from wspace.weights.modules import copy_of
from wspace.weights.permutations import AxisPermutations
from wspace.weights.proof import DRAWS, Trial, prove_by, trial_error
from wspace.weights.tracing.by_hand import checked
from wspace.weights.tracing.infer import Inferred, weights_of, with_its_tensors

NETWORKS = 4  # at least
BY_CHANCE = 2**-16  # that all elements leave a unit of the shortest axis where it is
NOISE = 0.3  # of what starts at 0 or 1, so that no two units are alike


def module_error(module: nn.Module, inferred: Inferred, inputs: Sequence[Tensor], rng: torch.Generator) -> float:
    """max |f(g·w) - f(w)| / max |f(w)|, in evaluation, of one random network and a few random elements of the group."""
    spec = inferred.spec(module)
    return trial_error(AxisPermutations(spec), _trial(module, spec, inputs, rng), rng) if spec.free else 0.0


def _elements(spec: WeightSpec) -> int:
    """Of the group, on each random network: four if an axis has two units, one if all have sixteen or more.

    Where a single unit has a place of its own, an element that leaves it there shows nothing: of n units, one in n does.
    """
    units = (
        spec.axis_size(axis) // (spec.axis_size(outer) if (outer := spec.outer(axis)) else 1) for axis in spec.free
    )
    fewest = min((n for n in units if n > 1), default=2)
    return ceil(log(BY_CHANCE, 1 / fewest) / NETWORKS)


def prove_module(
    module: nn.Module,
    inferred: Inferred,
    inputs: Sequence[Tensor],
    rng: torch.Generator,
    progress: Progress | None = None,
) -> float:
    """The greatest change that permuting all free axes made of what random networks compute, relative; rounding.

    Networks have the module's architecture, in evaluation, inputs the shapes of these, in float32, and in float64 where
    that does not tell rounding from a wrong axis. Raises UserError if it is no rounding, which names the axis and the
    tensors whose dimension is none of it; for an axis on which nothing depends, of which nothing is proven; and for axes that
    cannot be those of this module's tensors.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in weights_of(module).items()}
    checked({name: [*shape] for name, shape in shapes.items()} | inferred.axes, shapes, inferred.free)
    spec = inferred.spec(module)
    if not spec.free:
        return 0.0
    who = type(module).__name__
    trials = (_trial(module, spec, inputs, rng) for _ in range(DRAWS))
    computed, of = f"{who} computes", f"the spec of {who}"
    elements = NETWORKS * _elements(spec)
    return prove_by(AxisPermutations(spec), spec, trials, rng, "permutation", computed, of, progress, elements)


@torch.no_grad()
def _trial(module: nn.Module, spec: WeightSpec, inputs: Sequence[Tensor], rng: torch.Generator) -> Trial:
    """One random network, on one random batch."""
    drawn = tuple(torch.randn(x.shape, generator=rng) if x.is_floating_point() else x for x in inputs)
    network = _random(module, spec, drawn, rng)
    tensors = weights_of(network)
    weights = spec.flatten({entry.name: tensors[entry.name].detach() for entry in spec.entries})[None]
    buffers = dict(network.named_buffers()).keys() & tensors.keys()

    def compute(flat: Tensor) -> list[Tensor]:
        with _precision(flat.dtype):
            given = [x.to(flat.dtype, copy=True) if x.is_floating_point() else x.clone() for x in drawn]
            moved = spec.unflatten(flat[0])
            moved |= {name: moved[name].detach() for name in buffers & moved.keys()}  # batch norm's have no gradient
            # `network.to(flat.dtype)` would take the imaginary part from complex tensors
            precise = network.double() if flat.dtype == torch.float64 else network.float()
            outputs = functional_call(with_its_tensors(precise), moved, tuple(given))
        return _numbers(outputs, type(module).__name__, flat.dtype)

    return Trial(weights, compute, _elements(spec))


def _numbers(outputs: object, who: str, dtype: torch.dtype) -> list[Tensor]:
    """All of its floating or complex outputs, flat, each with a dimension in front; if it has none, all others."""
    leaves = [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.numel()]
    leaves = [torch.view_as_real(leaf.resolve_conj()) if leaf.is_complex() else leaf for leaf in leaves]
    if not leaves:
        raise UserError(f"{who} returns no tensor, so nothing can be proven of its axes")
    floating = [leaf for leaf in leaves if leaf.is_floating_point()]
    return [leaf.reshape(1, -1) for leaf in floating or [leaf.to(dtype) for leaf in leaves]]


FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
COMPLEX = (torch.complex32, torch.complex64, torch.complex128)
REAL_CASTS, COMPLEX_CASTS = (
    {getattr(Tensor, name) for name in names}
    for names in (("half", "bfloat16", "float", "double"), ("chalf", "cfloat", "cdouble"))
)


@contextmanager
def _precision(dtype: torch.dtype) -> Iterator[None]:
    """Of what a module makes on its way, whatever precision it asks for there."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with _Cast(dtype):
            yield
    finally:
        torch.set_default_dtype(usual)


class _Cast(TorchFunctionMode):
    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.types = dict.fromkeys(FLOATING, dtype) | dict.fromkeys(COMPLEX, dtype.to_complex())
        self.casts = dict.fromkeys(REAL_CASTS, dtype) | dict.fromkeys(COMPLEX_CASTS, dtype.to_complex())

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in self.casts:
            return args[0].to(self.casts[func])

        def asked(given: Any) -> Any:
            return self.types.get(given, given) if isinstance(given, torch.dtype) else given

        return func(*map(asked, args), **{name: asked(given) for name, given in (kwargs or {}).items()})


def _random(module: nn.Module, spec: WeightSpec, inputs: tuple[Tensor, ...], rng: torch.Generator) -> nn.Module:
    """A network of this architecture, in float32, of which nothing is 0 and no two units are alike.

    The statistics of batch normalisation are those of the inputs, about, so that what goes through stays of one size.
    """
    network = copy_of(module).float()
    for weight in network.parameters():
        noise = torch.randn(weight.shape, generator=rng)
        # a matrix or kernel so that it keeps sizes (LeCun et al., 1998); what starts at 0 or 1 near to that
        weight.copy_(
            weight + NOISE * noise if weight.ndim < 2 else noise * (len(weight) / max(weight.numel(), 1)) ** 0.5
        )
    buffers = dict(network.named_buffers())
    for name in (entry.name for entry in spec.entries if entry.name in buffers):
        _wobble(buffers[name], rng)
    hooks = [
        part.register_forward_pre_hook(partial(_calibrate, rng=rng))
        for part in network.modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm)
    ]
    others = ((name, weight.dtype) for name, weight in module.named_parameters() if weight.dtype != torch.float32)
    of = next((f", where {name} is {str(dtype).removeprefix('torch.')}" for name, dtype in others), "")
    try:
        with _precision(torch.float32):
            functional_call(with_its_tensors(network), {}, tuple(x.clone() for x in inputs))
    except Exception as error:  # of the module's own code
        raise UserError(f"{type(module).__name__} cannot be tried in float32{of}: {reason(error)}") from error
    for hook in hooks:
        hook.remove()
    return network


def _wobble(buffer: Tensor, rng: torch.Generator) -> None:
    """What is positive stays so, as a variance must; what is 0 does not stay so, as a mean would prove anything."""
    scaled = buffer * (0.5 + torch.rand(buffer.shape, generator=rng))
    buffer.copy_(torch.where(buffer == 0, NOISE * torch.randn(buffer.shape, generator=rng), scaled))


def _calibrate(norm: nn.Module, inputs: tuple[Tensor, ...], rng: torch.Generator) -> None:
    """Statistics about those of what comes in; no variance is so small that rounding would grow.

    That of one pooled picture is 0, so the mean square of all channels is added.
    """
    channels = inputs[0].transpose(0, 1).flatten(1)
    mean, var = channels.mean(1), channels.var(1, correction=0)
    if isinstance(norm.running_mean, Tensor) and isinstance(norm.running_var, Tensor):
        norm.running_var.copy_((var + channels.square().mean()) * (0.5 + torch.rand(var.shape, generator=rng)))
        norm.running_mean.copy_(mean + NOISE * var.sqrt() * torch.randn(mean.shape, generator=rng))
