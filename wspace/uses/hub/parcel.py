"""What goes to a hub and comes from it: files of a few kinds that run nothing, and a hash of each."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from wspace import __version__
from wspace.support.errors import FileError
from wspace.support.files import read_json, write_json
from wspace.support.fingerprint import sha256_of_file
from wspace.support.invalid import first
from wspace.support.quantities import counted

FORMAT = 1
PARCEL = "wspace-hub.json"
"""In a repository: what it is, and the size and hash of every other file of it."""

SAFE = (".safetensors", ".json", ".jsonl", ".yaml", ".md", ".html", ".png", ".onnx")
"""Kinds of files that are sent and fetched: no pickle and no code."""

Kind = Literal["generator", "zoo", "weights"]


@dataclass(frozen=True)
class Content:
    """What a file holds."""

    bytes: int  # how many
    sha256: str  # of all of them


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """wspace-hub.json."""

    format: int = FORMAT  # another number is another format
    wspace: str = __version__  # that sent it
    kind: Kind  # what it is
    name: str  # of the run, of the zoo, or of the file of weights
    files: dict[str, Content]  # path in the repository -> what is there

    @property
    def bytes(self) -> int:
        return sum(content.bytes for content in self.files.values())

    @property
    def summary(self) -> str:
        """As people are told of it."""
        return f"{self.kind} {self.name}: {counted(len(self.files), 'file')}, {sized(self.bytes)}"

    @property
    def parts(self) -> list[str]:
        """A line on each file and folder at the top."""
        parts: dict[str, list[int]] = {}
        for name, content in self.files.items():
            top, slash, _ = name.partition("/")
            parts.setdefault(top + slash, []).append(content.bytes)
        return [
            f"{sized(sum(sizes)):>9}  {top}" + (f" ({counted(len(sizes), 'file')})" if top.endswith("/") else "")
            for top, sizes in parts.items()
        ]

    @classmethod
    def of(cls, folder: Path, kind: Kind, name: str) -> Parcel:
        """Of all files in a folder."""
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        contents = {
            file.relative_to(folder).as_posix(): Content(file.stat().st_size, sha256_of_file(file)) for file in files
        }
        return cls(kind=kind, name=name, files=contents)

    def write(self, folder: Path) -> None:
        write_json(folder / PARCEL, asdict(self))

    @classmethod
    def read(cls, folder: Path, where: str) -> Parcel:
        """Raises FileError, saying `where` it comes from, unless it is of this format and lists nothing that is not safe."""
        raw, file = read_json(folder / PARCEL), f"{where}: {PARCEL}"
        if not isinstance(raw, dict) or "format" not in raw:
            raise FileError(f"{file} does not say its format: `wspace push` did not write it")
        if raw["format"] != FORMAT:
            raise FileError(f"{file} is in format {raw['format']}, and this wspace reads format {FORMAT}")
        try:
            parcel = _PARCEL.validate_json(json.dumps(raw), strict=True)
        except ValidationError as error:
            raise FileError(f"{file}: {first(error)}") from error
        for name in parcel.files:
            if not is_safe(name):
                raise FileError(
                    f"{file} lists {name!r}, which is not fetched: it may be {', '.join(SAFE)}, in a folder below its own"
                )
        return parcel

    def wrong(self, folder: Path) -> dict[str, str]:
        """Of files that are missing, or do not hold what they held when they were sent: the end of a sentence on each."""
        wrong = {}
        for name, content in self.files.items():
            if not (folder / name).is_file():
                wrong[name] = f"is missing, and {PARCEL} lists it"
            elif sha256_of_file(folder / name) != content.sha256:
                wrong[name] = f"is not what was sent: its sha256 is not the one in {PARCEL}"
        return wrong


_PARCEL = TypeAdapter(Parcel)


def is_safe(name: str) -> bool:
    """Whether a path in a repository lies in it, is not hidden, and is of a kind that runs nothing."""
    path = PurePosixPath(name)
    plain = not any(part.startswith(".") or "\\" in part or ":" in part for part in path.parts)
    return plain and not path.is_absolute() and path.suffix in SAFE and str(path) == name


def sized(count: int) -> str:
    """So many bytes, as people read them."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
