"""A first recipe of one's own pictures: it fits the folder and the time, and replaces nothing."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from PIL import Image

from wspace.recipes.bind import bind
from wspace.recipes.plugins import load_plugins
from wspace.recipes.source import read_recipe
from wspace.runs.new_recipe import EFFORTS, effort_for
from wspace.support.errors import UserError
from wspace.support.quantities import duration, in_bytes, in_words

Inside = Callable[..., CompletedProcess[str]]
pytestmark = pytest.mark.plugins("t2w")


def pictures(folder: Path, classes: int, each: int = 3, side: int = 70) -> Path:
    file = io.BytesIO()
    Image.new("RGB", (side, side + 20), "navy").save(file, "png")
    for number in range(classes):
        (folder / f"thing_{number}").mkdir(parents=True)
        for copy in range(each):
            (folder / f"thing_{number}/{copy}.png").write_bytes(file.getvalue())
    return folder


@pytest.mark.parametrize(
    ("classes", "of_tasks", "apart", "ways"),
    [(4, (2, 2), 0, ()), (16, (3, 6), 0.25, (2,)), (40, (8, 17), 0.15, (2,)), (300, (8, 32), 0.15, (5, 20, 10, 2))],
)
def test_it_is_a_recipe_that_fits_the_folder(
    inside: Inside, tmp_path: Path, classes: int, of_tasks: tuple[int, int], apart: float, ways: tuple[int, ...]
) -> None:
    folder, file = pictures(tmp_path / "my pictures: #1", classes), tmp_path / "mine.yaml"
    done = inside("new-recipe", folder, "--time", "10m", "--out", file)
    assert (done.returncode, done.stdout) == (0, f"{file}\n"), done.stderr
    assert f"{classes} classes, {3 * classes:,} pictures: 3 of each" in done.stderr and "about 70 pixels" in done.stderr
    recipe = bind(read_recipe(file), load_plugins().registry)
    assert recipe.dataset.arguments["path"] == folder and recipe.dataset.arguments["size"] == 64
    assert (recipe.tasks.classes, recipe.tasks.unseen_classes, recipe.tasks.unseen_ways) == (of_tasks, apart, ways)
    assert len(recipe.auxiliary) == (classes < 300), "few classes learn from the icons, too"
    assert file.read_text().startswith("# wspace run mine.yaml   heads for classes")
    assert max(map(len, file.read_text().splitlines())) <= 150


def test_a_file_that_is_there_stays(inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "mine", 5)
    (tmp_path / "mine.yaml").write_text("of before")
    done = inside("new-recipe", "mine")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: mine.yaml: is there already; name another with --out\n"
    assert (tmp_path / "mine.yaml").read_text() == "of before"


@pytest.mark.parametrize(
    ("classes", "each", "options", "message"),
    [
        (3, 3, (), "mine: 3 classes are too few to make tasks of; 4 are the least"),
        (1, 3, (), "mine: has 1 class (sub-folders of pictures), and at least 2 are needed"),
        (4, 2, (), "mine: class 'thing 0' has 2 pictures, and at least 3 are needed: one each to train on"),
        (5, 3, ("--time", "soon"), "--time: 'soon' is no time; write it as 90s, 10m or 1h 30m"),
        (5, 3, ("--classes", "both"), "--classes: 'both' is neither inner nor outer"),
        (0, 3, (), "mine: no such folder"),
    ],
)
def test_what_no_run_could_be_made_of_is_told(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: int, each: int, options: tuple[str, ...],
    message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "mine", classes, each)
    done = inside("new-recipe", "mine", *options)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith(f"error: {message}")
    assert not (tmp_path / "mine.yaml").exists()


def test_a_terminal_is_asked_what_no_option_says(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    pictures(tmp_path / "mine", 5)
    monkeypatch.setattr("wspace.cli.new_recipe._asking", lambda: True)
    monkeypatch.setattr("sys.stdin", Terminal("30m\nn\n"))
    done = inside("new-recipe", tmp_path / "mine", "--out", tmp_path / "mine.yaml")
    assert done.returncode == 0, done.stderr
    assert "How long may a run take" in done.stderr and "icons" in done.stderr
    recipe = bind(read_recipe(tmp_path / "mine.yaml"), load_plugins().registry)
    assert recipe.tasks.seen == 2000 and not recipe.auxiliary


def test_the_largest_effort_that_fits_is_taken_and_the_smallest_is_the_least() -> None:
    assert effort_for(1, False) is effort_for(600, True) is EFFORTS[0]
    assert effort_for(600, False) is effort_for(1500, True) is EFFORTS[1]
    assert effort_for(86400, True) is EFFORTS[-1]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h 30m", 5400), ("1.5 h", 5400), ("2 min", 120), ("1d", 86400)]
)
def test_a_time_is_read_as_people_write_it(text: str, seconds: float) -> None:
    assert duration(text, "--time") == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "10 minuets", "10m,5s", "-3m", "1h and 2m"])
def test_what_is_no_time_is_told(text: str) -> None:
    with pytest.raises(UserError, match=r"--time: .* is no time; write it as 90s, 10m or 1h 30m"):
        duration(text, "--time")


def test_sizes_and_times_are_written_with_units() -> None:
    assert [in_bytes(n) for n in (0, 999, 3 * 10**9, 250 * 2**20)] == ["0 B", "999 B", "2.8 GiB", "250 MiB"]
    assert [in_words(n) for n in (45, 600, 9000)] == ["45 seconds", "10 minutes", "2.5 hours"]
