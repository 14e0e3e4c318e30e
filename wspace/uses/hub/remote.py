"""A model hub, as the client of the Hugging Face hub speaks to it. What goes wrong there is one sentence."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wspace import __version__
from wspace.support.errors import FileError, UserError, WspaceError, reason
from wspace.support.files import DISK, check_new_folder, disk_errors
from wspace.support.network import offline_by_choice, reachable
from wspace.support.progress import Progress
from wspace.uses.hub.parcel import PARCEL, Parcel

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SCHEME = "hf://"
DATASETS = "datasets/"


@dataclass(frozen=True)
class Place:
    """A repository, or one revision of it."""

    name: str  # user/name
    type: Literal["model", "dataset"] = "model"  # zoos are data sets
    revision: str | None = None  # branch, tag or commit; None: what is newest

    @classmethod
    def read(cls, written: str) -> Place:
        """Of `user/name`, `datasets/user/name` or `user/name@revision`, with or without `hf://`. Raises UserError."""
        from huggingface_hub.utils import HFValidationError, validate_repo_id

        named, at, revision = written.removeprefix(SCHEME).partition("@")
        name = named.removeprefix(DATASETS)
        try:
            validate_repo_id(name)
            if "/" not in name or (at and not revision):
                raise HFValidationError
        except HFValidationError as error:
            raise UserError(
                f"{written!r} is no name of a repository: write user/name, or datasets/user/name for a zoo"
            ) from error
        return cls(name, "model" if name == named else "dataset", revision or None)

    def __str__(self) -> str:
        """As `wspace pull` takes it."""
        prefix = DATASETS if self.type == "dataset" else ""
        return f"{prefix}{self.name}" + (f"@{self.revision}" if self.revision else "")

    @property
    def address(self) -> str:
        """As `wspace.load` takes it."""
        return f"{SCHEME}{self}"


def check_can_send(place: Place) -> None:
    """Raises UserError where nothing can be sent, before there is any work: no network, no token."""
    from huggingface_hub import get_token

    if place.revision is not None:
        raise UserError(f"{place}: what is sent goes to the newest revision; leave out @{place.revision}")
    _check_online(place)
    if get_token() is None:
        raise UserError(
            f"{place}: there is no token to write with; make one on {_endpoint()}/settings/tokens, and run `hf auth login` or "
            "set HF_TOKEN"
        )


def send(folder: Path, parcel: Parcel, place: Place, private: bool) -> str:
    """Make the repository if there is none, and send a folder to it. Gives its address.

    What an interrupted attempt has sent is not sent again. Raises UserError, WspaceError.
    """
    api = _api()
    with _one_sentence(place):
        url = api.create_repo(place.name, repo_type=place.type, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=place.name,
            repo_type=place.type,
            folder_path=folder,
            commit_message=f"{parcel.kind} {parcel.name}, by wspace {__version__}",
        )
    return str(url)


def pull(place: Place, out: Path, progress: Progress) -> Parcel:
    """A new folder of what was pushed, every hash checked. After an interruption, the same call goes on.

    Raises UserError for a place where there is nothing, FileError for a file that is not what was sent, WspaceError.
    """
    check_new_folder(out)
    _check_online(place)
    commit = _commit(place)
    partial = out.with_name(f".{out.name[:50]}.{commit[:12]}")  # of this commit alone: nothing of another is in it
    with disk_errors(out, partial):
        try:
            _fetch(place, commit, partial, progress)
            parcel = _checked(place, partial)
        except UserError:  # nothing that another attempt could go on with
            shutil.rmtree(partial, ignore_errors=True)
            raise
        shutil.rmtree(partial / ".cache", ignore_errors=True)  # the client's own
        os.replace(partial, out)
    return parcel


def cached(place: Place, progress: Progress) -> Path:
    """A folder of the client's cache with what was pushed, every hash checked; what is there is not downloaded again.

    Where HF_HUB_OFFLINE is set, what is in the cache. Raises as `pull`.
    """
    if offline_by_choice():
        folder = _of_cache(place)
    else:
        _check_online(place)
        folder = _fetch(place, place.revision, None, progress)
    _checked(place, folder)
    return folder


def _checked(place: Place, folder: Path) -> Parcel:
    """What is in a folder. Raises FileError for a file that is not what was sent, and forgets it: a next attempt is whole."""
    parcel = Parcel.read(folder, str(place))
    if wrong := parcel.wrong(folder):
        for name in wrong:
            (folder / name).resolve().unlink(missing_ok=True)  # in the cache, a link to it is in the folder
            (folder / name).unlink(missing_ok=True)
        name, why = next(iter(wrong.items()))
        raise FileError(f"{place}: {name} {why}; nothing of it is used")
    return parcel


def _fetch(place: Place, revision: str | None, folder: Path | None, progress: Progress) -> Path:
    """What a repository says it has and no other file, in a folder or else in the client's cache. Gives the folder."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    api, at = _api(), {"repo_type": place.type, "revision": revision, "local_dir": folder}
    with _one_sentence(place):
        try:
            first = Path(api.hf_hub_download(place.name, PARCEL, **at))
        except LocalEntryNotFoundError:
            raise  # a kind of EntryNotFoundError that means: no connection
        except EntryNotFoundError as error:
            raise UserError(f"{place}: has no {PARCEL}: `wspace push` did not send it") from error
    parcel = Parcel.read(first.parent, str(place))
    progress.say(parcel.summary)
    with _one_sentence(place):
        names = [glob.escape(name) for name in (PARCEL, *parcel.files)]
        return Path(api.snapshot_download(place.name, allow_patterns=names, **at))


def _of_cache(place: Place) -> Path:
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        at = {"repo_type": place.type, "revision": place.revision}
        return Path(_api().snapshot_download(place.name, local_files_only=True, **at))
    except LocalEntryNotFoundError as error:
        raise UserError(f"{place}: is not in the cache, and HF_HUB_OFFLINE is set: unset it to download it") from error


def _commit(place: Place) -> str:
    """Of the revision that is asked for, or the newest."""
    with _one_sentence(place):
        info = _api().repo_info(place.name, repo_type=place.type, revision=place.revision)
    return str(info.sha)


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(endpoint=_endpoint(), library_name="wspace", library_version=__version__)


def _endpoint() -> str:
    """HF_ENDPOINT as it is now: the client's own constant holds what it was when that was first imported."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def _check_online(place: Place) -> None:
    if offline_by_choice():
        raise UserError(f"{place}: HF_HUB_OFFLINE is set: unset it to reach the hub")
    if not reachable(_endpoint()):
        raise UserError(
            f"{place}: {_endpoint()} does not answer: there is no network, or HF_ENDPOINT names another place"
        )


@contextmanager
def _one_sentence(place: Place) -> Iterator[None]:
    """What the client raises, as an error of ours. Raises UserError for what the user can mend, else WspaceError."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    token = "your token does not open" if get_token() else "would take a token (`hf auth login`, or HF_TOKEN)"
    try:
        yield
    except WspaceError:
        raise
    except GatedRepoError as error:
        raise UserError(f"{place}: its owner lets in whom they choose: ask on {_endpoint()}/{place.name}") from error
    except RepositoryNotFoundError as error:
        other = "" if place.type == "dataset" else f"; a zoo is {DATASETS}{place.name}"
        raise UserError(f"{place}: no such repository, or a private one, which {token}{other}") from error
    except RevisionNotFoundError as error:
        raise UserError(f"{place}: the repository has no revision {place.revision!r}") from error
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403):
            raise UserError(
                f"{place}: the hub refuses the token: {error.server_message or 'it may not do this'}"
            ) from error
        raise WspaceError(_broken_off(place, error)) from error
    except Exception as error:  # of whatever the client is built on
        if isinstance(error, OSError) and error.errno in DISK:
            raise
        raise WspaceError(_broken_off(place, error)) from error


def _broken_off(place: Place, error: BaseException) -> str:
    while error.__cause__ is not None:  # the client wraps what it met
        error = error.__cause__
    return f"{place}: the hub broke off ({reason(error)}); the same command goes on from here"
