"""Tables and lists in terminals of any width: names and numbers stay whole."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any

import pytest

from wspace.recipes.plugins import load_plugins
from wspace.runs.report.methods import methods_of
from wspace.runs.report.section import Form, Row, Section, Table
from wspace.runs.report.table import print_section, print_study, print_table
from wspace.support.terminal import beside

WIDTHS = [20, 40, 60, 80, 100, 140, None]
SPLITS = ("unseen-tasks", "seen", "unseen-classes")
METHODS = methods_of(load_plugins(allowed="").registry.all("opponent"))
NAMES = [
    "generated",
    "Kaiming uniform",
    "uniform(-0.1, 0.1)",
    "[red]a method of a long name, in brackets[/]",
    "猫の分類器",
]
COLUMNS: dict[str, Form] = {
    "at the start": "percent",
    "trained": "percent",
    "test loss": "number",
    "minus Kaiming normal": "points",
    "steps to equal it": "number",
}


def cell(mean: float) -> dict[str, float]:
    return {"mean": mean, "ci_low": mean - 0.1, "ci_high": mean + 0.1, "n": 20}


def section() -> None:
    rows = [Row(name, {column: cell(0.1 * number) for column in COLUMNS}) for number, name in enumerate(NAMES, start=1)]
    words = ["Trained from generated weights 81.2 [66.7, 95.8] %, 46.9 points above the best standard start."]
    print_section(Section("init", "Start", words, {}, [Table("all images, 5 steps: accuracy (%)", COLUMNS, rows)]))


def run() -> None:
    scores = [
        {"method": method, "split": split, "metric": metric} | cell(0.5)
        for method in ("oracle", "generated", "mismatched")
        for split in SPLITS
        for metric in ("accuracy", "weight_mse", "novelty")
    ]
    print_table({"recipe": "nano", "seed": 42, "confidence": 0.95, "scores": scores}, METHODS)


def study() -> None:
    labels = ("t2w", "a system of a long name")
    rows = [{"label": label, "split": s, "paper": 0.5} | cell(0.5) for label in labels for s in SPLITS]
    differences = [{"label": labels[0], "minus": labels[1], "split": split} | cell(0.1) for split in SPLITS]
    shared = {"study": "compare", "seeds": [1, 2], "confidence": 0.95}
    print_study(shared | {"rows": rows, "differences": differences})


SHOWN: dict[Callable[[], None], tuple[str, ...]] = {
    section: (*NAMES, *COLUMNS, "10.0 [0.0, 20.0]", "+40.0 [30.0, 50.0]", "0.3 [0.2, 0.4]"),
    run: ("oracle", "generated", "mismatched", *SPLITS, "weight_mse", "novelty", "50.0 [40.0, 60.0]", "0.5"),
    study: ("t2w", "a system of a long name", "t2w - a system of a long name", *SPLITS, "paper", "+10.0 [0.0, 20.0]"),
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("show", SHOWN, ids=lambda show: show.__name__)
@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_names_and_numbers_are_whole_at_any_width(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    show: Callable[[], None],
    width: int | None,
    term: str,
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.delenv("COLUMNS", raising=False)
    if width is not None:
        monkeypatch.setenv("COLUMNS", str(width))
    show()
    out = capsys.readouterr().out
    assert [text for text in SHOWN[show] if text not in out] == [] and "…" not in out
    if width is not None and width >= 60:
        assert max(map(len, out.splitlines())) <= width


@pytest.mark.parametrize(("width", "tables"), [(None, 2), (80, 2), (60, 3), (40, 4), (20, 0)])
def test_a_table_is_one_or_several_or_blocks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int | None, tables: int
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if width is not None:
        monkeypatch.setenv("COLUMNS", str(width))
    run()
    assert capsys.readouterr().out.count("┏") == tables


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_columns_of_a_terminal_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((40, 25)))
    assert beside("nano     ", "the whole path in under a minute on two cores") == (
        "nano     the whole path in under a\n         minute on two cores"
    )


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        ("80", ["denoiser     mlp   Flat tokens through layers"]),
        ("44", ["denoiser     mlp   Flat tokens through", "                   layers"]),
        ("40", ["denoiser     mlp", "    Flat tokens through layers"]),
        ("20", ["denoiser     mlp", "    Flat tokens", "    through layers"]),
        (None, ["denoiser     mlp   Flat tokens through layers"]),
    ],
)
def test_a_text_goes_on_below_its_name(monkeypatch: pytest.MonkeyPatch, width: str | None, lines: list[str]) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if width is not None:
        monkeypatch.setenv("COLUMNS", width)
    assert beside("denoiser     mlp   ", "Flat tokens through layers").splitlines() == lines


@pytest.mark.parametrize("width", [40, 80])
def test_lists_fold_beside_their_names(inside: Any, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    listed = inside("list", "generator").stdout.splitlines()
    assert max(map(len, listed)) <= width
    recipes = inside("ls").stdout.splitlines()
    assert (
        any(line.split()[0] == "nano" for line in recipes if not line.startswith(" "))
        and max(map(len, recipes)) <= width
    )
