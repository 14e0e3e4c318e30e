"""Files of a zoo that lies elsewhere, in the cache: fetched when they are first needed, and checked."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from wspace.support.elsewhere import Address
from wspace.support.errors import FileError
from wspace.support.files import cache_folder, disk_errors, replacing, sweep
from wspace.support.fingerprint import sha256_of_file
from wspace.support.names import ZOO_HEADER

ZOOS = "zoos"  # in the cache
SHA256 = re.compile(r"[0-9a-f]{64}")
ATTEMPTS = 2  # what the way has garbled comes whole the second time


class _Garbled(Exception):
    pass


@dataclass(frozen=True)
class Fetched:
    """Each is kept under the hash that the zoo's header has of it, whichever zoo it is of, and wherever that lies."""

    address: Address
    checked: set[str] = field(default_factory=set, compare=False)  # hashes of files that were looked at

    @property
    def folder(self) -> Path:
        """Of the cache."""
        return cache_folder() / ZOOS

    def file(self, name: str, sha256: str, hash_of: Callable[[Path], str] = sha256_of_file) -> Path:
        """Where it is here. `hash_of` gives the hash that `sha256` is, which is looked at once.

        Raises FileError for what is not there or has another hash, and as `Address.read`.
        """
        if SHA256.fullmatch(sha256) is None:
            raise FileError(f"{self.address}: {sha256!r}, which {ZOO_HEADER} has of {name}, is no sha256")
        file = self.folder / f"{sha256}{Path(name).suffix}"
        if not (file.is_file() and (sha256 in self.checked or hash_of(file) == sha256)):
            self._fetch(name, file, lambda temporary: hash_of(temporary) == sha256)
        self.checked.add(sha256)
        return file

    def _fetch(self, name: str, file: Path, is_whole: Callable[[Path], bool]) -> None:
        with disk_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            sweep(file.parent)
            for _ in range(ATTEMPTS):
                try:
                    with replacing(file) as temporary:
                        self.address.fetch(name, temporary)
                        if not is_whole(temporary):
                            raise _Garbled
                    return
                except _Garbled:
                    continue
        raise FileError(
            f"{self.address}: {name} is not what {ZOO_HEADER} says, also when it is fetched again: its sha256 is another; "
            "nothing of it is used"
        )
