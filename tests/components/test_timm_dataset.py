"""Data sets through timm's factory, on local stand-ins: fake archives of CIFAR, painted folders, a stand-in for the hub."""

from __future__ import annotations

import hashlib
import io
import pickle
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from wspace.components.datasets import timm as timm_module
from wspace.components.datasets.folder import Folder
from wspace.components.datasets.timm import TimmDataset, in_words
from wspace.data.encoders import downloads
from wspace.interfaces import TEST, TRAIN, VAL, Images
from wspace.support.errors import DataError, MissingPackage


def everything(images: Images) -> np.ndarray:
    return images.read(np.arange(len(images)))


def counts(images: Images) -> dict[str, list[int]]:
    return {
        name: np.bincount(images.split[images.labels == k], minlength=3).tolist()
        for k, name in enumerate(images.classes)
    }


def paint(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (24, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def paint_splits(
    root: Path, *splits: str, classes: tuple[str, ...] = ("oak_tree", "red-panda"), count: int = 10
) -> Path:
    for tone, split in enumerate(splits):
        for name in classes:
            for i in range(count):
                paint(root / split / name / f"{i}.png", (10 * tone, i, len(name)))
    return root


def error_of(cache: Path, *arguments: Any, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        TimmDataset(*arguments, **options).load(cache)
    return str(caught.value)


# ---------------------------------------------------------------- folders


@pytest.mark.parametrize("name", ["", "folder", "torch/image_folder"])
def test_a_tree_with_splits(tmp_path: Path, name: str) -> None:
    root = paint_splits(tmp_path / "data", "train", "validation")
    images = TimmDataset(name, root, size=16, val=0.2).load(tmp_path / "cache")
    assert images.classes == ("oak tree", "red panda") and images.warnings == ()
    assert counts(images) == {"oak tree": [8, 2, 10], "red panda": [8, 2, 10]}
    pixels = everything(images)
    assert pixels.shape == (40, 16, 16, 3) and pixels.dtype == np.uint8
    assert {int(s): set(pixels[images.split == s][:, 0, 0, 0].tolist()) for s in (TRAIN, VAL, TEST)} == {
        TRAIN: {0}, VAL: {0}, TEST: {10},
    }  # fmt: skip
    assert set(pixels[images.labels == 1][:, 3, 3, 2].tolist()) == {len("red-panda")}
    assert [file.suffix for file in sorted((tmp_path / "cache").iterdir())] == [".json", ".npy"]


def test_what_it_makes_of_a_tree_is_what_the_folder_data_set_makes(tmp_path: Path) -> None:
    root = paint_splits(tmp_path / "data", "train", "test")
    (root / "train" / "oak_tree" / "7.png").write_bytes(b"no picture")
    ours = TimmDataset("", root, test="test", size=16, val=0.2).load(tmp_path / "cache")
    theirs = Folder(root, size=16, val=0.2).load(tmp_path / "cache")
    assert ours.classes == theirs.classes and ours.warnings == theirs.warnings != ()

    def sorted_rows(images: Images) -> list[tuple[int, int, bytes]]:
        rows = zip(images.labels.tolist(), images.split.tolist(), everything(images), strict=True)
        return sorted((label, split, pixels.tobytes()) for label, split, pixels in rows)

    assert sorted_rows(ours) == sorted_rows(theirs)


def test_a_tree_without_a_test_split_gives_a_share_of_each_class(tmp_path: Path) -> None:
    root = paint_splits(tmp_path / "data", ".", classes=("001.ak47", "002.car-side", "257.clutter"), count=20)
    dataset = TimmDataset("torch/image_folder", root, test=None, size=16, exclude=("clutter",))
    images = dataset.load(tmp_path / "cache")
    assert counts(images) == {"ak47": [14, 2, 4], "car side": [14, 2, 4]}
    again = TimmDataset("", root, test=None, size=16, exclude=("clutter",)).load(tmp_path / "other cache")
    assert again.fingerprint == images.fingerprint and np.array_equal(everything(again), everything(images))


def test_the_fingerprint_follows_pixels_splits_and_classes(tmp_path: Path) -> None:
    root = paint_splits(tmp_path / "data", "train", "test", classes=("a", "b", "c"), count=4)
    seen = []
    for options in ({}, {"val": 0.5}, {"size": 17}, {"exclude": ("c",)}):
        seen.append(TimmDataset("", root, test="test", **{"size": 16} | options).load(tmp_path / "cache").fingerprint)
    paint(root / "train" / "a" / "0.png", (200, 0, 0))
    seen.append(TimmDataset("", root, test="test", size=16).load(tmp_path / "cache").fingerprint)
    assert len(set(seen)) == 5


def test_a_tree_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = paint_splits(tmp_path / "data", "train", "test")
    before = TimmDataset("", root, test="test", size=16).load(tmp_path / "cache")
    opened, real = [], timm_module.open_picture
    monkeypatch.setattr(timm_module, "open_picture", lambda path, *rest: (opened.append(path), real(path, *rest))[1])
    again = TimmDataset("", root, test="test", size=16, val=0.3).load(tmp_path / "cache")
    assert len(opened) <= 3 and np.array_equal(everything(again), everything(before))


def test_unreadable_pictures_are_skipped_and_named(tmp_path: Path) -> None:
    root = paint_splits(tmp_path / "data", "train", "test", count=4)
    file = root / "test" / "oak_tree" / "2.png"
    file.write_bytes(file.read_bytes()[:40])
    images = TimmDataset("", root, test="test", size=16).load(tmp_path / "cache")
    assert images.warnings == (
        "1 of 16 pictures cannot be read and is skipped: test/oak_tree/2.png: cannot identify image file",
    )
    assert counts(images)["oak tree"] == [3, 1, 3]
    for i in range(4):
        (root / "test" / "oak_tree" / f"{i}.png").write_bytes(b"")
    assert error_of(tmp_path / "cache", "", root, test="test", size=16) == (
        f"{root}: class 'oak tree' has no pictures that can be read in split 'test'"
    )


def test_each_fault_of_a_tree_has_its_message(tmp_path: Path) -> None:
    cache, root = tmp_path / "cache", paint_splits(tmp_path / "data", "train", "val", count=2)
    assert error_of(cache, "", tmp_path / "no") == f"{tmp_path}/no: no such folder"
    assert error_of(cache, "", root / "val" / "oak_tree" / "0.png").endswith("0.png: is a file, not a folder")
    assert error_of(cache, "", root, test="test") == (
        f"{root}: has no folder for the split 'test': name the folders there are as 'train' and 'test', or set 'test: null'"
    )
    assert error_of(cache, "", root, test="train") == f"{root}: splits 'train' and 'train' are the same images"
    paint(root / "val" / "fox" / "0.png", (0, 0, 0))
    assert error_of(cache, "", root, test="val") == f"{root}: class 'fox' has no pictures in split 'train'"
    assert error_of(cache, "", root, test="val", exclude=("oak",)) == (
        f"{root}: exclude: no class 'oak': did you mean oak tree?"
    )
    assert error_of(cache, "", root, test="val", exclude=("fox", "red panda")) == (
        f"{root}: has 1 class, and at least 2 are needed"
    )
    for name in ("001.ak47", "ak47"):
        paint(root / "train" / name / "0.png", (0, 0, 0))
    assert error_of(cache, "", root, test="val") == f"{root}: '001.ak47' and 'ak47' give the same class name 'ak47'"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert (
        error_of(cache, "torch/image_folder", empty, test=None)
        == f"{empty}: Couldn't find any class folder in {empty}."
    )
    assert error_of(cache, "", empty, test=None).startswith(f"{empty}: Found 0 images in subfolders of {empty}.")
    assert error_of(cache, "", empty, test=None, test_share=0.6, val=0.4) == (
        "test_share 0.6 and val 0.4 together leave no picture to train on"
    )


def test_a_name_that_cannot_be_used(tmp_path: Path) -> None:
    assert error_of(tmp_path, "cifar100") == (
        "dataset 'timm': no name 'cifar100'. Did you mean 'torch/cifar100'? "
        "Known: hfds/ORG/NAME, torch/cifar10, torch/cifar100, torch/image_folder"
    )
    assert error_of(tmp_path, "torch/image_folder") == (
        "dataset 'timm': name 'torch/image_folder' is for folders: give 'path: FOLDER'"
    )


def test_numbers_become_words() -> None:
    named = in_words(["001.ak47", "n02124075", "n02012849", "n03126707", "n99999999", "oak_tree", "n04399382"])
    assert named | {"n02012849": "", "n03126707": ""} == {
        "001.ak47": "ak47",
        "n02124075": "Egyptian cat",
        "n02012849": "",
        "n03126707": "",
        "n99999999": "n99999999",
        "oak_tree": "oak tree",
        "n04399382": "teddy",
    }
    assert named["n02012849"].startswith("crane: large long-necked wading bird")
    assert named["n03126707"].startswith("crane: lifts and moves heavy objects")


# ---------------------------------------------------------------- CIFAR


FINE = ["apple", "aquarium_fish", "baby"]


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-100's files as torchvision reads them, of a few images; their MD5 sums are the official ones for a while."""
    reader, root = torchvision.datasets.CIFAR100, tmp_path / "data"
    folder = root / reader.base_folder
    folder.mkdir(parents=True)

    def write(name: str, content: dict[str, Any]) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    def split(count: int, tone: int) -> dict[str, Any]:
        images = np.stack([np.full(3 * 32 * 32, tone + i, np.uint8) for i in range(count)])
        return {"data": images, "fine_labels": [i % 3 for i in range(count)], "coarse_labels": [0] * count}

    monkeypatch.setattr(reader, "train_list", [["train", write("train", split(30, 0))]])
    monkeypatch.setattr(reader, "test_list", [["test", write("test", split(9, 100))]])
    monkeypatch.setattr(reader, "meta", reader.meta | {"md5": write("meta", {"fine_label_names": FINE})})
    return root


def test_cifar_with_its_names_and_splits(archive: Path, tmp_path: Path) -> None:
    images = TimmDataset("torch/cifar100", archive, size=32).load(tmp_path / "cache")
    assert counts(images) == {"apple": [9, 1, 3], "aquarium fish": [9, 1, 3], "baby": [9, 1, 3]}
    pixels = everything(images)
    assert np.array_equal(pixels[:, 0, 0, 0], [*range(30), *range(100, 109)])
    assert images.labels.tolist() == [i % 3 for i in range(30)] + [i % 3 for i in range(9)]
    assert (images.split[30:] == TEST).all()


def test_cifar_in_the_cache_folder(archive: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    archive.rename(cache / "downloads")
    assert len(TimmDataset("torch/cifar100", size=16).load(cache)) == 39


def test_cifar_that_is_absent_or_not_the_official_one(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = archive / "cifar-100-python"
    with (folder / "train").open("ab") as file:
        file.write(b"?")
    absent = f"dataset 'timm': torch/cifar100: {folder} does not hold the whole official archive"
    assert error_of(tmp_path, "torch/cifar100", archive) == f"{absent}: unpack cifar-100-python.tar.gz in {archive}"
    absent = absent.replace(str(archive), str(tmp_path / "downloads"))
    assert error_of(tmp_path, "torch/cifar100") == f"{absent}: set 'download: true', or give 'path: FOLDER'"
    absent = f"{absent}, and it cannot be downloaded now"
    assert error_of(tmp_path, "torch/cifar100", download=True) == (
        f"{absent}: HF_HUB_OFFLINE is set; unset it, or give 'path: FOLDER'"
    )
    monkeypatch.setattr(timm_module, "offline_by_choice", lambda: False)
    monkeypatch.setattr(timm_module, "reachable", lambda address: False)
    assert error_of(tmp_path, "torch/cifar100", download=True) == (
        f"{absent}: there is no network; connect once, or give 'path: FOLDER'"
    )
    monkeypatch.setattr(timm_module, "reachable", lambda address: "toronto" in address)
    monkeypatch.setattr(
        torchvision.datasets.CIFAR100, "download", lambda self: (_ for _ in ()).throw(OSError("it broke"))
    )
    assert error_of(tmp_path, "torch/cifar100", download=True) == (
        f"{absent}: it broke; try again, or give 'path: FOLDER'"
    )


def test_cifar_is_downloaded_when_asked(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setattr(timm_module, "offline_by_choice", lambda: False)
    monkeypatch.setattr(timm_module, "reachable", lambda address: True)
    monkeypatch.setattr(
        torchvision.datasets.CIFAR100,
        "download",
        lambda self: archive.rename(self.root) if archive.exists() else None,
    )
    assert len(TimmDataset("torch/cifar100", size=16, download=True).load(cache)) == 39


def test_a_split_of_cifar_that_is_both(archive: Path, tmp_path: Path) -> None:
    assert error_of(tmp_path, "torch/cifar100", archive, train="all", size=16) == (
        "dataset 'timm': torch/cifar100: splits 'all' and 'validation' are the same images"
    )


# ---------------------------------------------------------------- the hub


class Column(list[Any]):
    """A table as timm's reader uses it: `datasets` itself is not among what the tests install."""

    def __init__(self, rows: list[dict[str, Any]], names: list[str] | None):
        super().__init__(rows)
        self.info = SimpleNamespace(features={"label": SimpleNamespace(names=names)}, splits=None)

    def cast_column(self, name: str, feature: object) -> Column:
        assert (name, feature) == ("image", "undecoded")
        return self

    def __getitem__(self, key: Any) -> Any:
        return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(key)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A package `datasets` whose one data set has the splits train and valid."""
    module: Any = ModuleType("datasets")
    module.__spec__ = ModuleSpec("datasets", None)
    module.config = SimpleNamespace(HF_HUB_OFFLINE=False)
    module.names, module.offline, module.asked = ["n02124075", "n03126707"], [], []

    def picture(tone: int) -> dict[str, Any]:
        file = io.BytesIO()
        Image.new("RGB", (64, 64), (tone, 0, 0)).save(file, "PNG")
        return {"bytes": file.getvalue(), "path": None}

    module.splits = {
        "train": [{"image": picture(i), "label": i % 2} for i in range(20)],
        "valid": [{"image": picture(100 + i), "label": i % 2} for i in range(4)],
    }

    def load_dataset(name: str, split: str, cache_dir: str | None) -> Column:
        module.asked.append((name, split, cache_dir))
        module.offline.append((module.config.HF_HUB_OFFLINE, timm_module.constants.HF_HUB_OFFLINE))
        if split not in module.splits:
            raise ValueError(f"Unknown split {split!r}.\nAnd more.")
        return Column(module.splits[split], module.names)

    module.load_dataset = load_dataset
    module.Image = lambda decode: "decoded" if decode else "undecoded"
    monkeypatch.setitem(sys.modules, "datasets", module)
    monkeypatch.setattr(timm_module.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(timm_module, "offline_by_choice", lambda: False)
    monkeypatch.setattr(timm_module, "reachable", lambda address: True)
    sys.modules.pop("timm.data.readers.reader_hfds", None)
    yield module
    sys.modules.pop("timm.data.readers.reader_hfds", None)


def test_a_data_set_of_the_hub(hub: Any, tmp_path: Path) -> None:
    dataset = TimmDataset("hfds/zh-plus/tiny-imagenet", test="valid", size=16, download=True)
    images = dataset.load(tmp_path)
    assert images.classes == ("Egyptian cat", "crane")
    assert counts(images) == {"Egyptian cat": [9, 1, 2], "crane": [9, 1, 2]}
    assert everything(images)[:, 0, 0, 0].tolist() == [*range(20), *range(100, 104)]
    assert hub.asked == [("zh-plus/tiny-imagenet", split, None) for split in ("train", "valid")]
    assert hub.offline == [(False, False)] * 2
    hub.splits["train"][3]["image"]["bytes"] = b"broken"
    broken = dataset.load(tmp_path)
    assert broken.fingerprint != images.fingerprint
    assert broken.warnings == ("1 of 24 pictures cannot be read and is skipped: train/3: cannot identify image file",)


@pytest.mark.parametrize("download", [True, False])
def test_the_hub_is_left_alone_without_a_network_or_leave(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, download: bool
) -> None:
    monkeypatch.setattr(timm_module, "reachable", lambda address: False)
    dataset = TimmDataset("hfds/org/name", test="valid", size=16, download=download)
    assert len(dataset.load(tmp_path)) == 24
    assert hub.offline == [(True, True)] * 2
    assert (hub.config.HF_HUB_OFFLINE, timm_module.constants.HF_HUB_OFFLINE) == (False, False)


def test_each_fault_of_a_hub_data_set_has_its_message(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = "dataset 'timm': hfds/org/name"
    options: dict[str, Any] = {"size": 16, "download": True}
    assert error_of(tmp_path, "hfds/org/name", **options) == (
        f"{who}: split 'validation' cannot be loaded: Unknown split 'validation'."
    )
    hub.splits["valid"][1]["label"] = None
    assert (
        error_of(tmp_path, "hfds/org/name", test="valid", **options)
        == f"{who}: split 'valid' has images without a label"
    )
    hub.names = None
    assert (
        error_of(tmp_path, "hfds/org/name", test="valid", **options) == f"{who}: its 'label' column has no class names"
    )
    hub.splits.clear()
    absent = f"{who} is not here and cannot be downloaded now"
    assert error_of(tmp_path, "hfds/org/name") == (
        f"{absent}: set 'download: true', or point HF_HOME to a cache that has it"
    )
    assert error_of(tmp_path, "hfds/org/name", tmp_path) == f"{absent}: set 'download: true', or give another 'path'"
    monkeypatch.setattr(timm_module, "reachable", lambda address: False)
    assert error_of(tmp_path, "hfds/org/name", **options) == (
        f"{absent}: there is no network; connect once, or point HF_HOME to a cache that has it"
    )
    monkeypatch.setattr(timm_module, "offline_by_choice", downloads.offline_by_choice)
    assert error_of(tmp_path, "hfds/org/name", **options) == (
        f"{absent}: HF_HUB_OFFLINE is set; unset it, or point HF_HOME to a cache that has it"
    )


def test_the_hub_needs_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage) as caught:
        TimmDataset("hfds/org/name").load(tmp_path)
    assert str(caught.value) == "dataset 'timm': hfds/org/name needs the package datasets: pip install \"wspace[data]\""


def test_one_picture_from_outside(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", (1, 2, 3))
    dataset = TimmDataset("torch/cifar100", size=20)
    assert dataset.open_picture(tmp_path / "a.png").shape == (20, 20, 3)
    with pytest.raises(DataError, match="none.png: cannot be read as a picture: there is no such file"):
        dataset.open_picture(tmp_path / "none.png")
