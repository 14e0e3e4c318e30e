"""Names of a task's classes, as users write them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wspace.support.errors import UserError


def trimmed(classes: Sequence[str]) -> tuple[str, ...]:
    """Names without what white space is around and doubled in them. Raises UserError for an empty one, and for a string."""
    if isinstance(classes, str):
        split = [name.strip() for name in classes.split(",")]
        raise UserError(f"classes are a list of names, not the string {classes!r}: give {split!r}")
    for name in classes:
        if not isinstance(name, str):
            raise UserError(f"class names are text, and {name!r} is none")
    names = tuple(" ".join(name.split()) for name in classes)
    if any(names) and not all(names):
        raise UserError("one of the class names is empty")
    return names if any(names) else ()


def listed_shortly(names: Sequence[str], most: int = 6) -> str:
    """The first names, and how many others there are: 'book, camera and 98 others'."""
    others = len(names) - most
    return ", ".join(names) if others <= 1 else f"{', '.join(names[:most])} and {others} others"


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


def misspelt(name: str, classes: Iterable[str], least: int = 3) -> str | None:
    """The class whose name this one is, but for a letter or two that are wrong, missing, too many or in the other's place.

    Of names of `least` letters or more; two only of seven or more, for short words are other words then. None if there is none,
    and if one is written so but for capitals.
    """
    written = name.casefold()
    spelt = {other.casefold(): other for other in classes}
    if written in spelt or len(written) < least:
        return None
    most = 2 if len(written) >= 7 else 1
    near = [(letters, other) for other in spelt if (letters := _letters_apart(written, other, most)) <= most]
    return spelt[min(near)[1]] if near else None


def class_meant(name: str, classes: Iterable[str]) -> str:
    """' Did you mean 'otter'?', for the end of a message on a class that there is not; else nothing."""
    classes = tuple(classes)
    capitals = next((other for other in classes if other.casefold() == name.casefold()), None)
    other = capitals or misspelt(name, classes)
    return "" if other is None else f" Did you mean {other!r}?"


def _letters_apart(first: str, second: str, most: int) -> int:
    """Fewest letters to change, leave out, put in, or swap with the next one, to make one word of the other; or `most` + 1.

    The distance of Damerau and Levenshtein where no letter is touched twice.
    """
    if abs(len(first) - len(second)) > most:
        return most + 1
    before, row = list[int](), list(range(len(second) + 1))
    for i, letter in enumerate(first, 1):
        two_before, before, row = before, row, [i]
        for j, other in enumerate(second, 1):
            least = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and (letter, first[i - 2]) == (second[j - 2], other):
                least = min(least, two_before[j - 2] + 1)
            row.append(least)
    return min(row[-1], most + 1)
