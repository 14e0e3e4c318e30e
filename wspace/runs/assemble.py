"""What a recipe says, built: the system to train, and its symmetry proven."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wspace.interfaces import Conditioner, Symmetry, Target, Tokenizer, TokenLayout
from wspace.learning.parts import PartSystem, first_of
from wspace.learning.phases import GeneratorStep, TrainingPairs, TrainingSet
from wspace.learning.system import System
from wspace.runs.store import intact
from wspace.runs.telling import retell
from wspace.support.devices import settled
from wspace.support.errors import FileError
from wspace.support.names import ZOO_DIRECTIONS, ZOO_MEAN
from wspace.support.processes import ALONE, Processes
from wspace.support.seeding import seeded, stream
from wspace.weights.proof import prove
from wspace.weights.stretches import Stretches

if TYPE_CHECKING:
    import torch

    from wspace.learning.adversary import Adversary
    from wspace.recipes.schema import BoundRecipe
    from wspace.runs.artifacts import Zoo
    from wspace.runs.workbench import Workbench


def symmetry_of(recipe: BoundRecipe, target: Target) -> Symmetry | None:
    """The recipe's, for its target, as stage train has `proven` it; None if it names none."""
    return None if recipe.symmetry is None else recipe.symmetry.build({"spec": target.spec})


def proven(recipe: BoundRecipe, target: Target, dims: Mapping[str, int]) -> Symmetry | None:
    """The recipe's symmetry, proven for its target; None if it names none. Raises UserError as `prove` does.

    `dims`: `feature_dim` and `text_dim`.
    """
    symmetry = symmetry_of(recipe, target)
    if recipe.symmetry is None or symmetry is None:
        return None
    widths = (dims["feature_dim"], dims["text_dim"])
    prove(symmetry, target, recipe.symmetry.name, widths, stream(recipe.seed, "proof"))
    return symmetry


def aligned(recipe: BoundRecipe, zoo: Zoo, weights: Tensor, symmetry: Symmetry | None, device: torch.device) -> Tensor:
    """(n, P), moved to be near the base, or the zoo's first network without one, if the recipe says so."""
    if not recipe.train.align:
        return weights
    assert symmetry is not None
    there = settled(weights, device)
    return symmetry.canonicalize(there, zoo.reference.to(there.device)).to(weights.device)


def generator_step(
    recipe: BoundRecipe,
    bench: Workbench,
    pairs: TrainingPairs,
    adversary: Adversary | None = None,
    processes: Processes = ALONE,
) -> GeneratorStep:
    """A step down the generator's own loss, as the recipe trains, by itself: to be timed. Nothing is proven."""
    return GeneratorStep(
        TrainingSet((pairs,)),
        recipe.train,
        recipe.losses,
        bench.device,
        symmetry=symmetry_of(recipe, bench.target),
        adversary=adversary,
        precision=bench.precision,
        processes=processes,
    )


def build_system(recipe: BoundRecipe, target: Target, text_dim: int) -> System:
    """Fresh, from the recipe's seed; the global random state is left as it was."""
    with seeded(stream(recipe.seed, "system").initial_seed()):
        given: dict[str, object] = {"spec": target.spec, "text_dim": text_dim, "target": target}
        tokenizer: Tokenizer = recipe.tokenizer.build(given)
        conditioner: Conditioner = recipe.conditioner.build(given)
        parts = recipe.train.tokens is not None
        given |= {"layout": first_of(tokenizer.layout) if parts else _placed(tokenizer, target)}
        given |= {"condition_width": conditioner.width, "pooled_width": conditioner.pooled_width}
        made = PartSystem if parts else System
        return made(target.spec, tokenizer, conditioner, recipe.generator.build(given))


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
        system.load_state_dict(load_file(intact(file.parent, file.name)))
        if isinstance(system, PartSystem):
            system.mean = Stretches.of_file(intact(file.parent, ZOO_MEAN), system.spec)
            if system.generator.directions:
                system.along = Stretches.of_rows(intact(file.parent, ZOO_DIRECTIONS))
        if system.needs_telling:
            retell(system, file.parent)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise FileError(f"{file}: not the trained generator of this recipe: {error}") from error
    return system.eval()
