"""What a recipe says, built: the system to train, its symmetry proven, and what its conditioner is told."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wspace.interfaces import Conditioner, Symmetry, Target, Tokenizer, TokenLayout, Told
from wspace.learning.system import System
from wspace.support.errors import FileError, UserError
from wspace.support.files import save_tensors
from wspace.support.names import DRAWN_FROM_TOLD, PROMPT_TEXTS
from wspace.support.seeding import seeded, stream
from wspace.weights.proof import prove

if TYPE_CHECKING:
    from wspace.recipes.schema import BoundRecipe
    from wspace.runs.artifacts import Zoo
    from wspace.runs.workbench import Workbench


def symmetry_of(recipe: BoundRecipe, target: Target) -> Symmetry | None:
    """The recipe's, for its target, as stage train has `proven` it; None if it names none."""
    return None if recipe.symmetry is None else recipe.symmetry.build({"spec": target.spec})


def proven(recipe: BoundRecipe, bench: Workbench) -> Symmetry | None:
    """The recipe's symmetry, proven for its target; None if it names none. Raises UserError as `prove` does."""
    symmetry = symmetry_of(recipe, bench.target)
    if recipe.symmetry is None or symmetry is None:
        return None
    dims = (bench.backbone.dim, bench.text.dim)
    prove(symmetry, bench.target, recipe.symmetry.name, dims, stream(recipe.seed, "proof"))
    return symmetry


def aligned(recipe: BoundRecipe, zoo: Zoo, weights: Tensor, symmetry: Symmetry | None) -> Tensor:
    """(n, P), moved to be near the base, or the zoo's first network without one, if the recipe says so."""
    if not recipe.train.align:
        return weights
    assert symmetry is not None
    return symmetry.canonicalize(weights, zoo.reference)


def check(recipe: BoundRecipe, bench: Workbench) -> None:
    """Raises UserError for components that do not suit the target: said before anything is trained for it."""
    proven(recipe, bench)
    system = build_system(recipe, bench.target, bench.text.dim)
    if bench.target.places:
        _check_places(recipe, bench.target.places, system.conditioner)
    if system.conditioner.linear:
        _check_linear(f"conditioner ({recipe.conditioner.name})", bench)
    for number, opponent in enumerate(recipe.against):
        if opponent.signature.constants.get("linear"):
            _check_linear(f"against[{number}] ({opponent.name})", bench)


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


def _check_linear(who: str, bench: Workbench) -> None:
    """Raises UserError for a target that has no `from_linear`, tried on two classes."""
    scorers, texts = torch.zeros(1, 2, bench.backbone.dim), torch.eye(2, bench.text.dim)[None]
    try:
        bench.target.from_linear(scorers, torch.zeros(1, 2), texts, torch.ones(1, 2, dtype=torch.bool))
    except UserError as error:
        raise UserError(f"{who}: {error}") from None


def tell(system: System, folder: Path, texts: Tensor, context: Told | None) -> None:
    """Tell a new system's conditioner what it asked for, if it did, and write that in the folder for `retell`.

    `texts` (n, T) are of every class of the data set, and written as well.
    """
    tensors = {"texts": texts}
    for field in fields(Told) if context is not None else ():
        if (value := getattr(context, field.name)) is not None:
            tensors[f"told.{field.name}"] = value
    save_tensors(folder / PROMPT_TEXTS, tensors)
    system.tell(context)
    if drawn := system.conditioner.drawn_from_told():
        save_tensors(folder / DRAWN_FROM_TOLD, drawn)


def read_context(file: Path) -> Told:
    tensors = load_file(file)
    prefix = "told."
    return Told(**{name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)})


def retell(system: System, folder: Path) -> None:
    """Tell a system again what `tell` has written. Before 0.2, what a conditioner drew from that was not stored."""
    drawn = folder / DRAWN_FROM_TOLD
    if drawn.is_file():
        aligned = {name: tensor.clone() for name, tensor in load_file(drawn).items()}  # rounding differs with that
        system.recall(aligned)
    else:
        system.tell(read_context(folder / PROMPT_TEXTS))


def build_system(recipe: BoundRecipe, target: Target, text_dim: int) -> System:
    """Fresh, from the recipe's seed; the global random state is left as it was."""
    with seeded(stream(recipe.seed, "system").initial_seed()):
        given: dict[str, object] = {"spec": target.spec, "text_dim": text_dim, "target": target}
        tokenizer: Tokenizer = recipe.tokenizer.build(given)
        conditioner: Conditioner = recipe.conditioner.build(given)
        given |= {"layout": _placed(tokenizer, target)}
        given |= {"condition_width": conditioner.width, "pooled_width": conditioner.pooled_width}
        return System(target.spec, tokenizer, conditioner, recipe.generator.build(given))


def _placed(tokenizer: Tokenizer, target: Target) -> TokenLayout:
    """The tokenizer's layout, which says what its values serve where the target's outputs stand for classes in order."""
    serves = None if tokenizer.lossy else target.serves()
    if serves is None:
        return tokenizer.layout
    arranged = tokenizer.arrange(serves[None] + 1.0)[0].long() - 1  # padding becomes -1
    return replace(tokenizer.layout, serves=arranged)


def load_system(system: System, file: Path) -> System:
    """The system with trained parameters. Raises FileError if the file is not this system's."""
    try:
        system.load_state_dict(load_file(file))
        if system.needs_telling:
            retell(system, file.parent)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise FileError(f"{file}: not the trained generator of this recipe: {error}") from error
    return system.eval()
