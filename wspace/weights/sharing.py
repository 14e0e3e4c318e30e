"""Tensors of a module that are not one object and yet have memory in common."""

from __future__ import annotations

from collections.abc import Container, Hashable, Mapping

import torch
from torch import Tensor, nn


def tie(module: nn.Module) -> None:
    """Make one parameter, or buffer, of those that are the same view of the same memory, as `assign=True` leaves them."""
    for kind in ("_parameters", "_buffers"):
        first = dict[Hashable, Tensor]()
        for part in module.modules():
            for name, tensor in list(vars(part)[kind].items()):
                if tensor is not None and tensor.numel() and first.setdefault(_view(tensor), tensor) is not tensor:
                    setattr(part, name, first[_view(tensor)])


def overlapping(tensors: Mapping[str, Tensor], chosen: Container[str]) -> tuple[str, str] | None:
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
