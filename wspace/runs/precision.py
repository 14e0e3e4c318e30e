"""In what precision a generator's own loss is computed, where the recipe leaves it to the machine: `precision: auto`.

What a processor says that it has does not tell: some with AVX512-BF16 multiply bfloat16 at twice the rate of float32, some at
half of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import nn

from wspace.runs.machines import identity
from wspace.support import fingerprint
from wspace.support.devices import finish
from wspace.support.errors import FileError
from wspace.support.files import read_json, write_json
from wspace.support.names import PRECISION
from wspace.support.seeding import seeded

Precision = Literal["float32", "bfloat16"]

WORTH = 0.9  # of the time in float32: what bfloat16 may take at most, or its rounding buys nothing
WIDTH, ROWS = 512, 256  # of a transformer's feed-forward block, and tokens of a batch
REPEATS = 4  # after one that is not timed; the fastest counts


def as_begun(folder: Path, here: Callable[[], Precision]) -> Precision:
    """What a training began in whose checkpoints are in `folder`; if it begins now, what is faster `here`.

    That is written down beside them. A training that goes on elsewhere, or in several processes of which each would measure for
    itself, is in one precision all along. Raises FileError for a file that names none.
    """
    file = folder / PRECISION
    if not file.is_file():
        write_json(file, {"precision": here()})
    begun = read_json(file)
    if not isinstance(begun, dict) or begun.get("precision") not in get_args(Precision):
        raise FileError(f"{file}: no precision of a training; remove it, and the checkpoints beside it")
    return begun["precision"]


def faster(device: torch.device, cache: Path) -> tuple[Precision, float]:
    """What a step of training takes less time in on this device; and the time in bfloat16, of that in float32.

    Measured once, in less than a second, and kept in the folder `cache`.
    """
    here = [*identity(), str(device), torch.cuda.get_device_name(device) if device.type == "cuda" else ""]
    file = cache / "rates" / f"precision-{fingerprint.of_json(here)[:32]}.json"
    try:
        seconds = {name: float(read_json(file)[name]) for name in ("float32", "bfloat16")}
    except (FileError, KeyError, TypeError, ValueError):  # not there, or damaged
        seconds = measured(device)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, seconds)
    share = seconds["bfloat16"] / max(seconds["float32"], 1e-9)
    return "bfloat16" if share <= WORTH else "float32", share


def measured(device: torch.device) -> Mapping[str, float]:
    """Precision -> seconds of a feed-forward block, there and back, by autocast as in training. Takes turns."""
    with seeded(0):
        block = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)).to(device)
    tokens = torch.ones(ROWS, WIDTH, device=device)

    def seconds(half: bool) -> float:
        finish()
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = block(tokens).float().square().mean()
        torch.autograd.grad(loss, list(block.parameters()))
        finish()
        return time.perf_counter() - started

    turns = [(seconds(half=False), seconds(half=True)) for _ in range(1 + REPEATS)][1:]
    return dict(zip(("float32", "bfloat16"), map(min, zip(*turns, strict=True)), strict=True))
