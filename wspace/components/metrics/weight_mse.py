"""Mean squared distance to the weights trained for the task."""

from __future__ import annotations

from torch import Tensor

from wspace.interfaces import Metric, Outcome


class WeightMSE(Metric):
    """Per weight: "weight similarity (loss)" (Tian et al., 2025, section 4.2) divided by the number of weights.

    Place by place, whatever the symmetry and `train.align`: where networks each began at weights of their own, it says how
    large weights are and little else. Novelty, which the report has beside it, is up to the recipe's symmetry.
    """

    name = "weight_mse"
    higher_is_better = False

    def measure(self, outcome: Outcome) -> Tensor:
        return (outcome.weights - outcome.oracle).square().mean(1)
