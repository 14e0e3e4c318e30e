"""Folder: any folder of pictures, sorted into sub-folders named after their classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt, Lt

from wspace.data.labelled import Labelled, Picture, class_name, class_names, file_identity
from wspace.data.pictures import open_picture
from wspace.data.trees import (
    Tree,
    all_of,
    are_splits,
    left_out,
    left_out_by_name,
    repeats_among,
    split_of,
    splits_in,
    sub_folders,
    tree_of,
)
from wspace.interfaces import TEST, TRAIN, Dataset, Images
from wspace.support.errors import DataError
from wspace.support.files import shown
from wspace.support.fingerprint import of_ends
from wspace.support.parameters import Since
from wspace.support.quantities import counted


class Folder(Dataset):
    """Sub-folders of pictures, one a class. Split by train/, val/ and test/ if these are there, else by hash.

    Splits may have any usual name in any case (`Training`, `valid`, `eval`), and lie around the classes' folders or in each
    of them. `test` and `val` are shares of a class's pictures. With train/ and test/, `test` is unused, and `val` is a
    share of train/, taken if there is no val/. Where the same sub-folders are in several folders (Art/bike, Photo/bike),
    `classes` has to say which are the classes: `inner` (bike) or `outer` (Art, Photo). A picture of more than `most_pixels`
    is skipped, with a note.
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        path: Path,
        size: Annotated[int, Ge(16)] = 96,
        test: Annotated[float, Gt(0), Lt(1)] = 0.25,
        val: Annotated[float, Gt(0), Lt(1)] = 0.15,
        classes: Annotated[Literal["outer", "inner"] | None, Since("0.2")] = None,
        most_pixels: Annotated[int, Ge(1), Since("0.2")] = 89_478_485,
    ):
        self.path = Path(path)
        self.size = size
        self.test = test
        self.val = val
        self.classes: Literal["outer", "inner"] | None = classes
        self.most_pixels = most_pixels

    def load(self, cache: Path) -> Images:
        return self._labelled(list_pictures(self.path, self.classes)).images(cache, "folder")

    def check(self) -> Listing:
        """What lies in the folder. Raises DataError where `load` would before it opens a picture."""
        listing = list_pictures(self.path, self.classes)
        self._labelled(listing).check()
        return listing

    def _labelled(self, listing: Listing) -> Labelled:
        if self.test + self.val >= 1:
            raise DataError(f"test {self.test:g} and val {self.val:g} together leave no picture to train on")
        listed = listing.pictures
        return Labelled(
            shown(self.path),
            listed,
            lambda i: open_picture(self.path / listed[i].path, self.size, self.most_pixels),
            lambda: [[picture.path, file_identity(self.path / picture.path)] for picture in listed],
            lambda: [[picture.path, file_identity(self.path / picture.path, of_ends)] for picture in listed],
            self.size,
            self.most_pixels,
            self.test,
            self.val,
            listing.places,
            listing.notes,
        )

    def open_picture(self, path: Path) -> np.ndarray:
        return open_picture(path, self.size, self.most_pixels)


# ---------------------------------------------------------------- what is in the folder


@dataclass(frozen=True)
class Listing:
    pictures: Sequence[Picture]  # by class and path
    places: Mapping[int, str]  # how messages name TRAIN and TEST
    notes: Sequence[str]  # on what is left out


@dataclass(frozen=True)
class Layout:
    """What the folders around a picture mean."""

    splits: Mapping[tuple[str, ...], int]  # ("train",) or, where each class has splits of its own, ("cat", "train")
    inner: bool  # whether the class is the inner of two folders

    @property
    def depth(self) -> int:
        """In how many folders the splits' folders are, themselves counted; 0 without splits."""
        return len(next(iter(self.splits), ()))

    @property
    def place(self) -> int:
        """Where the class's folder stands in a path."""
        place = int(self.inner)
        return place + 1 if 0 < self.depth <= place + 1 else place

    @property
    def names(self) -> dict[int, str]:
        """How messages name the splits."""
        return {split: f"{parts[-1]}/" for parts, split in self.splits.items()}

    def takes(self, path: PurePosixPath) -> bool:
        return not self.splits or path.parts[: self.depth] in self.splits

    def split(self, path: PurePosixPath) -> int | None:
        return self.splits.get(path.parts[: self.depth])

    def folders(self, path: PurePosixPath) -> tuple[str, ...]:
        """Those around a picture, without the split's."""
        parts = path.parent.parts
        return parts[: self.depth - 1] + parts[self.depth :] if self.splits else parts


def list_pictures(root: Path, classes: Literal["outer", "inner"] | None = None) -> Listing:
    """Raises DataError if the folder is not one of classes."""
    tree = tree_of(root)
    layout = Layout(_splits_of(root, tree), classes == "inner")
    taken = [path for path in tree.pictures if layout.takes(path)]
    inside = [path for path in taken if len(layout.folders(path)) > layout.inner]
    if classes is None:
        _check_classes_are_clear(root, [layout.folders(path) for path in inside])
    _check_none_is_empty(root, layout, tree, inside)
    names = _named(root, layout, inside)
    notes = [
        *left_out(
            [p for p in tree.pictures if not layout.takes(p)], "pictures lie in no split", "picture lies in no split"
        ),
        *left_out(
            [p for p in taken if p not in names],
            "pictures lie in no class's folder",
            "picture lies in no class's folder",
        ),
        *left_out_by_name(tree),
    ]
    _check_number(root, names, notes)
    pictures = [Picture(str(path), name, layout.split(path)) for path, name in names.items()]
    return Listing(sorted(pictures, key=lambda picture: (picture.class_name, picture.path)), layout.names, notes)


def _splits_of(root: Path, tree: Tree) -> dict[tuple[str, ...], int]:
    """The folders of splits, around the classes or in each of them."""
    folders = sub_folders(root)
    if are_splits(folders):
        return {(name,): split for name, split in _whole(folders, root).items()}
    within = {folder: sub_folders(root / folder) for folder in folders}
    having = [folder for folder, names in within.items() if len({split_of(name) for name in names} - {None}) > 1]
    if not having:
        return {}
    for folder in folders:
        if folder not in having and any(path.parts[0] == folder for path in tree.pictures):
            raise DataError(
                f"{shown(root)}: {shown(having[0])}/ has folders of splits in it, and {shown(folder)}/ has "
                "not: rename those in it, if they are none"
            )
    return {(folder, name): split for folder in having for name, split in _whole(within[folder], root / folder).items()}


def _whole(folders: Sequence[str], place: Path) -> dict[str, int]:
    splits = splits_in(folders, shown(place))
    missing = [f"{name}/" for name, split in (("train", TRAIN), ("test", TEST)) if split not in splits.values()]
    if missing:
        raise DataError(f"{shown(place)}: has {all_of(f'{name}/' for name in splits)} but no {all_of(missing)}")
    return splits


def _check_classes_are_clear(root: Path, folders: Sequence[tuple[str, ...]]) -> None:
    repeats = repeats_among(folders)
    if repeats:
        raise DataError(
            f"{shown(root)}: {repeats}: set 'dataset.classes' to inner if the latter are the classes, or to outer if "
            "the former are; if the former are splits, call them train, val and test"
        )


def _check_none_is_empty(root: Path, layout: Layout, tree: Tree, inside: Sequence[PurePosixPath]) -> None:
    for parts in layout.splits:
        if layout.depth == 1 and not any(path.parts[:1] == parts for path in inside):
            loose = sum(path.parts[:1] == parts for path in tree.pictures)
            lie = counted(loose, "picture lies", "pictures lie")
            which = f"its {lie} in no class's folder" if loose else "has no pictures"
            if loose and layout.splits[parts] != TRAIN:
                which += "; if nothing says what they show, set 'dataset.path' to the folder to train on, which is then split"
            raise DataError(f"{shown(root / parts[0])}: {which}")
    full = {path.parts[: layout.place + 1] for path in inside}
    for parent in sorted({parts[:-1] for parts in full}):
        for folder in sub_folders(root.joinpath(*parent)):
            if (*parent, folder) not in full:
                within = [path for path in tree.others if path.parts[: layout.place + 1] == (*parent, folder)]
                raise DataError(
                    f"{shown(root.joinpath(*parent))}: class {class_name(shown(folder))!r} has no pictures"
                    + "".join(f"; {note}" for note in left_out_by_name(Tree((), (), within)))
                )


def _named(root: Path, layout: Layout, inside: Sequence[PurePosixPath]) -> dict[PurePosixPath, str]:
    """Of each picture its class's name."""
    folders = {path.parts[: layout.place + 1] for path in inside}
    names: dict[tuple[str, ...], str] = {}
    for parent in sorted({parts[:-1] for parts in folders}):
        mine = sorted(parts[-1] for parts in folders if parts[:-1] == parent)
        named = class_names(mine, shown(root.joinpath(*parent)))
        names |= {(*parent, folder): name for folder, name in named.items()}
    return {path: names[path.parts[: layout.place + 1]] for path in inside}


def _check_number(root: Path, names: Mapping[PurePosixPath, str], notes: Sequence[str]) -> None:
    classes = set(names.values())
    if len(classes) > 1:
        return
    deepest = max((len(path.parts) for path in names), default=0)
    around = [{path.parts[:depth] for path in names if len(path.parts) > depth} for depth in range(1, deepest)]
    branching = next((depth for depth, folders in enumerate(around) if len(folders) > 1), 0)
    hint = f"; is 'path' to be {shown(root.joinpath(*min(around[branching - 1])))}?" if branching else ""
    raise DataError(
        f"{shown(root)}: has {'1 class' if classes else 'no classes'} (sub-folders of pictures), and at least 2 are needed"
        + hint
        + "".join(f"; {note}" for note in notes)
    )
