"""Laws of what stands before any weights: data sets, frozen encoders, wordings."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wspace.interfaces import TEST, TRAIN, VAL, Images
from wspace.support.errors import DataError
from wspace.testing.every import repeats
from wspace.testing.law import check
from wspace.testing.subject import PICTURES, Subject, apart, scratch
from wspace.testing.verdicts import Unbuilt

CLASSES = ("camera", "book", "star")
SENTENCES = ("a photo of otter", "camera", "a small freshwater fish with a long whisker on either side of its mouth")
ROUNDING = 1e-3  # of encoders, whose sums over large images or long rows depend on the batch


# ---------------------------------------------------------------- data sets


class Unloaded(Unbuilt):
    """There are no images to check: `check_loads_from_its_example` says why."""


@check("dataset")
def check_loads_from_its_example(subject: Subject) -> None:
    """`load` finds images: in the folder the example names, made here, or out of a package."""
    try:
        subject.hold(len(_images(subject)) > 0, "its example should have images, and has none")
    except Unloaded as error:
        subject.fail(f"its example: {error}")


@check("dataset")
def check_labels_and_splits_are_in_range(subject: Subject) -> None:
    images = _images(subject)
    names, labels, split = images.classes, images.labels, images.split
    subject.hold(
        isinstance(names, tuple) and all(isinstance(name, str) and name for name in names),
        "its classes should be a tuple of names",
    )
    subject.hold(len(set(names)) == len(names) > 1, "its classes should be two or more, each with a name of its own")
    for what, array, dtype in (("labels", labels, np.int64), ("split", split, np.int8)):
        subject.hold(
            isinstance(array, np.ndarray) and array.dtype == dtype and array.shape == (len(labels),),
            f"its {what} should be one {np.dtype(dtype).name} for each image",
        )
    subject.hold(((labels >= 0) & (labels < len(names))).all(), "its labels should be indices into its classes")
    subject.hold(np.isin(split, (TRAIN, VAL, TEST)).all(), "its splits should be TRAIN, VAL or TEST")


@check("dataset")
def check_every_class_has_training_and_test_images(subject: Subject) -> None:
    images = _images(subject)
    for number, name in enumerate(images.classes):
        for split, name_of_split in ((TRAIN, "training"), (TEST, "test")):
            any_images = (images.split[images.labels == number] == split).any()
            subject.hold(any_images, f"class {name!r} should have {name_of_split} images, and has none")


@check("dataset")
def check_pixels_are_square_bytes(subject: Subject) -> None:
    images = _images(subject)
    pixels = images.read([0, len(images) - 1])
    side = pixels.shape[1] if pixels.ndim == 4 else 0
    subject.hold(
        pixels.dtype == np.uint8 and pixels.shape == (2, side, side, 3) and side,
        f"two of its images should be uint8 of shape (2, S, S, 3), and are {pixels.dtype} of {pixels.shape}",
    )


@check("dataset")
def check_images_are_read_in_the_order_asked_for(subject: Subject) -> None:
    images = _images(subject)
    asked = [len(images) - 1, 0, len(images) // 2]
    together = images.read(asked)
    for index, pixels in zip(asked, together, strict=True):
        subject.hold(
            (images.read([index])[0] == pixels).all(), f"image {index} read among others is another than by itself"
        )


@check("dataset")
def check_loads_the_same_twice(subject: Subject) -> None:
    first, second = _images(subject), subject.instances[0].made.load(Path(tempfile.mkdtemp(dir=scratch())))
    subject.hold(isinstance(first.fingerprint, str) and first.fingerprint, "its images should have a fingerprint")
    subject.hold(first.fingerprint == second.fingerprint, "its images have another fingerprint when loaded again")
    same = first.classes == second.classes and all(
        np.array_equal(one, two) for one, two in ((first.labels, second.labels), (first.split, second.split))
    )
    subject.hold(same, "its images have other labels or splits when loaded again")
    some = np.linspace(0, len(first) - 1, 8).astype(int)
    subject.hold((first.read(some) == second.read(some)).all(), "its images have other pixels when loaded again")


@check("dataset")
def check_opens_a_picture_as_its_own(subject: Subject) -> None:
    dataset, side = subject.instances[0].made, _images(subject).read([0]).shape[1:]
    opened = dataset.open_picture(scratch() / PICTURES / "disc" / "0.png")
    subject.hold(
        opened.dtype == np.uint8 and opened.shape == side,
        f"a picture from outside should be uint8 of shape {side} as its own are, and is {opened.dtype} of {opened.shape}",
    )
    try:
        dataset.open_picture(scratch() / "nowhere.png")
    except DataError:
        return
    subject.fail("a picture that is not there should be a DataError")


def _images(subject: Subject) -> Images:
    """Loaded once for all checks."""
    dataset = subject.instances[0].made
    try:
        return subject.once("images", lambda: dataset.load(Path(tempfile.mkdtemp(dir=scratch()))))
    except DataError as error:
        raise Unloaded(f"it cannot be loaded: {error}") from error


# ---------------------------------------------------------------- encoders


def _pixels(count: int = 3, side: int = 40) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (count, 5, 5, 3), dtype=np.uint8)
    return coarse.repeat(side // 5, axis=1).repeat(side // 5, axis=2)


def _encode(subject: Subject, rows: Sequence[int] = range(3)) -> Tensor:
    """Some rows of one batch of inputs, encoded."""
    batch: Any = [SENTENCES[row] for row in rows] if subject.component.kind == "text" else _pixels()[list(rows)]
    return subject.instances[0].made.encode(batch)


def _encoded(subject: Subject) -> Tensor:
    """The whole batch, once for all checks."""
    return subject.once("encoded", lambda: _encode(subject))


@check("backbone", "text")
def check_vectors_are_plain_float32(subject: Subject) -> None:
    encoder, vectors = subject.instances[0].made, _encode(subject)
    subject.shaped("what it says of a batch", vectors, (3, encoder.dim))
    subject.hold(vectors.device.type == "cpu", f"its vectors should lie on the CPU, and lie on {vectors.device}")
    subject.hold(
        not vectors.requires_grad and not vectors.is_inference(),
        "its vectors should be fit for training on: neither of an inference_mode nor with a gradient of their own",
    )


@check("backbone", "text")
def check_encodes_the_same_twice(subject: Subject) -> None:
    repeats(subject, "the same batch, encoded", lambda rng: _encode(subject))


@check("backbone", "text")
def check_batches_do_not_matter(subject: Subject) -> None:
    split = torch.cat([_encode(subject, rows) for rows in ([0], [1, 2])])
    subject.near("a batch encoded in two halves", split, _encoded(subject), ROUNDING)


@check("backbone", "text")
def check_tells_inputs_apart(subject: Subject) -> None:
    vectors = _encoded(subject)
    subject.hold(
        apart(vectors[1:], vectors[:-1]) > 1e-3, "different inputs should have different vectors, and have the same"
    )


@check("backbone", "text")
def check_fingerprint_is_that_of_another_built_alike(subject: Subject) -> None:
    instance = subject.instances[0]
    mark = instance.made.fingerprint
    subject.hold(isinstance(mark, str) and mark, "it should have a fingerprint: it is part of every cache key")
    again = subject.build(instance.around, seed=1).fingerprint
    subject.hold(again == mark, "built again it has another fingerprint, so that no feature would ever be found again")


@check("text")
def check_vectors_have_unit_length(subject: Subject) -> None:
    lengths = _encoded(subject).norm(dim=1)
    subject.near("the lengths of its vectors against 1", lengths, torch.ones_like(lengths), 1e-4)


@check("text")
def check_no_sentence_is_no_vector(subject: Subject) -> None:
    encoder = subject.instances[0].made
    subject.shaped("what it says of no sentence", encoder.encode([]), (0, encoder.dim))


# ---------------------------------------------------------------- wordings


def _sentences(subject: Subject, classes: tuple[str, ...]) -> list[tuple[str, ...]]:
    return subject.instances[0].made.sentences(classes, [f"a photo of {name}" for name in classes])


@check("wording")
def check_every_class_has_sentences(subject: Subject) -> None:
    of_classes = _sentences(subject, CLASSES)
    subject.hold(
        len(of_classes) == len(CLASSES),
        f"it should speak of each of {len(CLASSES)} classes, and does of {len(of_classes)}",
    )
    for name, sentences in zip(CLASSES, of_classes, strict=True):
        plain = isinstance(sentences, tuple) and sentences and all(isinstance(s, str) and s.strip() for s in sentences)
        subject.hold(plain, f"of {name!r} it should say a tuple of one sentence or more, and says {sentences!r}")


@check("wording")
def check_a_class_is_described_alike_in_any_company(subject: Subject) -> None:
    alone = [_sentences(subject, (name,))[0] for name in CLASSES]
    subject.hold(
        _sentences(subject, CLASSES) == alone, "of a class among others it says something else than of it alone"
    )
