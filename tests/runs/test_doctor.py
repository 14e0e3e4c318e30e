"""What the doctor sees of a machine, and what of that ends a command."""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace

import pytest

from tests.conftest import ROOT
from wspace import __version__
from wspace.runs import doctor
from wspace.support.memory import memory

Inside = Callable[..., CompletedProcess[str]]


@pytest.fixture(autouse=True)
def _room(monkeypatch: pytest.MonkeyPatch) -> None:
    """On every disk, whatever this machine's have."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=50 * 10**9))


def test_it_says_what_there_is_as_json(inside: Inside, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "cache/features").mkdir(parents=True)
    (tmp_path / "cache/features/one.npy").write_bytes(b"x" * 3000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSPACE_CACHE", str(tmp_path / "cache"))
        done = inside("doctor", "--json", "--runs", tmp_path / "runs")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["versions"]["wspace"] == __version__ and told["problems"] == []
    assert {disk["what"]: disk["path"] for disk in told["disks"]} == {
        "runs": str(tmp_path / "runs"),
        "cache": str(tmp_path / "cache"),
    }
    assert {"what": "features", "path": str(tmp_path / "cache/features"), "size": 3000} in told["caches"]
    assert told["network"] == "off by HF_HUB_OFFLINE: what is of a hub comes from its cache alone"
    assert 0 < told["memory_free"] <= told["memory"] and told["cores"] >= 1
    assert "wspace" in [plugin["name"] for plugin in told["plugins"]]
    assert list(tmp_path.iterdir()) == [tmp_path / "cache"], "it makes nothing"


def test_its_tables_fit_eighty_columns(inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = inside("doctor", "--runs", tmp_path)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines[-1] == "nothing prevents running"
    assert max(len(line) for line in lines if "/" not in line) <= 80  # a path is as long as it is, and stays whole


def test_a_disk_that_is_short_is_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9))
    monkeypatch.setenv("WSPACE_CACHE", str(tmp_path / "cache"))
    found = doctor.diagnose(tmp_path / "runs")
    [note] = [note for note in found.notes if "free" in note]  # both places are on one disk
    assert note == (
        f"{tmp_path}/runs: 954 MiB are free, and a run of unseen takes about 2.8 GiB: make room, or choose other places "
        "(--runs, WSPACE_CACHE)"
    )
    assert found.problems == []


def test_what_prevents_running_ends_with_1_and_is_told_all_at_once(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("WSPACE_CACHE", str(tmp_path / "file/cache"))
    monkeypatch.setitem(sys.modules, "torch", None)
    done = inside("doctor", "--runs", tmp_path / "file/runs")
    assert done.returncode == 1 and "nothing prevents running" not in done.stdout
    told = done.stderr.splitlines()
    assert told[0].startswith("error: torch cannot be imported: ModuleNotFoundError: import of torch halted")
    assert told[1:] == [
        f"error: {what}: {tmp_path}/file/{what}: cannot be written: Not a directory" for what in ("runs", "cache")
    ]


def test_every_extra_of_the_package_is_explained_and_what_it_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert list(doctor.EXTRAS) == list(declared)
    monkeypatch.setattr(doctor, "installed_version", lambda name: "not installed" if name == "onnxruntime" else "1.0")
    assert {extra.name: extra.missing for extra in doctor._extras() if extra.missing} == {"onnx": ("onnxruntime",)}


def test_memory_of_a_container_is_its_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("wspace.support.memory.CONTROL_GROUP", tmp_path)
    whole = memory()
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    assert memory() == (1_000_000, 600_000) and whole[0] > 1_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory()[0] == whole[0]
