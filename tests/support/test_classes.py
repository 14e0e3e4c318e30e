"""Names of classes: which of them a misspelt one was meant for."""

from __future__ import annotations

import pytest

from wspace.support.classes import check_classes, class_meant, misspelt
from wspace.support.errors import UserError

CLASSES = ("otter", "folder", "umbrella", "book", "bicycle", "house")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ottre", "otter"),  # two letters swapped are one mistake
        ("oter", None),  # too short
        ("otters", "otter"),
        ("umbrela", "umbrella"),
        ("Umbrela", "umbrella"),
        ("bycicle", "bicycle"),  # two letters of a long name
        ("horsy", None),  # two of a short one
        ("holder", "folder"),
        ("bok", None),
        ("Otter", None),  # which is the class
        ("otter", None),
        ("lamp", None),
        ("quasar", None),
    ],
)
def test_a_class_was_meant_where_few_letters_are_wrong(name: str, meant: str | None) -> None:
    assert misspelt(name, CLASSES, least=5) == meant


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ottre", " Did you mean 'otter'?"),
        ("Otter", " Did you mean 'otter'?"),
        ("bok", " Did you mean 'book'?"),
        ("flower", ""),  # more than half of its letters are those of 'folder', which is another word
        ("", ""),
    ],
)
def test_a_message_asks_about_a_class_alone_that_is_spelt_almost_so(name: str, hint: str) -> None:
    assert class_meant(name, CLASSES) == hint


def test_a_name_is_text() -> None:
    with pytest.raises(UserError, match=r"^class names are text, and 3 is none$"):
        check_classes(["book", 3])  # type: ignore[list-item]
