"""Work that one of pytest's processes does for all of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def once(folder: Path, make: Callable[[Path], object]) -> Path:
    """`folder`, which the first process that asks for it fills by `make(folder)`, while the others wait.

    Where `make` fails, nothing of what it made is kept, and the next that asks tries again.
    """
    finished = folder.with_name(f"{folder.name}.finished")
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not finished.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            finished.touch()
    return folder
