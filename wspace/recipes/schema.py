"""The schema of a recipe: its slots, in the order of `wspace check --fill`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, MinLen

from wspace.support.settings import (
    Adversary,
    Evaluate,
    Generate,
    Losses,
    Opponents,
    Reconstruction,
    TaskLoss,
    Tasks,
    Train,
    Zoo,
)

if TYPE_CHECKING:
    from wspace.interfaces import (
        Backbone,
        Conditioner,
        Dataset,
        Discriminator,
        Generator,
        Metric,
        Symmetry,
        Target,
        Text,
        Tokenizer,
        Wording,
    )


@dataclass(frozen=True)
class Recipe:
    """Everything a run depends on: the schema of a recipe, which bound is a `wspace.recipes.bind.BoundRecipe`.

    `wspace check RECIPE --fill` prints a recipe with every default written out.
    """

    dataset: Dataset
    backbone: Backbone
    text: Text
    target: Target
    tokenizer: Tokenizer
    conditioner: Conditioner
    generator: Generator
    metrics: Annotated[tuple[Metric, ...], MinLen(1)]
    tasks: Tasks
    zoo: Zoo
    opponents: Opponents
    reconstruction: Reconstruction
    train: Train
    losses: Losses
    adversary: Adversary
    task_loss: TaskLoss
    generate: Generate
    evaluate: Evaluate
    symmetry: Symmetry | None = None
    wording: Wording = "template"  # type: ignore[assignment] (a recipe's default: a name)
    discriminator: Discriminator = "mlp"  # type: ignore[assignment]
    seed: Annotated[int, Ge(0)] = 42
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"  # of the generator's own loss; all else stays in float32
