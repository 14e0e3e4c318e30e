"""What `wspace.load` opens: a run, a zoo or weights, here or on a hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wspace.runs.run import Run
from wspace.support.elsewhere import place_of
from wspace.support.errors import UserError
from wspace.support.names import HUB_WEIGHTS
from wspace.support.progress import Progress
from wspace.uses.hub.packing import kind_of
from wspace.uses.hub.remote import SCHEME, Place, cached
from wspace.weights.files.network import Network
from wspace.weights.zoo.format import StoredZoo


def load(what: str | Path, plugins: Sequence[str | Path] = ()) -> Run | StoredZoo | Network:
    """As `wspace.load`."""
    if isinstance(what, str) and what.startswith(SCHEME):
        return _opened(cached(Place.read(what), Progress()), plugins)
    place = place_of(what) if isinstance(what, str) else what
    if isinstance(place, Path):
        return _opened(place, plugins)
    _check_no_plugins(place, "a zoo", plugins)
    return StoredZoo.open(place)


def _opened(place: Path, plugins: Sequence[str | Path]) -> Run | StoredZoo | Network:
    kind = kind_of(place)
    if kind in ("zoo", "weights"):
        _check_no_plugins(place, "a zoo" if kind == "zoo" else "weights", plugins)
    if kind == "zoo":
        return StoredZoo.open(place)
    if kind == "weights":
        return Network.read(place / HUB_WEIGHTS if place.is_dir() else place)
    return Run.open(place, [Path(file) for file in plugins])


def _check_no_plugins(place: object, called: str, plugins: Sequence[str | Path]) -> None:
    if plugins:
        raise UserError(
            f"{place}: {called}, whose file names no components, so plugins are of no account: leave them out"
        )
