"""Photographs of Tux Paint as a picture folder: birds, fruit, tools and other kinds of things.

    python docs/worlds/stamps.py OUT usr/share/tuxpaint/stamps

The package tuxpaint-stamps-default, unpacked. Its folders are the classes; drawings and symbols are left out.
"""

import shutil
import sys
from pathlib import Path

LEFT_OUT = {"cartoon", "symbols", "seasonal", "people", "monuments", "flags"}
FEWEST = 4  # photographs of a class
CALLED = {  # folders whose own name says too little
    "aquatic": "aquatic mammal",
    "arttools": "art supplies",
    "auto": "car",
    "equines": "horse",
    "medical": "medical supplies",
    "roadsigns": "road sign",
    "string": "string instrument",
    "vehicles": "military vehicle",
}


def make(out: Path, stamps: Path) -> None:
    folders = [folder for folder in stamps.rglob("*") if not LEFT_OUT & set(folder.relative_to(stamps).parts)]
    full = [folder for folder in folders if len(list(folder.glob("*.png"))) >= FEWEST]
    for folder in full:
        if not any(folder in other.parents for other in full):  # "mammals" holds cats, and others
            name = out / CALLED.get(folder.name, folder.name)
            name.mkdir(parents=True)
            for picture in sorted(folder.glob("*.png")):
                shutil.copy(picture, name)


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
