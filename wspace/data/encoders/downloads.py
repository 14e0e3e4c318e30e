"""Pretrained weights: looked for before they are downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit

import huggingface_hub
import torch
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from wspace.support.errors import MissingWeights
from wspace.support.network import may_download, offline_by_choice, reachable


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
    if not may_download():
        raise MissingWeights(f"{absent}, and nothing is downloaded now: `wspace run` would")
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
