"""Artifact folders: what a stage left, under a key of all it depends on. Finished folders are never changed.

Whether something else changed them is seen: a manifest has the size and the sha256 of every file, and a sha256 of itself.
Sizes are looked at whenever a run is planned, and a file's hash before it is read: by `Store.damage` for what stages go on
from, by `intact` for what a command reads. Older manifests have no hashes: of their artifacts, sizes are all that is known.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wspace.support import fingerprint
from wspace.support.errors import FileError, UserError
from wspace.support.files import disk_errors, link_or_copy, read_json, remove_begun, sizes, write_json, write_text
from wspace.support.names import LOCK, LOCK_HOLDER, MANIFEST
from wspace.support.quantities import counted

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
        """What was written down of a finished artifact; None if there is none, or it is damaged."""
        return manifest_of(self.folder(stage, key))

    def damage(self, stage: str, key: str, *, by_hash: bool) -> str | None:
        """What of a finished artifact is not as it was written, in words; None if nothing is.

        Every byte is read if `by_hash`, unless this process has; otherwise sizes are looked at.
        """
        folder = self.folder(stage, key)
        return _damage(folder, manifest_of(folder), by_hash) if (folder / MANIFEST).is_file() else None

    def elsewhere(self, stage: str, key: str) -> Path | None:
        """The same artifact, undamaged, in another run or in a member of a study; None if there is none.

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
            remove_begun(partial)
            yield partial
            self._finish(stage, key, partial)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """This folder for this process alone; the lock goes with the process, however it ends.

        A folder that was made for it, and in which nothing came to be, goes as well, as of a run that is refused. On a file
        system without locks it is not held, and the run goes on. Raises UserError if another process has it.
        """
        from filelock import FileLock, Timeout

        holder = self.root / LOCK_HOLDER  # a file of its own: where locks are mandatory, what is locked cannot be read
        lock = FileLock(self.root / LOCK, blocking=False, fallback_to_soft=False)
        with disk_errors(self.root):
            made = [folder for folder in (self.root, *self.root.parents) if not folder.exists()]
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
            if made:
                _remove_unused(made)  # before it is let go of: who has just opened it sees then that it is gone
            lock.release()

    def _finish(self, stage: str, key: str, made: Path) -> None:
        finished = self.folder(stage, key)
        if finished.exists():  # damaged, or it would not have been made again
            shutil.rmtree(finished)
        os.replace(made, finished)
        self._beside(stage, key, ".forced").unlink(missing_ok=True)

    def _partial(self, stage: str, key: str) -> Path:
        return self._beside(stage, key, ".partial")

    def _beside(self, stage: str, key: str, suffix: str) -> Path:
        return self.folder(stage, key).with_suffix(suffix)


def _remove_unused(made: Sequence[Path]) -> None:
    """Folders that were made for a lock, that of the lock first, if it is all that is there; up to one that others use."""
    with suppress(OSError):
        if os.listdir(made[0]) == [LOCK]:
            (made[0] / LOCK).unlink()
            for folder in made:
                folder.rmdir()


def _is_whole(folder: Path, key: str, mark: str | None) -> bool:
    """Whether a folder has the artifact of this key, all of it as it was written."""
    manifest = manifest_of(folder)
    if manifest is None or manifest.get("key") != key or mark not in (None, manifest.get("forced")):
        return False
    return _damage(folder, manifest, by_hash=True) is None


# ---------------------------------------------------------------- what was written, and whether it still is


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Close an artifact's folder: what is to be known of it, and size and hash of each of its files."""
    files = {name: size for name, size in sizes(folder).items() if name != MANIFEST}
    hashes = {name: fingerprint.of_content(folder / name) for name in files}
    content = {name: value for name, value in content.items() if name != "sha256"} | {"files": files, "hashes": hashes}
    write_json(folder / MANIFEST, content | {"sha256": fingerprint.of_json(content)})


def manifest_of(folder: Path) -> dict[str, Any] | None:
    """None if an artifact's folder has no manifest, or one that is not as it was written."""
    try:
        manifest = read_json(folder / MANIFEST)
    except FileError:
        return None
    if not isinstance(manifest, dict):
        return None
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    return manifest if manifest.get("sha256") in (None, fingerprint.of_json(content)) else None


def intact(artifact: Path, name: str) -> Path:
    """A file of an artifact, to be read. Raises FileError if the artifact has gone, or the file that its manifest lists, or was
    changed since."""
    if not artifact.is_dir():  # as after `--force` until the stage was made anew
        raise FileError(
            f"{artifact}: there is no such folder, so stage {artifact.name.partition('-')[0]!r} is not done: the same "
            "`wspace run` goes on with it"
        )
    file, manifest = artifact / name, manifest_of(artifact) or {}
    expected = manifest.get("hashes", {}).get(name)
    if expected is None or (file.is_file() and fingerprint.of_content(file) == expected):
        return file
    what = f"changed since it was written: its sha256 is not the one in {MANIFEST}" if file.is_file() else "it has gone"
    raise FileError(f"{file}: {what}; `wspace run` with the same recipe makes it again")


def _damage(folder: Path, manifest: dict[str, Any] | None, by_hash: bool) -> str | None:
    if manifest is None:
        return f"{MANIFEST} changed since it was written"
    there = sizes(folder)
    for name, size in manifest.get("files", {}).items():
        if name not in there:
            return f"{name} is missing"
        if there[name] != size:
            return f"{name} has {counted(there[name], 'byte', form=',')}, where {size:,} were written"
    for name, expected in manifest.get("hashes", {}).items() if by_hash else ():
        if fingerprint.of_content(folder / name) != expected:
            return f"{name} changed since it was written"
    return None
