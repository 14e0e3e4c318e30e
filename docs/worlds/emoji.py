"""Emoji as a picture folder: a class for each animal, dish, thing or place, and a drawing of it by each vendor.

    python docs/worlds/emoji.py OUT google/package facebook/package twitter/package

The packages emoji-datasource-google, -facebook and -twitter, unpacked. Those of the last vendor are test pictures.
"""

import json
import shutil
import sys
from pathlib import Path

CATEGORIES = ("Animals & Nature", "Food & Drink", "Activities", "Objects", "Travel & Places")
CLOCKS = "time"  # the sub-category of 24 clock faces, named after hours


def make(out: Path, packages: list[Path]) -> None:
    *_, test = packages
    for emoji in json.loads((test / "emoji.json").read_text(encoding="utf-8")):
        if emoji["category"] not in CATEGORIES or emoji["subcategory"] == CLOCKS:
            continue
        drawings = {package: sorted(package.glob(f"img/*/64/{emoji['image']}")) for package in packages}
        if not all(drawings.values()):
            continue
        for package, files in drawings.items():
            folder = out / ("test" if package == test else "train") / emoji["name"].lower()
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(files[0], folder / f"{files[0].parts[-3]}.png")


if __name__ == "__main__":
    make(Path(sys.argv[1]), [Path(package) for package in sys.argv[2:]])
