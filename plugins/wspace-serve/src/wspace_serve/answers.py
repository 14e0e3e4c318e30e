"""What a run answers to class names and pictures. It knows no page and no protocol: what goes in and out is plain."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wspace.api import Attention, Network, Run, UserError, WspaceError, attention
from wspace_serve.limits import class_names, example_files, picture_files

WEIGHTS = "safetensors"  # the head alone, as `wspace generate` writes it
HEADS = 32  # that are kept, the last ones asked for
KEPT = 600  # seconds that a file can be downloaded


@dataclass(frozen=True)
class Named:
    """One picture, and what heads see in it."""

    file: Path
    heads: dict[str, dict[str, float]]  # head -> class -> probability


@dataclass(frozen=True)
class Step:
    """A head as it would end after a step of sampling."""

    number: int
    accuracy: float | None  # on the test images of its classes; None: the data set has not all of them
    probabilities: dict[str, float] | None  # class -> probability, of a picture


class Answers:
    """A run behind limits. Safe to call from several threads; `uploads` is the only folder that pictures come from."""

    def __init__(self, run: Run, uploads: Path):
        self.run, self.uploads = run, uploads.resolve()
        self._heads: OrderedDict[Any, Network] = OrderedDict()
        self._busy = threading.RLock()  # encoders and Pillow's limits are one for the process
        self.classes_known = len(run.zoo.tasks.classes)
        self.example = list(run.names_of(run.unseen(1)[0])[:4])  # classes that the run has pictures of
        self.why_not_look = self._warm()

    def _warm(self) -> str | None:
        """Load all that an answer needs. Why no head can be looked into, in a sentence, if it cannot."""
        with tempfile.TemporaryDirectory(dir=self.uploads) as folder:
            picture = Path(folder) / "white.png"
            Image.new("RGB", (64, 64), "white").save(picture)
            self.describe(self.example)
            self.answer(self.example, [str(picture)])
            try:
                attention(self.run, self.head(self.example), [picture])
            except UserError as error:
                return str(error)
        return None

    def describe(self, classes: Any) -> dict[str, Any]:
        """How classes stand to those that the run knows, and what accuracy to expect of a head for them.

        Raises UserError, as everything here does for what cannot be answered.
        """
        names = class_names(classes)
        with self._busy:
            expected = self.run.expected_accuracy(names)
            standings = self.run.standings(names)
        return {
            "classes": [asdict(standing) for standing in standings],
            "expected_accuracy": None if expected is None else asdict(expected),
        }

    def standings(self, classes: Any) -> list[dict[str, Any]]:
        """How classes stand to those that the run knows, of names that need be no task yet."""
        names = class_names(classes)
        with self._busy:
            return [asdict(standing) for standing in self.run.standings(names)]

    def head(self, classes: Any, examples: Any = None) -> Network:
        """Weights for these classes, from a few pictures of some of them as well where the run takes such."""
        names, pictures = class_names(classes), example_files(examples or {}, self.uploads)
        asked = (tuple(names), tuple((name, tuple(files)) for name, files in sorted(pictures.items())))
        with self._busy:
            if asked not in self._heads:
                self._heads[asked] = self.run.generate(names, pictures=pictures or None)
            self._heads.move_to_end(asked)
            while len(self._heads) > HEADS:
                self._heads.popitem(last=False)
            return self._heads[asked]

    def answer(self, classes: Any, pictures: Any, examples: Any = None) -> list[Named]:
        """What the generated head and, if the run has it, the universal one see in each picture."""
        files = self._files(pictures)
        with self._busy:
            network = self.head(classes, examples)
            heads = {"generated": network, "universal": self.run.universal(network.classes)}
            seen = {
                name: [dict(zip(one.classes, one.probabilities, strict=True)) for one in self.run.predict(head, files)]
                for name, head in heads.items()
                if head is not None
            }
        return [Named(file, {name: of[number] for name, of in seen.items()}) for number, file in enumerate(files)]

    def look(self, classes: Any, pictures: Any, examples: Any = None) -> list[Attention]:
        """Where the generated head looks in each picture, for the class that it names."""
        if self.why_not_look is not None:
            raise UserError(self.why_not_look)
        files = self._files(pictures)
        with self._busy:
            return attention(self.run, self.head(classes, examples), files)

    def forming(self, classes: Any, pictures: Any = (), examples: Any = None) -> list[Step]:
        """The head as it would end after each step of sampling; of several pictures, what it sees in the first."""
        names, files = class_names(classes), picture_files(pictures, self.uploads)[:1]
        given = example_files(examples or {}, self.uploads)
        with self._busy:
            heads = self.run.forming(names, pictures=given or None)
            return [Step(number, self._accuracy(head), self._sees(head, files)) for number, head in enumerate(heads, 1)]

    def _accuracy(self, head: Network) -> float | None:
        try:
            return self.run.score(head)["accuracy"]
        except WspaceError:  # no test images of these classes, or no longer those of the run
            return None

    def _sees(self, head: Network, files: Sequence[Path]) -> dict[str, float] | None:
        if not files:
            return None
        (seen,) = self.run.predict(head, files)
        return dict(zip(seen.classes, seen.probabilities, strict=True))

    def _files(self, pictures: Any) -> list[Path]:
        files = picture_files(pictures, self.uploads)
        if not files:
            raise UserError("no picture: add one or more to be named")
        return files

    @property
    def formats(self) -> list[str]:
        """What `export` writes: the weights alone, or a whole classifier."""
        return [WEIGHTS, *self.run.formats]

    def export(
        self, classes: Any, to: str, precision: str = "float32", examples: Any = None
    ) -> tuple[Path, Mapping[str, Any]]:
        """A file with the head, or with the classifier in a format that `wspace export` has, a folder as a zip; and what
        was measured of it. The file is there for ten minutes."""
        if to not in self.formats:
            raise UserError(f"no format {to!r}: there are {', '.join(self.formats)}")
        network, folder = self.head(classes, examples), self._new_folder()
        try:
            if to == WEIGHTS:
                file, measured = folder / f"head.{WEIGHTS}", {}
                network.save(file)
            else:
                out = self.run.exporter({"use": to}).beside(folder / "head", to)
                measured = self.run.export(network, to, out, precision=precision).as_json()
                file = Path(shutil.make_archive(str(out), "zip", out)) if out.is_dir() else out
        except BaseException:
            shutil.rmtree(folder)
            raise
        return file, {"bytes": file.stat().st_size} | {name: measured[name] for name in MEASURED if name in measured}

    def _new_folder(self) -> Path:
        """For a file to download; those of long ago are removed."""
        exports = self.uploads / "exports"
        exports.mkdir(exist_ok=True)
        for folder in exports.iterdir():
            if folder.stat().st_mtime < time.time() - KEPT:
                shutil.rmtree(folder, ignore_errors=True)
        return Path(tempfile.mkdtemp(dir=exports))


MEASURED = ("precision", "pictures", "same", "difference", "scored", "accuracy", "network_accuracy")
"""Of an export, what is worth saying beside its size."""


def overlaid(seen: Attention) -> np.ndarray:
    """A picture (S, S, 3) uint8, in grey but for what counts, which is orange."""
    grey = seen.pixels.mean(2, keepdims=True)
    share = 0.75 * seen.map[..., None]
    return ((1 - share) * grey + share * np.array([213, 94, 0])).round().astype(np.uint8)
