"""The splits of tasks that a report is about; and of images, where a data set has none of its own."""

from __future__ import annotations

import numpy as np

SEEN = "seen"  # trained on
UNSEEN_TASKS = "unseen-tasks"  # other sets of classes that were
UNSEEN_ORDERS = "unseen-orders"  # sets of classes that were, in another order, where that means something
UNSEEN_CLASSES = "unseen-classes"  # sets of classes that nothing was trained on

AS_READ = (UNSEEN_TASKS, UNSEEN_ORDERS, SEEN, UNSEEN_CLASSES)
"""As a reader wants them: first the one that all is about."""

UNSEEN_NEAR = "unseen-near"  # of those, classes that share a word with a known one
UNSEEN_FAR = "unseen-far"  # of those, classes that share none

OF_WAYS = "{}-{}"
"""Name of a split whose tasks all have so many classes: `unseen-far-20`."""

PICTURES = "-pictures-"
WITH_PICTURES = f"{{}}{PICTURES}{{}}"
"""Name of a split of another one's tasks, with so many pictures of each class: `unseen-classes-20-pictures-4`."""


def of_ways(ways: int) -> tuple[str, str, str]:
    """The splits of tasks of so many unseen classes: of any of them, of near ones, of far ones."""
    return OF_WAYS.format(UNSEEN_CLASSES, ways), OF_WAYS.format(UNSEEN_NEAR, ways), OF_WAYS.format(UNSEEN_FAR, ways)


def drawn_for_validation(labels: np.ndarray, share: float) -> np.ndarray:
    """(M,) bool, of images with these labels (M,): of each class about this share, one at least and never all.

    The same ones for the same labels.
    """
    rng, drawn = np.random.default_rng(0), np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        drawn[rows[: min(max(1, round(share * len(rows))), len(rows) - 1)]] = True
    return drawn
