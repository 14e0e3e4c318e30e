"""The report as a page: what it says, that it needs nothing else, and that a browser shows it."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from wspace.data.features import Pool
from wspace.recipes.plugins import load_plugins
from wspace.runs.report import figures
from wspace.runs.report import page as html
from wspace.runs.report.methods import methods_of
from wspace.runs.report.page import written
from wspace.runs.report.section import percent
from wspace.runs.stages.report import evenly

MEANS = {
    "oracle": 0.818, "generated": 0.781, "ridge": 0.787, "retrieval": 0.724, "zoo-mean": 0.710, "base": 0.683,
    "universal": 0.689, "noise": 0.552, "mismatched": 0.604, "random": 0.061,
}  # fmt: skip
METHODS = methods_of(load_plugins(allowed="").registry.all("opponent"))
HOSTILE = '</figcaption><script>alert("$x$")</script> & <img src=//evil.example/x>'
VOID = {"meta", "img", "br"}


def row(method: str, split: str, metric: str, mean: float, low: float, high: float) -> dict[str, Any]:
    return {"method": method, "split": split, "metric": metric, "mean": mean, "ci_low": low, "ci_high": high, "n": 200}


def report_of(splits: tuple[str, ...] = ("seen", "unseen-tasks")) -> dict[str, Any]:
    scores, differences = [], []
    for split in splits:
        for method, mean in MEANS.items():
            scores.append(row(method, split, "accuracy", mean, mean - 0.007, mean + 0.007))
            scores.append(row(method, split, "weight_mse", 0.0021, 0.0020, 0.0022))
            if method != "generated":
                gain = MEANS["generated"] - mean
                differences.append(row(method, split, "accuracy", gain, gain - 0.004, gain + 0.004))
    return {
        "recipe": "t2w",
        "seed": 42,
        "confidence": 0.95,
        "scores": scores,
        "differences": differences,
        "chosen": {"ridge_penalty": 0.03},
        "training": {
            "parameters": 2345678,
            "steps": {"task": 1000, "train": 300},
            "validation_accuracy": 0.786,
            "validation_accuracy_of_zoo_mean": 0.709,
            "collapsed": False,
        },
        "pictures": {
            "task": 3,
            "classes": ["anchor", HOSTILE],
            "shown": 24,
            "right": 19,
            "images": 312,
            "accuracy": 0.763,
        },
        "seconds": {"zoo": 391.2, "train": 7260.0, "generate": 3.9, "evaluate": 22.1},
        "peak_mib": {"zoo": 1234.4, "train": 3500.0, "generate": 900.0, "evaluate": 3800.0},
    }


def with_difference(report: dict[str, Any], method: str, mean: float, low: float, high: float) -> dict[str, Any]:
    kept = [d for d in report["differences"] if (d["method"], d["split"]) != (method, "unseen-tasks")]
    return report | {"differences": [*kept, row(method, "unseen-tasks", "accuracy", mean, low, high)]}


def log_of(*phases: str) -> list[dict[str, Any]]:
    entries = []
    for phase in phases:
        for step in range(1, 101):
            looked = {"validation_accuracy": 0.71 + step / 2000} if step % 20 == 0 else {}
            entries.append({"phase": phase, "step": step, "loss": 3 / step + 0.7, "gradient": 1.0, **looked})
    return entries


def pictured(*splits: str) -> tuple[list[dict[str, Any]], dict[str, dict[int, str]]]:
    """Scores of splits, and of those with 1, 2 and 4 pictures, where two more methods are; and which these are."""
    scores, shown = report_of(splits)["scores"], {split: {n: f"{split}-{n}" for n in (1, 2, 4)} for split in splits}
    for split, of in shown.items():
        for n, name in of.items():
            scores += [one | {"split": name} for one in scores if one["split"] == split]
            for number, method in enumerate(("nearest-mean", "logistic")):
                mean = 0.5 + 0.05 * n + 0.02 * number
                scores.append(row(method, name, "accuracy", mean, mean - 0.02, mean + 0.02))
    return scores, shown


def sheet_of(count: int = 24) -> str:
    pixels = np.random.default_rng(0).integers(0, 255, (count, 32, 32, 3), dtype=np.uint8)
    names = ["anchor", HOSTILE, "$\\frac{", "", "錨", "a very long name of a class\nof two lines"]
    true = [names[i % 6] for i in range(count)]
    return figures.picture_sheet(pixels, [names[i % 5] for i in range(count)], true)


def test_accuracy_by_pictures_has_a_line_for_what_looks_at_them_and_a_panel_for_each_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(figures, "encoded", lambda figure: drawn.append(figure) or "")
    figures.accuracy_by_pictures(*pictured("five", "twenty"))
    panels = drawn[0].axes
    assert [panel.get_title() for panel in panels] == ["five", "twenty"]
    lines = {line.get_label(): line for line in panels[0].get_lines()}
    assert set(lines) == {"generated", "nearest-mean", "logistic", "words alone"}
    assert [*lines["generated"].get_xdata()] == [0, 1, 2, 4] and [*lines["nearest-mean"].get_xdata()] == [1, 2, 4]
    assert lines["nearest-mean"].get_ydata() == pytest.approx([55, 60, 70])
    assert lines["words alone"].get_ydata() == pytest.approx([78.1, 78.1])


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    report = report_of()
    rng = np.random.default_rng(0)
    per_task = {name: np.clip(mean + rng.normal(0, 0.05, 200), 0, 1).tolist() for name, mean in MEANS.items()}
    return {
        "scores": figures.accuracy_by_method(report["scores"]),
        "differences": figures.paired_differences(report["differences"]),
        "tasks": figures.task_by_task(per_task),
        "by_pictures": figures.accuracy_by_pictures(*pictured("five", "twenty")),
        "training": figures.training_curves(log_of("task", "train"), 0.709),
        "pictures": sheet_of(),
    }


@pytest.fixture(scope="module")
def page(drawn: dict[str, str]) -> str:
    return html.render(report_of(), drawn, "seed: 42 # <b>&</b>\n", {"python": "3.11", "system": "<Linux>"}, METHODS)


class Reader(HTMLParser):
    """Raises AssertionError at a tag that is closed out of turn; collects text and attributes."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> after {self.open}"

    def handle_data(self, data: str) -> None:
        self.text += data


# ---------------------------------------------------------------- the sentence


def test_the_headline_says_above_and_below() -> None:
    assert html.headline(report_of(), METHODS) == (
        "Generated heads reach 78.1 % on unseen tasks: 9.2 points [8.8, 9.6] above the universal head, "
        "0.6 [0.2, 1.0] below ridge, 3.7 [3.3, 4.1] below the oracle."
    )


def test_the_headline_claims_no_difference_that_an_interval_does_not_show() -> None:
    report = with_difference(report_of(), "ridge", 0.001, -0.003, 0.005)
    assert html.headline(report, METHODS) == (
        "Generated heads reach 78.1 % on unseen tasks: 9.2 points [8.8, 9.6] above the universal head, "
        "not measurably different from ridge (0.1 [−0.3, 0.5]), 3.7 [3.3, 4.1] below the oracle."
    )


def test_the_headline_names_every_opponent_that_was_not_beaten() -> None:
    report = with_difference(report_of(), "retrieval", -0.02, -0.03, -0.01)
    report = with_difference(report, "mismatched", 0.0, -0.001, 0.001)
    report = with_difference(report, "universal", 0.0, 0.0, 0.0)
    assert html.headline(report, METHODS) == (
        "Generated heads reach 78.1 % on unseen tasks: not measurably different from the universal head "
        "(0.0 points [0.0, 0.0]), 0.6 [0.2, 1.0] below ridge, 3.7 [3.3, 4.1] below the oracle. "
        "They are not measurably better than retrieval or heads for another task's texts."
    )
    assert "the same generator loses" not in html.render(report, {}, "", {}, METHODS)


def test_a_report_without_accuracy_says_so() -> None:
    report = report_of()
    report |= {name: [r for r in report[name] if r["metric"] != "accuracy"] for name in ("scores", "differences")}
    assert html.headline(report, METHODS) == "No accuracy was measured."
    Reader(html.render(report, {}, "", {}, METHODS))


# ---------------------------------------------------------------- the page


def test_tags_are_balanced_and_nothing_is_loaded(page: str) -> None:
    reader = Reader(page)
    loaded = [value for _, attrs in reader.seen for name, value in attrs.items() if name in ("src", "href", "srcset")]
    assert len(loaded) == 6
    assert all(value is not None and value.startswith("data:image/png;base64,") for value in loaded)
    tags = {tag for tag, _ in reader.seen}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base"}
    assert "url(" not in page and "@import" not in page
    assert all(attrs.get("alt") for tag, attrs in reader.seen if tag == "img")


def test_hostile_names_are_shown_and_do_nothing(page: str) -> None:
    reader = Reader(page)
    assert HOSTILE in reader.text
    assert "<script" not in page and "<img src=//" not in page
    assert "seed: 42 # <b>&</b>" in reader.text and "<Linux>" in reader.text
    hostile = report_of() | {"recipe": '{style}{body}"><script>'}
    hostile["scores"] = [*hostile["scores"], row("<i>mine</i>", "unseen-tasks", "accuracy", 0.5, 0.4, 0.6)]
    reader = Reader(html.render(hostile, {'"><script>': "data:image/png;base64,"}, "", {}, METHODS))
    assert '{style}{body}"><script>, seed 42' in reader.text and "<i>mine</i>" in reader.text
    assert "script" not in {tag for tag, _ in reader.seen}


def test_the_table_has_every_method_with_its_interval(page: str) -> None:
    text = re.sub(r"\s+", " ", Reader(page.replace("<td>", "<td> ").replace("<small>", " <small>")).text)
    for method, mean in MEANS.items():
        assert f"{method} {100 * mean:.1f} [{100 * mean - 0.7:.1f}, {100 * mean + 0.7:.1f}]" in text, method
    assert "0.0021 [0.002, 0.0022]" in text


def test_training_times_and_settings_are_told(page: str) -> None:
    text = Reader(page).text
    for told in ("2,345,678", "1,000 (task), 300 (train)", "78.6 %", "70.9 %", "7 min", "2 h 01 min", "3.9 s", "0.03"):
        assert told in text, told
    assert "collapsed" not in text
    collapsed = report_of()["training"] | {"collapsed": True, "steps": {}}
    text = Reader(html.render(report_of() | {"training": collapsed}, {}, "", {}, METHODS)).text
    assert "The generator collapsed" in text and "none: closed forms alone" in text


# ---------------------------------------------------------------- the figures


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"), validate=True)))


def test_figures_are_pictures_of_modest_size(drawn: dict[str, str]) -> None:
    for name, uri in drawn.items():
        assert opened(uri).width in (1008, 1260), name
        assert len(uri) < 500_000, name
    assert drawn["pictures"] == sheet_of()


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.accuracy_by_method(report_of(("mine",))["scores"]),
        lambda: figures.accuracy_by_method(report_of(("seen", "unseen-tasks", "unseen-classes"))["scores"]),
        lambda: figures.accuracy_by_method([row("generated", "seen", "accuracy", 0.0, 0.0, 0.0)]),
        lambda: figures.paired_differences(report_of(("mine",))["differences"]),
        lambda: figures.paired_differences(report_of(("seen", "unseen-tasks", "unseen-classes"))["differences"]),
        lambda: figures.paired_differences([row("ridge", "seen", "accuracy", 0.0, 0.0, 0.0)]),
        lambda: figures.task_by_task({"generated": [1.0, 1.0], "oracle": [1.0, 1.0]}),
        lambda: figures.training_curves([{"phase": "mine", "step": 1, "loss": 1.0}], 0.5),
        lambda: sheet_of(1),
        lambda: sheet_of(7),
    ],
    ids=[
        "one split",
        "three splits",
        "zero",
        "differences of one split",
        "of three splits",
        "no difference",
        "all tasks equal",
        "one step",
        "one picture",
        "a row and a picture",
    ],
)
def test_a_figure_of_an_extreme_is_whole(draw: Callable[[], str]) -> None:
    """There is something on it, and nothing is cut off at its edge."""
    shown = np.asarray(opened(draw()).convert("L")).astype(int)
    ink = shown < 230
    assert ink.mean() > 0.005 and shown.shape[1] in (1008, 1260)
    assert not (ink[0].any() or ink[-1].any() or ink[:, 0].any() or ink[:, -1].any())


def test_splits_have_axes_of_one_scale_each_up_to_its_best(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(figures, "encoded", lambda figure: drawn.append(figure) or "")
    known = [row(name, "seen", "accuracy", mean, mean, mean) for name, mean in (("oracle", 0.95), ("generated", 0.9))]
    unseen = [
        row(name, "unseen-classes", "accuracy", mean, mean, mean)
        for name, mean in (("oracle", 0.5), ("generated", 0.3))
    ]
    figures.accuracy_by_method(known + unseen)
    limits = [panel.get_xlim() for panel in drawn[0].axes]
    assert limits[0][1] - limits[0][0] == pytest.approx(limits[1][1] - limits[1][0])
    markers = [line.get_marker() for line in drawn[0].axes[1].get_lines()]
    assert "<" not in markers and limits[1][0] < 30 < 50 < limits[1][1]


def test_a_figure_of_one_value_has_no_interval() -> None:
    alone, several = ({"mean": 0.5, "ci_low": 0.5, "ci_high": 0.5, "n": n} for n in (1, 2))
    assert (percent(alone), percent(alone, "points"), percent(alone, "number")) == ("50.0", "+50.0", "0.5")
    assert percent(several) == "50.0 [50.0, 50.0]"
    assert written(alone, "percent") == ("50.0", "") and written(several, "percent") == ("50.0", "[50.0, 50.0]")


def test_smoothing_keeps_a_constant_and_the_length() -> None:
    for count in (1, 2, 100, 1000):
        assert figures._smoothed(np.full(count, 3.0)) == pytest.approx(np.full(count, 3.0))


# ---------------------------------------------------------------- the choice of pictures


def test_pictures_are_spread_evenly_over_classes_and_never_repeated() -> None:
    labels = torch.tensor([0] * 30 + [1] * 2 + [2] * 30 + [3] * 7 + [4] * 30)
    shown = evenly(labels, 24)
    assert len(set(shown.tolist())) == len(shown)
    assert torch.bincount(labels[shown]).tolist() == [5, 2, 5, 5, 4]
    assert evenly(torch.arange(40), 24).tolist() == list(range(24))


def test_rows_of_a_task_are_those_of_its_features() -> None:
    labels = torch.tensor([2, 0, 1, 2, 0, 2, 1])
    pool = Pool.of(torch.arange(7.0)[:, None], labels, 3)
    features, within = pool.of_task((0, 2))
    assert features[:, 0].tolist() == pool.rows_of((0, 2)).tolist() == [1, 4, 0, 3, 5]
    assert within.tolist() == [0, 0, 1, 1, 1]


# ---------------------------------------------------------------- a browser


FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--hide-scrollbars", "--allow-file-access-from-files")  # fmt: skip
LOOK = """<script>
const boxes = [...document.querySelectorAll(".scroll")];
const out = e => !e.closest(".scroll, pre") && e.getBoundingClientRect().right > innerWidth + 0.5;
document.body.dataset.looked = JSON.stringify({
  cut: [...document.querySelectorAll("main *")].filter(out).map(e => e.tagName),
  over: boxes.map(e => e.getBoundingClientRect().right - innerWidth),
  left: Math.min(...boxes.map(e => e.getBoundingClientRect().left)),
  hidden: boxes.map(e => getComputedStyle(e).overflowX == "auto" ? 0 : e.scrollWidth - e.clientWidth),
  needed: boxes.map(e => e.scrollWidth), given: boxes.map(e => e.clientWidth),
  page: document.documentElement.scrollWidth, window: innerWidth}) </script></body>"""
"""What is asked of the page from within."""


def browse(folder: Path, page: str, widths: Sequence[int], *flags: str) -> str:
    """What chromium prints of the page in frames of these widths, one below the other: a window is at least 500 wide.

    What each asks of itself (`LOOK`) is an item of a list in the end.
    """
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed: the page is not looked at")
    (folder / "report.html").write_text(page, encoding="utf-8")
    frames = "".join(
        f'<iframe src=report.html style="border:0;display:block;width:{width}px;height:2400px"></iframe>'
        for width in widths
    )
    (folder / "frame.html").write_text(
        f'<body style="margin:0">{frames}<script>onload = () => document.body.dataset.looked = JSON.stringify('
        "[...document.querySelectorAll('iframe')].map(f => JSON.parse(f.contentDocument.body.dataset.looked || null)))"
        "</script></body>",
        encoding="utf-8",
    )
    command = [
        browser,
        *FLAGS,
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={max(*widths, 500)},2400",
        *flags,
    ]
    done = subprocess.run(
        [*command, (folder / "frame.html").as_uri()], check=True, capture_output=True, text=True, timeout=120
    )
    return done.stdout


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.slow
def test_a_browser_shows_the_page(page: str, tmp_path: Path, width: int) -> None:
    picture = tmp_path / "report.png"
    browse(tmp_path, page, [width], f"--screenshot={picture}")
    with Image.open(picture) as image:
        shot = np.asarray(image.convert("RGB")).astype(int)[:, :width]
    assert shot.shape[:2] == (2400, width)
    plain = np.abs(shot - shot[0, 0]).max(2) < 12
    assert 0.02 < 1 - plain.mean() < 0.98  # something is shown
    assert plain[:, -8:].all()  # and nothing runs over the right edge


WIDTHS = (360, 800, 1200, 1400)


@pytest.fixture(scope="module")
def looked(drawn: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """What the page of a large report finds of itself in each width."""
    report = report_of(("seen", "unseen-tasks", "unseen-classes"))
    report["scores"] += [
        row(method, "unseen-tasks", metric, 0.000278, 0.000232, 0.000331)
        for method in MEANS
        for metric in ("novelty", "error_overlap")
    ]
    page = html.render(report, drawn, "seed: 42\n", {"python": "3.11"}, METHODS)
    page = re.sub(r"<meta http-equiv=.Content-Security-Policy.*?>", "", page).replace("</body>", LOOK)
    looked = re.search(r'data-looked="([^"]*)"', browse(tmp_path_factory.mktemp("looked"), page, WIDTHS, "--dump-dom"))
    assert looked is not None
    return dict(zip(WIDTHS, json.loads(unescape(looked[1])), strict=True))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.slow
def test_the_page_fits_or_scrolls_and_nothing_is_cut(looked: dict[int, dict[str, Any]], width: int) -> None:
    seen = looked[width]
    assert seen["window"] == width and seen["page"] <= width and seen["cut"] == []
    assert max(seen["over"]) <= 0 and seen["left"] >= 0 and not any(seen["hidden"])
    assert 900 < seen["needed"][0] < 1100 or width > 1200
    assert (seen["given"][0] >= seen["needed"][0]) == (width >= 1200), "the table of scores fits where there is room"
