"""Names of a task's classes, as users write them."""

from __future__ import annotations

from collections.abc import Sequence

from wspace.support.errors import UserError


def trimmed(classes: Sequence[str]) -> tuple[str, ...]:
    """Names without what white space is around and doubled in them. Raises UserError for an empty one, and for a string."""
    if isinstance(classes, str):
        raise UserError(f"classes are a list of names, not the string {classes!r}: give [{classes!r}]")
    names = tuple(" ".join(name.split()) for name in classes)
    if any(names) and not all(names):
        raise UserError("one of the class names is empty")
    return names if any(names) else ()


def check_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """The names, trimmed. Raises UserError unless there are two different ones at least."""
    names = trimmed(classes)
    if not names:
        raise UserError("no classes: name two or more")
    met = set[str]()
    for name in names:
        if name in met:
            raise UserError(f"the class {name!r} is named twice")
        met.add(name)
    if len(names) == 1:
        raise UserError(f"one class ({names[0]!r}) leaves nothing to tell apart: name two or more")
    return names


def classes_of(text: str, option: str = "--classes") -> tuple[str, ...]:
    """The class names in a command's option, separated by commas. Raises UserError as `check_classes`."""
    if not text.replace(",", "").strip():
        raise UserError(f'no classes: name two or more, as in {option} "book, camera, umbrella"')
    return check_classes(text.split(","))
