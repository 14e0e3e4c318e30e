"""Programs of torch, which need no code but torch."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch.export import Dim, ExportedProgram

from wspace.interfaces import Answers, Classifier, Exporter, Precision


def traced(classifier: Classifier) -> ExportedProgram:
    """The classifier as one program for any number of pictures."""
    pixels = torch.zeros(2, classifier.side, classifier.side, 3, dtype=torch.uint8)
    with torch.no_grad():
        return torch.export.export(classifier.module(), (pixels,), dynamic_shapes=({0: Dim("pictures", min=1)},))


class TorchProgram(Exporter):
    """One file for `torch.export.load`: pixels (N, S, S, 3) uint8 in, probabilities (N, K) out.

    The names of the classes lie in it as `classes.json`.
    """

    suffix = ".pt2"

    def __init__(self) -> None: ...

    def write(self, classifier: Classifier, out: Path, precision: Precision) -> None:
        import json

        names = json.dumps(classifier.classes, ensure_ascii=False)
        program = traced(classifier)
        with out.open("wb") as file, warnings.catch_warnings():  # a file's name would have to end in .pt2
            warnings.filterwarnings(
                "ignore", message="No complete tensor", category=UserWarning
            )  # views are saved whole
            torch.export.save(program, file, extra_files={"classes.json": names})

    def read(self, out: Path) -> Answers:
        program = torch.export.load(BytesIO(out.read_bytes())).module()

        def answers(pixels: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return program(torch.tensor(pixels)).numpy()

        return answers
