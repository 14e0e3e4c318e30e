"""Sentences that describe each class, from a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml.error import YAMLError

from wspace.interfaces import Wording
from wspace.support.errors import FileError, UserError, nearest
from wspace.support.files import read_text
from wspace.support.yaml import load

ICONS = Path(__file__).with_name("icons.yaml")
MOST_TEXT = 10_000_000  # characters: thousands of classes, in many sentences each


class Descriptions(Wording):
    """Natural language in place of a template (T2W-NL of Tian et al., 2025).

    Of each class the sentences in `file`, a YAML of class -> sentences.

    Without a file: those written for the icon concepts, three each. `missing` says what becomes of a class the file does
    not describe: an error, or the template's sentence.
    """

    def __init__(self, file: Path | None = None, missing: Literal["error", "template"] = "error"):
        self.file, self.missing = file or ICONS, missing

    def sentences(self, classes: Sequence[str], templated: Sequence[str]) -> list[tuple[str, ...]]:
        described = read_descriptions(self.file)
        sentences = []
        for name, otherwise in zip(classes, templated, strict=True):
            if name not in described and self.missing == "error":
                raise UserError(
                    f"{self.file}: does not describe {name!r}{nearest(name, list(described)) or ';'} "
                    "`texts.missing: template` would say it as the template does"
                )
            sentences.append(described.get(name, (otherwise,)))
        return sentences


def read_descriptions(file: Path) -> dict[str, tuple[str, ...]]:
    """Class -> its sentences. Raises FileError for anything but a mapping of names to one sentence or a list of some."""
    try:
        read: Any = load(read_text(file), MOST_TEXT)
    except YAMLError as error:
        raise FileError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(read, dict) or not read:
        raise FileError(f"{file}: expected a mapping of class names to sentences")
    described = {}
    for name, sentences in read.items():
        several = [sentences] if isinstance(sentences, str) else sentences
        if not isinstance(name, str):
            raise FileError(f"{file}: the class name {name!r} is not a string: put it in quotes")
        if not isinstance(several, list) or not several or not all(isinstance(s, str) and s.strip() for s in several):
            raise FileError(f"{file}: {name!r} has no sentence, or one that is not text")
        described[name] = tuple(several)
    return described
