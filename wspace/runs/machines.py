"""How fast machines are: this one, and others by what their makers publish."""

from __future__ import annotations

import os
import platform
import re
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path

from wspace.runs.measured import Rate
from wspace.support.errors import UserError, did_you_mean
from wspace.support.memory import memory

THIS = "this"


@dataclass(frozen=True)
class Machine:
    """So many alike. `this`: what is measured here; another: what a share of its published rates gives."""

    name: str = THIS
    count: int = 1
    flops: float = 0.0  # float32 operations a second, without sparsity or TF32: what wspace computes in
    bandwidth: float = 0.0  # bytes a second, of its own memory
    memory: float = 0.0  # bytes of its own; 0: it has none
    share: float = 0.3  # of these rates that is assumed to be reached
    call: float = 1e-5  # seconds that an operation takes at least
    ram: float = 0.0  # bytes of the computer that it is in, where the zoo is held

    def seconds(self, rate: Rate) -> float:
        """Of a unit of work: measured, or the longer of computing and of moving bytes, and never under its calls."""
        if self.name == THIS:
            return rate.seconds
        return max(rate.flops / self.flops, rate.bytes / self.bandwidth) / self.share + rate.calls * self.call

    def __str__(self) -> str:
        if self.name == THIS:
            return f"{self.count} x this machine"
        return (
            f"{self.count} x {self.name}: {self.flops / 1e12:.1f} TFLOP/s in float32, {self.bandwidth / 1e12:.2f} TB/s, of "
            f"which {self.share:.0%} is assumed, and {1e6 * self.call:.0f} us a call"
        )


PUBLISHED = {
    "t4": (8.1e12, 0.32e12, 16),
    "v100": (15.7e12, 0.9e12, 32),
    "a100": (19.5e12, 2.04e12, 80),
    "l4": (30.3e12, 0.3e12, 24),
    "rtx4090": (82.6e12, 1.01e12, 24),
    "h100": (67e12, 3.35e12, 80),
    "h200": (67e12, 4.8e12, 141),
    "mi300x": (163.4e12, 5.3e12, 192),
}
"""Float32 operations and bytes a second, and GiB, as the data sheets of NVIDIA and AMD have them (SXM where it is sold so)."""

SETTABLE = tuple(field.name for field in fields(Machine) if field.name not in ("name", "count"))


def machine_of(text: str) -> Machine:
    """'8x h100', '16x this', '2x h100, share=0.5, ram=512e9'; bytes and rates in plain numbers. Raises UserError."""
    first, *settings = (part.strip() for part in text.split(","))
    match = re.fullmatch(r"(?:(\d+)\s*x\s*)?([a-z][a-z0-9]*)", first.lower())
    if match is None or int(match[1] or 1) < 1:
        raise UserError(f"--machine: {first!r} is no machine; write it as h100, 8x h100 or 16x this")
    count, name = int(match[1] or 1), match[2]
    if name != THIS and name not in PUBLISHED:
        raise UserError(f"--machine: no rates of {name!r} are here.{did_you_mean(name, (THIS, *PUBLISHED))}")
    machine = Machine(name, count, ram=float(memory()[0]))
    if name != THIS:
        flops, bandwidth, gib = PUBLISHED[name]
        machine = replace(machine, flops=flops, bandwidth=bandwidth, memory=gib * 2.0**30)
    for setting in settings:
        key, _, value = (part.strip() for part in setting.partition("="))
        if key not in SETTABLE:
            raise UserError(f"--machine: no setting {key!r}.{did_you_mean(key, SETTABLE)}")
        with suppress(ValueError):
            if (number := float(value)) > 0:
                machine = replace(machine, **{key: number})
                continue
        raise UserError(f"--machine: {key}: {value!r} is no number above 0")
    return machine


def identity() -> list[str]:
    """Of this machine, by what its speed depends on; told without torch."""
    model = platform.processor()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    gpus = Path("/proc/driver/nvidia/gpus")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads, visible = (os.environ.get(name, "") for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"))
    there = str(len(list(gpus.iterdir()))) if gpus.is_dir() else "0"
    return [platform.node(), model, str(cores), threads, there, visible, version("torch")]
