"""Laws of exporters: what they write answers as the classifier does."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor, nn

from wspace.data.encoders.frozen import ImageEncoder
from wspace.interfaces import Answers, Classifier, Exporter, Precision
from wspace.support.errors import MissingPackage, UserError
from wspace.support.seeding import seeded
from wspace.testing.law import check
from wspace.testing.subject import Subject
from wspace.testing.verdicts import Unbuilt

SIDE = 8  # of pictures, in pixels
CLASSES = ("camera", "book", "étoile <b>&amp;</b>")
TOLERANCE = 1e-4  # of probabilities


def classifier() -> Classifier:
    """A convolution before a matrix, of random numbers: three classes, pictures of 8 x 8."""
    with seeded(0):
        network = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
        head = nn.Linear(6, len(CLASSES))
    network.requires_grad_(False)
    head.requires_grad_(False)
    encoder = ImageEncoder(network, (0.5,) * 3, (0.25,) * 3, None, 4, "float32", torch.device("cpu"))
    weights = {"w": head.weight.mT.contiguous(), "b": head.bias}
    return Classifier(encoder.module(network), head, CLASSES, SIDE, weights, {"origin": "a check"})


def pictures(count: int) -> np.ndarray:
    """(count, S, S, 3), uint8."""
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


@check("exporter")
def check_says_what_it_writes(subject: Subject) -> None:
    exporter = _exporter(subject)
    suffix, precisions = getattr(exporter, "suffix", None), exporter.precisions
    subject.hold(
        suffix == "" or (isinstance(suffix, str) and suffix.startswith(".")),
        f"suffix should be that of its files, or empty where it makes a folder, and is {suffix!r}",
    )
    subject.hold(
        precisions and set(precisions) <= set(get_args(Precision)),
        f"precisions should be some of {', '.join(get_args(Precision))}, and are {precisions}",
    )


@check("exporter")
def check_answers_as_the_classifier(subject: Subject) -> None:
    pixels = pictures(5)
    with torch.inference_mode():
        expected: Tensor = classifier().module()(torch.from_numpy(pixels))
    for precision in _exporter(subject).precisions:
        with _written(subject, precision) as answers:
            of_all = torch.as_tensor(np.asarray(answers(pixels)))
            subject.shaped(f"what it answers in {precision}", of_all, (5, len(CLASSES)))
            alone = torch.as_tensor(np.asarray(answers(pixels[:1])))
            apart = float((alone[0] - of_all[0]).abs().max())
            subject.hold(
                apart <= TOLERANCE, f"a picture by itself has other probabilities than among others, by {apart:.2g}"
            )
            off = float((of_all - expected).abs().max())
            allowed = TOLERANCE if precision == "float32" else 0.1
            subject.hold(
                off <= allowed, f"in {precision} its probabilities are off by {off:.2g}, and {allowed:g} is allowed"
            )


@check("exporter")
def check_makes_one_file_or_folder(subject: Subject) -> None:
    """What was asked for is one file or one folder, and nothing beside it."""
    with tempfile.TemporaryDirectory() as folder:
        out = _place(subject, Path(folder))
        _write(subject, out, _exporter(subject).precisions[0])
        beside = sorted(path.name for path in Path(folder).iterdir() if path != out)
        subject.hold(not beside, f"it should make {out.name} alone, and makes {', '.join(beside)} beside it")


def _exporter(subject: Subject) -> Exporter:
    return subject.instances[0].made


def _place(subject: Subject, folder: Path) -> Path:
    out = folder / f"made{_exporter(subject).suffix}"
    if not _exporter(subject).suffix:
        out.mkdir()
    return out


def _write(subject: Subject, out: Path, precision: Precision) -> None:
    try:
        _exporter(subject).write(classifier(), out, precision)
    except MissingPackage:
        raise
    except UserError as error:
        raise Unbuilt(f"it has no form for a convolution before a matrix: {error}") from error


@contextmanager
def _written(subject: Subject, precision: Precision) -> Iterator[Answers]:
    with tempfile.TemporaryDirectory() as folder:
        out = _place(subject, Path(folder))
        _write(subject, out, precision)
        yield _exporter(subject).read(out)
