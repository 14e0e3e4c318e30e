"""Artifact folders: what a stage left, under a key of all it depends on. Finished folders are never changed."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wspace.errors import DiskError, FileError

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "artifact.json"
STUDY = "study.json"
ELAPSED = "elapsed.json"
ZOO_HEADER = "zoo.json"
"""In a zoo's folder: what its networks share, and hashes of everything else (`wspace.zoo_format`)."""


@dataclass(frozen=True)
class Store:
    """A run's folder: `<stage>-<key>` for each artifact, `.partial` while it is being made."""

    root: Path

    def folder(self, stage: str, key: str) -> Path:
        return self.root / f"{stage}-{key[:12]}"

    def manifest(self, stage: str, key: str) -> dict[str, Any] | None:
        """What is known of a finished artifact; None if there is none."""
        file = self.folder(stage, key) / MANIFEST
        return read_json(file) if file.is_file() else None

    def elsewhere(self, stage: str, key: str) -> Path | None:
        """The same artifact, finished, in a run beside this one, or in a study's member; None if there is none."""
        name, runs = self.folder(stage, key).name, self.root.parent
        places = [runs.glob(f"*/{name}"), runs.glob(f"*/*/{name}")]
        places.append(runs.parent.glob(f"*/{name}"))  # beside the study that this run is a member of
        return next((f for place in places for f in sorted(place) if (f / MANIFEST).is_file()), None)

    def link(self, stage: str, key: str, found: Path) -> None:
        """Make an artifact of another run this one's too: its files are never changed, so they are shared where they can be."""
        partial = self._partial(stage, key)
        with disk_errors(partial):
            if partial.exists():
                shutil.rmtree(partial)
            shutil.copytree(found, partial, copy_function=_link_or_copy)
            self._finish(stage, key)

    def discard(self, stage: str, key: str) -> None:
        for folder in (self.folder(stage, key), self._partial(stage, key)):
            if folder.exists():
                shutil.rmtree(folder)

    @contextmanager
    def making(self, stage: str, key: str) -> Iterator[Path]:
        """A folder to fill, that of an interrupted attempt if there was one. It must hold a manifest in the end."""
        partial = self._partial(stage, key)
        with disk_errors(partial):
            partial.mkdir(parents=True, exist_ok=True)
            yield partial
            self._finish(stage, key)

    def _finish(self, stage: str, key: str) -> None:
        finished = self.folder(stage, key)
        if finished.exists() and not (finished / MANIFEST).is_file():  # damaged
            shutil.rmtree(finished)
        os.replace(self._partial(stage, key), finished)

    def _partial(self, stage: str, key: str) -> Path:
        return self.folder(stage, key).with_suffix(".partial")


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that has no links
        shutil.copy2(source, target)


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """A full or read-only disk, as one sentence. What is finished, and what can be gone on with, stays."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            place = error.filename or where
            message = f"{place}: cannot be written: {error.strerror}; the same command goes on from here"
            raise DiskError(message) from error
        raise


def write_json(file: Path, value: Any) -> None:
    """Whole or not at all."""
    write_text(file, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_text(file: Path, text: str) -> None:
    """Whole or not at all."""
    with _replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(file: Path, content: bytes) -> None:
    """Whole or not at all."""
    with _replacing(file) as temporary:
        temporary.write_bytes(content)


def read_json(file: Path) -> Any:
    """Raises FileError if it cannot be read or is not JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FileError(f"{file}: not JSON: {error}") from error
    except OSError as error:
        raise FileError(f"{file}: cannot be read: {error.strerror}") from error


def save_tensors(file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """A safetensors file, whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with _replacing(file) as temporary:
        try:
            save_file(
                {name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary, dict(metadata or {})
            )
        except SafetensorError as error:  # it wraps the operating system's errors
            if "No space left" in str(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise


@contextmanager
def _replacing(file: Path) -> Iterator[Path]:
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
