"""Answers as HTML. Jinja escapes what users wrote: class names and names of files are text, whatever they hold."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader
from PIL import Image

from wspace_serve.answers import Step

STATIC = Path(__file__).parent / "static"
KINDS = {
    "known": "pictures of it were trained on",
    "near": "its name shares a word with a known class",
    "far": "its name shares no word with a known class",
}

_pages = Environment(loader=FileSystemLoader(STATIC), autoescape=True, trim_blocks=True, lstrip_blocks=True)
_pages.filters["share"] = lambda value: f"{value:.0%}"


def header(name: str, count: int) -> str:
    """What stands above the page of a run of this name, which knows so many classes."""
    return _pages.get_template("header.html").render(name=name, count=count)


def legend() -> str:
    """What known, near and far mean."""
    return _pages.get_template("legend.html").render(kinds=KINDS)


def hint(text: str) -> str:
    """A sentence where an answer will be."""
    return _pages.get_template("hint.html").render(text=text)


def chips(
    classes: Sequence[Mapping[str, Any]],
    expected: Mapping[str, Any] | None,
    counts: Mapping[str, int],
    problem: str | None = None,
) -> str:
    """Class names, coloured by how they stand to the known ones, and the accuracy to expect or why there is none.

    `counts`: how many pictures come with a class.
    """
    template = _pages.get_template("chips.html")
    return template.render(classes=classes, expected=expected, counts=counts, problem=problem, kinds=KINDS)


def answers(answers: Sequence[Mapping[str, Any]]) -> str:
    """Cards, one for each picture: `pictures` (`data`, `alt` and `caption` each) and `heads`, title -> class -> probability."""
    return _pages.get_template("answers.html").render(answers=answers)


def steps(steps: Sequence[Step]) -> str:
    """A head while it forms."""
    return _pages.get_template("steps.html").render(steps=steps)


def as_data(pixels: np.ndarray) -> str:
    """A picture (S, S, 3) uint8 as an address that holds it."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
