"""Images through timm's data set factory: CIFAR, folders of pictures, data sets of the Hugging Face hub."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Lt
from huggingface_hub import constants
from PIL import Image

from wspace.data.labelled import Labelled, Picture, class_name, file_identity
from wspace.data.pictures import decode_picture, open_picture, square
from wspace.data.trees import (
    Tree,
    all_of,
    are_splits,
    left_out,
    left_out_by_name,
    repeats_among,
    splits_in,
    sub_folders,
    tree_of,
)
from wspace.interfaces import TEST, TRAIN, Dataset, Images
from wspace.support.errors import DataError, MissingPackage, did_you_mean, nearest
from wspace.support.files import shown
from wspace.support.fingerprint import of_ends
from wspace.support.network import offline_by_choice, reachable
from wspace.support.parameters import Since

CIFAR = ("torch/cifar10", "torch/cifar100")
TREES = ("", "folder", "torch/image_folder")  # of timm's own reader, twice, and of torchvision's
HUB = "hfds/"


@dataclass(frozen=True)
class Part:
    """One split, as timm's factory gives it."""

    names: Sequence[str]  # of classes, as the data set writes them
    labels: Sequence[int]  # index into names
    paths: Sequence[str]  # of images: no other in the data set has the same
    contents: Sequence[str]  # what the images depend on
    former_contents: Sequence[str]  # the same as before 0.2
    open: Callable[[int], np.ndarray]  # image i, square; raises Unreadable
    notes: Sequence[str] = ()


class TimmDataset(Dataset):
    """Whatever `timm.data.create_dataset` reads at random places and names the classes of.

    name: `torch/cifar10`, `torch/cifar100`; `torch/image_folder` or "" for folders of class-named folders (timm's own
    reader goes by the innermost folder, torchvision's by the outermost); `hfds/ORG/NAME` for the Hugging Face hub.
    path: where the data lie. Without it, CIFAR is kept in the cache folder and hub data in the hub's own.
    train, test: splits, as the data set calls them. `test: null` if there is none to test on: `test_share` of each
    class's images are then cut off, by hash. `val` is a share of those to train on.
    exclude: classes to leave out. download: fetch what is not here. most_pixels: of a picture; a larger one is skipped, with a
    note. Class names that are WordNet's numbers (n02124075), as
    those of ImageNet's relatives are, become words; the number in front of Caltech's names (001.ak47) goes.

    torchvision's readers of CIFAR unpickle the archive's files, once their MD5 sums are those of the official ones.
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        name: str,
        path: Path | None = None,
        train: str = "train",
        test: str | None = "validation",
        test_share: Annotated[float, Gt(0), Lt(1)] = 0.2,
        val: Annotated[float, Gt(0), Lt(1)] = 0.1,
        size: Annotated[int, Ge(16)] = 224,
        exclude: tuple[str, ...] = (),
        download: bool = False,
        most_pixels: Annotated[int, Ge(1), Since("0.2")] = 89_478_485,
    ):
        if name not in (*CIFAR, *TREES) and not name.startswith(HUB):
            raise DataError(
                f"dataset 'timm': no name {name!r}.{did_you_mean(name, [*CIFAR, *TREES[2:], f'{HUB}ORG/NAME'])}"
            )
        if name in TREES and path is None:
            raise DataError(f"dataset 'timm': name {name!r} is for folders: give 'path: FOLDER'")
        self.name, self.path, self.train, self.test = name, path, train, test
        self.test_share, self.val, self.size = test_share, val, size
        self.exclude, self.download, self.most_pixels = exclude, download, most_pixels

    @property
    def origin(self) -> str:
        return shown(str(self.path)) if self.name in TREES else f"dataset 'timm': {self.name}"

    def load(self, cache: Path) -> Images:
        if self.test is None and self.test_share + self.val >= 1:
            raise DataError(
                f"test_share {self.test_share:g} and val {self.val:g} together leave no picture to train on"
            )
        tree = tree_of(self.path) if self.name in TREES and self.path is not None else Tree((), (), ())
        parts = [(None if self.test is None else TRAIN, self._part(self.train, cache, tree))]
        if self.test is not None:
            parts.append((TEST, self._part(self.test, cache, tree)))
            if list(parts[0][1].contents) == list(parts[1][1].contents):
                raise DataError(f"{self.origin}: splits {self.train!r} and {self.test!r} are the same images")
        names = self._names([name for _, part in parts for name in part.names])
        kept = [
            (Picture(part.paths[i], names[part.names[label]], split), part, i)
            for split, part in parts
            for i, label in enumerate(part.labels)
            if names[part.names[label]] not in self.exclude
        ]
        paths = {path for _, part in parts for path in part.paths}
        count = len({picture.class_name for picture, _, _ in kept})
        if count < 2:
            classes = "1 class" if count == 1 else "no classes"
            raise DataError(f"{self.origin}: has {classes}, and at least 2 are needed")
        return Labelled(
            self.origin,
            [picture for picture, _, _ in kept],
            lambda i: kept[i][1].open(kept[i][2]),
            lambda: [[picture.path, part.contents[i]] for picture, part, i in kept],
            lambda: [[picture.path, part.former_contents[i]] for picture, part, i in kept],
            self.size,
            self.most_pixels,
            self.test_share,
            self.val,
            {TRAIN: f"split {self.train!r}", TEST: f"split {self.test!r}"},
            [*dict.fromkeys(note for _, part in parts for note in part.notes), *self._left_out(tree, paths)],
        ).images(cache, "timm")

    def open_picture(self, path: Path) -> np.ndarray:
        return open_picture(path, self.size, self.most_pixels)

    def _names(self, written: Sequence[str]) -> Mapping[str, str]:
        """Class names as the data set writes them -> as a sentence has them."""
        named: dict[str, str] = {}
        for name, words in in_words(list(dict.fromkeys(written))).items():
            if shown(name) != name:
                raise DataError(f"{self.origin}: the class name {shown(name)} is not UTF-8: rename its folder")
            if not words:
                raise DataError(f"{self.origin}: no class name is left of {name!r}")
            if words in named.values():
                other = next(earlier for earlier, value in named.items() if value == words)
                raise DataError(f"{self.origin}: {other!r} and {name!r} give the same class name {words!r}")
            named[name] = words
        for name in self.exclude:
            if name not in named.values():
                raise DataError(f"{self.origin}: exclude: no class {name!r}{nearest(name, list(named.values()))}")
        return named

    # ------------------------------------------------------------ the factory

    def _part(self, split: str, cache: Path, tree: Tree) -> Part:
        if self.name in CIFAR:
            return self._cifar(split, self.path or cache / "downloads")
        return self._hub(split) if self.name.startswith(HUB) else self._tree(split, tree)

    def _create(self, root: Path | None, split: str, **options: Any) -> Any:
        from timm.data import create_dataset

        return create_dataset(self.name, None if root is None else str(root), split=split, **options)

    def _cifar(self, split: str, root: Path) -> Part:
        try:
            dataset = self._create(root, split)
        except RuntimeError as error:  # what torchvision raises for files that are absent, or not the official ones
            dataset = self._downloaded_cifar(split, root, error)
        images: np.ndarray = dataset.data  # (n, 32, 32, 3)
        part = "train" if dataset.train else "test"
        contents = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
        return Part(
            dataset.classes,
            dataset.targets,
            [f"{part}/{i}" for i in range(len(images))],
            contents,
            contents,
            lambda i: square(Image.fromarray(images[i]), self.size),
        )

    def _downloaded_cifar(self, split: str, root: Path, error: RuntimeError) -> Any:
        import torchvision.datasets

        reader = getattr(torchvision.datasets, self.name.removeprefix("torch/").upper())
        absent = f"{self.origin}: {root / reader.base_folder} does not hold the whole official archive"
        if self.path is not None:
            raise DataError(f"{absent}: unpack {reader.filename} in {root}") from error
        if not self.download:
            raise DataError(f"{absent}: set 'download: true', or give 'path: FOLDER'") from error
        absent = f"{absent}, and it cannot be downloaded now"
        if offline_by_choice():
            raise DataError(f"{absent}: HF_HUB_OFFLINE is set; unset it, or give 'path: FOLDER'") from error
        if not reachable(reader.url):
            raise DataError(f"{absent}: there is no network; connect once, or give 'path: FOLDER'") from error
        try:
            return self._create(root, split, download=True)
        except (OSError, RuntimeError) as failed:
            raise DataError(f"{absent}: {_first_line(failed)}; try again, or give 'path: FOLDER'") from failed

    def _tree(self, split: str, tree: Tree) -> Part:
        assert self.path is not None
        try:
            dataset = self._create(self.path, split)
        except (OSError, RuntimeError) as error:
            raise DataError(f"{self.path}: {_first_line(error)}") from error
        reader = getattr(dataset, "reader", dataset)
        if self.test is not None and Path(reader.root) == self.path:  # where timm goes if there is no such split
            raise DataError(
                f"{self.path}: has no folder for the split {split!r}: name the folders there are as 'train' and 'test', "
                "or set 'test: null'"
            )
        self._check_is_no_split(Path(reader.root))
        pictures = frozenset(str(self.path / path) for path in tree.pictures)  # both readers take hidden ones as well
        samples = sorted(sample for sample in reader.samples if sample[0] in pictures)  # torchvision's order is another
        files = [Path(file) for file, _ in samples]
        return Part(
            sorted(reader.class_to_idx, key=reader.class_to_idx.__getitem__),
            [label for _, label in samples],
            [file.relative_to(self.path).as_posix() for file in files],
            [file_identity(file) for file in files],
            [file_identity(file, of_ends) for file in files],
            lambda i: open_picture(files[i], self.size, self.most_pixels),
            self._repeats(file.relative_to(reader.root).parent.parts for file in files),
        )

    def _check_is_no_split(self, root: Path) -> None:
        """Raises DataError where splits would be taken for classes, or for one."""
        folders = sub_folders(root)
        if are_splits(folders):
            raise DataError(
                f"{shown(root)}: has {all_of(f'{name}/' for name in splits_in(folders, shown(root)))}, which are splits: name "
                "them as 'train' and 'test'"
            )

    def _repeats(self, folders: Iterable[tuple[str, ...]]) -> list[str]:
        """A note where either of two folders may be the class."""
        repeats = repeats_among(parts for parts in folders if parts)
        if not repeats:
            return []
        taken, other = ("outer", TREES[0]) if self.name == TREES[-1] else ("inner", TREES[-1])
        return [f"{repeats}: the {taken} ones are the classes; name {other!r} takes the others"]

    def _left_out(self, tree: Tree, read: Set[str]) -> list[str]:
        """Notes on what a tree has and no split: timm's and torchvision's readers pass some formats by."""
        paths = [path for path in tree.pictures if str(path) not in read]
        why = "in no split that is named, or of a format that this reader passes by"
        return [*left_out(paths, f"pictures are {why}", f"picture is {why}"), *left_out_by_name(tree)]

    def _hub(self, split: str) -> Part:
        if importlib.util.find_spec("datasets") is None:
            raise MissingPackage(f'{self.origin} needs the package datasets: pip install "wspace[data]"')
        refusal = self._no_download()
        try:
            with _local_only(refusal is not None):
                reader = self._create(self.path, split).reader
        except Exception as error:  # the hub's, the network's, the builder's and pyarrow's have no root in common
            if refusal is not None:
                raise DataError(f"{self.origin} is not here and cannot be downloaded now: {refusal}") from error
            raise DataError(f"{self.origin}: split {split!r} cannot be loaded: {_first_line(error)}") from error
        if not reader.class_to_idx:
            raise DataError(f"{self.origin}: its {reader.label_key!r} column has no class names")
        labels = [-1 if label is None else int(label) for label in reader.dataset[reader.label_key]]
        if min(labels, default=0) < 0:
            raise DataError(f"{self.origin}: split {split!r} has images without a label")

        def content(i: int) -> bytes:
            with reader[i][0] as stream:
                return stream.read()

        paths = [f"{split}/{i}" for i in range(len(labels))]
        contents = [hashlib.sha256(content(i)).hexdigest() for i in range(len(labels))]
        return Part(
            sorted(reader.class_to_idx, key=reader.class_to_idx.__getitem__),
            labels,
            paths,
            contents,
            contents,
            lambda i: decode_picture(content(i), paths[i], self.size, self.most_pixels),
        )

    def _no_download(self) -> str | None:
        """Why nothing may be fetched from the hub, and what to do about it."""
        instead = "or point HF_HOME to a cache that has it" if self.path is None else "or give another 'path'"
        if not self.download:
            return f"set 'download: true', {instead}"
        if offline_by_choice():
            return f"HF_HUB_OFFLINE is set; unset it, {instead}"
        return None if reachable(constants.ENDPOINT) else f"there is no network; connect once, {instead}"


@contextmanager
def _local_only(local: bool) -> Iterator[None]:
    """What is in the hub's cache, and no attempt at more, which without a network would take minutes to fail."""
    if not local:
        yield
        return
    settings: list[Any] = [
        constants,
        importlib.import_module("datasets").config,
    ]  # the variables are read once, at import
    before = [module.HF_HUB_OFFLINE for module in settings]
    try:
        for module in settings:
            module.HF_HUB_OFFLINE = True
        yield
    finally:
        for module, value in zip(settings, before, strict=True):
            module.HF_HUB_OFFLINE = value


def in_words(names: Sequence[str]) -> dict[str, str]:
    """'001.ak47' -> 'ak47', 'n02124075' -> 'Egyptian cat', 'oak_tree' -> 'oak tree'."""
    words = {name: class_name(re.sub(r"^\d+\.", "", name)) for name in names}
    numbers = [name for name in names if re.fullmatch(r"n\d{8}", name)]
    if numbers:
        from timm.data import ImageNetInfo

        wordnet = ImageNetInfo()
        lemmas: dict[str, str] = {}
        for number in numbers:
            with suppress(KeyError):  # some other data set's number
                lemmas[number] = class_name(wordnet.label_name_to_description(number).partition(",")[0])
        taken = list(lemmas.values())
        for number, lemma in lemmas.items():  # a bird and a machine are called crane: their definitions differ
            words[number] = wordnet.label_name_to_description(number, True) if taken.count(lemma) > 1 else lemma
    return words


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
