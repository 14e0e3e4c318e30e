"""Folders of folders of pictures: what lies where, which sub-folders are splits, and which give the classes their names."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wspace.data.labelled import class_name
from wspace.data.pictures import suffixes
from wspace.interfaces import TEST, TRAIN, VAL
from wspace.support.errors import DataError
from wspace.support.files import check_is_folder, files_below, shown

SPLITS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VAL,
    "valid": VAL,
    "validation": VAL,
    "dev": VAL,
    "test": TEST,
    "testing": TEST,
    "eval": TEST,
    "evaluation": TEST,
}
"""What folders of splits are called, in any case; as the Hub's data sets have it."""

BESIDE = frozenset({"set", "data", "images", "imgs", "pictures", "split", "folder"})
"""Words that such a name may have besides: `test_images`, `Training Set`."""


@dataclass(frozen=True)
class Tree:
    """The files of a folder at any depth, by their paths in it; linked folders are part of it."""

    pictures: Sequence[PurePosixPath]
    hidden: Sequence[PurePosixPath]  # pictures too, but a part of the path starts with a dot
    others: Sequence[PurePosixPath]  # no pictures by their names, and not hidden


def tree_of(root: Path) -> Tree:
    """Raises DataError if it cannot be listed."""
    try:
        check_is_folder(root)
        paths = sorted(PurePosixPath(path.relative_to(root).as_posix()) for path in files_below(root))
    except OSError as error:
        raise DataError(f"{shown(error.filename or root)}: cannot be listed: {error.strerror or error}") from error
    pictures, hidden, others = [], [], []
    for path in paths:
        is_hidden = any(part.startswith(".") for part in path.parts)
        if path.suffix.lower() in suffixes():
            (hidden if is_hidden else pictures).append(path)
        elif not is_hidden:
            others.append(path)
    return Tree(pictures, hidden, others)


def sub_folders(path: Path) -> list[str]:
    """Their names; hidden ones are none."""
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def split_of(folder: str) -> int | None:
    """Which split a folder's name means: 'Train' and 'training_set' TRAIN, 'val2017' VAL; None for any other name."""
    words = [word.removesuffix("set") for word in re.findall(r"[^\W\d_]+", folder.casefold())]
    splits = [SPLITS[word] for word in words if word in SPLITS]
    rest = {word for word in words if word and word not in SPLITS}
    return splits[0] if len(splits) == 1 and rest <= BESIDE else None


def are_splits(folders: Sequence[str]) -> bool:
    """Whether names are those of splits: two different ones, whatever else there is, or nothing else."""
    splits = [split_of(folder) for folder in folders]
    return len({split for split in splits if split is not None}) > 1 or (bool(splits) and None not in splits)


def splits_in(folders: Iterable[str], place: str) -> dict[str, int]:
    """Of some folders' names those that are splits. Raises DataError if two are the same one."""
    splits: dict[str, int] = {}
    for folder in folders:
        split = split_of(folder)
        if split is None:
            continue
        other = next((name for name, value in splits.items() if value == split), None)
        if other is not None:
            purpose = {TRAIN: "train on", VAL: "choose on", TEST: "test on"}[split]
            raise DataError(f"{place}: {other}/ and {folder}/ are both to {purpose}: join them, or rename one")
        splits[folder] = split
    return splits


def repeats_among(folders: Iterable[tuple[str, ...]]) -> str:
    """What a message says where the same sub-folders are in several folders, so that either may be the classes; else "".

    `folders`: of each picture those around it, from outside. One that is alone in its folder is passed by: what is in
    `amazon/images/` counts as in `amazon/`. A single name that repeats (`cat/images`, `dog/images`) is no class.
    """
    within: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for outer, *rest in folders:
        within[outer].add(tuple(rest))
    outers: dict[str, list[str]] = defaultdict(list)
    for outer, rests in sorted(within.items()):
        while all(len(rest) > 1 for rest in rests) and len({rest[0] for rest in rests}) == 1:
            rests = {rest[1:] for rest in rests}
        for name in sorted({class_name(rest[0]) for rest in rests if rest}):
            outers[name].append(outer)
    repeated = {name: places for name, places in outers.items() if len(places) > 1}
    if len(repeated) < 2:
        return ""
    places = sorted({place for places in repeated.values() for place in places})
    return f"folders {_some(places)} have the same folders in them, {_some(list(repeated))}"


def _some(names: Sequence[str]) -> str:
    few = [repr(shown(name)) for name in names[:3]]
    return f"{', '.join(few)} and {len(names) - 3} more" if len(names) > 3 else all_of(few)


def all_of(names: Iterable[str]) -> str:
    """'a and b', for a message."""
    return " and ".join(names)


def left_out(paths: Sequence[PurePosixPath], what: str, singular: str) -> list[str]:
    """A note on files that are left out, if any: `what` they are, for several and for one."""
    if not paths:
        return []
    first = shown(str(paths[0]))
    if len(paths) == 1:
        return [f"1 {singular} and is left out: {first}"]
    return [f"{len(paths):,} {what} and are left out, the first: {first}"]


def left_out_by_name(tree: Tree) -> list[str]:
    """Notes on what a tree has that is not read, whatever its folders mean."""
    kinds = Counter(path.suffix.lower() or "without a suffix" for path in tree.others)
    named = ", ".join(f"{count:,} {shown(kind)}" for kind, count in kinds.most_common(5))
    return [
        *left_out(
            tree.others, f"files ({named}) are no pictures by their names", f"file ({named}) is no picture by its name"
        ),
        *left_out(tree.hidden, "pictures are hidden", "picture is hidden"),
    ]
