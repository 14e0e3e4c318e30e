"""Weights of frozen encoders: looked for before they are downloaded, read, seeded, fingerprinted."""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from threading import Thread
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import huggingface_hub
import safetensors.torch
import torch
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors import SafetensorError
from torch import Tensor

from wspace.errors import FileError, MissingWeights

PATIENCE = 2.0
"""Seconds a host has to answer. A download without a network fails by itself only after 46."""

UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError, SafetensorError)
"""What reading a truncated or foreign file of weights raises."""


# ---------------------------------------------------------------- where weights come from


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
        raise MissingWeights(
            f"{absent} and there is no network: connect once, {source.other_cache}, {remedy}"
        )
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


def reachable(address: str) -> bool:
    """Whether the host of `address`, or the proxy on the way to it, accepts a connection within PATIENCE."""
    parts = urlsplit(address)
    proxy = getproxies().get(parts.scheme)
    if proxy and not proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    answered: list[bool] = []

    def knock() -> None:
        try:
            with socket.create_connection((host, port), timeout=PATIENCE):
                answered.append(True)
        except OSError:
            pass

    # A look-up of a name takes no time limit: left behind in a thread if it hangs.
    thread = Thread(target=knock, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return bool(answered)


# ---------------------------------------------------------------- reading, seeding, naming


def read_state(file: Path) -> dict[str, Tensor]:
    """Named tensors of a .safetensors or torch file, out of the common wrappers. Raises FileError."""
    if not file.is_file():
        raise FileError(f"{file}: there is no such file")
    try:
        if file.suffix == ".safetensors":
            content = safetensors.torch.load_file(file)
        else:
            # timm's own checkpoints hold the command line beside the tensors
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(file, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise unreadable(file) from error
    if isinstance(content, dict):
        wrappers = ("state_dict_ema", "model_ema", "state_dict", "model")
        content = next((content[key] for key in wrappers if isinstance(content.get(key), dict)), content)
    if not isinstance(content, dict) or not any(isinstance(value, Tensor) for value in content.values()):
        raise unreadable(file)
    return {
        str(key).removeprefix("module.").removeprefix("_orig_mod."): value
        for key, value in content.items()
        if isinstance(value, Tensor)
    }


def unreadable(file: Path) -> FileError:
    return FileError(
        f"{file}: truncated, or not a file of weights (.safetensors, or a torch file of tensors alone)"
    )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Parameters initialised inside come from `seed`; the global random state is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(
            seed
        )  # torch.manual_seed would seed the GPU's too, which is not put back
        yield


def fingerprint_of(state: Mapping[str, Tensor], *facts: object) -> str:
    """sha256 of every byte of the tensors, and of whatever else changes what they compute."""
    digest = hashlib.sha256(repr(facts).encode())
    for name, tensor in state.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def nearest(name: str, known: Sequence[str]) -> str:
    """': did you mean a, b or c?', for the end of a message where all that is known is too much to print."""
    names = get_close_matches(name, known, n=3, cutoff=0.4)
    *others, last = names or [""]
    return (
        (f": did you mean {', '.join(others)} or {last}?" if others else f": did you mean {last}?")
        if last
        else ""
    )
