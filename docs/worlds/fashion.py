"""Fashion-MNIST as a picture folder: ten kinds of clothes, small and grey.

    python docs/worlds/fashion.py OUT usr/share/datasets/fashion-mnist

The package dataset-fashion-mnist, unpacked. Of each class the first 100 training and the first 100 test pictures.
"""

import gzip
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

CLASSES = ["t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "handbag", "ankle boot"]
EACH = 100  # pictures of a class, to train on and to test on


def read(file: Path) -> np.ndarray:
    """What an IDX file of bytes holds."""
    content = gzip.decompress(file.read_bytes())
    shape = np.frombuffer(content, ">i4", content[3], 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)


def make(out: Path, package: Path) -> None:
    for split, prefix in (("train", "train"), ("test", "t10k")):
        pictures = read(package / f"{prefix}-images-idx3-ubyte.gz")
        labels = read(package / f"{prefix}-labels-idx1-ubyte.gz")
        for number, name in enumerate(CLASSES):
            folder = out / split / name
            folder.mkdir(parents=True)
            for row in np.flatnonzero(labels == number)[:EACH]:
                ImageOps.invert(Image.fromarray(pictures[row])).save(folder / f"{row}.png")  # dark on white, as icons


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
