"""Mean squared distance to the weights trained for the task."""

from __future__ import annotations

from torch import Tensor

from wspace.interfaces import Metric, Outcome


class WeightMSE(Metric):
    """Per weight: "weight similarity (loss)" (Tian et al., 2025, section 4.2) divided by the number of weights."""

    name = "weight_mse"
    higher_is_better = False

    def measure(self, outcome: Outcome) -> Tensor:
        return (outcome.weights - outcome.oracle).square().mean(1)
