"""Studies: what their files may say, how members share artifacts, and intervals over seeds."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from wspace import intervals, study, table
from wspace.errors import NotARun, RecipeError, UserError
from wspace.pipeline import steps
from wspace.progress import Progress
from wspace.recipe import read_recipe
from wspace.store import Store

from .tiny import RECIPE, Tiny, stages_fixture, tiny_fixture  # noqa: F401

STUDY = """study: tiny.yaml
seeds: [1, 2]
variants:
  full: {}
  with more steps: {train.steps: 20}
"""


def bound(tiny: Tiny, folder: Path, text: str = STUDY, *settings: str) -> study.Study:
    (folder / "tiny.yaml").write_text(RECIPE, encoding="utf-8")
    file = folder / "a-study.yaml"
    file.write_text(text, encoding="utf-8")
    return study.bind_study(read_recipe(file), tiny.registry, settings)


def problems(tiny: Tiny, folder: Path, text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        bound(tiny, folder, text)
    return str(caught.value).replace(f"{folder}/", "")


# ---------------------------------------------------------------- the file


def test_members_are_the_base_recipe_with_what_each_variant_sets(tiny: Tiny, tmp_path: Path) -> None:
    made = bound(tiny, tmp_path, STUDY, "target.rank=7")
    assert [m.recipe.name for m in made.members] == ["full-1", "with-more-steps-1", "full-2", "with-more-steps-2"]
    assert [m.recipe.seed for m in made.members] == [1, 1, 2, 2]
    assert [m.recipe.train.steps for m in made.members] == [10, 20, 10, 20]
    assert {m.recipe.target.arguments["rank"] for m in made.members} == {7}
    assert [row.variant for row in made.rows] == ["full", "with more steps"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            STUDY.replace("seeds", "seedz"),
            "a-study.yaml: seeds: missing\n"
            "a-study.yaml:2: seedz: a study takes no 'seedz'. Did you mean 'seeds'? "
            "Known: rows, seeds, splits, study, variants",
        ),
        (
            STUDY.replace("[1, 2]", "[]"),
            "a-study.yaml:2: seeds: list should have at least 1 item after validation, not 0",
        ),
        (
            STUDY.replace("train.steps", "train.stepz"),
            "a-study.yaml:5: variants.with more steps: train.stepz: 'train' takes no 'stepz'. Did you mean 'steps'? "
            "Known: align, augment, batch, check_every, clip, ema, lr, steps, warmup, weight_decay",
        ),
        (STUDY + "  Full!: {}\n", "a-study.yaml:6: variants.Full!: too like 'full' for a folder"),
        (
            STUDY + "rows:\n  - {variant: ful}\n",
            "a-study.yaml:7: rows.0.variant: no 'ful'. Did you mean 'full'? Known: full, with more steps",
        ),
        (
            STUDY + "rows:\n  - {variant: full, papre: {seen: 1}}\n",
            "a-study.yaml:7: rows.0.papre: a study takes no 'papre'. Did you mean 'paper'? "
            "Known: label, method, paper, variant",
        ),
    ],
)
def test_problems_of_a_study_have_their_line(tiny: Tiny, tmp_path: Path, text: str, message: str) -> None:
    assert problems(tiny, tmp_path, text) == message


# ---------------------------------------------------------------- running


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores in place of those that tiny stages do not leave."""

    def of_member(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
        better = 0.1 * ("more" in folder.name)
        per_task = {
            f"{split}/accuracy/{method}": torch.tensor([0.5, 0.6, 0.7]) + better * (method == "generated")
            for split in ("seen", "unseen-tasks")
            for method in ("generated", "oracle", "ridge", "universal")
        }
        scores = [{"split": split} for split in ("seen", "unseen-tasks")]
        return {"scores": scores, "training": {"parameters": 3}, "seconds": {}}, per_task

    monkeypatch.setattr(study, "_of_member", of_member)


def test_a_study_runs_its_members_once_and_shares_what_they_have_in_common(
    tiny: Tiny, stages: ModuleType, scored: None, tmp_path: Path
) -> None:
    made = bound(tiny, tmp_path)
    folder = study.run(made, tmp_path / "runs", Progress())
    assert folder == tmp_path / "runs/a-study"
    zoos = [name for name, *_ in stages.calls if name == "zoo"]
    assert len(zoos) == 2 and len([name for name, *_ in stages.calls if name == "train"]) == 4
    for member in made.members:
        assert (folder / member.recipe.name / "recipe.yaml").is_file()
        assert len(list((folder / member.recipe.name).glob("zoo-*/artifact.json"))) == 1  # each folder is whole
    done = len(stages.calls)
    assert {step.action for plan in study.plan(made, tmp_path / "runs").values() for step in plan} == {"cached"}
    study.run(made, tmp_path / "runs", Progress())
    assert len(stages.calls) == done

    report = study.report_of(folder)
    assert report is not None
    better = next(d for d in report["differences"] if d["minus"] == "with more steps" and d["split"] == "seen")
    assert better["label"] == "full" and better["mean"] == pytest.approx(-0.1, abs=1e-6)
    assert [row["seeds"] for row in report["rows"][:1]] == [[pytest.approx(0.6)] * 2]
    assert [t["seed"] for t in report["training"]] == [1, 1, 2, 2]


def test_an_interrupted_study_goes_on(tiny: Tiny, stages: ModuleType, scored: None, tmp_path: Path) -> None:
    made = bound(tiny, tmp_path)
    stages.fails["evaluate"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        study.run(made, tmp_path / "runs", Progress())
    with pytest.raises(NotARun, match="this study is not finished; run it again, and it goes on"):
        study.report_of(tmp_path / "runs/a-study")
    stages.fails.clear()
    study.run(made, tmp_path / "runs", Progress())
    assert [name for name, *_ in stages.calls].count("zoo") == 2


def test_a_row_of_a_method_that_no_run_has_is_refused(
    tiny: Tiny, stages: ModuleType, scored: None, tmp_path: Path
) -> None:
    made = bound(tiny, tmp_path, STUDY + "rows:\n  - {variant: full, method: orakle}\n")
    with pytest.raises(UserError, match="the runs of 'full' have no accuracy of 'orakle' on 'seen'"):
        study.run(made, tmp_path / "runs", Progress())


def test_runs_side_by_side_share_artifacts_and_force_does_not(tiny: Tiny, stages: ModuleType, tmp_path: Path) -> None:
    from wspace import pipeline

    one, other = tiny.bind(name="one.yaml"), tiny.bind(name="other.yaml")
    pipeline.run(one, tmp_path, Progress())
    calls = len(stages.calls)
    plan = steps(other, Store(tmp_path / "other"))
    assert (plan[0].action, plan[0].why) == ("link", f"made in {tmp_path / 'one'}")
    assert {step.action for step in steps(other, Store(tmp_path / "other"), ["zoo"])} == {"run"}
    pipeline.run(other, tmp_path, Progress())
    assert len(stages.calls) == calls
    half = next((tmp_path / "one").glob("zoo-*/half.txt"))
    assert next((tmp_path / "other").glob("zoo-*/half.txt")).samefile(half)

    for manifest in (tmp_path / "one").glob("zoo-*/artifact.json"):
        manifest.unlink()  # damaged: nobody takes it over
    third = tiny.bind(name="third.yaml")
    (tmp_path / "other").rename(tmp_path / ".gone")
    assert steps(third, Store(tmp_path / "third"))[0].action == "link"  # from .gone
    for manifest in (tmp_path / ".gone").glob("zoo-*/artifact.json"):
        manifest.unlink()
    assert steps(third, Store(tmp_path / "third"))[0].action == "run"


# ---------------------------------------------------------------- intervals and tables


def naive_over_seeds(values: list[Tensor], resamples: int, rng: torch.Generator) -> np.ndarray:
    """The same draws, one at a time."""
    total = np.zeros(resamples)
    for _ in values:
        tasks = [torch.randint(len(own), (resamples, len(own)), generator=rng) for own in values]
        seeds = torch.randint(len(values), (1, resamples), generator=rng)[0]
        for r in range(resamples):
            own = values[int(seeds[r])]
            total[r] += float(np.mean([float(own[int(i)]) for i in tasks[int(seeds[r])][r]]))
    return total / len(values)


def test_the_interval_over_seeds_is_that_of_naive_draws() -> None:
    values = [torch.rand(n, generator=torch.Generator().manual_seed(n)) for n in (5, 7, 6)]
    means = naive_over_seeds(values, 200, torch.Generator().manual_seed(1))
    found = intervals.over_seeds(values, 200, 0.9, torch.Generator().manual_seed(1))
    assert found == pytest.approx(tuple(np.quantile(means, [0.05, 0.95])), abs=1e-6)


def test_seeds_that_differ_widen_the_interval() -> None:
    rng = torch.Generator().manual_seed(0)
    alike = [torch.full((50,), 0.5) + 0.01 * torch.randn(50, generator=rng) for _ in range(3)]
    apart = [own + shift for own, shift in zip(alike, (-0.1, 0.0, 0.1), strict=True)]
    narrow = intervals.over_seeds(alike, 1000, 0.95, torch.Generator().manual_seed(0))
    wide = intervals.over_seeds(apart, 1000, 0.95, torch.Generator().manual_seed(0))
    assert narrow[1] - narrow[0] < 0.01 and wide[1] - wide[0] > 0.1


def test_a_study_prints_as_markdown_with_the_papers_figures(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"label": "Full", "split": "seen", "mean": 0.6, "ci_low": 0.5, "ci_high": 0.7, "paper": 65.99}
    difference = {"label": "Full", "minus": "ridge", "split": "seen", "mean": 0.01, "ci_low": -0.02, "ci_high": 0.04}
    table.print_study({"study": "s", "seeds": [1], "rows": [row], "differences": [difference]}, markdown=True)
    assert capsys.readouterr().out == (
        "| accuracy % | seen | paper |\n|---|---|---|\n| Full | 60.0 [50.0, 70.0] | 65.99 |\n\n"
        "| paired difference, points | seen |\n|---|---|\n| Full - ridge | +1.0 [-2.0, 4.0] |\n\n"
    )
