"""What there is here to run recipes with: doctor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wspace.cli.options import Json, PluginFiles

if TYPE_CHECKING:
    from wspace.runs.doctor import Diagnosis

Rows = list[tuple[str, str]]


def doctor(
    runs: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    as_json: Json = False,
    plugin: PluginFiles = None,
) -> None:
    """What there is here for recipes, and what stands in the way.

    Exit status 1 if something does.
    """
    from wspace.runs.doctor import diagnose
    from wspace.support.errors import WspaceError
    from wspace.support.terminal import beside

    found = diagnose(runs, plugin or ())
    if as_json:
        print(json.dumps(found.as_json()))
    else:
        for title, rows in _tables(found):
            print(title)
            width = max(len(name) for name, _ in rows)
            for name, text in rows:
                print(beside(f"  {name:{width}}  ", text))
        for note in found.notes:
            print(beside("note: ", note))
    if found.problems:
        raise WspaceError("\nerror: ".join(found.problems))
    if not as_json:
        print("nothing prevents running")


def _tables(found: Diagnosis) -> Iterator[tuple[str, Rows]]:
    from wspace.support.quantities import counted, in_bytes

    yield "versions", [("system", found.system), *found.versions.items()]
    cores = counted(found.cores, "core")
    free = f"{in_bytes(found.memory_free)} of {in_bytes(found.memory)} are free"
    yield "machine", [("cpu", cores), ("gpu", ", ".join(found.devices) or "none"), ("memory", free)]
    disks = [
        (disk.what, f"{disk.path}: {in_bytes(disk.free)} free{'' if disk.writable else ', not writable'}")
        for disk in found.disks
    ]
    yield "disks", disks
    yield "caches", [(cache.what, f"{in_bytes(cache.size):>8}  {cache.path}") for cache in found.caches]
    yield "network", [("", found.network)]
    extras = [
        (extra.name, f"{extra.purpose}{'; lacks ' + ', '.join(extra.missing) if extra.missing else ''}")
        for extra in found.extras
    ]
    yield 'extras: pip install "wspace[NAME]"', extras
    if found.plugins:
        yield "plugins", [(fact.name, f"{fact.source}: {fact.state}") for fact in found.plugins]
