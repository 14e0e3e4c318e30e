"""The recipe's template, with the class in it."""

from __future__ import annotations

from collections.abc import Sequence

from wspace.interfaces import Wording


class Template(Wording):
    """ "a photo of otter": what `tasks.template` makes of a class name (T2W-CLIP of Tian et al., 2025)."""

    def sentences(self, classes: Sequence[str], templated: Sequence[str]) -> list[tuple[str, ...]]:
        return [(sentence,) for sentence in templated]
