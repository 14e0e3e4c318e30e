"""Artifact folders: what a stage left, under a key of all it depends on. Finished folders are never changed."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wspace.support.errors import FileError, UserError
from wspace.support.files import disk_errors, link_or_copy, read_json, sizes, write_text
from wspace.support.names import LOCK, LOCK_HOLDER, MANIFEST

NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
"""How a file system says that it has no locks."""


@dataclass(frozen=True)
class Store:
    """A run's folder: `<stage>-<key>` for each artifact, `.partial` while it is being made.

    A stage that was forced has a file `<stage>-<key>.forced` until it is made anew, so that after an interruption nothing
    old passes for new, here or from another run.
    """

    root: Path
    runs: Path | None = None  # what holds the runs and studies that artifacts are shared with, if not `root.parent`

    def folder(self, stage: str, key: str) -> Path:
        return self.root / f"{stage}-{key[:12]}"

    def manifest(self, stage: str, key: str) -> dict[str, Any] | None:
        """What was written down of a finished artifact; None if there is none."""
        file = self.folder(stage, key) / MANIFEST
        return read_json(file) if file.is_file() else None

    def elsewhere(self, stage: str, key: str) -> Path | None:
        """The same artifact, whole, in another run or in a member of a study; None if there is none.

        Of a forced stage only what was made since, by the command that forced it.
        """
        name, runs, mark = self.folder(stage, key).name, self.runs or self.root.parent, self.forced(stage, key)
        places = sorted(runs.glob(f"*/{name}")) + sorted(runs.glob(f"*/*/{name}"))
        return next((folder for folder in places if _is_whole(folder, key, mark)), None)

    def link(self, stage: str, key: str, artifact: Path) -> None:
        """Make an artifact of another run this one's too: its files are never changed, so they are shared where they can be."""
        # Not in `.partial`, where an interrupted attempt goes on: that one may write into files it finds.
        linked = self._beside(stage, key, ".linking")
        with disk_errors(linked):
            if linked.exists():
                shutil.rmtree(linked)
            for file in sorted(artifact.rglob("*")):
                if file.is_file():
                    copy = linked / file.relative_to(artifact)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    link_or_copy(file, copy)
            self._finish(stage, key, linked)
            if (partial := self._partial(stage, key)).exists():
                shutil.rmtree(partial)

    def discard(self, stage: str, key: str, mark: str) -> None:
        """Throw away what there is of a forced stage. `mark` tells the command that forced it from others."""
        self.root.mkdir(parents=True, exist_ok=True)
        write_text(self._beside(stage, key, ".forced"), mark)
        for folder in (self.folder(stage, key), self._partial(stage, key)):
            if folder.exists():
                shutil.rmtree(folder)

    def forced(self, stage: str, key: str) -> str | None:
        """The mark of a stage that was forced and is not made anew yet."""
        file = self._beside(stage, key, ".forced")
        return file.read_text(encoding="utf-8") if file.is_file() else None

    @contextmanager
    def making(self, stage: str, key: str) -> Iterator[Path]:
        """A folder to fill, that of an interrupted attempt if there was one. It must hold a manifest in the end."""
        partial = self._partial(stage, key)
        with disk_errors(partial):
            partial.mkdir(parents=True, exist_ok=True)
            yield partial
            self._finish(stage, key, partial)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """This folder for this process alone; the lock goes with the process, however it ends.

        On a file system without locks it is not held, and the run goes on. Raises UserError if another process has it.
        """
        from filelock import FileLock, Timeout

        holder = self.root / LOCK_HOLDER  # a file of its own: where locks are mandatory, what is locked cannot be read
        lock = FileLock(self.root / LOCK, blocking=False, fallback_to_soft=False)
        with disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except Timeout as error:
                number = holder.read_text(encoding="utf-8") if holder.is_file() else ""
                who = f"process {number}" if number else "another process"
                raise UserError(
                    f"{self.root}: is being run by {who}; wait for it, or give this run another folder with --runs"
                ) from error
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
        try:
            with disk_errors(self.root):
                write_text(holder, str(os.getpid()))
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def _finish(self, stage: str, key: str, made: Path) -> None:
        finished = self.folder(stage, key)
        if finished.exists() and not (finished / MANIFEST).is_file():  # damaged
            shutil.rmtree(finished)
        os.replace(made, finished)
        self._beside(stage, key, ".forced").unlink(missing_ok=True)

    def _partial(self, stage: str, key: str) -> Path:
        return self._beside(stage, key, ".partial")

    def _beside(self, stage: str, key: str, suffix: str) -> Path:
        return self.folder(stage, key).with_suffix(suffix)


def _is_whole(folder: Path, key: str, mark: str | None) -> bool:
    """Whether a folder has the artifact of this key, none of its files missing or cut short."""
    try:
        manifest = read_json(folder / MANIFEST)
    except FileError:
        return False
    if not isinstance(manifest, dict) or manifest.get("key") != key or mark not in (None, manifest.get("forced")):
        return False
    return manifest.get("files", {}).items() <= sizes(folder).items()
