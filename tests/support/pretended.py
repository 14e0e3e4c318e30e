"""A device that is not there: its tensors lie on the CPU and say that they do not, and torch holds to that.

It computes as the CPU does, so a whole recipe can be run on it and gives the same numbers. As on a GPU, what mixes its tensors
with the CPU's raises, and so does drawing for it by a generator of the CPU's. Counted is what a GPU would be waited for, or be
told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "pretended"
aten = torch.ops.aten

WAITING = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.bincount.default,
    aten.equal.default,
    aten.repeat_interleave.Tensor,
    aten.linalg_eigh.default,
    aten._linalg_eigh.default,
    aten._linalg_svd.default,
    aten.linalg_inv_ex.default,
}
"""Whose result, or its shape, the host has to know before it can go on."""

COPIES = {aten._to_copy.default, aten.copy_.default}
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
"""That take indices from the CPU to any device."""


class Pretended(Tensor):
    """A tensor of the device."""

    held: Tensor

    @staticmethod
    def __new__(cls, real: Tensor) -> Pretended:
        with torch.inference_mode(False):  # a view of a weight is none of inference's, whoever asks for it
            made = Tensor._make_wrapper_subclass(
                cls,
                real.shape,
                strides=real.stride(),
                storage_offset=real.storage_offset(),
                dtype=real.dtype,
                device=DEVICE,
            )
        made.held = real
        return made

    def __repr__(self, **_: Any) -> str:
        return f"Pretended({self.held})"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _computed(func, args, dict(kwargs or {}))


class _Backend(_DummyBackendModule):
    """As one of a machine without the device, or all of torch's would be of it by default, in tests of other things, too."""

    def is_available(self) -> bool:
        return False

    def device_count(self) -> int:
        return 0

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


_setup_privateuseone_for_python_backend(NAME, _Backend())  # before the first gradient of the process: then torch looks
DEVICE = torch.device(NAME, 0)
_AUTOCAST = torch.library.Library("_", "IMPL")
_AUTOCAST.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")  # which changes nothing there


class _Generator(torch.Generator):
    """The CPU's, which says that it is the device's."""

    def __new__(cls, device: torch.device | str = "cpu") -> torch.Generator:
        return super().__new__(cls) if torch.device(device).type == NAME else GENERATOR(device)

    @property
    def device(self) -> torch.device:
        return DEVICE


GENERATOR = torch.Generator


class Counted:
    """What happened between host and device."""

    def __init__(self) -> None:
        self.waits, self.launched = Counter[str](), 0
        self.copies, self.bytes = 0, 0  # to the device

    def copied(self, tensor: Tensor) -> None:
        self.copies += 1
        self.bytes += tensor.nbytes

    @property
    def waited(self) -> int:
        return self.waits.total()


_counted = Counted()


def _is_here(leaf: Any) -> bool:
    return isinstance(leaf, torch.device) and leaf.type == NAME


def _mixed(func: Any, args: Sequence[Any]) -> None:
    """Raises RuntimeError as torch does."""
    if func in COPIES:
        return
    given = args[:1] + args[2:] if func in INDEXED and isinstance(args[0], Pretended) else args
    if any(isinstance(leaf, Tensor) and not isinstance(leaf, Pretended) and leaf.ndim for leaf in _leaves(given)):
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, but there are {NAME} and cpu")


def _count(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    here = isinstance(args[0], Pretended) if args else False
    _counted.launched += 1
    if func is aten._to_copy.default:
        target = kwargs.get("device")
        if here and target is not None and not _is_here(target):
            _counted.waits["to the CPU"] += 1
        elif not here:
            _counted.copied(args[0])
    elif func is aten.copy_.default:
        if here and not isinstance(args[1], Pretended) and args[1].ndim:
            _counted.copied(args[1])
        elif not here:
            _counted.waits["to the CPU"] += 1
    elif func in INDEXED:
        for index in args[1]:
            if index is not None and not isinstance(index, Pretended):
                _counted.copied(index)
            if index is not None and index.dtype == torch.bool:
                _counted.waits[f"{func} by a mask"] += 1
    elif func in WAITING:
        _counted.waits[str(func)] += 1


def _computed(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    _mixed(func, (*args, *kwargs.values()))
    _count(func, args, kwargs)
    made = func(*_on_cpu(args), **{name: _on_cpu(value) for name, value in kwargs.items()})
    goes = kwargs.get("device")
    if (goes is not None and not _is_here(goes)) or (func is aten.copy_.default and not isinstance(args[0], Pretended)):
        return made.clone() if made is args[0].held else made
    if func is aten._to_copy.default and made is args[0]:
        made = made.clone()
    return return_and_correct_aliasing(func, args, kwargs, _wrapped(made))


def _leaves(values: Sequence[Any]) -> Iterator[Any]:
    """Not by torch's trees, which take longer than what is computed here."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from _leaves(value)
        else:
            yield value


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Pretended):
        return value.held
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return type(value)(map(_on_cpu, value)) if type(value) in (list, tuple) else value


def _wrapped(made: Any) -> Any:
    if isinstance(made, Tensor):
        return Pretended(made)
    return (
        tuple(map(_wrapped, made))
        if isinstance(made, tuple)
        else list(map(_wrapped, made))
        if isinstance(made, list)
        else made
    )


class _Dispatch(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports all of it, to compile nothing here

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        arguments = dict(kwargs or {})
        if any(isinstance(leaf, Pretended) or _is_here(leaf) for leaf in _leaves((args, tuple(arguments.values())))):
            if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
                with self:  # in inference mode torch takes no function apart itself
                    return func.decompose(*args, **arguments)
            return _computed(func, args, arguments)
        return func(*args, **arguments)


class _Functions(TorchFunctionMode):
    """What torch does not hand on for tensors that it does not know."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is Tensor.tolist and isinstance(args[0], Pretended):
            return args[0].cpu().tolist()
        arguments = dict(kwargs or {})
        if (
            generator := arguments.get("generator")
        ) is not None:  # which below here is the CPU's, and no more than that
            draws_here = _is_here(arguments.get("device")) or any(isinstance(leaf, Pretended) for leaf in args)
            if draws_here != (generator.device == DEVICE):
                raise RuntimeError(f"{func}: expected a generator of another device than {generator.device}")
        return func(*args, **arguments)


@contextmanager
def pretended() -> Iterator[Counted]:
    """Inside, `DEVICE` can be computed on; what happens between it and the host is counted."""
    global _counted
    before, _counted = _counted, Counted()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=...) would go past what is set here
    try:
        with mock.patch.object(torch, "Generator", _Generator), _Functions(), _Dispatch():
            yield _counted
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
        _counted = before
