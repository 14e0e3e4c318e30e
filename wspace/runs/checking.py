"""What only torch can say of a recipe: whether its components suit its target. It is asked before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch

from wspace.interfaces import Condition, Conditioner, Target, TokenLayout
from wspace.learning.denoising import Denoising
from wspace.learning.parts import where_of
from wspace.learning.phases import generator_parameters
from wspace.learning.system import System
from wspace.recipes.schema import SLOTS, Bound, BoundRecipe
from wspace.runs.assemble import build_system, proven
from wspace.runs.measured import FLOAT
from wspace.runs.workbench import Workbench
from wspace.support import fingerprint
from wspace.support.devices import gpu_memory
from wspace.support.errors import MissingWeights, UserError, reason
from wspace.support.memory import is_want_of_memory, limited_to_what_is_free, memory
from wspace.support.network import without_downloads
from wspace.support.processes import launched
from wspace.support.progress import Progress
from wspace.support.quantities import in_bytes
from wspace.support.seeding import seeded, stream
from wspace.weights.placed import PlacedTokenizer

TRIED = 2  # networks that a denoiser is tried on
DRAWN = 8  # bytes of the two numbers by which an image of a step is drawn
RESAMPLED = 8  # bytes of the number by which a task of a resample is drawn


def check_all(recipes: Mapping[str, BoundRecipe], workbench: Callable[[BoundRecipe], Workbench]) -> None:
    """`check` several recipes, by their names.

    Raises UserError, with the name, for the first that is refused, and for one whose components cannot be imported.
    """
    for name, error in _refusals(recipes, workbench):
        raise _of(name, error) from error


def build_all(recipes: Mapping[str, BoundRecipe]) -> list[str]:
    """As `check_all`, on the CPU, where all of them are looked at before the first is refused, and nothing is downloaded.

    Returns a note on each whose encoders are not here.
    """
    notes, problems = [], []
    with without_downloads(), limited_to_what_is_free():
        for name, error in _refusals(recipes, lambda recipe: Workbench(replace(recipe, device="cpu"), Progress())):
            if isinstance(error, MissingWeights):
                notes.append(f"note: {name}: whether its components go together is not known yet: {error}")
            else:
                problems.append(str(_of(name, error)))
    if problems:
        raise UserError("\n".join(problems))
    return notes


def _refusals(
    recipes: Mapping[str, BoundRecipe], workbench: Callable[[BoundRecipe], Workbench]
) -> Iterator[tuple[str, UserError]]:
    """Those that are refused, each with why. What several have in common is built once: encoders, and the target."""
    dims: dict[str, Mapping[str, int]] = {}
    targets: dict[str, Target] = {}
    for name, recipe in recipes.items():
        encoders = fingerprint.of_json([recipe.backbone.filled(), recipe.text.filled()])
        its = fingerprint.of_json([encoders, recipe.target.filled()])
        try:
            for bound in recipe.components(SLOTS):
                bound.component.load()
            dims[encoders] = dims.get(encoders) or workbench(recipe).dims()
            targets[its] = targets.get(its) or recipe.target.build(dims[encoders])
            check(recipe, targets[its], dims[encoders])
        except UserError as error:
            yield name, error
        except (MemoryError, RuntimeError) as error:
            if not is_want_of_memory(error):
                raise
            yield (
                name,
                UserError(
                    f"to make its networks and its generator takes more than the {in_bytes(memory()[1])} that are free"
                ),
            )


def _of(name: str, error: UserError) -> UserError:
    """The same, of the recipe of this name, in each of its lines."""
    return UserError("\n".join(f"{name}: {line}" for line in str(error).splitlines()))


def check(recipe: BoundRecipe, target: Target, dims: Mapping[str, int]) -> None:
    """Raises UserError for components that do not suit the target.

    A system is built to that end, and thrown away: each constructor has its say.
    """
    if recipe.train.tokens is not None:
        _check_parts(recipe, target, dims["text_dim"])
    proven(recipe, target, dims)
    system = build_system(recipe, target, dims["text_dim"])
    _check_room(recipe, target, system)
    _check_denoiser(recipe, system)
    if target.places:
        _check_places(recipe, target.places, system.conditioner)
    if system.conditioner.linear:
        _check_linear(f"conditioner ({recipe.conditioner.name})", target, dims)
    for number, opponent in enumerate(recipe.against):
        if opponent.signature.constants.get("linear"):
            _check_linear(f"against[{number}] ({opponent.name})", target, dims)


def _check_room(recipe: BoundRecipe, target: Target, system: System) -> None:
    """Raises UserError, a line for each, for settings that no memory of this machine is enough for.

    Each is taken to need what it surely does, and a run needs more: what might fit is not refused.
    """
    problems = []
    for name, value, least in _at_once(recipe, target, system):
        if least > memory()[0] and least > (most := max(memory()[0], gpu_memory())):
            problems.append(
                f"{name}: {value:,} at once take at least {in_bytes(least)} of memory, and this machine has {in_bytes(most)}: "
                "set it lower"
            )
    if problems:
        raise UserError("\n".join(problems))


def _at_once(recipe: BoundRecipe, target: Target, system: System) -> Iterator[tuple[str, int, int]]:
    """Settings by which much is in memory at a time: the name, the value, and how many bytes that is at the least."""
    size, zoo, train, task_loss = target.spec.size * FLOAT, recipe.zoo, recipe.train, recipe.task_loss
    if zoo.source is None:
        group = min(zoo.together, recipe.tasks.seen * zoo.copies)
        yield "zoo.together", group, 2 * group * size  # the networks, and their averages
        yield "zoo.batch", zoo.batch, group * zoo.batch * DRAWN
    if zoo.start == "base" and zoo.base_steps:
        yield "zoo.base_batch", zoo.base_batch, zoo.base_batch * DRAWN
    if train.tokens is None:
        if train.steps and generator_parameters(system) and not system.tokenizer.lossy:
            yield "train.batch", train.batch, train.batch // (train.accumulate * launched().count) * size
        if system.tokenizer.lossy and recipe.reconstruction.steps:
            yield "reconstruction.batch", recipe.reconstruction.batch, recipe.reconstruction.batch * size
        if task_loss.steps and system.generator.task_parameters():
            yield "task_loss.batch", task_loss.batch, task_loss.batch * size
            yield "task_loss.images", task_loss.images, task_loss.images * DRAWN
    scored = min(recipe.tasks.evaluate, recipe.tasks.unseen)
    yield "evaluate.bootstrap", recipe.evaluate.bootstrap, recipe.evaluate.bootstrap * scored * RESAMPLED


def _check_denoiser(recipe: BoundRecipe, system: System) -> None:
    """Raises UserError for one that does not give what it is given tokens for, tried on two networks of noise."""
    generator = system.generator
    if not isinstance(generator, Denoising):
        return
    bound, wanted = recipe.generator.arguments.get("denoiser"), (TRIED, *generator.mask.shape)
    who = f"denoiser ({bound.name})" if isinstance(bound, Bound) else f"generator ({recipe.generator.name})"
    conditioner, rng = system.conditioner, stream(recipe.seed, "denoiser")
    condition = Condition(
        torch.randn(TRIED, 2, conditioner.width, generator=rng),
        torch.ones(TRIED, 2, dtype=torch.bool),
        torch.randn(TRIED, conditioner.pooled_width, generator=rng),
    )
    x = torch.randn(wanted, generator=rng) * generator.mask
    with seeded(0), torch.no_grad():  # one that drops out draws from the global random state
        try:
            given = generator.denoiser(x, torch.full((TRIED,), 0.5), condition, generator.anchor.expand(wanted))
        except Exception as error:
            if isinstance(error, UserError) or is_want_of_memory(error):
                raise
            raise UserError(f"{who}: it fails on tokens of shape {wanted}: {reason(error)}") from error
    if not isinstance(given, torch.Tensor):
        raise UserError(
            f"{who}: it is to return a tensor of shape {wanted}, as its tokens are, and returns {given!r:.80}"
        )
    if given.shape != wanted:
        raise UserError(f"{who}: it is to return shape {wanted}, as its tokens are, and returns {tuple(given.shape)}")


def _check_parts(recipe: BoundRecipe, target: Target, text_dim: int) -> None:
    """Raises UserError, a line for each, for all that a training on parts of networks (`train.tokens`) cannot go with."""
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
    problems = [
        f"{name}: this takes whole networks, and with train.tokens they are taken in parts: set it to {off}"
        for name, (there, off) in asked.items()
        if there
    ]
    given: dict[str, object] = {"spec": target.spec, "text_dim": text_dim, "target": target}
    with seeded(0):  # the global random state is left as it was
        problems += _told(lambda: _check_tokens(recipe, given))
        problems += _told(lambda: _check_generator(recipe, given))
    if problems:
        raise UserError("\n".join(problems))


ONE_TOKEN = TokenLayout(
    torch.ones(1, 1, dtype=torch.bool), places=torch.zeros(1, 3, dtype=torch.long), stretches=torch.tensor([[0, 1]])
)
"""A part of a network that is as small as can be, and holds a weight as it is."""


def _check_tokens(recipe: BoundRecipe, given: Mapping[str, object]) -> None:
    """Raises UserError unless tokens are weights as they are. What else one lacks whose tokens never are, is of no account."""
    try:
        layout = recipe.tokenizer.build(given).layout
    except UserError:
        if not issubclass(recipe.tokenizer.component.load(), PlacedTokenizer):
            raise
        layout = replace(ONE_TOKEN, stretches=None)
    where_of(layout)


def _check_generator(recipe: BoundRecipe, given: Mapping[str, object]) -> None:
    """Raises UserError for one that takes no part of a network."""
    conditioner = recipe.conditioner.build(given)
    widths = {"condition_width": conditioner.width, "pooled_width": conditioner.pooled_width}
    recipe.generator.build({**given, **widths, "layout": ONE_TOKEN}).at(ONE_TOKEN, torch.zeros(ONE_TOKEN.mask.shape))


def _told(work: Callable[[], object]) -> list[str]:
    """What is wrong, if anything is."""
    try:
        work()
    except UserError as error:
        return [str(error)]
    return []


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
