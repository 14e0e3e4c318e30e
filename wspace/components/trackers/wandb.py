"""Runs of Weights & Biases, kept on this machine."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import Image

from wspace.interfaces import Tracker
from wspace.support.errors import MissingPackage
from wspace.support.files import write_text

PATIENCE = 300  # seconds that a busy machine may take to start wandb's own process


class Wandb(Tracker):
    """A folder of an offline run; nothing is sent anywhere before `wandb sync FOLDER`.

    Each attempt at a run has such a folder of its own, with the same id: `wandb sync` of all of them makes one run.

    project: what the run will belong to.
    """

    def __init__(self, project: str = "wspace"):
        try:
            import wandb
        except ImportError as error:
            raise MissingPackage("tracker 'wandb' needs the package wandb: pip install \"wspace[wandb]\"") from error
        self.wandb, self.project = wandb, project

    def start(self, name: str, identity: str, config: Mapping[str, Any], folder: Path, resumed: bool) -> None:
        settings = self.wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            x_disable_stats=True,
            init_timeout=PATIENCE,
            x_service_wait=PATIENCE,
        )
        while any((folder / "wandb").glob(f"offline-run-{datetime.now():%Y%m%d_%H%M%S}-*")):
            time.sleep(0.05)  # folders are named by the second: this attempt would write over the one before
        self.run = self.wandb.init(
            mode="offline",
            project=self.project,
            name=name,
            id=identity,
            config=dict(config),
            dir=folder,
            settings=settings,
            reinit="create_new",
        )
        self.phases: set[str] = set()
        self.count_file = folder / f"{identity}.count"
        self.count = int(self.count_file.read_text(encoding="utf-8")) if self.count_file.is_file() else 0

    def scalars(self, phase: str, step: int, values: Mapping[str, float]) -> None:
        if phase not in self.phases:
            self.phases.add(phase)
            self.run.define_metric(f"{phase}/*", step_metric=f"{phase}/step")
        self._log({f"{phase}/step": step} | {f"{phase}/{name}": value for name, value in values.items()})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str | float]]) -> None:
        table = self.wandb.Table(columns=list(columns), data=[list(row) for row in rows])
        self._log({f"report/{name}": table})

    def figure(self, name: str, png: bytes, caption: str) -> None:
        picture = self.wandb.Image(Image.open(io.BytesIO(png)), caption=caption)
        self._log({f"report/{name}": picture})

    def finish(self, done: bool) -> None:
        self.run.finish(exit_code=0 if done else 1)
        write_text(self.count_file, str(self.count))

    def _log(self, values: Mapping[str, Any]) -> None:
        """Counted on from attempt to attempt: by this count wandb knows what comes after what."""
        self.run.log(dict(values), step=self.count)
        self.count += 1
