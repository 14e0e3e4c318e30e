"""What a notebook shows of a run, of its report and of weights: small, whole, and escaped."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

import wspace
from tests.support.synthetic import Said
from wspace.runs.report.page import Report
from wspace.runs.run import Run
from wspace.support.errors import UserError
from wspace.support.files import read_json
from wspace.support.names import REPORT, RUN
from wspace.weights.files.network import Network

HOSTILE = "<script>alert('x')</script> & <img src=x>"


class Nested(HTMLParser):
    """Every element that is opened is closed, in order; what it says."""

    def __init__(self, html: str):
        super().__init__()
        self.open, self.tags, self.says = list[str](), set[str](), ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.says += data


def shown(thing: Any, at_most: int) -> Nested:
    html = thing._repr_html_()
    assert len(html) < at_most
    parsed = Nested(html)
    assert parsed.tags <= {"div", "p", "b", "small", "table", "thead", "tbody", "tr", "th", "td"}
    return parsed


def test_a_run_shows_its_result_and_what_it_is_of(nano: Path) -> None:
    run = Run.open(nano)
    says = shown(run, 2000).says
    assert "nano, seed 42" in says and str(nano) in says and f"{run.target.spec.size:,} weights" in says
    assert run.report.headline in says and run.report.headline.startswith("Generated heads reach ")


def test_a_run_and_a_network_are_a_line_each_in_python(nano: Path) -> None:
    run = Run.open(nano)
    size = f"{run.target.spec.size:,} weights"
    assert repr(run) == f"<Run {nano}: recipe nano, seed 42, networks of {size}>"
    tensors = run.target.spec.unflatten(run.target.init(1, torch.Generator())[0])
    assert repr(Network(("book", "lamp"), tensors)) == f"<Network: {size}, for book, lamp>"
    many = Network(tuple(f"class {number}" for number in range(30)), tensors)
    first = "class 0, class 1, class 2, class 3, class 4, class 5"
    assert repr(many) == f"<Network: {size}, for {first} and 24 others>"


def test_steps_that_a_generator_has_not_are_told(nano: Path) -> None:
    run, said = Run.open(nano), Said()
    run.bench.progress = said
    many, all_of_them = run.generate(["book", "lamp"], steps=2000), run.generate(["book", "lamp"], steps=1000)
    assert [line for line in said.lines if "steps" in line] == [
        "note: 1000 steps and not 2,000 are taken: this run's generator 'diffusion' has no more levels of noise to go down"
    ]
    assert all(torch.equal(tensor, all_of_them.tensors[name]) for name, tensor in many.tensors.items())


def test_plugins_count_for_nothing_where_no_component_is_named(nano: Path, tmp_path: Path) -> None:
    run = Run.open(nano)
    tensors = run.target.spec.unflatten(run.target.init(1, torch.Generator())[0])
    Network(("book", "lamp"), tensors).save(tmp_path / "head.safetensors")
    for place, called in ((tmp_path / "head.safetensors", "weights"), (run.artifacts["zoo"], "a zoo")):
        wspace.load(place)
        with pytest.raises(UserError) as caught:
            wspace.load(place, plugins=["otters.py"])
        told = f"{place}: {called}, whose file names no components, so plugins are of no account: leave them out"
        assert str(caught.value) == told


def test_a_report_is_what_the_command_prints_and_shows_its_scores(nano: Path) -> None:
    report = Run.open(nano).report
    left = read_json(nano / read_json(nano / RUN)["stages"]["report"] / REPORT)
    assert report["scores"] == left["scores"]
    shown_report = shown(report, 12_000)
    assert report.headline in shown_report.says
    for row in report["scores"]:
        if row["metric"] == "accuracy":
            assert row["method"] in shown_report.says and f"{100 * row['mean']:.1f}" in shown_report.says


def test_hostile_names_are_escaped(nano: Path) -> None:
    run = Run.open(nano)
    report = run.report
    content = {**report, "recipe": HOSTILE, "scores": [{**row, "split": HOSTILE} for row in report["scores"]]}
    assert HOSTILE in shown(Report(content, report._methods), 12_000).says
    network = Network((HOSTILE, "book"), {HOSTILE: torch.zeros(2, 3)}, HOSTILE)
    assert shown(network, 2000).says.count(HOSTILE) == 3


@pytest.mark.parametrize(("tensors", "more"), [(3, ""), (200, "and 189 other tensors")])
def test_weights_show_classes_and_shapes_and_not_all_of_many_tensors(tensors: int, more: str) -> None:
    made = {f"layer{number}.weight": torch.zeros(number + 1, 2) for number in range(tensors)} | {
        "scale": torch.ones(())
    }
    network = Network(("camera", "étoile"), made, "nano, seed 1, temperature 0.0")
    says = shown(network, 3000).says
    assert "camera, étoile" in says and "2 × 2" in says and "nano, seed 1, temperature 0.0" in says
    assert f"{sum(t.numel() for t in made.values()):,} weights" in says
    assert more in says and ("other tensors" in says) == bool(more)
