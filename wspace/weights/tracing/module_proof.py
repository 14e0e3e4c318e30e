"""Whether the permutations said of a module leave what it computes as it is: tried on random weights and inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from wspace.interfaces import Symmetry
from wspace.interfaces.weights import WeightSpec
from wspace.weights.modules import copy_of
from wspace.weights.permutations import AxisPermutations
from wspace.weights.proof import prove_by
from wspace.weights.tracing.infer import Inferred, weights_of, with_its_tensors

ELEMENTS = 4  # of the group
NOISE = 0.3  # of what starts at 0 or 1, so that no two units are alike


def module_error(module: nn.Module, inferred: Inferred, inputs: Sequence[Tensor], rng: torch.Generator) -> float:
    """max |f(g·w) - f(w)| / max |f(w)|, in evaluation, over random elements, weights and inputs of these shapes."""
    spec = inferred.spec(module)
    return _trial(module, spec, inputs, rng)(AxisPermutations(spec)) if spec.free else 0.0


def prove_module(module: nn.Module, inferred: Inferred, inputs: Sequence[Tensor], rng: torch.Generator) -> None:
    """Raise UserError unless that is rounding; it names the axis, and the tensor whose dimension is none of it."""
    spec = inferred.spec(module)
    if spec.free:
        name = type(module).__name__
        error_of = _trial(module, spec, inputs, rng)
        prove_by(AxisPermutations(spec), spec, error_of, "permutation", f"{name} computes", f"the spec of {name}")


@torch.no_grad()
def _trial(
    module: nn.Module, spec: WeightSpec, inputs: Sequence[Tensor], rng: torch.Generator
) -> Callable[[Symmetry], float]:
    """The error of a group, on one random network and one batch."""
    drawn = tuple(torch.randn(x.shape, generator=rng) if x.is_floating_point() else x for x in inputs)
    network = _random(module, drawn, rng)
    weights = spec.flatten({entry.name: weights_of(network)[entry.name].detach() for entry in spec.entries})[None]
    before = _outputs(network, {}, drawn)
    largest = before.abs().max().clamp_min(1e-12)

    @torch.no_grad()
    def error_of(group: Symmetry) -> float:
        errors = []
        for _ in range(ELEMENTS):
            moved = spec.unflatten(group.act(group.sample(1, rng), weights)[0])
            errors.append((_outputs(network, moved, drawn) - before).abs().max() / largest)
        return float(torch.stack(errors).max())  # which is nan if one is

    return error_of


def _outputs(network: nn.Module, weights: Mapping[str, Tensor], inputs: tuple[Tensor, ...]) -> Tensor:
    """All of its floating outputs, side by side."""
    leaves = pytree.tree_leaves(functional_call(with_its_tensors(network), dict(weights), inputs))
    return torch.cat([leaf.flatten() for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()])


def _random(module: nn.Module, inputs: tuple[Tensor, ...], rng: torch.Generator) -> nn.Module:
    """A network of this architecture, of which nothing is 0 and no two units are alike.

    The statistics of batch normalisation are those of the inputs, about, so that what goes through stays of one size.
    """
    network = copy_of(module)
    for weight in network.parameters():
        noise = torch.randn(weight.shape, generator=rng)
        # a matrix or kernel so that it keeps sizes (LeCun et al., 1998); what starts at 0 or 1 near to that
        weight.copy_(weight + NOISE * noise if weight.ndim < 2 else noise * (len(weight) / weight.numel()) ** 0.5)
    hooks = [
        part.register_forward_pre_hook(partial(_calibrate, rng=rng))
        for part in network.modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm)
    ]
    _outputs(network, {}, inputs)
    for hook in hooks:
        hook.remove()
    return network


def _calibrate(norm: nn.Module, inputs: tuple[Tensor, ...], rng: torch.Generator) -> None:
    """Statistics about those of what comes in; no variance is so small that rounding would grow."""
    channels = inputs[0].transpose(0, 1).flatten(1)
    mean, var = channels.mean(1), channels.var(1, correction=0)
    if isinstance(norm.running_mean, Tensor) and isinstance(norm.running_var, Tensor):
        norm.running_var.copy_((var + var.mean()) * (0.5 + torch.rand(var.shape, generator=rng)))
        norm.running_mean.copy_(mean + NOISE * var.sqrt() * torch.randn(mean.shape, generator=rng))
