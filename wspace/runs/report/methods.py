"""The methods of a report, in one table: what each is, and in which order a reader wants them."""

from __future__ import annotations

from typing import NamedTuple

OURS = "generated"
ORACLE = "oracle"


class Method(NamedTuple):
    is_: str  # as the page explains it
    called: str  # as a sentence calls it


METHODS = {
    ORACLE: Method("weights trained for that very task, on its training images", "the oracle"),
    OURS: Method("the recipe's generator: weights from the task's texts alone", "generated"),
    "ridge": Method(
        "closed-form linear map from the mean text of a task's classes, and their number, to weights", "ridge"
    ),
    "retrieval": Method("the training weights whose task is described most alike", "retrieval"),
    "zoo-mean": Method("the mean of the training weights", "the zoo's mean"),
    "base": Method("the shared starting point of the zoo", "the shared base"),
    "universal": Method(
        "one set of weights for every task, trained on the images of all seen classes; like generated, it has never met "
        "an unseen class",
        "the universal head",
    ),
    "noise": Method(
        "nearest training weights plus noise of the zoo's own spread", "noise around the nearest training head"
    ),
    "mismatched": Method(
        "generated, but from the texts of another task: what the condition is worth", "heads for another task's texts"
    ),
    "random": Method("the target's own initialisation", "random heads"),
}
"""The bound, ours, then opponents from strong to weak by their nature."""

ORDER = tuple(METHODS)
COMPARED = ("universal", "ridge", ORACLE)
"""Those that what is generated is always set beside."""

METRIC = "accuracy"
"""What the tables of studies and joint recipes are of."""
RESAMPLES, CONFIDENCE = 2000, 0.95
"""Of the intervals in those tables."""
