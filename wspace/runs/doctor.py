"""What there is here to run recipes with, and what stands in the way: versions, devices, memory, disks, extras, plugins."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wspace.recipes.plugins import PluginFact, load_plugins
from wspace.runs.pipeline import RECORDED, installed_version
from wspace.support.errors import NameClash, WspaceError, reason
from wspace.support.files import cache_folder, check_place, nearest_there
from wspace.support.memory import memory
from wspace.support.network import offline_by_choice, reachable
from wspace.support.quantities import in_bytes

RUN_TAKES = 3 * 10**9  # bytes of disk, of a run of recipes/unseen.yaml with its pictures and features

EXTRAS = {
    "embedded": "pictures and encoders that come as packages: most recipes",
    "clip": "CLIP models with a text encoder of transformers",
    "data": "data sets of the Hugging Face hub",
    "multi": "one training over several processes",
    "lora": "adapters that PEFT reads; export to transformers",
    "onnx": "export to ONNX",
    "plots": "plot RUN cam",
    "bench": "bench matching",
    "remote": "zoos on web servers (`zoo.source`)",
    "tensorboard": "curves in TensorBoard (`tracker`)",
    "trackio": "curves in Trackio (`tracker`)",
    "wandb": "curves in Weights & Biases (`tracker`)",
    "testing": "the conformance tests of plugins",
}
"""What each is for, in words: its packages are in the distribution's metadata."""

REQUIRED = re.compile(r"""(?P<package>[\w.-]+).*\bextra\s*==\s*['"](?P<extra>\w+)['"]""")


@dataclass(frozen=True)
class Disk:
    """A place that runs write to."""

    what: str
    path: str
    free: int  # bytes
    writable: bool


@dataclass(frozen=True)
class Cache:
    """A folder of what can be made or downloaded again."""

    what: str
    path: str
    size: int  # bytes; 0 where there is none


@dataclass(frozen=True)
class Extra:
    """Optional packages of wspace."""

    name: str
    purpose: str
    missing: tuple[str, ...]  # packages that are not installed


@dataclass
class Diagnosis:
    """All of it. `problems` prevent running; `notes` say what is short, or does not work."""

    versions: dict[str, str]
    system: str
    cores: int  # that this process may use
    devices: list[str]
    memory: int  # bytes, as far as this process may have them
    memory_free: int
    disks: list[Disk]
    caches: list[Cache]
    network: str  # of what is not here yet: whether it can be downloaded
    extras: list[Extra]
    plugins: list[PluginFact]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """As `wspace doctor --json` prints it."""
        return asdict(self)


def diagnose(runs: Path, plugin_files: Sequence[Path] = ()) -> Diagnosis:
    """`runs` is the folder of run folders. Raises what `load_plugins` does of one-file plugins."""
    problems, notes = list[str](), list[str]()
    devices = _devices(problems, notes)
    total, free = memory()
    places = _places(runs, problems)
    found = Diagnosis(
        versions={"python": platform.python_version(), **{name: installed_version(name) for name in RECORDED}},
        system=f"{platform.system()} {platform.release()}, {platform.machine()}",
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        devices=devices,
        memory=total,
        memory_free=free,
        disks=list(_disks(places, problems, notes)),
        caches=list(_caches(places.get("cache"))),
        network=_network(notes),
        extras=list(_extras()),
        plugins=_plugins(plugin_files, problems, notes),
        problems=problems,
        notes=notes,
    )
    if missing := next((extra.missing for extra in found.extras if extra.name == "embedded"), ()):
        notes.append(
            f'most recipes need {", ".join(missing)}: pip install "wspace[embedded]"; `wspace check RECIPE` says which'
        )
    return found


def _devices(problems: list[str], notes: list[str]) -> list[str]:
    """GPUs by name, as torch sees them."""
    try:
        import torch

        with warnings.catch_warnings(record=True) as warned:  # of a driver that is too old
            warnings.simplefilter("always")
            count = torch.cuda.device_count() if torch.cuda.is_available() else 0
            properties = [torch.cuda.get_device_properties(number) for number in range(count)]
    except Exception as error:  # an installation that is broken, in whatever way
        problems.append(f"torch cannot be imported: {reason(error)}; install it again")
        return []
    notes += [f"torch: {str(warning.message).splitlines()[0]}" for warning in warned]
    from wspace.learning.probe import check_device

    for number in range(count):
        try:
            check_device(torch.device("cuda", number))
        except (WspaceError, RuntimeError) as error:  # the second is torch's own, of a GPU that computes nothing
            problems.append(str(error).splitlines()[0])
    return [f"cuda:{number}: {of.name}, {in_bytes(of.total_memory)}" for number, of in enumerate(properties)]


def _places(runs: Path, problems: list[str]) -> dict[str, Path]:
    places = {"runs": runs.absolute()}
    try:
        places["cache"] = cache_folder().absolute()
    except WspaceError as error:
        problems.append(str(error))
    return places


def _disks(places: dict[str, Path], problems: list[str], notes: list[str]) -> Iterator[Disk]:
    short = dict[int, Disk]()  # by device: two places on one disk are short once
    for what, path in places.items():
        there = nearest_there(path)
        writable = True
        try:
            check_place(path / "x")
        except WspaceError as error:
            problems.append(str(error).replace(f"{path / 'x'}", f"{what}: {path}"))
            writable = False
        disk = Disk(what, str(path), shutil.disk_usage(there).free, writable)
        if disk.free < RUN_TAKES:
            short.setdefault(there.stat().st_dev, disk)
        yield disk
    for disk in short.values():
        notes.append(
            f"{disk.path}: {in_bytes(disk.free)} are free, and a run of unseen takes about {in_bytes(RUN_TAKES)}: "
            "make room, or choose other places (--runs, WSPACE_CACHE)"
        )


def _caches(ours: Path | None) -> Iterator[Cache]:
    if ours is not None:
        yield Cache("pictures", str(ours / "*.npy"), sum(map(_size, ours.glob("*.npy"))))
        yield Cache("features", str(ours / "features"), _size(ours / "features"))
        yield Cache("zoos", str(ours / "zoos"), _size(ours / "zoos"))
    from huggingface_hub.constants import HF_HUB_CACHE

    yield Cache("Hugging Face hub", HF_HUB_CACHE, _size(Path(HF_HUB_CACHE)))
    try:
        from torch.hub import get_dir
    except Exception:  # torch is broken, which is a problem already
        return
    checkpoints = Path(get_dir()) / "checkpoints"
    yield Cache("torch hub", str(checkpoints), _size(checkpoints))


def _size(path: Path) -> int:
    """Of a file, or of all below a folder; links are not followed, and what cannot be read counts nothing."""
    if path.is_file():
        return path.stat().st_size
    total = 0
    for folder, _, files in os.walk(path):
        for file in files:
            try:
                total += os.lstat(os.path.join(folder, file)).st_size
            except OSError:
                continue
    return total


def _network(notes: list[str]) -> str:
    from huggingface_hub import constants

    if offline_by_choice():
        return "off by HF_HUB_OFFLINE: what is of a hub comes from its cache alone"
    if reachable(constants.ENDPOINT):
        return f"{constants.ENDPOINT} answers"
    notes.append(
        f"{constants.ENDPOINT} does not answer: recipes whose encoders or data are of a hub need a filled cache (HF_HOME), "
        "or a mirror (HF_ENDPOINT); the packaged recipes outside paper/ need none"
    )
    return f"{constants.ENDPOINT} does not answer"


def _extras() -> Iterator[Extra]:
    packages: dict[str, list[str]] = {name: [] for name in EXTRAS}
    for requirement in importlib.metadata.requires("wspace") or ():
        match = REQUIRED.match(requirement)
        if match and match["extra"] in packages:
            packages[match["extra"]].append(match["package"])
    for name, purpose in EXTRAS.items():
        missing = (package for package in packages[name] if installed_version(package) == "not installed")
        yield Extra(name, purpose, tuple(missing))


def _plugins(files: Sequence[Path], problems: list[str], notes: list[str]) -> list[PluginFact]:
    try:
        plugins = load_plugins(files)
    except NameClash as error:
        problems.append(str(error))
        return []
    notes += plugins.warnings
    return plugins.facts
