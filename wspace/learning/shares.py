"""Shares of a batch, whose random numbers are those of the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Share:
    """Consecutive rows of a batch, which are computed without the others."""

    rows: slice
    batch: int  # rows of the whole

    @property
    def count(self) -> int:
        return self.rows.stop - self.rows.start

    @contextmanager
    def drawing(self, device: torch.device) -> Iterator[None]:
        """Each draw inside is made for the whole batch, and gives these rows of it; of a whole batch, it is as ever.

        A draw is of the batch if its first axis is `count` long or a multiple of it, as (B, N, D) flattened to (B * N, D)
        is. torch's own stream, from which dropout layers draw, is afterwards where it was. What a function of torch draws
        within itself, as attention its dropout, is not drawn for the whole.
        """
        if self.count == self.batch:
            yield
            return
        with torch.random.fork_rng([device] if device.type == "cuda" else []), _Whole(self):
            yield


class _Whole(TorchFunctionMode):
    """What draws by `generator=`, and dropout, for a whole batch."""

    def __init__(self, share: Share):
        super().__init__()
        self.share = share

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        arguments = dict(kwargs or {})
        if func is functional.dropout:
            return self._dropout(*args, **arguments)
        if arguments.get("generator") is None:
            return func(*args, **arguments)
        if func in (torch.rand, torch.randn):
            size = arguments.pop("size", args)
            return self._sized(lambda whole: func(whole, **arguments), size)
        if func is torch.randint:
            *bounds, size = (*args, arguments.pop("size")) if "size" in arguments else args
            return self._sized(lambda whole: func(*bounds, whole, **arguments), size)
        if args and isinstance(args[0], Tensor):  # torch.bernoulli(p), x.normal_() and their like
            return self._like(func, args, arguments)
        return func(*args, **arguments)

    def _rows(self, shape: Sequence[int]) -> tuple[int, slice] | None:
        """Of a draw shaped so: how many rows the whole has, and which are the share's. None if it is not of the batch."""
        each, rest = divmod(shape[0], self.share.count) if len(shape) else (0, 0)
        if rest or not each:
            return None
        return each * self.share.batch, slice(each * self.share.rows.start, each * self.share.rows.stop)

    def _sized(self, draw: Callable[[tuple[int, ...]], Tensor], size: Any) -> Tensor:
        shape = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else tuple(size)
        rows = self._rows(shape)
        return draw(shape) if rows is None else draw((rows[0], *shape[1:]))[rows[1]]

    def _like(self, func: Callable[..., Any], args: Sequence[Any], arguments: dict[str, Any]) -> Any:
        first = args[0]
        rows = self._rows(first.shape)
        if rows is None:
            return func(*args, **arguments)
        whole = first.new_zeros(rows[0], *first.shape[1:])
        whole[rows[1]] = first
        drawn = func(whole, *args[1:], **arguments)[rows[1]]
        in_place = func.__name__.endswith("_")
        return first.copy_(drawn) if in_place else drawn

    def _dropout(self, values: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        rows = self._rows(values.shape)
        if rows is None or not training or not p:
            return functional.dropout(values, p, training, inplace)
        kept = functional.dropout(values.new_ones(rows[0], *values.shape[1:]), p)[rows[1]]
        return values.mul_(kept) if inplace else values * kept
