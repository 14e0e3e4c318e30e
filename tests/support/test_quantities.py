"""Sizes, durations and counts, as they are read: one is one step, and not one steps."""

from __future__ import annotations

import pytest

from wspace.recipes.plugins import PluginFact
from wspace.support.quantities import counted, in_words


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 classes"), (1, "1 class"), (2, "2 classes"), (12_000, "12,000 classes")]
)
def test_one_is_told_from_several(count: int, said: str) -> None:
    assert counted(count, "class", "classes", ",") == said
    assert counted(count, "step") == f"{count} step{'' if count == 1 else 's'}"


def test_a_second_is_one_and_half_of_one_is_none() -> None:
    assert [in_words(n) for n in (0.4, 0.9, 1.4, 1.6, 60)] == [
        "0 seconds",
        "1 second",
        "1 second",
        "2 seconds",
        "60 seconds",
    ]


def test_a_plugin_of_one_component_and_one_command_says_so() -> None:
    assert PluginFact("ray", "", components=1).state == "1 component"
    assert PluginFact("norms", "", commands=1).state == "0 components, 1 command"
