"""Files that are written whole or not at all, and disks whose errors are one sentence."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wspace.support.errors import DiskError, FileError, UserError

if TYPE_CHECKING:
    from torch import Tensor


def sizes(folder: Path) -> dict[str, int]:
    """Of each file in an artifact's folder, for its manifest: how large it is."""
    return {str(f.relative_to(folder)): f.stat().st_size for f in sorted(folder.rglob("*")) if f.is_file()}


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
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(file: Path, content: bytes) -> None:
    """Whole or not at all."""
    with replacing(file) as temporary:
        temporary.write_bytes(content)


def read_json(file: Path) -> Any:
    """Raises FileError if it cannot be read or is not JSON."""
    try:
        return json.loads(_read(file))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FileError(f"{file}: not JSON: {error}") from error


def read_text(file: Path) -> str:
    """Raises FileError if it cannot be read or is not UTF-8."""
    try:
        return _read(file).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileError(f"{file}: not text in UTF-8") from error


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise FileError(f"{file}: cannot be read: {error.strerror}") from error


def save_tensors(file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """A safetensors file, whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with replacing(file) as temporary:
        try:
            save_file(
                {name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary, dict(metadata or {})
            )
        except SafetensorError as error:  # it wraps the operating system's errors
            if "No space left" in str(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A file to write that becomes `file` when all went well, and is gone otherwise."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill that becomes `out` when all went well, and is gone otherwise. Raises UserError if `out` is there."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out}: is there already")
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        try:
            yield partial
            os.replace(partial, out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def link_or_copy(source: Path, file: Path) -> None:
    """The same file here: a second name for it where the disk allows that, else a copy. A file that is there is replaced."""
    file.unlink(missing_ok=True)
    try:
        os.link(source, file)
    except OSError:  # another disk, or one that has no links
        shutil.copy2(source, file)
