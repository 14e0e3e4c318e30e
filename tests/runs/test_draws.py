"""What a report says of drawn networks beside their scores: recomputed from a run of all stages, and word for word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.stand_ins import Units
from tests.support.synthetic import bench_of, recipe_of, run
from wspace.recipes.plugins import load_plugins
from wspace.runs.artifacts import Zoo
from wspace.runs.draws import BEYOND, gauges, mean_of_task
from wspace.runs.keys import keys
from wspace.runs.pipeline import STAGES
from wspace.runs.report import figures
from wspace.runs.report import page as html
from wspace.runs.report.draws import said_of_draws, sections_on_draws
from wspace.runs.report.methods import methods_of
from wspace.runs.report.table import print_table
from wspace.runs.stages import Job
from wspace.runs.stages.generate import trained_system
from wspace.support.files import read_json
from wspace.support.progress import Progress

MADE = ("zoo", "opponents", "train", "generate", "evaluate")
AGAINST = "against=[oracle, aligned-soup, zoo-mean, gaussian, {use: pca-gaussian, align: true}, noise]"
NEW = ("aligned-soup", "gaussian", "pca-gaussian", "noise", "oracle", "generated")
METHODS = methods_of(load_plugins(allowed="").registry.all("opponent"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Job]:
    """A run, and the job of its stage evaluate."""
    folder = tmp_path_factory.mktemp("run")
    recipe = recipe_of(folder, AGAINST, "zoo.copies=2", "evaluate.accurate=0.5", "train.align=true")
    bench = bench_of(recipe)
    run(recipe, bench, folder, *MADE)
    return folder, Job(recipe, bench, folder / "evaluate", {name: folder / name for name in MADE}, Progress())


# ---------------------------------------------------------------- accurate and new


def test_shares_are_of_networks_that_are_accurate_and_farther_from_the_zoo(made: tuple[Path, Job]) -> None:
    folder, job = made
    measured, zoo = read_json(folder / "evaluate/scores.json")["accurate_and_new"], Zoo(folder / "zoo")
    per_task = load_file(folder / "evaluate/per-task.safetensors")
    assert measured["share"] == 0.5
    rows = {(row["method"], row["split"], row["beyond"]): row["mean"] for row in measured["rows"]}
    best = {(row["method"], row["split"], row["beyond"]): row["best"] for row in measured["rows"]}
    assert rows.keys() == {
        (name, split, beyond)
        for name in NEW
        for split in ("seen", "unseen-tasks", "unseen-classes")
        for beyond in BEYOND
    }
    for (method, split, beyond), share in rows.items():
        tasks = zoo.tasks.scored(split)
        if split == "seen":
            of_zoo = job.bench.accuracies(zoo.weights[: len(tasks)], tasks, job.bench.test)
        else:
            of_zoo = per_task[f"{split}/accuracy/oracle"]
        assert measured["of_zoo"][split] == pytest.approx(float(of_zoo.mean()))
        columns = (per_task[f"{split}/accuracy/{method}"], per_task[f"{split}/novelty/{method}"], of_zoo)
        both = [a >= 0.5 * z and n > beyond for a, n, z in zip(*(c.tolist() for c in columns), strict=True)]
        assert share == pytest.approx(sum(both) / len(both)), (method, split, beyond)
        far = [a for a, n in zip(columns[0].tolist(), columns[1].tolist(), strict=True) if n > beyond]
        assert best[method, split, beyond] == (max(far) if far else None)
    assert any(rows.values())


def test_the_zoos_accuracy_on_a_task_is_the_mean_over_its_networks_of_it() -> None:
    values = mean_of_task(torch.tensor([0.1, 0.5, 0.3, 0.9]), [(0, 1), (2, 3), (0, 1), (1, 0)])
    torch.testing.assert_close(values, torch.tensor([0.2, 0.5, 0.2, 0.9]))


def test_what_counts_as_accurate_is_in_no_key_at_its_default(tmp_path: Path) -> None:
    plain, said, other = (
        keys(recipe_of(tmp_path, *how), STAGES) for how in ((), ("evaluate.accurate=0.9",), ("evaluate.accurate=0.8",))
    )
    assert plain == said and {name for name, key in other.items() if key != plain[name]} == {"evaluate", "report"}


# ---------------------------------------------------------------- collapse, and what drawing is worth


def test_drawn_tokens_are_measured_against_those_that_were_trained_on(made: tuple[Path, Job]) -> None:
    folder, job = made
    zoo, symmetry = Zoo(folder / "zoo"), Units(spec=job.bench.target.spec)
    system, texts = trained_system(job, zoo)
    trained_on = symmetry.canonicalize(zoo.weights[: len(zoo.tasks.training)], zoo.reference)
    tokens = system.tokenizer.tokenize(trained_on)
    mask = system.tokenizer.layout.mask
    size = tokens[:, mask].double().square().mean().sqrt()
    small = system.tokenizer.detokenize(0.2 * tokens[:5])
    (row,) = gauges(job.bench, zoo, system, texts, symmetry, ["seen"], {"seen": small}.__getitem__, {})["rms"]
    each = 0.2 * tokens[:5][:, mask].double().square().mean(1).sqrt() / size
    assert row["mean"] == pytest.approx(float(each.mean()), rel=1e-4) and 0.1 < row["mean"] < 0.3
    (row,) = gauges(job.bench, zoo, system, texts, symmetry, ["seen"], {"seen": trained_on}.__getitem__, {})["rms"]
    assert row["mean"] == pytest.approx(1, abs=0.1)


def test_drawing_is_worth_what_the_predictor_alone_does_not_reach(made: tuple[Path, Job]) -> None:
    folder, job = made
    zoo, per_task = Zoo(folder / "zoo"), load_file(folder / "evaluate/per-task.safetensors")
    system, texts = trained_system(job, zoo)
    rows = {row["split"]: row for row in read_json(folder / "evaluate/scores.json")["draws"]["drawing"]}
    assert [*rows] == ["seen", "unseen-tasks", "unseen-classes"]
    for split, row in rows.items():
        tasks = zoo.tasks.scored(split)
        with torch.no_grad():
            alone = job.bench.accuracies(system.typical(zoo.prompts(tasks, texts)), tasks, job.bench.test)
        assert row["alone"]["mean"] == pytest.approx(float(alone.mean()))
        worth = per_task[f"{split}/accuracy/generated"] - alone
        assert (
            row["mean"] == pytest.approx(float(worth.mean()), abs=1e-6)
            and row["ci_low"] <= row["mean"] <= row["ci_high"]
        )


def test_without_a_predictor_there_is_nothing_to_set_draws_beside(tmp_path: Path) -> None:
    recipe = recipe_of(
        tmp_path, "generator.predictor=null", "task_loss.steps=0", "against=[oracle]", "losses.adversarial=0"
    )
    run(recipe, bench_of(recipe), tmp_path, *MADE)
    draws = read_json(tmp_path / "evaluate/scores.json")["draws"]
    assert draws["drawing"] == [] and len(draws["rms"]) == 3


# ---------------------------------------------------------------- in words, in tables and on the page


def cell(mean: float, low: float, high: float) -> dict[str, float]:
    return {"mean": mean, "ci_low": low, "ci_high": high, "n": 50}


def report_of(rms: tuple[float, ...] = (), worth: tuple[float, ...] = (), temperature: float = 1.0) -> dict[str, Any]:
    drawing = [{"split": "unseen-tasks", "alone": cell(0.7, 0.6, 0.8), **cell(*worth)}] if worth else []
    sizes = [{"split": "unseen-tasks", **cell(*rms)}] if rms else []
    return {"draws": {"temperature": temperature, "rms": sizes, "drawing": drawing}}


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ({}, []),
        (report_of((0.9, 0.8, 1.0), (0.02, 0.01, 0.03)), []),
        (
            report_of((0.2, 0.1, 0.3)),
            [
                "The draws have collapsed on unseen tasks: the root mean square of their tokens is 0.2 [0.1, 0.3] of real "
                "ones', where 1 is right."
            ],
        ),
        (report_of((0.2, 0.1, 0.3), temperature=0), []),
        (
            report_of((1.0, 0.9, 1.1), (0.001, -0.002, 0.004)),
            [
                "Drawing, at temperature 1, is worth nothing measurable beside the predictor alone: unseen tasks +0.1 "
                "[-0.2, 0.4] points, where that reaches 70.0 %."
            ],
        ),
        (
            report_of((1.0, 0.9, 1.1), (-0.03, -0.04, -0.02)),
            [
                "Drawing, at temperature 1, costs accuracy beside the predictor alone: unseen tasks -3.0 [-4.0, -2.0] points, "
                "where that reaches 70.0 %."
            ],
        ),
    ],
    ids=["an older report", "well", "collapsed", "typical", "worth nothing", "costs"],
)  # fmt: skip
def test_what_went_wrong_with_the_draws_is_said(report: dict[str, Any], said: list[str]) -> None:
    assert said_of_draws(report) == said


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (
            report_of((0.6, 0.5, 0.7), (0.02, 0.01, 0.03), temperature=0),
            ["Networks are drawn at temperature 0, so that their tokens are smaller than real ones' by nature."],
        ),
        (
            report_of((3.0, 2.9, 3.1), (0.02, 0.01, 0.03), temperature=0),
            [
                "Tokens are larger than real ones': what learns from images lies farther from the zoo than the zoo's networks "
                "do from each other, and its novelty says no more than that."
            ],
        ),
        (report_of(worth=(0.02, 0.01, 0.03)), ["Tokens are codes, whose size means nothing."]),
        (
            report_of((0.9, 0.8, 1.0)),
            ["The generator has no predictor beside what draws, so there is none to set the draws beside."],
        ),
    ],
    ids=["typical", "larger", "codes", "no predictor"],
)  # fmt: skip
def test_the_page_says_what_is_not_measured_and_why(report: dict[str, Any], said: list[str]) -> None:
    (section,) = sections_on_draws(report, METHODS)
    assert section.use == "draws" and list(section.says) == said


def share(method: str, split: str, beyond: int, mean: float) -> dict[str, Any]:
    return {"method": method, "split": split, "beyond": beyond} | cell(mean, mean, mean)


NEWNESS = {
    "accurate_and_new": {
        "share": 0.9,
        "of_zoo": {"seen": 0.9, "unseen-tasks": 0.8},
        "rows": [
            *(share("generated", "seen", n, mean) for n, mean in zip(BEYOND, (0.5, 0.25, 0), strict=True)),
            *(share("oracle", "seen", n, 0) for n in BEYOND),
            *(share(method, "unseen-tasks", n, 0) for method in ("generated", "oracle") for n in BEYOND),
        ],
    }
}


def test_tables_have_the_splits_where_any_network_is_accurate_and_new_and_say_which_have_none() -> None:
    (section,) = sections_on_draws(NEWNESS, METHODS)
    (table,) = section.tables
    assert (
        table.title
        == "accurate and new (%), seen tasks: at least 81.0 %, and so many times its own distance from the zoo"
    )
    assert [row.name for row in table.rows] == ["oracle", "generated"] and table.rows[1].own
    assert [table.rows[1].cells[column]["mean"] for column in table.columns] == [0.5, 0.25, 0]
    assert section.says[1:] == ["No network of any method is both on unseen tasks."]
    assert section.says[0].startswith(
        "Accurate is a network with at least 90 % of the accuracy that the zoo's own have"
    )


def test_the_terminal_has_a_column_where_any_network_is_accurate_and_new(capsys: pytest.CaptureFixture[str]) -> None:
    scores = [{"method": "generated", "split": "seen", "metric": "accuracy"} | cell(0.5, 0.5, 0.5)]
    report = {"recipe": "nano", "seed": 42, "confidence": 0.95, "scores": scores} | NEWNESS
    print_table(report | report_of((0.2, 0.1, 0.3)), METHODS, markdown=True)
    printed = capsys.readouterr().out
    assert "| accurate and new, % | seen, beyond 1 | seen, beyond 2 |" in printed and "beyond 4" not in printed
    assert "| **generated** | **50.0** | **25.0** |" in printed and "The draws have collapsed" in printed
    print_table(report, METHODS)
    note = "left out, as no network of any method is accurate and new there: unseen-tasks beyond 1, 2, 4; seen beyond 4"
    assert note in capsys.readouterr().out
    nothing = {**NEWNESS["accurate_and_new"], "rows": [share("generated", "seen", 1, 0)]}
    print_table(report | {"accurate_and_new": nothing}, METHODS)
    assert "accurate and new: no network of any method" in capsys.readouterr().out


def test_a_frontier_is_the_best_accuracy_beyond_each_novelty(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(figures, "encoded", lambda figure: drawn.append(figure) or "")
    draws = {"seen": {"generated": ([2.0, 0.5, 1.0], [0.3, 0.6, 0.8]), "noise": ([50.0], [0.1])}}
    figures.frontier(draws, {"seen": 0.7}, BEYOND)
    (panel,) = drawn[0].axes
    steps = [line for line in panel.get_lines() if line.get_drawstyle() == "steps-pre"]
    ours = next(line for line in steps if len(line.get_xdata()) == 4)
    assert [*ours.get_xdata()] == [0, 0.5, 1, 2] and ours.get_ydata() == pytest.approx([80, 80, 80, 30])
    far = next(line for line in steps if len(line.get_xdata()) == 2)
    assert far.get_xdata()[-1] == 8, "what is farther than twice the last stands there"


def test_the_page_has_a_section_and_a_figure_of_its_own(made: tuple[Path, Job]) -> None:
    folder, _ = made
    report = read_json(folder / "evaluate/scores.json")
    sections = sections_on_draws(report, METHODS, [html.Figure("frontier", "What is seen.", "data:image/png;base64,")])
    whole = {"recipe": "x", "seed": 1, "confidence": 0.95, "seconds": {}} | report
    training = {"parameters": 1, "steps": {}, "validation_accuracy": 0.5, "validation_accuracy_of_zoo_mean": 0.5}
    page = html.render(whole | {"training": training | {"collapsed": False}}, {}, "", {}, METHODS, sections)
    assert '<section id="accurate-and-new">' in page and '<section id="draws">' in page
    assert [figure.name for figure in html.figures_in(page)] == ["accurate-and-new-frontier"]
