"""Event files of TensorBoard."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wspace.interfaces import Tracker
from wspace.support.errors import MissingPackage
from wspace.support.yaml import dump


class TensorBoard(Tracker):
    """Event files, which `tensorboard --logdir runs` shows. The recipe and the report's tables are texts.

    An attempt at a run has a file of its own, in one folder: TensorBoard shows them as one run.
    """

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingPackage(
                "tracker 'tensorboard' needs the package tensorboard: pip install \"wspace[tensorboard]\""
            ) from error
        self.open = SummaryWriter

    def start(self, name: str, identity: str, config: Mapping[str, Any], folder: Path, resumed: bool) -> None:
        self.writer = self.open(folder / identity)
        if not resumed:
            self.writer.add_text("recipe", f"```yaml\n{dump(config)}```")

    def scalars(self, phase: str, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"{phase}/{name}", value, step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str | float]]) -> None:
        cells = [[_cell(value) for value in row] for row in rows]
        lines = [f"| {' | '.join(line)} |" for line in (columns, ["---"] * len(columns), *cells)]
        self.writer.add_text(f"report/{name}", "\n".join(lines))

    def figure(self, name: str, png: bytes, caption: str) -> None:
        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
        self.writer.add_image(f"report/{name}", pixels, dataformats="HWC")

    def flush(self) -> bool:
        self.writer.flush()
        return True

    def finish(self, done: bool) -> None:
        self.writer.close()


def _cell(value: str | float) -> str:
    """Of a table in Markdown."""
    return value.replace("|", "\\|") if isinstance(value, str) else f"{value:.6g}"
