"""What `wspace bench` measures, on classes that are clouds of points: a clock of denoiser calls stands in for time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.support import synthetic
from tests.support.stand_ins import Adapter
from wspace.cli import bench as commands
from wspace.data.prompts import prompts_of
from wspace.data.splits import UNSEEN_TASKS
from wspace.runs.report.intervals import interval
from wspace.runs.run import Run
from wspace.support.errors import UserError
from wspace.support.progress import Bar, Progress
from wspace.support.seeding import stream
from wspace.support.settings import Generate
from wspace.uses.bench import roof as bench_roof
from wspace.uses.bench import samplers as bench_samplers
from wspace.uses.bench import store as bench_store
from wspace.uses.bench import zoo as bench_zoo

FLOW = "generator={use: flow, denoiser: {use: mlp, width: 16, depth: 1}}"
FEW = (("ddpm", 30), ("ddim", 6), ("dpm-solver++", 3), ("heun", 5), ("euler", 5))


class Counted(Progress):
    """Remembers its bars."""

    def __init__(self) -> None:
        self.bars: list[Bar] = []

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Bar]:
        self.bars.append(Bar(name, total))
        yield self.bars[-1]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """A finished run with these settings, as `Run.open` would give it."""
    made: dict[tuple[str, ...], Path] = {}

    def open_(*settings: str) -> Run:
        folder = made.get(settings) or tmp_path_factory.mktemp("run")
        recipe = synthetic.recipe_of(folder, *settings)
        bench = synthetic.bench_of(recipe)
        if settings not in made:
            synthetic.run(recipe, bench, folder, "zoo", "train")
            made[settings] = folder
        run = Run(folder, recipe, {name: folder / name for name in ("zoo", "train")}, Progress())
        run.bench, bench.progress = bench, Counted()
        return run

    return open_


# ---------------------------------------------------------------- samplers


def naive_accuracies(run: Run, how: Generate, temperature: float) -> list[float]:
    """One task after the other, one image after the other."""
    tasks = run.zoo.tasks.scored(UNSEEN_TASKS)
    said = load_file(run.artifacts["train"] / "said.safetensors")["texts"]
    weights = run.system.sample(prompts_of(tasks, said), how, stream(run.recipe.seed, "bench", temperature, 0))
    found = []
    for row, task in zip(weights, tasks, strict=True):
        right = []
        for features, label in zip(run.bench.test.features, run.bench.test.labels.tolist(), strict=True):
            if label in task:
                logits = run.target.logits(row[None], features[None, None], run.bench.class_texts[None, list(task)])
                right.append(task[int(logits.argmax())] == label)
        found.append(sum(right) / len(right))
    return found


def test_accuracies_and_their_paired_differences_are_those_counted_one_by_one(opened: Callable[..., Run]) -> None:
    run = opened()
    result = bench_samplers.samplers(run, None, (0.0, 1.0, 2.0), FEW)
    assert (result["tasks"], result["split"], result["finest"]) == (6, "unseen-tasks", {"sampler": "ddpm", "steps": 30})
    names = [("ddpm", 30), ("ddim", 6), ("dpm-solver++", 3)]
    found = [(row["temperature"], row["sampler"], row["steps"]) for row in result["rows"]]
    assert found == [(temperature, *name) for temperature in (0.0, 1.0, 2.0) for name in names]
    finest = torch.zeros(6)
    for row in result["rows"]:
        how = Generate(row["steps"], 1.0, row["temperature"], row["sampler"])
        values = torch.tensor(naive_accuracies(run, how, row["temperature"]))
        if row["sampler"] == "ddpm":
            finest = values
        for name, expected in (("accuracy", values), ("difference", values - finest)):
            assert row[name]["mean"] == pytest.approx(float(expected.mean()), abs=1e-6)
            assert (row[name]["ci_low"], row[name]["ci_high"]) == pytest.approx(
                interval(expected, run.recipe), abs=1e-6
            )
    assert len({row["accuracy"]["mean"] for row in result["rows"]}) > 2  # the samplers are told apart


def test_seconds_are_those_of_drawing_alone_and_the_speed_up_is_their_ratio(opened: Callable[..., Run]) -> None:
    run, clock = opened(), 0

    def tick(*_: object) -> None:
        nonlocal clock
        clock += 1

    run.system.generator.denoiser.register_forward_hook(tick)
    rows = bench_samplers.samplers(run, 5, (1.0,), FEW, together=2, clock=lambda: clock)["rows"]
    assert [row["seconds_per_network"] for row in rows] == [15, 3, 1.5]  # of two together: the median over 2, 2 and 1
    assert [row["speedup"] for row in rows] == [1, 5, 10]
    assert isinstance(run.bench.progress, Counted)
    (bar,) = run.bench.progress.bars
    assert (bar.name, bar.done, bar.total) == ("samplers", 5 * 39, 5 * 39)


def test_a_flow_is_set_against_its_own_finest_sampler(opened: Callable[..., Run]) -> None:
    result = bench_samplers.samplers(opened(FLOW), 2, (1.0,))
    found = [(row["sampler"], row["steps"]) for row in result["rows"]]
    assert found == [("heun", 50), ("euler", 50), ("euler", 20), ("euler", 10), ("heun", 20), ("heun", 10)]
    assert result["tasks"] == 2 and result["finest"] == {"sampler": "heun", "steps": 50}


def test_more_steps_than_a_diffusion_has_levels_are_not_measured_twice(opened: Callable[..., Run]) -> None:
    result = bench_samplers.samplers(opened("generator.levels=15"), 2, (0.0,))
    found = [(row["sampler"], row["steps"]) for row in result["rows"]]
    assert found == [("ddpm", 15), ("ddim", 15), ("dpm-solver++", 15), ("dpm-solver++", 10)]


def test_a_generator_of_other_samplers_is_refused(opened: Callable[..., Run]) -> None:
    with pytest.raises(UserError) as caught:
        bench_samplers.samplers(opened(), None, (0.0,), (("mine", 9), ("mine", 5), ("theirs", 5)))
    assert str(caught.value) == "bench samplers: this run's generator has none of the samplers mine, theirs"


# ---------------------------------------------------------------- heads together against a loop


class Counting(Adapter):
    """An adapter that counts how often it is asked for logits."""

    asked = 0

    def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:
        self.asked += 1
        return super().logits(weights, features, texts)


def test_heads_together_are_set_against_two_loops_and_the_backbone_and_the_roof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock counts passes forward, and stands for a slow start: the first pass of all takes 100 more."""
    bench = synthetic.bench_of(synthetic.recipe_of(tmp_path))
    target, encoded = Counting(3, feature_dim=synthetic.FEATURES, text_dim=synthetic.TEXTS), 0

    def encode(pictures: Tensor) -> Tensor:
        nonlocal encoded
        encoded += len(pictures)
        return torch.zeros(len(pictures), synthetic.FEATURES)

    vars(bench)["target"] = target
    bench.backbone.encode = encode
    monkeypatch.setattr(synthetic.Points, "read", lambda _, rows: torch.zeros(len(rows)))
    roof = bench_roof.Roof(flops=1e9, bytes=1.0)
    result = bench_zoo.zoo(bench, 3, 4, clock=lambda: target.asked + 100 * (target.asked > 0) + 10 * encoded, roof=roof)
    assert (result["benchmark"], result["heads"], result["steps"]) == ("zoo", 3, 4)
    assert result["seconds"] == {"together": 4, "loop": 3 * 4, "loop_fused": 3 * 4}  # of two times, the faster
    assert (result["speedup"], result["speedup_fused"], result["head_steps_per_second"]) == (3, 3, 3)

    settings, size = bench.recipe.zoo, target.spec.size
    assert (result["seconds_per_image_through_backbone"], result["batches_through_backbone"]) == (10, 3)
    head_steps = bench.recipe.tasks.seen * settings.steps
    here = 10 * len(bench.images) + head_steps * 4 / 12
    assert result["speedup_through_backbone"] == pytest.approx(head_steps * (10 * settings.batch + 1) / here)
    moved = 4 * (8 * size + 2 * settings.batch * synthetic.FEATURES)
    assert result["bytes_per_head_step"] == moved and result["flops_per_head_step"] > 2 * settings.batch * size
    assert result["share_of_roof"] == moved / (4 / 12)


@pytest.mark.parametrize("fused", [False, True])
def test_the_loop_trains_a_head_for_its_task(tmp_path: Path, fused: bool) -> None:
    bench, task = synthetic.bench_of(synthetic.recipe_of(tmp_path)), (0, 3, 7)
    start = bench.target.init(1, torch.Generator().manual_seed(0))[0]
    head = bench_zoo._plain(bench.target, start, task, bench, bench_zoo.Schedule(150, 8, 1e-2), fused)
    features, labels = bench.train.of_task(task)
    logits = head(features, bench.class_texts[list(task)])
    assert float((logits.argmax(1) == labels).float().mean()) > 0.9


def test_a_machines_roof_is_of_the_fastest_of_many_short_repeats() -> None:
    """Of a clock that goes by 1/8, and once by 1/16."""
    ticks = itertools.chain([0.0, 0.0, 0.125, 0.125, 0.1875], itertools.count(0.25, 0.125))
    product = bench_roof.Product("small", 2, 3, 5, 7)
    assert bench_roof._of_product(product, torch.float32, lambda: next(ticks)) == 0.0625
    result = bench_roof.roof([product], itertools.count(0, 0.5).__next__)
    assert result["flops_per_second"] == [
        {"what": "small", "count": 2, "shape": [3, 5, 7]} | dict.fromkeys(("float32", "bfloat16"), 2 * 420 / 2 / 0.5)
    ]
    assert result["bytes_per_second"] == 3 * bench_roof.STREAMED / 0.5
    assert bench_roof.Roof(10.0, 2.0).seconds(20, 2) == 2 and bench_roof.Roof(10.0, 2.0).seconds(20, 6) == 3


# ---------------------------------------------------------------- the command


@pytest.fixture
def call(inside: Callable[..., CompletedProcess[str]]) -> Callable[..., tuple[int, str, str]]:
    """`wspace bench`, in this process: status, output, errors."""

    def command(*arguments: object) -> tuple[int, str, str]:
        done = inside("bench", *arguments)
        return done.returncode, done.stdout, done.stderr

    return command


def test_the_command_prints_a_line_for_each_sampler_or_one_object(
    opened: Callable[..., Run], call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        commands, "open_run", lambda *_: opened("generator.levels=15")
    )  # fewer steps than the command's own
    status, out, err = call("samplers", "here", "--tasks", 4)
    lines = out.splitlines()
    assert (status, err, len(lines)) == (0, "", 11)
    assert "4 unseen-tasks" in lines[0] and "difference from ddpm 15, with 95% intervals" in lines[0]
    assert lines[2].split() == ["temperature", "sampler", "steps", "s/network", "accuracy", "difference", "speed-up"]
    samplers = [("ddpm", "15"), ("ddim", "15"), ("dpm-solver++", "15"), ("dpm-solver++", "10")]
    assert [line.split()[:3] for line in lines[3:]] == [
        [temperature, *sampler] for temperature in "01" for sampler in samplers
    ]
    assert lines[3].endswith("+0.0 [+0.0, +0.0]     1.0 x")
    status, out, err = call("samplers", "here", "--tasks", 4, "--temperature", 0.5, "--json")
    result: dict[str, Any] = json.loads(out)
    assert (status, err, len(out.splitlines())) == (0, "", 1)
    assert [row["temperature"] for row in result["rows"]] == [0.5] * 4 and result["benchmark"] == "samplers"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("zo", "error: No such command 'zo'. Did you mean 'zoo'?\n"),
        (
            "training",
            "error: bench training: there is one process; start several: torchrun --standalone --nproc_per_node 2 --no-python "
            "wspace bench training\n",
        ),
        ("samplers", "error: Missing argument 'RUN'.\n"),
        (
            "samplers .",
            "error: .: not the folder of a finished run; `wspace run RECIPE` makes one and prints it last\n",
        ),
        ("samplers . --tasks 0", "error: Invalid value for '--tasks': Input should be greater than or equal to 1\n"),
        ("zoo --heads 0", "error: Invalid value for '--heads': Input should be greater than or equal to 1\n"),
    ],
)
def test_wrong_input_ends_with_2_and_one_message(
    call: Callable[..., tuple[int, str, str]], arguments: str, message: str
) -> None:
    assert call(*arguments.split()) == (2, "", message)


# ---------------------------------------------------------------- a zoo on disk


def test_a_zoo_is_made_opened_verified_and_sampled_from(tmp_path: Path) -> None:
    made = bench_store.make(tmp_path, 5, 2)
    measured = bench_store.measured(tmp_path, 5, 2)
    assert made["shards"] == 3 and measured["problems"] == 0
    assert measured["mib_before"] <= measured["mib_verified"] <= measured["mib_sampled"]
    seconds = ("seconds_opening", "seconds_verifying", "seconds_of_a_batch")
    assert made["seconds_making"] > 0 and all(measured[name] > 0 for name in seconds)


def test_memory_of_zoos_is_compared(
    monkeypatch: pytest.MonkeyPatch, inside: Callable[..., CompletedProcess[str]]
) -> None:
    def row(folder: Path, networks: int, together: int) -> dict[str, Any]:
        measured = dict.fromkeys(("seconds_making", "seconds_opening", "seconds_verifying", "seconds_of_a_batch"), 0.5)
        return measured | {
            "networks": networks,
            "mib_before": 90.0,
            "mib_verified": 100.0 + networks,
            "mib_sampled": 120.0,
        }

    monkeypatch.setattr(bench_store, "in_its_own_process", row)
    done = inside("bench", "store", "--networks", 10, "--networks", 21)
    assert done.stdout.splitlines()[-1] == "memory of the greatest over the least, opened and verified: 1.100"
    assert json.loads(inside("bench", "store", "--json").stdout)["memory"] == 200_100 / 2_100
