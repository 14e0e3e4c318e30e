"""Small data sets that come with scikit-learn: for what has to be tried in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Gt, Lt

from wspace.data.pictures import StoredImages, open_picture
from wspace.data.splits import drawn_for_validation
from wspace.interfaces import TEST, TRAIN, VAL, Dataset, Images
from wspace.support import fingerprint
from wspace.support.errors import MissingPackage

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LATER = 0.25  # share of the digits, by other hands, that is tested on


class Sklearn(Dataset):
    """digits: 1,797 handwritten ones of 8 x 8 (Alpaydin and Kaynak, 1998), white on black. The test pictures are the last
    quarter, by other hands.

    iris: 150 flowers of three kinds (Fisher, 1936), and no pictures: their four measures are a picture's four grey values, from
    the least of the training flowers to the most. `backbone: {use: pixels, side: 2, grey: true}` makes them measures again.
    `test` is the share of each kind that is tested on.

    val: share of each class's training pictures that choices are made on.
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        name: Literal["digits", "iris"] = "digits",
        test: Annotated[float, Gt(0), Lt(1)] = 0.25,
        val: Annotated[float, Gt(0), Lt(1)] = 0.15,
    ):
        self.name, self.test, self.val = name, test, val
        self.side = {"digits": 8, "iris": 2}[name]

    def load(self, cache: Path) -> Images:
        try:
            from sklearn import datasets
        except ImportError as error:
            raise MissingPackage("dataset 'sklearn' needs scikit-learn: pip install \"wspace[bench]\"") from error
        loaded = getattr(datasets, f"load_{self.name}")()
        values, labels = np.asarray(loaded.data, dtype=np.float64), np.asarray(loaded.target)
        if self.name == "digits":
            classes, tested_on = DIGITS, np.arange(len(labels)) >= round((1 - LATER) * len(labels))
            grey = values / 16
        else:
            classes = tuple(map(str, loaded.target_names))
            tested_on = drawn_for_validation(labels, self.test)
            least, most = values[~tested_on].min(0), values[~tested_on].max(0)
            grey = ((values - least) / (most - least)).clip(0, 1)
        split = np.where(tested_on, TEST, TRAIN)
        split[np.flatnonzero(~tested_on)[drawn_for_validation(labels[~tested_on], self.val)]] = VAL
        pixels = (255 * grey).round().astype(np.uint8).reshape(-1, self.side, self.side, 1)
        identity = ["sklearn", self.version, pixels.tolist(), labels.tolist(), split.tolist()]
        return StoredImages(
            classes,
            labels,
            split,
            np.broadcast_to(pixels, (*pixels.shape[:3], 3)),
            np.arange(len(labels)),
            fingerprint.of_json(identity),
        )

    def open_picture(self, path: Path) -> np.ndarray:
        return open_picture(path, self.side)
