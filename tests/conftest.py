"""Set-up of every test: offline, a cache of its own, and one nano run that many tests look at.

Fixtures, all of the session: `cache` (the folder of WSPACE_CACHE), `wspace` (the command line in a process of its own),
`inside` (the same in this one), `made_once` (work that one of pytest's processes does for all), `nano` (a finished run of
`recipes/nano.yaml`), `placed` (one of it that takes pictures), `common` (a folder of all of pytest's processes), `thorough`
(whether tests that try the same in many ways are to try all of them, as `--slow` asks).
"""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as many processes as cores: more threads only wait for each other
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: subprocesses share two cores with us
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("COLUMNS", None)  # pytest-xdist sets it, and tables would follow it

import contextlib
import gc
import io
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.support.sharing import once
from tests.support.undrawn import undrawn

ROOT = Path(__file__).parent.parent
Wspace = Callable[..., subprocess.CompletedProcess[str]]
BY_PICTURES = ("nearest-mean", "shrunk-mean", "logistic", "tip-linear")
PLACED = (
    "conditioner=class-prototypes", "generator={use: predicted, predictor: offset}",
    "tasks.evaluate=8", "tasks.unseen_ways=[2]", "tasks.pictures=[1, 4]",
    f"against=[oracle, universal, text-prototype, eszsl, {', '.join(BY_PICTURES)}]",
    "task_loss.steps=0", "losses.symmetry=0", "losses.adversarial=0",
)  # fmt: skip
"""Settings of a nano run whose heads start where words and pictures place their classes."""
MadeOnce = Callable[[str, Callable[[Path], object]], Path]
RunOnce = Callable[..., Path]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run what takes long and rarely breaks")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported to collect the tests stays to the end: no garbage is looked for in it, while it comes or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # a library may tell, as the process ends, of what was not collected


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="takes long and rarely breaks: run with --slow"))
    for item in items:
        if missing := _plugins_of(item) - _plugins_in_use():
            names = ", ".join(sorted(missing))
            item.add_marker(pytest.mark.skip(reason=f"needs a plugin that is not in use: {names}"))


def _plugins_of(item: pytest.Item) -> set[str]:
    """Those that its marks name; what looks at the nano run needs those of its recipe."""
    names = {name for mark in item.iter_markers("plugins") for name in mark.args}
    of_t2w = {"nano", "placed"} & set(getattr(item, "fixturenames", ()))
    return names | ({"t2w"} if of_t2w else set())


@cache
def _plugins_in_use() -> set[str]:
    from wspace.recipes.plugins import load_plugins

    return {fact.name for fact in load_plugins().facts if not fact.skipped and not fact.error}


@pytest.fixture(autouse=True)
def draws() -> None:
    """What a test draws without a generator of its own is the same each time: one that fails once fails again."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def thorough(pytestconfig: pytest.Config) -> bool:
    """Whether a test that tries the same in many ways is to try all of them, and not the few most likely to fail."""
    return pytestconfig.getoption("--slow")


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the processes of this session (pytest-xdist's workers) have in common, and no other session has."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def cache(common: Path) -> Path:
    """A cache folder for rendered images and features, shared by the session and by no other."""
    folder = common / "cache"
    folder.mkdir(exist_ok=True)
    os.environ["WSPACE_CACHE"] = str(folder)
    os.environ["TRACKIO_DIR"] = str(common / "trackio")  # that tracker's own store is the user's
    return folder


@pytest.fixture(scope="session")
def wspace(cache: Path) -> Wspace:
    """The command line in a process of its own, as a user calls it."""

    def call(*arguments: object, cwd: Path = ROOT, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from wspace.__main__ import run; run()", *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout)

    return call


@pytest.fixture(scope="session")
def inside(cache: Path) -> Wspace:
    """The same in this process, which has imported torch already: seconds less for each call."""
    from wspace.cli import main

    def call(*arguments: object, workshop: Any = None) -> subprocess.CompletedProcess[str]:
        out, err, command, status = io.StringIO(), io.StringIO(), ["wspace", *map(str, arguments)], 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), mock.patch.object(sys, "argv", command):
            try:
                main(workshop)
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 0
        return subprocess.CompletedProcess(command, status, out.getvalue(), err.getvalue())

    return call


@pytest.fixture(scope="session")
def made_once(common: Path, tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """`made_once(name, make)`: a copy of the folder that `make(folder)` has filled, for this process to write in."""

    def get(name: str, make: Callable[[Path], object]) -> Path:
        return shutil.copytree(once(common / name, make), tmp_path_factory.mktemp(name), dirs_exist_ok=True)

    return get


@pytest.fixture(scope="session")
def run_once(inside: Wspace, made_once: MadeOnce) -> RunOnce:
    """`run_once(name, recipe, settings)`: the folder of a finished run of recipes/RECIPE.yaml, made under this name.

    Unless it is to be `drawn`, its report has no figures.
    """

    def get(name: str, recipe: str, settings: Sequence[str] = (), *, drawn: bool = False) -> Path:
        def make(runs: Path) -> None:
            changes = [part for change in settings for part in ("--set", change)]
            with contextlib.nullcontext() if drawn else undrawn():
                done = inside("run", ROOT / f"recipes/{recipe}.yaml", "--runs", runs, *changes)
            assert done.returncode == 0, done.stderr

        return made_once(name, make) / Path(recipe).name

    return get


@pytest.fixture(scope="session")
def nano(run_once: RunOnce) -> Path:
    """The folder of a finished run of recipes/nano.yaml."""
    return run_once("nano-runs", "nano", drawn=True)


@pytest.fixture(scope="session")
def placed(run_once: RunOnce) -> Path:
    """The folder of a finished run of recipes/nano.yaml with the settings `PLACED`."""
    return run_once("placed-runs", "nano", PLACED, drawn=True)
