"""The scripts that make picture folders of packages: of what a package holds, what becomes a picture of which class."""

from __future__ import annotations

import gzip
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wspace.components.datasets.folder import list_pictures

WORLDS = Path(__file__).parents[2] / "docs/worlds"


def script(name: str) -> dict[str, Any]:
    return runpy.run_path(str(WORLDS / f"{name}.py"))


def picture(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(file)


def listed(folder: Path) -> list[str]:
    list_pictures(folder)  # which refuses what is no folder of classes
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*.png"))


def test_emoji_that_every_vendor_draws_are_classes_and_the_last_vendor_is_tested_on(tmp_path: Path) -> None:
    of_cat = {"image": "1.png", "name": "CAT", "category": "Animals & Nature", "subcategory": "animal-mammal"}
    of_dog = {**of_cat, "image": "2.png", "name": "DOG"}
    of_owl = {**of_cat, "image": "3.png", "name": "OWL"}
    emoji = [of_cat, of_dog, of_owl, {**of_cat, "category": "Flags"}, {**of_cat, "subcategory": "time"}]
    packages = [tmp_path / vendor for vendor in ("google", "twitter")]
    for package in packages:
        for image in ("1.png", "2.png", "3.png"):
            picture(package / "img" / package.name / "64" / image)
        (package / "emoji.json").write_text(json.dumps(emoji), encoding="utf-8")
    (tmp_path / "google/img/google/64/3.png").unlink()
    script("emoji")["make"](tmp_path / "out", packages)
    assert listed(tmp_path / "out") == [
        "test/cat/twitter.png", "test/dog/twitter.png", "train/cat/google.png", "train/dog/google.png",
    ]  # fmt: skip


def test_stamps_are_sorted_by_the_innermost_folder_of_photographs(tmp_path: Path) -> None:
    stamps = tmp_path / "stamps"
    for folder, count in {
        "animals/mammals": 5, "animals/mammals/equines": 4, "food/fruit": 4, "food/fruit/cartoon": 4, "food/nuts": 3,
        "symbols/math": 9,
    }.items():  # fmt: skip
        for number in range(count):
            picture(stamps / folder / f"{number}.png")
    script("stamps")["make"](tmp_path / "out", stamps)
    assert {Path(file).parts[0] for file in listed(tmp_path / "out")} == {"horse", "fruit"}


def test_fashion_is_dark_on_white_in_ten_classes(tmp_path: Path) -> None:
    made = script("fashion")
    kinds = len(made["CLASSES"])
    for prefix in ("train", "t10k"):
        pixels, labels = np.zeros((2 * kinds, 28, 28), np.uint8), np.arange(2 * kinds, dtype=np.uint8) % kinds
        for name, values in (("images-idx3", pixels), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
            (tmp_path / f"{prefix}-{name}-ubyte.gz").write_bytes(gzip.compress(header + values.tobytes()))
    made["make"](tmp_path / "out", tmp_path)
    files = listed(tmp_path / "out")
    assert len(files) == 4 * kinds and "train/ankle boot/19.png" in files
    assert np.asarray(Image.open(tmp_path / "out" / files[0])).min() == 255
