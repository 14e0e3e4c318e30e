"""Modules that tests of several rooms need."""

from __future__ import annotations

import threading

import torch
from torch import Tensor, nn


class Keeps(nn.Linear):
    """What it computed, one by one, and a lock; it has run before. deepcopy refuses it."""

    def __init__(self, width: int, outputs: int):
        super().__init__(width, outputs)
        self.kept, self.lock = list[Tensor](), threading.Lock()
        self(torch.randn(2, width))

    def forward(self, x: Tensor) -> Tensor:
        with self.lock:
            self.last = super().forward(x)
            self.kept.append(self.last)
        return self.last
