"""To and from a model hub: push, pull."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wspace.cli.options import Json, PluginFiles

Repository = Annotated[
    str, typer.Argument(metavar="REPO", help="On the hub: user/name; of a zoo, datasets/user/name.", show_default=False)
]


def push(
    source: Annotated[
        Path,
        typer.Argument(metavar="RUN|WEIGHTS|ZOO", help="What to send: a finished run, generated weights, or a zoo."),
    ],
    repository: Repository,
    whole: Annotated[
        bool, typer.Option("--whole", help="Of a run, also the zoo's networks, opponents and what it generated.")
    ] = False,
    run: Annotated[
        Path | None, typer.Option(help="Of weights: the run that generated them, which knows what to expect of them.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="As the hub writes it: cc-by-4.0, mit, ...")] = None,
    private: Annotated[bool, typer.Option("--private", help="A new repository is for you alone.")] = False,
    dry: Annotated[bool, typer.Option("--dry", help="Say what would go, and how large it is.")] = False,
    as_json: Json = False,
    plugin: PluginFiles = None,
) -> None:
    """Send a run, generated weights or a zoo to a model hub.

    It takes a card along, and a hash of every file. What an interrupted attempt has sent is not sent again.
    """
    from wspace.support.progress import for_terminal
    from wspace.uses.hub.packing import Asked, packed
    from wspace.uses.hub.remote import Place, check_can_send, send

    place, progress = Place.read(repository), for_terminal()
    if not dry:
        check_can_send(place)
    with packed(source, place, Asked(licence, whole, run, plugin or ()), progress) as ready:
        parcel, place = ready.parcel, ready.place
        progress.say(parcel.summary)
        for line in (*parcel.parts, *ready.notes):
            progress.say(line)
        if licence is None and parcel.kind == "run":
            progress.say("note: the card names no licence: name one by --licence")
        if dry:
            progress.say("nothing was sent")
        address = None if dry else send(ready.folder, parcel, place, private)
    if as_json:
        about = {"repository": str(place), "address": address, "kind": parcel.kind, "bytes": parcel.bytes}
        print(json.dumps(about | {"files": sorted(parcel.files)}, ensure_ascii=False))
    elif address is not None:
        print(address)
        progress.say(f"wspace pull {place} fetches it")


def pull(
    repository: Repository,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder to make; else here, as the repository is called.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fetch what `push` sent, as a new folder.

    Every hash is checked, and nothing is executed. After an interruption, the same command goes on. A run's folder is then one
    that every command takes.
    """
    from wspace.support.progress import for_terminal
    from wspace.uses.hub import remote

    place = remote.Place.read(repository)
    out = out or Path(place.name.rpartition("/")[2])
    parcel = remote.pull(place, out, for_terminal())
    if as_json:
        print(
            json.dumps({"folder": str(out), "kind": parcel.kind, "bytes": parcel.bytes, "files": sorted(parcel.files)})
        )
    else:
        print(out)
