"""The comment behind a field is its description: what stands there in the code also stands in the reference."""

from __future__ import annotations

import tokenize
from io import StringIO
from typing import Any

from griffe import Attribute, Docstring, Extension


class Comments(Extension):
    """`mask: Tensor  # (N, D) bool` documents `mask`, unless a docstring does."""

    def on_attribute_instance(self, *, attr: Attribute, **_: Any) -> None:
        if attr.docstring is None and attr.lineno is not None and (comment := comment_of(attr)):
            attr.docstring = Docstring(comment, parent=attr)


def comment_of(attr: Attribute) -> str | None:
    """The comment on the lines of a field's definition."""
    first, last = attr.lineno or 0, attr.endlineno or 0
    source = "\n".join(attr.lines_collection[attr.filepath][first - 1 : last]).strip()  # type: ignore[index]
    try:
        tokens = list(tokenize.generate_tokens(StringIO(source).readline))
    except (tokenize.TokenError, IndentationError):
        return None
    comments = [token.string.removeprefix("#").strip() for token in tokens if token.type == tokenize.COMMENT]
    return " ".join(comment for comment in comments if not comment.startswith(("noqa", "fmt:", "type:"))) or None
