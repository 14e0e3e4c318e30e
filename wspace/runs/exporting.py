"""A network with its backbone, written in a format of an exporter, and what the file answers held against what it should."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wspace.interfaces import TEST, Answers, Classifier, Exporter, Images, Precision
from wspace.runs.artifacts import Zoo
from wspace.runs.workbench import Workbench
from wspace.support.errors import UserError, WspaceError, did_you_mean
from wspace.support.files import check_file, check_new_folder, disk_errors, new_folder, replacing, sweep
from wspace.support.progress import Progress
from wspace.weights.files.network import Network

TOLERANCE = 1e-4  # of probabilities, where numbers are stored as they are
TRIED = 500  # test pictures, at most
BATCH = 64  # pictures at once


class Scaled(nn.Module):
    """A head behind features over their root mean square, as a zoo's networks see them: (M, F) -> (M, K)."""

    def __init__(self, head: nn.Module, rms: Tensor):
        super().__init__()
        self.head, self.rms = head, nn.Buffer(rms.clone())

    def forward(self, features: Tensor) -> Tensor:
        return self.head(features / self.rms)


@dataclass(frozen=True)
class Trial:
    """Pictures to try a file on."""

    pixels: np.ndarray  # (M, S, S, 3) uint8
    labels: np.ndarray  # (m,), of the first m pictures, whose classes are the network's: places in its classes


@dataclass(frozen=True)
class Exported:
    """A file or a folder that an exporter wrote, and how it was checked."""

    out: Path  # the file, or the folder
    format: str  # name of the exporter
    precision: Precision  # of the numbers in it
    bytes: int  # its size
    classes: tuple[str, ...]  # K names, in the order of the probabilities
    side: int  # of the pictures that it takes
    pictures: int  # test pictures that it was tried on
    same: int  # of these, how many have the class that the network itself gives
    difference: float  # of probabilities, the largest
    scored: int  # pictures of the network's own classes among them
    accuracy: float | None  # on these; None: there are none
    network_accuracy: float | None  # of the network itself, on the same ones

    def as_json(self) -> dict[str, Any]:
        """As `wspace export --json` prints it."""
        return vars(self) | {"out": str(self.out), "classes": list(self.classes)}


def classifier_of(
    network: Network, bench: Workbench, zoo: Zoo, about: Callable[[Network, str], dict[str, Any]]
) -> Classifier:
    """A network with the backbone before it, in float32 on the CPU. Raises UserError for a backbone that is no module.

    `about` says what a network is, given it and the licence of the backbone.
    """
    cpu, target = torch.device("cpu"), bench.target
    backbone = bench.recipe.backbone.build({"device": cpu})  # of its own: the exporter may change it
    head = target.frozen(target.spec.flatten(network.tensors), bench.encode_classes(network.classes).to(cpu))
    return Classifier(
        backbone.module(),
        Scaled(head, zoo.scale.rms.to(cpu)),
        network.classes,
        bench.images.read([0]).shape[1],
        network.tensors,
        about(network, backbone.licence),
    )


def trial_of(network: Network, images: Images) -> Trial:
    """Test pictures, at most `TRIED`: those of the network's classes, if the data set has them all, and others."""
    from wspace.runs.stages.report import evenly  # with figures, which no other answer waits for

    test = np.flatnonzero(images.split == TEST)
    place = {images.classes.index(name): at for at, name in enumerate(network.classes) if name in images.classes}
    named = np.isin(images.labels[test], list(place)) & (len(place) == len(network.classes))
    ours, others = (torch.as_tensor(images.labels[test[rows]]) for rows in (named, ~named))
    rows = test[named][evenly(ours, TRIED).numpy()] if len(ours) else test[:0]
    more = test[~named][evenly(others, TRIED - len(rows)).numpy()] if len(others) else test[:0]
    labels = np.array([place[label] for label in images.labels[rows].tolist()], dtype=np.int64)
    return Trial(images.read(np.concatenate([rows, more])), labels)


def checked(exporter: Exporter, name: str, out: Path, precision: str) -> Precision:
    """The precision, which the exporter writes. Raises UserError for what cannot come of it, before there is any work."""
    (check_file if exporter.suffix else check_new_folder)(out)
    for written in exporter.precisions:
        if written == precision:
            return written
    raise UserError(
        f"precision {precision}: exporter {name!r} writes {', '.join(exporter.precisions)} alone."
        + did_you_mean(precision, exporter.precisions).partition(" Known:")[0]
    )


def write(
    classifier: Classifier,
    exporter: Exporter,
    name: str,
    out: Path,
    precision: Precision,
    trial: Trial,
    progress: Progress,
) -> Exported:
    """The file or folder, after it answered as it should. Raises WspaceError, and leaves nothing, if it did not."""
    with _being_made(exporter, out) as made:
        with progress.bar("exporting", 1) as bar:
            exporter.write(classifier, made, precision)
            bar.advance()
        answers = _answers(exporter.read(made), trial.pixels, progress)
        files = [file for file in made.rglob("*") if file.is_file()] if made.is_dir() else [made]
        size = sum(file.stat().st_size for file in files)
        module = classifier.module()
        expected = _answers(_by_torch(module), trial.pixels, progress)
        if precision == "float32" and not _difference(answers, expected) <= TOLERANCE:
            # Both are rounded: what is left of a difference from float64 is the file's part alone.
            expected = _answers(_by_torch(module.double()), trial.pixels, progress)
            if not _difference(answers, expected) <= TOLERANCE:
                raise WspaceError(
                    f"{out}: not written: what exporter {name!r} made answers otherwise than the network: probabilities differ "
                    f"by up to {_difference(answers, expected):.2g} on {len(answers)} test pictures, and {TOLERANCE:.0e} is "
                    "allowed"
                )
    count = len(trial.labels)

    def accuracy(of: np.ndarray) -> float | None:
        return float((of[:count].argmax(1) == trial.labels).mean()) if count else None

    return Exported(
        out,
        name,
        precision,
        size,
        classifier.classes,
        classifier.side,
        pictures=len(answers),
        same=int((answers.argmax(1) == expected.argmax(1)).sum()),
        difference=_difference(answers, expected),
        scored=count,
        accuracy=accuracy(answers),
        network_accuracy=accuracy(expected),
    )


@contextmanager
def _being_made(exporter: Exporter, out: Path) -> Iterator[Path]:
    """A place to write, which becomes `out` when all went well, and is gone otherwise."""
    if exporter.suffix:
        with disk_errors(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            sweep(out.parent)
            with replacing(out) as made:
                yield made
    else:
        with new_folder(out) as made:
            yield made


def _by_torch(module: nn.Module) -> Answers:
    def answers(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.tensor(pixels)).numpy()

    return answers


def _difference(answers: np.ndarray, expected: np.ndarray) -> float:
    """The largest; no number, and so above any limit, if one of them is none."""
    return float(np.abs(answers - expected).max())


def _answers(answer: Answers, pixels: np.ndarray, progress: Progress) -> np.ndarray:
    answers = []
    with progress.bar("trying", len(pixels)) as bar:
        for start in range(0, len(pixels), BATCH):
            answers.append(answer(pixels[start : start + BATCH]))
            bar.advance(len(answers[-1]))
    return np.concatenate(answers)
