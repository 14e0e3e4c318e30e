"""A task as nothing but itself: its number among those that were trained on."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from wspace.api import Condition, Conditioner, Prompts, UserError

SHOWN = 64  # bytes of each name that are kept, to be told
TOLD = 4  # names of known tasks in a message


class TaskId(Conditioner):
    """One condition token for a task, by its identity: what it is called, and no more. Texts are not looked at.

    ids: one-hot, or a vector each that is learned along. The pooled vector is one-hot either way.
    room: for so many different tasks; a task that was not among them in training is refused.
    """

    version: ClassVar[int] = 1
    keeps_order: ClassVar[bool] = True  # in the name

    def __init__(
        self,
        ids: Literal["one-hot", "learned"] = "one-hot",
        width: Annotated[int, Ge(1)] = 64,
        room: Annotated[int, Ge(1)] = 64,
    ):
        super().__init__()
        self.room = room
        self.width, self.pooled_width = room if ids == "one-hot" else width, room
        self.vectors = nn.Parameter(torch.randn(room, width)) if ids == "learned" else None
        self.known: Tensor
        self.count: Tensor
        self.shown: Tensor
        self.register_buffer("known", torch.zeros(room, dtype=torch.int64))  # a hash of each name
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("shown", torch.zeros(room, SHOWN, dtype=torch.uint8))

    def fit(self, prompts: Prompts) -> None:
        """Number the training tasks. Raises UserError for more than there is room for."""
        names = list(dict.fromkeys(_names_of(prompts)))
        if len(names) > self.room:
            raise UserError(
                f"conditioner 'task-id': {len(names)} tasks to train on, and room for {self.room}; set conditioner.room to "
                f"{len(names)}"
            )
        self.known[: len(names)] = _hashes(names)
        self.count.fill_(len(names))
        self.shown.zero_()
        for row, name in enumerate(names):
            start = name.encode()[:SHOWN]
            self.shown[row, : len(start)] = torch.frombuffer(bytearray(start), dtype=torch.uint8)

    def check(self, prompts: Prompts) -> None:
        names = _names_of(prompts)
        for name, row in zip(names, self._rows(names).tolist(), strict=True):
            if row < 0:
                raise UserError(
                    f"task {name!r} was not in training; known: {self._names_seen()}; use a text conditioner"
                )

    def _names_seen(self) -> str:
        count = int(self.count)
        starts = [bytes(row.tolist()).rstrip(b"\0") for row in self.shown[: min(count, TOLD)]]
        names = [start.decode(errors="ignore") + "..." * (len(start) == SHOWN) for start in starts]
        return "; ".join(names) + (f"; and {count - TOLD} more" if count > TOLD else "")

    def _rows(self, names: Sequence[str]) -> Tensor:
        """Number of each task, -1 for one that was not in training: (B,)."""
        same = _hashes(names).to(self.known.device)[:, None] == self.known[: int(self.count)]  # (B, tasks)
        if not same.shape[1]:
            return torch.full((len(names),), -1, device=same.device)
        return torch.where(same.any(1), same.int().argmax(1), -1)

    def forward(self, prompts: Prompts) -> Condition:
        rows = self._rows(_names_of(prompts)).to(prompts.mask.device)
        seen = (rows >= 0)[:, None]
        one_hot = nn.functional.one_hot(rows.clamp_min(0), self.room) * seen  # (B, room)
        pooled = one_hot.float() * self.room**0.5  # values about one in size
        tokens = pooled if self.vectors is None else self.vectors[rows.clamp_min(0)] * seen
        return Condition(tokens[:, None], torch.ones_like(seen), pooled)

    def null(self, like: Condition) -> Condition:
        return Condition(torch.zeros_like(like.tokens), torch.ones_like(like.mask), torch.zeros_like(like.pooled))


def _names_of(prompts: Prompts) -> tuple[str, ...]:
    if prompts.names is None:
        raise UserError("conditioner 'task-id': these tasks are told by their texts alone; use a text conditioner")
    return prompts.names


def _hashes(names: Sequence[str]) -> Tensor:
    """(len(names),) int64."""
    digests = [blake2b(name.encode(), digest_size=8).digest() for name in names]
    return torch.tensor([int.from_bytes(digest, "big", signed=True) for digest in digests], dtype=torch.int64)
