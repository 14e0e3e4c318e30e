"""Pretrained weights: looked for before they are downloaded."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import huggingface_hub
import torch
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from wspace.support.errors import MissingWeights

PATIENCE = 2.0
"""Seconds a host has to answer. A download without a network fails by itself only after 46."""


@dataclass(frozen=True)
class Hub:
    """Weights in a repository of the Hugging Face hub: the first of `files` that is there."""

    repository: str  # org/name or org/name@revision
    files: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.repository

    @property
    def cache(self) -> str:
        return constants.HF_HUB_CACHE

    @property
    def other_cache(self) -> str:
        return "point HF_HOME to a cache that has them"

    @property
    def address(self) -> str:
        return constants.ENDPOINT

    def cached(self) -> Path | None:
        repository, _, revision = self.repository.partition("@")
        for file in self.files:
            path = huggingface_hub.try_to_load_from_cache(
                repository, file, cache_dir=self.cache, revision=revision or None
            )
            if isinstance(path, str):
                return Path(path)
        return None

    def download(self) -> Path:
        repository, _, revision = self.repository.partition("@")
        for file in self.files:
            try:
                return Path(huggingface_hub.hf_hub_download(repository, file, revision=revision or None))
            except LocalEntryNotFoundError:
                raise  # a kind of EntryNotFoundError that means: no connection
            except EntryNotFoundError:
                continue
        raise FileNotFoundError(f"{self.repository} has none of {', '.join(self.files)}")


@dataclass(frozen=True)
class Url:
    """Weights at an address, kept in `folder` under their own name."""

    url: str
    folder: Path

    @property
    def name(self) -> str:
        return self.url

    @property
    def cache(self) -> str:
        return str(self.folder)

    @property
    def other_cache(self) -> str:
        return f"put {self._file.name} there"

    @property
    def address(self) -> str:
        return self.url

    @property
    def _file(self) -> Path:
        return self.folder / Path(urlsplit(self.url).path).name

    def cached(self) -> Path | None:
        return self._file if self._file.is_file() else None

    def download(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(self.url, str(self._file), progress=False)
        return self._file


def find_or_download(source: Hub | Url, who: str, remedy: str) -> Path:
    """The file of pretrained weights.

    Raises MissingWeights, within seconds, if it is not here and cannot be fetched.
    `who` asks, as in "backbone 'timm' resnet18"; `remedy` is how to do without, as in "give 'file: PATH'".
    """
    cached = source.cached()
    if cached is not None:
        return cached
    absent = f"{who}: its pretrained weights ({source.name}) are not in the cache {source.cache}"
    if offline_by_choice():
        raise MissingWeights(f"{absent} and HF_HUB_OFFLINE is set: unset it, {source.other_cache}, {remedy}")
    if not reachable(source.address):
        raise MissingWeights(f"{absent} and there is no network: connect once, {source.other_cache}, {remedy}")
    try:
        return source.download()
    except (LocalEntryNotFoundError, URLError, OSError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MissingWeights(
            f"{absent} and could not be downloaded ({reason}): try again, {source.other_cache}, {remedy}"
        ) from error


def offline_by_choice() -> bool:
    # the hub's own constant holds what the variable was when the hub was first imported
    return constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in {
        "1",
        "ON",
        "YES",
        "TRUE",
    }


def reachable(address: str, patience: float = PATIENCE) -> bool:
    """Whether the host of `address`, or the proxy on the way to it, accepts a connection within so many seconds."""
    parts = urlsplit(address)
    proxy = getproxies().get(parts.scheme)
    if proxy and not proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    answered: list[bool] = []

    def knock() -> None:
        try:
            with socket.create_connection((host, port), timeout=patience):
                answered.append(True)
        except OSError:
            pass

    # A look-up of a name takes no time limit: left behind in a thread if it hangs.
    thread = Thread(target=knock, daemon=True)
    thread.start()
    thread.join(patience)
    return bool(answered)
