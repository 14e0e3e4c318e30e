"""Folders that lie elsewhere, by addresses that fsspec knows: `https://...`, `s3://...`, `memory://...`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from wspace.support.errors import FileError, MissingPackage, UserError, WspaceError, nearest, reason
from wspace.support.files import DISK

WRITTEN = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]*://.*", re.DOTALL)  # `zip::https://...` too
PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
"""Names of files that mean the same to every server: no folder, no `..`, and nothing that an address would escape."""
WEB = ("http", "https")


def is_address(text: str) -> bool:
    """Whether it is written as an address is, and not as a path."""
    return WRITTEN.fullmatch(text) is not None


def place_of(text: str) -> Path | Address:
    """What a command line names: a folder here, or elsewhere."""
    return Address(text) if is_address(text) else Path(text)


@dataclass(frozen=True)
class Address:
    """Of a folder. What of it is read is fetched anew each time."""

    url: str

    def __str__(self) -> str:
        return self.url

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """In a recipe it is text that is written as an address."""
        from pydantic import PlainValidator

        def read(value: Any) -> Address:
            if not isinstance(value, str) or not is_address(value):
                raise ValueError("must be an address")
            return cls(value)

        return handler.generate_schema(Annotated[Any, PlainValidator(read)])

    def read(self, name: str) -> bytes:
        """All of a file. Raises FileError if there is none, UserError if nobody answers, MissingPackage."""
        from wspace.support.network import reachable  # which takes a while to import, and few recipes have an address

        if self.url.partition(":")[0] in WEB and not reachable(self.url):
            raise UserError(f"{self}: nobody answers there")
        with self._reached(name) as (system, path):
            return system.cat_file(path)

    def fetch(self, name: str, file: Path) -> None:
        """A file, into another here. Raises as `read`."""
        with self._reached(name) as (system, path):
            system.get_file(path, str(file))

    @contextmanager
    def _reached(self, name: str) -> Iterator[tuple[Any, str]]:
        """The file system that fsspec has for it, and what a file is called there; whatever goes wrong is one sentence."""
        if PLAIN.fullmatch(name) is None:
            raise FileError(
                f"{self}: {name!r} is not fetched: only letters, digits, '.', '-' and '_' are safe in a name"
            )
        try:
            system, folder = _system(self.url)
            yield system, f"{folder.rstrip('/')}/{name}"
        except WspaceError:
            raise
        except FileNotFoundError as error:
            raise FileError(f"{self}: has no {name}") from error
        except Exception as error:  # of whatever fsspec is built on
            if isinstance(error, OSError) and error.errno in DISK:
                raise
            raise UserError(f"{self}: {name} cannot be read: {reason(error)}") from error


NO_ADDRESS = "value_error"
"""What pydantic calls it when something is none."""


def _system(url: str) -> tuple[Any, str]:
    """fsspec's file system, and the folder there. Raises UserError, MissingPackage."""
    import fsspec

    protocol, options = url.partition(":")[0], dict[str, Any]()
    if protocol in WEB:
        if "?" in url or "#" in url:
            raise UserError(f"{url}: a folder's address ends before any '?' or '#': its files are named behind it")
        options["client_kwargs"] = _client(url)
    try:
        return fsspec.url_to_fs(url, **options)
    except ImportError as error:
        raise MissingPackage(f"{url}: {error}") from error
    except ValueError as error:
        if protocol in fsspec.available_protocols():
            raise
        raise UserError(
            f"{url}: fsspec knows no addresses of {protocol!r}{nearest(protocol, fsspec.available_protocols())}"
        ) from error


def _client(url: str) -> dict[str, Any]:
    """Of HTTP: by proxies as the environment names them; a large file may take its time, but not without a word."""
    try:
        from aiohttp import ClientTimeout
    except ImportError as error:
        raise MissingPackage(f'{url}: needs the package aiohttp: pip install "wspace[remote]"') from error
    return {"trust_env": True, "timeout": ClientTimeout(total=None, sock_connect=30, sock_read=60)}
