"""What is known of a recipe before it runs: what a run would refuse, and what it would leave out.

Most of it follows from the recipe. Of a target that is a torch module of the recipe's, and of networks that are taken in
parts, only torch can say whether all goes together; then, and only then, torch is imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from wspace.recipes.schema import Bound, BoundRecipe
from wspace.runs.keys import trains_on_images


def check_ahead(recipes: Mapping[str, BoundRecipe]) -> list[str]:
    """Have what the recipes name built, where its settings alone do not say whether it goes together; nothing is downloaded.

    The keys are what problems are told of, as "t2w.yaml". Returns notes. Raises UserError, with all problems, for what a run
    would refuse before it trains anything.
    """
    built = {name: recipe for name, recipe in recipes.items() if takes_torch(recipe)}
    notes: list[str] = []
    if built:
        from wspace.runs.checking import build_all

        notes += build_all(built)
    left = dict.fromkeys(sentence for recipe in recipes.values() for sentence in left_out(recipe))
    return [*notes, *(f"note: {sentence}" for sentence in left)]


def takes_torch(recipe: BoundRecipe) -> bool:
    """Whether only torch can say if its components go together."""
    target, names = recipe.target, recipe.target.signature.constants.get("of_module", ())
    return recipe.train.tokens is not None or any(not _is_default(target, name) for name in names)


def _is_default(bound: Bound, name: str) -> bool:
    """Whether a setting is at its default; of a component, whether it is the default one, however it is set."""
    value, default = bound.arguments[name], bound.signature.settable[name].default
    return value.name == default if isinstance(value, Bound) else value == default


def left_out(recipe: BoundRecipe) -> Iterator[str]:
    """On opponents of which its settings say that they have nothing to go by: a sentence for each reason."""
    who: dict[str, list[str]] = {}
    ordered = bool(recipe.target.arguments.get("outputs"))
    for bound in recipe.against:
        why = why_left_out(
            bound, in_parts=recipe.train.tokens is not None, has_base=recipe.zoo.start == "base", ordered=ordered
        )
        if why is not None:
            who.setdefault(why, []).append(repr(bound.name))
    for why, names in who.items():
        *others, last = names
        yield (
            f"the opponents {', '.join(others)} and {last} are left out, each for the same reason: {why}"
            if others
            else f"the opponent {last} is left out: {why}"
        )


def why_left_out(opponent: Bound, *, in_parts: bool, has_base: bool, ordered: bool = False) -> str | None:
    """Why an opponent has nothing to go by; None if it has.

    `in_parts`: networks are never in memory together. `has_base`: the zoo's began at one base. `ordered`: outputs stand for
    classes in order.
    """
    says = opponent.signature.constants.get
    if says("one_for_all") and ordered:
        return "outputs stand for a task's classes in its order, and no one network serves two orders"
    if says("from_base") and not has_base:
        return "each of the zoo's networks began at weights of its own, and there is no base"
    if in_parts and from_zoo(opponent) and not trains_on_images(opponent):
        return "networks are taken in parts (train.tokens), and it goes by all of the zoo's at once"
    return None


def from_zoo(opponent: Bound) -> bool:
    """Whether it goes by the zoo's networks, so that these have to be in memory."""
    return opponent.signature.constants.get("from_zoo", True)
