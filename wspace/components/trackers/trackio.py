"""Runs of Trackio, in its store on this machine."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from wspace.interfaces import Tracker
from wspace.support.errors import MissingPackage


class Trackio(Tracker):
    """A run in Trackio's own store, which `trackio show` shows; nothing is sent anywhere.

    The store is where TRACKIO_DIR says, or Trackio's folder in the user's cache.

    project: what the run belongs to.
    """

    def __init__(self, project: str = "wspace"):
        try:
            import trackio
        except ImportError as error:
            raise MissingPackage(
                "tracker 'trackio' needs the package trackio: pip install \"wspace[trackio]\""
            ) from error
        self.trackio, self.project = trackio, project

    def start(self, name: str, identity: str, config: Mapping[str, Any], folder: Path, resumed: bool) -> None:
        self.identity, self.config = identity, dict(config)
        self._open()

    def scalars(self, phase: str, step: int, values: Mapping[str, float]) -> None:
        self.run.log({f"{phase}/{name}": value for name, value in values.items()}, step=step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str | float]]) -> None:
        table = self.trackio.Table(columns=list(columns), data=[list(row) for row in rows])
        self.run.log({f"report/{name}": table}, step=0)

    def figure(self, name: str, png: bytes, caption: str) -> None:
        picture = self.trackio.Image(Image.open(io.BytesIO(png)), caption=caption)
        self.run.log({f"report/{name}": picture}, step=0)

    def flush(self) -> bool:
        self.finish(True)  # it writes twice a second, or when a run ends
        self._open()
        return True

    def finish(self, done: bool) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self.trackio.finish()

    def _open(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self.run = self.trackio.init(
                self.project,
                name=self.identity,
                config=self.config,
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
