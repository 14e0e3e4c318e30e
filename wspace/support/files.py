"""Files that are written whole or not at all, and disks whose errors are one sentence."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wspace.support.errors import DataError, DiskError, FileError, UserError

if TYPE_CHECKING:
    from torch import Tensor


def sizes(folder: Path) -> dict[str, int]:
    """Of each file in an artifact's folder, for its manifest: how large it is."""
    return {str(f.relative_to(folder)): f.stat().st_size for f in sorted(folder.rglob("*")) if f.is_file()}


DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
"""How a system says that a disk takes nothing more, or nothing from this user."""


@contextmanager
def disk_errors(where: Path, made: Path | None = None) -> Iterator[None]:
    """A full or read-only disk, as one sentence. What is finished, and what can be gone on with, stays.

    made: what is being made to take the place of `where`, under a name that a user need not see.
    """
    try:
        yield
    except OSError as error:
        if error.errno in DISK:
            place = str(error.filename2 or error.filename or where)  # of a copy, the second is written
            if made is not None and Path(place).is_relative_to(made):
                place = str(where)
            message = f"{place}: cannot be written: {error.strerror}; the same command goes on from here"
            raise DiskError(message) from error
        raise


def nearest_there(path: Path) -> Path:
    """The path, or the nearest of the folders above it that is there."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())


def check_place(path: Path) -> None:
    """Whether a file or a folder can be made there, tried before the work that makes it. Leaves nothing behind.

    Raises UserError for a place where there can be none, DiskError for a disk that takes nothing.
    """
    if path.parts[:1] == ("~",) and not Path("~").exists():  # shells expand no `--out=~/x`
        raise UserError(f"{path}: would make a folder named ~ here; write your home folder out")
    try:
        folder = nearest_there(path.absolute().parent)
        for part in path.parts:
            with suppress(FileNotFoundError):
                (folder / part).lstat()  # a name too long, or something under what is no folder
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        kind = DiskError if error.errno in DISK else UserError
        raise kind(f"{path}: cannot be written: {error.strerror}") from error


def check_file(file: Path) -> None:
    """Whether this can be a file's name, as `check_place`; a file that is there will be replaced, and nothing else."""
    check_place(file)
    _check_replaceable(file)


def check_new_folder(out: Path) -> None:
    """Whether a folder can be made there, as `check_place`. Raises UserError if something is there, save an empty one."""
    check_place(out)
    if out.exists() and out.samefile("."):
        raise UserError(f"{out}: is the folder you are in; name one to make")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out}: is there already")


def check_is_file(file: Path) -> None:
    """Whether there is one to read. Raises FileError."""
    if not file.is_file():
        raise FileError(f"{file}: {'is a folder, not a file' if file.is_dir() else 'no such file'}")


def check_is_folder(folder: Path) -> None:
    """Whether there is one to look into. Raises DataError."""
    if not folder.is_dir():
        raise DataError(f"{shown(folder)}: {'is a file, not a folder' if folder.exists() else 'no such folder'}")


def _check_replaceable(file: Path) -> None:
    if file.is_dir():
        raise UserError(f"{file}: is a folder; name a file to write")
    if file.exists() and not file.is_file():  # a device or a pipe
        raise UserError(f"{file}: is no ordinary file; name one to write")


def expanded(path: Path) -> Path:
    """With a home folder for a leading `~`. Raises UserError where there is none."""
    try:
        if path.parts[:1] == ("~",) and os.environ.get("HOME") == "":  # to Python it would be the root
            raise RuntimeError
        return path.expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{path}: there is no home folder for {path.parts[0]}; write the path out, or set HOME"
        ) from error


def cache_folder() -> Path:
    """For what many runs share: rendered images, features. $WSPACE_CACHE, or the user's own cache.

    A variable that is empty counts as not set and, as its standard has it, XDG_CACHE_HOME does if it is no absolute path.
    Raises UserError for a user who has no home folder to keep it in.
    """
    if asked := os.environ.get("WSPACE_CACHE"):
        return expanded(Path(asked))
    if (shared := expanded(Path(os.environ.get("XDG_CACHE_HOME", "")))).is_absolute():
        return shared / "wspace"
    try:
        return expanded(Path("~/.cache/wspace"))
    except UserError as error:
        raise UserError(
            "there is no home folder to keep a cache in: name a folder in WSPACE_CACHE, or set HOME"
        ) from error


def files_below(folder: Path, around: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """Whatever is no folder, at any depth and through linked folders too, in no order. Raises OSError.

    A link back to a folder that it lies in is not followed. `around`: device and inode of each folder on the way down.
    """
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in around:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from files_below(Path(entry.path), around | {here})
            else:
                yield Path(entry.path)


def shown(path: Path | str) -> str:
    """As a message has it: bytes of a name that are not UTF-8, which no stream takes, as `\\xe9`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


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
    return parsed_json(_read(file), file)


def parsed_json(content: bytes, file: Path | str) -> Any:
    """What a file holds. Raises FileError, which names it, if that is not JSON."""
    try:
        return parse_json(content)
    except ValueError as error:
        raise FileError(f"{file}: not JSON: {error}") from error


def parse_json(text: str | bytes) -> Any:
    """Of text that anybody may have written. Raises ValueError alone, also for what is nested too deeply for Python."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


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
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            save_file(
                {name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary, dict(metadata or {})
            )
            temporary.chmod(mode)  # safetensors itself lets nobody read a file but its owner
        except SafetensorError as error:  # it wraps the operating system's errors
            if number := re.search(r"\(os error (\d+)\)", str(error)):
                raise OSError(int(number[1]), os.strerror(int(number[1])), str(file)) from error
            raise


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A file to write that becomes `file` when all went well, and is gone otherwise. Raises UserError for a folder."""
    _check_replaceable(file)
    temporary = _beside(file)
    try:
        yield temporary
        os.replace(temporary, file)
    except OSError as error:
        if error.filename == str(temporary):
            error.filename = str(file)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill that becomes `out` when all went well, and is gone otherwise. Raises what `check_new_folder` does."""
    check_new_folder(out)
    partial = _beside(out)
    with disk_errors(out, partial):
        out.parent.mkdir(parents=True, exist_ok=True)
        sweep(out.parent)
        partial.mkdir()
        try:
            yield partial
            os.replace(partial, out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _beside(path: Path) -> Path:
    """Where it is made. A part of its name is enough, and is no longer than a name may be."""
    return path.with_name(f".{path.name[:50]}{_BEGUN}{os.getpid()}")


_BEGUN = f".wspace-{re.sub(r'[^a-zA-Z0-9]', '', platform.node())[:20]}-"  # and the number of a process of this machine


def remove_begun(folder: Path) -> None:
    """Remove what writes began below a folder that nobody else writes to, and did not end: names that begin with a dot."""
    for begun in folder.rglob(".*"):
        if begun.is_file():
            begun.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what processes of this machine that were killed have begun in a folder. What cannot be removed stays."""
    for begun in folder.glob(f".*{_BEGUN}*"):
        number = begun.name.rpartition(_BEGUN)[2]
        if not number.isdecimal() or _is_alive(int(number)):
            continue
        if begun.is_dir() and not begun.is_symlink():
            shutil.rmtree(begun, ignore_errors=True)
        else:
            with suppress(OSError):
                begun.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OverflowError, PermissionError):  # of no system's, or of another user's
        pass
    return True


def link_or_copy(source: Path, file: Path) -> None:
    """The same file here: a second name for it where the disk allows that, else a copy. A file that is there is replaced."""
    file.unlink(missing_ok=True)
    try:
        os.link(source, file)
    except OSError:  # another disk, or one that has no links
        shutil.copy2(source, file)
