"""scikit-learn's handwritten digits, which come with the package: 1797 pictures of 8 x 8."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge

from wspace.api import TEST, TRAIN, VAL, Dataset, Images, StoredImages, fingerprint, open_picture

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEST_SHARE, VAL_SHARE = 0.25, 0.15  # the rest is trained on


class Digits(Dataset):
    """Handwritten digits (Alpaydin and Kaynak, 1998), made larger by repeating pixels.

    ink: grey is as they come, white on black; colours gives each picture an ink and a paper of its own.
    They are in the order in which people wrote them, so that the test images, the last quarter, are by other hands.
    """

    version: ClassVar[int] = 1

    def __init__(self, ink: Literal["grey", "colours"] = "grey", size: Annotated[int, Ge(8)] = 32):
        self.ink, self.size = ink, size

    def load(self, cache: Path) -> Images:
        from sklearn.datasets import load_digits

        values, labels = map(np.asarray, load_digits(return_X_y=True))
        strength = values.reshape(-1, 8, 8, 1) / 16  # (M, 8, 8, 1): of the ink
        rng = np.random.default_rng(0)
        papers, inks = np.zeros((2, len(labels), 1, 1, 3))
        inks += 255
        if self.ink == "colours":
            papers, inks = rng.integers(0, 128, papers.shape), rng.integers(128, 256, inks.shape)
        small = (papers + strength * (inks - papers)).round().astype(np.uint8)  # (M, 8, 8, 3)
        near = np.arange(self.size) * 8 // self.size
        pixels = small[:, near][:, :, near]
        count = len(labels)
        split = np.full(count, TRAIN)
        split[count - round(TEST_SHARE * count) :] = TEST
        trained_on = np.flatnonzero(split == TRAIN)
        split[rng.permutation(trained_on)[: round(VAL_SHARE * len(trained_on))]] = VAL
        identity = fingerprint(["digits", self.version, self.ink, self.size, int(small.sum(dtype=np.int64))])
        return StoredImages(NAMES, labels, split, pixels, np.arange(count), identity)

    def open_picture(self, path: Path) -> np.ndarray:
        return open_picture(path, self.size)
