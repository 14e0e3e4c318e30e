"""What is made once for all of pytest's processes."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.sharing import once


def test_who_comes_first_makes_it_and_the_others_wait(tmp_path: Path) -> None:
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        time.sleep(0.05)
        (folder / "whole").touch()

    def ask(_: int) -> bool:
        return (once(tmp_path / "shared", make) / "whole").exists()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [True] * 4
    assert made == [tmp_path / "shared"]


def test_what_failed_is_made_anew(tmp_path: Path) -> None:
    def half(folder: Path) -> None:
        (folder / "half").touch()
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        once(tmp_path / "shared", half)
    folder = once(tmp_path / "shared", lambda folder: (folder / "whole").touch())
    assert [file.name for file in folder.iterdir()] == ["whole"]
