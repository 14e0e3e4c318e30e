"""Share of a task's test images that are named right."""

from __future__ import annotations

import torch
from torch import Tensor

from wspace.interfaces import Metric, Outcome


class Accuracy(Metric):
    """A fraction in [0, 1], each task by itself (Tian et al., 2025, section 4.2)."""

    name = "accuracy"
    higher_is_better = True

    def measure(self, outcome: Outcome) -> Tensor:
        pairs = zip(outcome.predictions, outcome.labels, strict=True)
        return torch.stack([(predicted == true).float().mean() for predicted, true in pairs])
