"""Laws of importers: what they recognise, and what they make of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wspace.interfaces import Collection, Importer
from wspace.support.errors import UserError
from wspace.testing.law import check
from wspace.testing.subject import Subject
from wspace.testing.verdicts import Unbuilt


@check("importer")
def check_says_what_it_takes(subject: Subject) -> None:
    takes = getattr(_importer(subject), "takes", None)
    subject.hold(isinstance(takes, str) and takes, f"takes should say what such a folder holds, and is {takes!r}")


@check("importer")
def check_recognises_its_example_and_no_strangers(subject: Subject) -> None:
    importer = _importer(subject)
    with _example(subject) as folder:
        subject.hold(importer.recognises(folder), "it does not recognise the folder that it wrote as its example")
    with tempfile.TemporaryDirectory() as folder:
        subject.hold(not importer.recognises(Path(folder)), "it recognises an empty folder")
        (Path(folder) / "holiday.jpg").write_bytes(b"\xff\xd8")
        (Path(folder) / "README.md").write_text("of nobody", encoding="utf-8")
        subject.hold(not importer.recognises(Path(folder)), "it recognises a folder of a picture and a README")


@check("importer")
def check_networks_are_named_and_described(subject: Subject) -> None:
    with _example(subject) as folder:
        networks = _collected(subject, folder).networks
        subject.hold(len(networks) == 2, f"its example should be two networks, and is {len(networks)}")
        names = [network.name for network in networks]
        subject.hold(len(set(names)) == len(names) and all(names), f"networks need different names, and are {names}")
        for network in networks:
            texts = (*network.description.texts, *network.description.classes)
            subject.hold(texts, f"of network {network.name!r}, neither texts nor classes are known")


@check("importer")
def check_networks_are_alike_and_read_the_same_twice(subject: Subject) -> None:
    with _example(subject) as folder:
        collection = _collected(subject, folder)
        first = collection.networks[0].read()
        subject.hold(first, f"network {collection.networks[0].name!r} has no tensors")
        for network in collection.networks:
            tensors, again = network.read(), network.read()
            subject.hold(
                {key: (t.shape, t.dtype) for key, t in tensors.items()}
                == {key: (t.shape, t.dtype) for key, t in first.items()},
                f"network {network.name!r} has other tensors than {collection.networks[0].name!r}",
            )
            for key, tensor in tensors.items():
                subject.equal(f"{key} of network {network.name!r}, read a second time", again[key], tensor)
        if collection.spec is not None:
            try:
                collection.spec.validate(first, "its first network")
            except UserError as error:
                subject.fail(f"its spec is of other tensors: {error}")


def _importer(subject: Subject) -> Importer:
    return subject.instances[0].made


@contextmanager
def _example(subject: Subject) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        _importer(subject).example(Path(folder))
        yield Path(folder)


def _collected(subject: Subject, folder: Path) -> Collection:
    try:
        return _importer(subject).collect(folder)
    except UserError as error:
        raise Unbuilt(f"its example cannot be collected: {error}") from error
