"""Pictures that come with class names: which folders are taken, and what is said of others."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from wspace.data.examples import examples_of
from wspace.support.errors import UserError

CLASSES = ("red panda", "otter", "lamp")


def drawn(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(file)


def test_each_sub_folder_is_of_a_class_and_a_class_may_go_without(tmp_path: Path) -> None:
    drawn(tmp_path / "red-panda/b.png", tmp_path / "red-panda/more/a.png", tmp_path / "lamp/1.jpg")
    pictures, notes = examples_of(tmp_path, CLASSES)
    assert pictures == {
        "lamp": [tmp_path / "lamp/1.jpg"],
        "red panda": [tmp_path / "red-panda/b.png", tmp_path / "red-panda/more/a.png"],
    }
    assert notes == []


def test_what_is_of_no_class_is_noted(tmp_path: Path) -> None:
    drawn(tmp_path / "lamp/1.png", tmp_path / "loose.png")
    (tmp_path / "readme.txt").write_text("text", encoding="utf-8")
    assert examples_of(tmp_path, CLASSES)[1] == [
        "1 picture is of no class and is left out: loose.png",
        "1 file (1 .txt) is no picture by its name and is left out: readme.txt",
    ]


def test_classes_that_are_not_asked_for_are_left_alone_and_told(tmp_path: Path) -> None:
    drawn(*(tmp_path / folder / "1.png" for folder in ("lamp", "otters", "zebra")))
    pictures, notes = examples_of(tmp_path, CLASSES)
    assert pictures == {"lamp": [tmp_path / "lamp/1.png"]}
    assert notes == [f"2 classes of {tmp_path} are not asked for and are left alone, the first: otters"]
    pictures, notes = examples_of(tmp_path, [*CLASSES, "otters"])
    assert list(pictures) == ["lamp", "otters"]
    assert notes == [f"1 class of {tmp_path} is not asked for and is left alone, zebra"]


@pytest.mark.parametrize(
    ("folders", "empty", "message"),
    [
        (["lamps"], [], "{0}: has pictures of 'lamps', which is none of the classes asked for. Did you mean 'lamp'?"),
        (["lamp"], ["otter"], "{0}/otter: has no picture; remove it for a class that goes by its words"),
        ([], ["otter"], "{0}: has no sub-folder with pictures; make one for each class that has some"),
        ([], [], "{0}: has no sub-folder with pictures; make one for each class that has some"),
        (
            ["red-panda", "red_panda"],
            [],
            "{0}: folders 'red-panda' and 'red_panda' give the same class name 'red panda'",
        ),
    ],
)
def test_a_folder_that_does_not_fit_the_classes_is_refused(
    folders: list[str], empty: list[str], message: str, tmp_path: Path
) -> None:
    drawn(*(tmp_path / folder / "1.png" for folder in folders))
    for folder in empty:
        (tmp_path / folder).mkdir()
    with pytest.raises(UserError) as raised:
        examples_of(tmp_path, CLASSES)
    assert str(raised.value).partition(" Known:")[0] == message.format(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        examples_of(tmp_path / "none", CLASSES)
    assert str(raised.value) == f"{tmp_path}/none: no such folder"
