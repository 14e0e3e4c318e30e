"""What only torch can say of a recipe: whether its components suit its target. It is asked before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from wspace.interfaces import Conditioner, Target
from wspace.recipes.schema import SLOTS, BoundRecipe
from wspace.runs.assemble import build_system, proven
from wspace.runs.workbench import Workbench
from wspace.support import fingerprint
from wspace.support.errors import UserError


def check_all(recipes: Mapping[str, BoundRecipe], workbench: Callable[[BoundRecipe], Workbench]) -> None:
    """`check` several recipes, by their names. Encoders that they share are built once.

    Raises UserError, with the name, for the first that is refused, and for one whose components cannot be imported.
    """
    dims: dict[str, Mapping[str, int]] = {}
    for name, recipe in recipes.items():
        encoders = fingerprint.of_json([recipe.backbone.filled(), recipe.text.filled()])
        try:
            for bound in recipe.components(SLOTS):
                bound.component.load()
            dims[encoders] = dims.get(encoders) or workbench(recipe).dims()
            check(recipe, recipe.target.build(dims[encoders]), dims[encoders])
        except UserError as error:
            raise UserError(f"{name}: {error}") from error


def check(recipe: BoundRecipe, target: Target, dims: Mapping[str, int]) -> None:
    """Raises UserError for components that do not suit the target.

    A system is built to that end, and thrown away: each constructor has its say.
    """
    if recipe.train.tokens is not None:
        _check_parts(recipe)
    proven(recipe, target, dims)
    system = build_system(recipe, target, dims["text_dim"])
    if target.places:
        _check_places(recipe, target.places, system.conditioner)
    if system.conditioner.linear:
        _check_linear(f"conditioner ({recipe.conditioner.name})", target, dims)
    for number, opponent in enumerate(recipe.against):
        if opponent.signature.constants.get("linear"):
            _check_linear(f"against[{number}] ({opponent.name})", target, dims)


def _check_parts(recipe: BoundRecipe) -> None:
    """Raises UserError for what a training on parts of networks (`train.tokens`) has no whole networks for."""
    train, losses = recipe.train, recipe.losses
    asked = {
        "symmetry": (recipe.symmetry is not None, "null"),
        "tasks.pictures": (bool(recipe.tasks.pictures), "[]"),
        "train.augment": (train.augment > 0, "0"),
        "train.align": (train.align, "false"),
        "train.accumulate": (train.accumulate > 1, "1"),
        "losses.symmetry": (losses.symmetry > 0, "0"),
        "losses.adversarial": (losses.adversarial > 0, "0"),
        "losses.product": (losses.product > 0, "0"),
        "task_loss.steps": (recipe.task_loss.steps > 0, "0"),
    }
    for name, (there, off) in asked.items():
        if there:
            raise UserError(
                f"{name}: this takes whole networks, and with train.tokens they are taken in parts: set it to {off}"
            )


def _check_places(recipe: BoundRecipe, places: int, conditioner: Conditioner) -> None:
    """Raises UserError for tasks of more classes than there are outputs, and for a conditioner that forgets their order."""
    most = max(recipe.tasks.classes[1], *recipe.tasks.unseen_ways, 0)
    if most > places:
        raise UserError(
            f"target ({recipe.target.name}): it has {places} outputs, each for a class, and tasks have up to {most} classes; "
            "give it as many, or tasks fewer"
        )
    if not conditioner.keeps_order:
        raise UserError(
            f"conditioner ({recipe.conditioner.name}): this conditioner says the same of every order of a task's classes, and "
            "the target's outputs stand for them in order; name one that keeps it, as text-list"
        )


def _check_linear(who: str, target: Target, dims: Mapping[str, int]) -> None:
    """Raises UserError for a target that has no `from_linear`, tried on two classes."""
    scorers, texts = torch.zeros(1, 2, dims["feature_dim"]), torch.eye(2, dims["text_dim"])[None]
    try:
        target.from_linear(scorers, torch.zeros(1, 2), texts, torch.ones(1, 2, dtype=torch.bool))
    except UserError as error:
        raise UserError(f"{who}: {error}") from None
