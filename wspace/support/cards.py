"""Cards: pages of Markdown with the front matter of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wspace.support.yaml import dump

CARD = "README.md"
"""As the hub calls a card."""


def rendered(template: str, front: Mapping[str, Any], **values: Any) -> str:
    """A template of jinja2, below its front matter. What is named in it and not given is an error."""
    from jinja2 import Environment, StrictUndefined

    page = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(template)
    return f"---\n{dump(front)}---\n\n" + page.render(values)


def escaped(text: str) -> str:
    """As Markdown and HTML show it, and run nothing."""
    for character in "\\`*_[]|#":
        text = text.replace(character, f"\\{character}")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
