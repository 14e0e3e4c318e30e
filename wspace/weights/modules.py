"""Modules as torch has them: copies, tensors with memory in common, and weights that are none."""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from wspace.support.errors import UserError, reason


def check_weights(module: nn.Module, who: str) -> None:
    """Raises UserError, one sentence after `who`, unless all that a state dict has are tensors with a shape and values."""
    for name, value in module.state_dict(keep_vars=True).items():
        if is_lazy(value):
            raise UserError(
                f"{who}: {name} is lazy and has no shape yet: call the module once before, or give its sizes"
            )
        if not is_extra(name) and (not isinstance(value, Tensor) or value.is_quantized):
            raise UserError(
                f"{who}: {name} is of a quantized layer, and its weights are no real numbers: quantize it later"
            )


def is_extra(name: str) -> bool:
    """Whether a state dict calls so what a module's `get_extra_state` gives: of any kind, and no weight."""
    return name.rpartition(".")[2] == "_extra_state"


def copy_of(module: nn.Module, shared: Sequence[Tensor] = ()) -> nn.Module:
    """A copy in evaluation, which has these very tensors, and shares what cannot be copied: a lock, a tensor kept of a run.

    Raises UserError for a module that does not let itself be copied.
    """
    memo = {id(tensor): tensor for tensor in shared}
    try:
        return deepcopy(module, dict(memo)).eval()
    except Exception:  # of anything that the module holds
        memo |= {id(value): value for value in _not_copied(module)}
    try:
        return deepcopy(module, memo).eval()
    except Exception as error:
        raise UserError(f"{type(module).__name__} cannot be copied: {reason(error)}") from error


def _not_copied(module: nn.Module) -> Iterator[Any]:
    """What a module and its parts hold, in containers too, and deepcopy refuses."""
    parts = {id(part): part for part in (*module.modules(), *module.parameters(), *module.buffers())}
    for part in module.modules():
        for value in pytree.tree_leaves(dict(vars(part))):
            try:
                deepcopy(value, dict(parts))
            except Exception:
                yield value


def tie(module: nn.Module) -> None:
    """Make one parameter, or buffer, of those that are the same view of the same memory, as `assign=True` leaves them."""
    for kind in ("_parameters", "_buffers"):
        first = dict[Hashable, Tensor]()
        for part in module.modules():
            for name, tensor in list(vars(part)[kind].items()):
                if tensor is not None and tensor.numel() and first.setdefault(_view(tensor), tensor) is not tensor:
                    setattr(part, name, first[_view(tensor)])


def check_memory(module: nn.Module, chosen: Container[str], who: str) -> None:
    """Raises UserError if a chosen tensor, called as in a state dict, shares memory with another, which a file cannot hold."""
    parameters, buffers = (
        dict(each(remove_duplicate=False)) for each in (module.named_parameters, module.named_buffers)
    )
    pair = _overlapping(parameters | buffers, chosen)
    if pair is not None:
        first, second = pair
        what = "has several values in one place" if first == second else f"shares memory with {first}, as another view"
        raise UserError(
            f"{who}: {second} {what}: make them one parameter, or give each value memory of its own (clone)"
        )


def _overlapping(tensors: Mapping[str, Tensor], chosen: Container[str]) -> tuple[str, str] | None:
    """Names of two of these, one of them `chosen`, that are not one object and have a value in common.

    The same name twice for a chosen one that has several values in one place. None where each value has its own, as in
    parameters that are cut out of one long vector.
    """
    by_storage, seen = dict[int, dict[str, Tensor]](), set[int]()
    for name in sorted(tensors, key=lambda name: name not in chosen):
        tensor = tensors[name]
        if id(tensor) not in seen and tensor.numel() and not tensor.is_meta:
            by_storage.setdefault(tensor.untyped_storage().data_ptr(), {})[name] = tensor
        seen.add(id(tensor))
    for together in by_storage.values():
        taken = torch.zeros(max(t.untyped_storage().nbytes() for t in together.values()), dtype=torch.bool)
        for name, tensor in together.items():
            if len(together) == 1 and tensor.is_contiguous():
                continue
            places = _bytes(tensor)
            if taken[places].any():
                return next(o for o, other in together.items() if torch.isin(_bytes(other), places).any()), name
            if name in chosen:
                taken[places] = True
                if len(places.unique()) < len(places):
                    return name, name
    return None


def _view(tensor: Tensor) -> Hashable:
    where = tensor.untyped_storage().data_ptr() or id(tensor)  # a tensor without memory is at 0
    return where, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype


def _bytes(tensor: Tensor) -> Tensor:
    """Where in its storage each byte of a tensor is."""
    place = torch.tensor(tensor.storage_offset())
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        place = place[..., None] + stride * torch.arange(size)
    width = tensor.element_size()
    return (width * place.flatten()[:, None] + torch.arange(width)).flatten()


class CosineScores(nn.Module):
    """temperature · cos(output, direction of each class): (M, F) -> (M, K), by a network with a shape of inputs of its own."""

    def __init__(self, network: nn.Module, inputs: tuple[int, ...], directions: Tensor, temperature: float):
        """directions: (K, D), as wide as what the network gives of a picture."""
        super().__init__()
        self.network, self.inputs, self.temperature = network, inputs, temperature
        self.directions = nn.Buffer(functional.normalize(directions, dim=1))

    def forward(self, features: Tensor) -> Tensor:
        outputs = pooled(self.network(features.unflatten(1, self.inputs)))
        return self.temperature * functional.normalize(outputs, dim=1) @ self.directions.T


class FirstOutputs(nn.Module):
    """A network's outputs as they are, the first of them: (M, F) -> (M, K), by a network with a shape of inputs of its own."""

    def __init__(self, network: nn.Module, inputs: tuple[int, ...], count: int):
        """count: K, of at least as many outputs."""
        super().__init__()
        self.network, self.inputs, self.count = network, inputs, count

    def forward(self, features: Tensor) -> Tensor:
        return self.network(features.unflatten(1, self.inputs))[:, : self.count]


def pooled(output: Any) -> Tensor:
    """One vector of each picture, of what a network gives: (M, D). Models of transformers give a mapping."""
    if isinstance(output, Tensor):
        return output
    vectors = output.get("pooler_output")
    return output["last_hidden_state"].mean(1) if vectors is None else vectors
