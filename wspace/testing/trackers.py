"""Laws of trackers: they take whatever a run gives them, and go on with a run that was interrupted."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from wspace.interfaces import Tracker
from wspace.testing.law import check
from wspace.testing.subject import Subject

CONFIG: dict[str, Any] = {"target": {"use": "module", "sizes": [4, 5]}, "seed": 3, "symmetry": None, "text": "a <b> ü"}
COLUMNS, ROWS = ("method", "mean"), (("generated", 0.5), ("étoile | <b>", -1.25))


@check("tracker")
def check_takes_what_a_run_gives(subject: Subject) -> None:
    """Curves of two phases, numbers that are not finite among them, a table, a figure; nothing comes back but from `flush`."""
    with tempfile.TemporaryDirectory() as folder:
        tracker = _started(subject, Path(folder), resumed=False)
        for phase, step, values in (
            ("task", 1, {"loss": 2.0, "terms/zoo": float("nan")}),
            ("train", 1, {"loss": float("inf")}),
            ("train", 2, {"loss": 1, "validation_accuracy": 0.5}),
        ):
            tracker.scalars(phase, step, values)
        flushed = tracker.flush()
        tracker.table("scores", COLUMNS, ROWS)
        tracker.figure("training", _png(), "A caption, with <b> in it.")
        tracker.finish(True)
        subject.hold(
            isinstance(flushed, bool), f"flush should say whether all is kept, True or False, and says {flushed!r}"
        )


@check("tracker")
def check_goes_on_after_an_interruption(subject: Subject) -> None:
    """Another attempt at a run, with what it had before."""
    with tempfile.TemporaryDirectory() as folder:
        for attempt in (1, 2):
            tracker = _started(subject, Path(folder), resumed=attempt > 1)
            tracker.scalars("train", attempt, {"loss": 1 / attempt})
            tracker.finish(attempt > 1)


@check("tracker")
def check_draws_no_random_numbers(subject: Subject) -> None:
    """Torch's global random state is as it was: what a run computes does not depend on who looks on."""
    with tempfile.TemporaryDirectory() as folder:
        before = torch.random.get_rng_state()
        tracker = _started(subject, Path(folder), resumed=False)
        tracker.scalars("train", 1, {"loss": 1.0})
        tracker.finish(True)
        subject.equal("torch's random state after a run was tracked", torch.random.get_rng_state(), before)


def _started(subject: Subject, folder: Path, resumed: bool) -> Tracker:
    tracker: Tracker = subject.build(subject.instances[0].around)
    tracker.start("wspace-testing", f"wspace-testing-{folder.name.replace('_', '-')}", CONFIG, folder, resumed)
    return tracker


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), "navy").save(buffer, "png")
    return buffer.getvalue()
