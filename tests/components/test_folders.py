"""Data set `folder`: which folders are splits, which are classes, and what is said of all the rest."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wspace.components.datasets.folder import Folder
from wspace.components.datasets.timm import TimmDataset
from wspace.interfaces import Images
from wspace.support.errors import DataError


def paint(root: Path, *folders: str, count: int = 4, suffix: str = ".png") -> Path:
    """`count` pictures in each of the folders, no two alike."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            tone = sum((root / folder).as_posix().encode()) % 251
            Image.new("RGB", (20, 20), (tone, i, 7)).save(root / folder / f"{i}{suffix}")
    return root


def load(root: Path, **options: Any) -> Images:
    return Folder(root, 16, **options).load(root.parent / "cache")


def error_of(root: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(root, **options)
    return str(caught.value)


def counts(images: Images) -> dict[str, list[int]]:
    """Class -> how many pictures to train, to choose and to test on."""
    return {
        name: np.bincount(images.split[images.labels == k], minlength=3).tolist()
        for k, name in enumerate(images.classes)
    }


# ---------------------------------------------------------------- splits


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "valid", "test"),
        ("train", "validation", "test"),
        ("Train", "Val", "Test"),
        ("TRAINING", "Validation", "Testing"),
        ("training_set", "val_set", "test_set"),
        ("train2017", "val2017", "test2017"),
        ("train-images", "dev", "eval"),
        ("Training Data", "Dev Data", "Evaluation Data"),
        ("trainset", "valset", "testset"),
    ],
)
def test_splits_go_by_any_usual_name_in_any_case(tmp_path: Path, train: str, val: str, test: str) -> None:
    root = tmp_path / "data"
    for split, count in ((train, 5), (val, 2), (test, 3)):
        paint(root, f"{split}/cat", f"{split}/dog", count=count)
    images = load(root)
    assert counts(images) == {"cat": [5, 2, 3], "dog": [5, 2, 3]}
    assert images.warnings == ()


def test_splits_lie_in_each_class_as_well(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for split, count in (("Train", 5), ("valid", 2), ("test", 3)):
        paint(root, f"cat/{split}", f"dog/{split}", count=count)
    images = load(root)
    assert counts(images) == {"cat": [5, 2, 3], "dog": [5, 2, 3]} and images.warnings == ()
    paint(root, "cow")
    assert (
        error_of(root)
        == f"{root}: cat/ has folders of splits in it, and cow/ has not: rename those in it, if they are none"
    )
    paint(root, "cow/Train", "cow/valid")
    assert error_of(root) == f"{root}/cow: has Train/ and valid/ but no test/"


def test_one_split_in_each_class_is_none(tmp_path: Path) -> None:
    images = load(paint(tmp_path / "data", "cat/train", "dog/train", "cow/test", count=8))
    assert counts(images) == {"cat": [5, 1, 2], "cow": [5, 1, 2], "dog": [5, 1, 2]}


def test_two_folders_of_one_split_are_refused(tmp_path: Path) -> None:
    root = paint(tmp_path / "data", "train/cat", "train/dog", "test/cat", "test/dog", "eval/cat", "eval/dog")
    assert error_of(root) == f"{root}: eval/ and test/ are both to test on: join them, or rename one"


def test_a_missing_split_is_named_as_its_neighbours_are(tmp_path: Path) -> None:
    root = paint(tmp_path / "data", "Training/cat", "Training/dog", "Valid/cat", "Valid/dog", "notes/x")
    assert error_of(root) == f"{root}: has Training/ and Valid/ but no test/"


def test_a_split_without_folders_of_classes_is_refused(tmp_path: Path) -> None:
    root = paint(tmp_path / "data", "train/cat", "train/dog", "test", count=3)
    assert error_of(root) == (
        f"{root}/test: its 3 pictures lie in no class's folder; if nothing says what they show, set 'dataset.path' to the "
        "folder to train on, which is then split"
    )
    (root / "test2").mkdir()
    assert error_of(root) == f"{root}: test/ and test2/ are both to test on: join them, or rename one"


def test_a_class_may_be_called_like_one_split(tmp_path: Path) -> None:
    images = load(paint(tmp_path / "data", "train", "bus", "car"))
    assert images.classes == ("bus", "car", "train")


@pytest.mark.parametrize("name", ["bullet train", "test tube", "train station", "trains", "value", "contest"])
def test_other_words_make_no_split(tmp_path: Path, name: str) -> None:
    assert load(paint(tmp_path / "data", name, "cat", "dog")).classes == tuple(sorted(["cat", "dog", name]))


# ---------------------------------------------------------------- domains


def test_sub_folders_that_repeat_are_asked_about(tmp_path: Path) -> None:
    root = tmp_path / "data"
    paint(
        root, *(f"{domain}/{name}" for domain in ("Art", "Product") for name in ("Alarm_Clock", "Bike", "Mug", "Pen"))
    )
    paint(root, "Photo/alarm-clock", "Photo/Ruler", count=5)
    assert error_of(root) == (
        f"{root}: folders 'Art' and 'Product' have the same folders in them, 'Alarm Clock', 'Bike', 'Mug' and 1 more: set "
        "'dataset.classes' to inner if the latter are the classes, or to outer if the former are; if the former are splits, "
        "call them train, val and test"
    )
    outer = load(root, classes="outer")
    assert {name: sum(numbers) for name, numbers in counts(outer).items()} == {"Art": 16, "Photo": 10, "Product": 16}
    inner = load(root, classes="inner")
    assert {name: sum(numbers) for name, numbers in counts(inner).items()} == {
        "Alarm Clock": 8, "Bike": 8, "Mug": 8, "Pen": 8, "Ruler": 5, "alarm clock": 5,
    }  # fmt: skip


def test_domains_with_splits_of_their_own(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for split, count in (("train", 5), ("test", 3)):
        paint(
            root, *(f"{domain}/{split}/{name}" for domain in ("art", "photo") for name in ("bike", "mug")), count=count
        )
        paint(root.parent / "other", *(f"{split}/{d}/{name}" for d in ("art", "photo") for name in ("bike", "mug")))
    assert "folders 'art' and 'photo' have the same folders in them, 'bike' and 'mug'" in error_of(root)
    assert counts(load(root, classes="inner")) == {"bike": [8, 2, 6], "mug": [8, 2, 6]}
    assert "folders 'art' and 'photo' have the same folders in them, 'bike' and 'mug'" in error_of(
        root.parent / "other"
    )
    assert counts(load(root.parent / "other", classes="inner")) == {"bike": [7, 1, 8], "mug": [7, 1, 8]}


def test_folders_that_stand_alone_are_passed_by(tmp_path: Path) -> None:
    office = paint(
        tmp_path / "office", *(f"{d}/images/{name}" for d in ("amazon", "webcam") for name in ("bike", "mug"))
    )
    assert "folders 'amazon' and 'webcam' have the same folders in them, 'bike' and 'mug'" in error_of(office)
    kaggle = paint(
        tmp_path / "kaggle", *(f"seg_{s}/seg_{s}/{name}" for s in ("train", "test") for name in ("sea", "street"))
    )
    assert "folders 'seg_test' and 'seg_train' have the same folders in them, 'sea' and 'street'" in error_of(kaggle)


def test_one_name_that_repeats_is_no_class(tmp_path: Path) -> None:
    root = paint(tmp_path / "data", "cat/images", "dog/images", "cat/more", "dog/others")
    assert counts(load(root)) == {"cat": [5, 1, 2], "dog": [5, 1, 2]}


def test_one_folder_around_all_is_pointed_out(tmp_path: Path) -> None:
    root = paint(tmp_path / "data", "PetImages/Cat", "PetImages/Dog")
    assert error_of(root) == (
        f"{root}: has 1 class (sub-folders of pictures), and at least 2 are needed; is 'path' to be {root}/PetImages?"
    )


def test_several_folders_around_all_are_pointed_out(tmp_path: Path) -> None:
    root = paint(tmp_path / "data", "a/b/cat/1", "a/b/dog/1")
    assert error_of(root).endswith(f"; is 'path' to be {root}/a/b?")


def test_trees_read_by_timm_say_what_their_folders_may_mean(tmp_path: Path) -> None:
    root = paint(tmp_path / "data", *(f"{d}/{name}" for d in ("art", "photo") for name in ("bike", "mug")))
    names = {
        "torch/image_folder": (("art", "photo"), "outer", ""),
        "": (("bike", "mug"), "inner", "torch/image_folder"),
    }
    for name, (classes, taken, other) in names.items():
        images = TimmDataset(name, root, test=None, size=16).load(tmp_path / "cache")
        assert images.classes == classes
        assert images.warnings == (
            "folders 'art' and 'photo' have the same folders in them, 'bike' and 'mug': "
            f"the {taken} ones are the classes; name {other!r} takes the others",
        )
    splits = paint(tmp_path / "splits", *(f"{split}/{name}" for split in ("Train", "Test") for name in ("bike", "mug")))
    for name in names:
        with pytest.raises(DataError) as caught:
            TimmDataset(name, splits, test=None).load(tmp_path / "cache")
        assert str(caught.value) == f"{splits}: has Test/ and Train/, which are splits: name them as 'train' and 'test'"


# ---------------------------------------------------------------- what is left out


def test_nothing_with_pictures_in_it_is_left_out_in_silence(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for split, count in (("train", 5), ("test", 3)):
        paint(root, f"{split}/cat", f"{split}/dog", count=count)
    whole = load(root)
    assert whole.warnings == ()
    paint(root, "extra/cat", "train/.ipynb_checkpoints", ".", "test", count=2)
    (root / "train" / "cat" / "a.heic").write_bytes(b"")
    (root / "train" / "cat" / "notes").write_bytes(b"")
    (root / "more.zip").write_bytes(b"")
    (root / "gone").symlink_to("nowhere")
    images = load(root)
    assert counts(images) == counts(whole)
    assert images.warnings == (
        "4 pictures lie in no split and are left out, the first: 0.png",
        "2 pictures lie in no class's folder and are left out, the first: test/0.png",
        "4 files (2 without a suffix, 1 .zip, 1 .heic) are no pictures by their names and are left out, the first: gone",
        "2 pictures are hidden and are left out, the first: train/.ipynb_checkpoints/0.png",
    )


# ---------------------------------------------------------------- what is there twice


def test_pictures_to_test_on_that_are_trained_on_too_are_counted(tmp_path: Path) -> None:
    root = paint(tmp_path / "data", "train/cat", "train/dog", "test/cat", "test/dog")
    assert load(root).warnings == ()
    for i in range(2):
        shutil.copy(root / f"train/cat/{i}.png", root / f"test/cat/copy{i}.png")
    assert load(root).warnings == (
        "2 of 10 test pictures have the same pixels as pictures to train or to choose on, so scores flatter: the first is "
        "test/cat/copy0.png, as train/cat/0.png",
    )


def test_a_picture_of_two_classes_is_counted(tmp_path: Path) -> None:
    root = paint(tmp_path / "data", "train/cat", "train/dog", "test/cat", "test/dog")
    shutil.copy(root / "test/cat/0.png", root / "test/dog/other.png")
    assert load(root).warnings == (
        "1 of 17 pictures has the same pixels as pictures of another class: the first is test/dog/other.png, as "
        "test/cat/0.png",
    )


def test_pictures_that_a_tree_of_timm_passes_by_are_counted(tmp_path: Path) -> None:
    root = paint(tmp_path / "data", "train/cat", "train/dog", "validation/cat", "validation/dog")
    paint(root, "test/cat", count=2)
    paint(root, "train/cat", suffix=".tif", count=1)
    images = TimmDataset("", root, size=16).load(tmp_path / "cache")
    assert images.warnings == (
        "3 pictures are in no split that is named, or of a format that this reader passes by and are left out, the first: "
        "test/cat/0.png",
    )


@pytest.mark.parametrize("name", ["", "torch/image_folder"])
def test_hidden_folders_are_no_classes_of_trees_either(tmp_path: Path, name: str) -> None:
    root = paint(tmp_path / "data", "cat", "dog", ".ipynb_checkpoints")
    images = TimmDataset(name, root, test=None, size=16).load(tmp_path / "cache")
    assert images.classes == ("cat", "dog")
    assert images.warnings == ("4 pictures are hidden and are left out, the first: .ipynb_checkpoints/0.png",)


def test_a_folder_of_formats_that_are_not_read_says_so(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        (root / name / "a.HEIC").write_bytes(b"")
    assert error_of(root) == (
        f"{root}: has no classes (sub-folders of pictures), and at least 2 are needed; 2 files (2 .heic) are no pictures by "
        "their names and are left out, the first: cat/a.HEIC"
    )


@pytest.mark.parametrize(
    "suffix",
    [
        ".tif",
        ".TIFF",
        ".jfif",
        ".jpe",
        ".bmp",
        ".dib",
        ".ppm",
        ".pgm",
        ".jp2",
        ".tga",
        ".avif",
        ".ico",
        ".apng",
        ".qoi",
    ],
)
def test_every_format_that_pillow_decodes_by_itself_is_read(tmp_path: Path, suffix: str) -> None:
    root = tmp_path / "data"
    for red, name in ((200, "cat"), (20, "dog")):
        (root / name).mkdir(parents=True)
        for i in range(3):
            tone = red + 9 * i  # no two alike
            Image.new("L" if suffix == ".pgm" else "RGB", (24, 24), tone if suffix == ".pgm" else (tone, 9, 9)).save(
                root / name / f"{i}{suffix}", "PNG" if suffix == ".apng" else None
            )
    images = load(root)
    assert images.warnings == () and len(images) == 6
    assert np.abs(images.read([0, 5])[:, 8, 8, 0].astype(int) - [200, 38]).max() <= 3


def test_a_program_is_not_started_for_a_picture(tmp_path: Path) -> None:
    root = paint(tmp_path / "data", "cat", "dog")
    Image.new("RGB", (20, 20)).save(tmp_path / "x.eps")
    (root / "cat" / "x.png").write_bytes((tmp_path / "x.eps").read_bytes())  # Pillow would hand it to Ghostscript
    assert load(root).warnings == (
        "1 of 9 pictures cannot be read and is skipped: cat/x.png: cannot identify image file",
    )


# ---------------------------------------------------------------- links


def test_linked_folders_are_part_of_a_class(tmp_path: Path) -> None:
    root, pool = paint(tmp_path / "data", "cat", "dog"), paint(tmp_path / "pool", "more", "fox")
    (root / "cat" / "linked").symlink_to(pool / "more")
    (root / "fox").symlink_to(pool / "fox")
    images = load(root)
    assert {name: sum(numbers) for name, numbers in counts(images).items()} == {"cat": 8, "dog": 4, "fox": 4}


def test_a_link_back_is_not_followed(tmp_path: Path) -> None:
    root = paint(tmp_path / "data", "cat", "dog")
    (root / "cat" / "loop").symlink_to(root)
    assert {name: sum(numbers) for name, numbers in counts(load(root)).items()} == {"cat": 4, "dog": 4}


# ---------------------------------------------------------------- names that are not UTF-8


def test_a_class_folder_whose_name_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    root = paint(tmp_path / "data", "cat", "dog")
    os.rename(os.fsencode(root / "cat"), os.fsencode(root) + b"/caf\xe9")
    assert (
        error_of(root) == f"{root}/caf\\xe9: a class is named after its folder, and this name is not UTF-8: rename it"
    )
    with pytest.raises(DataError) as caught:
        TimmDataset("", root, test=None).load(tmp_path / "cache")
    assert str(caught.value) == f"{root}: the class name caf\\xe9 is not UTF-8: rename its folder"


def test_a_picture_whose_name_is_not_utf_8_is_read_and_can_be_named(tmp_path: Path) -> None:
    root = paint(tmp_path / "data", "cat", "dog")
    os.rename(os.fsencode(root / "cat" / "0.png"), os.fsencode(root / "cat") + b"/\xe9t\xe9.png")
    assert len(load(root)) == 8 and load(root).warnings == ()
    with open(os.fsencode(root / "dog") + b"/\xff.png", "wb") as file:
        file.write(b"no picture")
    (note,) = load(root).warnings
    assert note == "1 of 9 pictures cannot be read and is skipped: dog/\\xff.png: cannot identify image file"
    assert load(root).warnings == (note,), "said from what the cache remembers, too"
