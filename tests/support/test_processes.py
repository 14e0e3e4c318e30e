"""Several processes at the generator's training, and half precision in it."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed import HashStore

from tests.learning.test_training_loop import ADVERSARY, PROMPTS, SETTINGS, SPEC, WEIGHTS, system_of
from tests.support.ports import kept_port
from tests.support.stand_ins import Judge, Units
from wspace.components.denoisers.mlp import MLP as Denoiser
from wspace.learning.adversary import Adversary
from wspace.learning.loop import TrainingLoop
from wspace.learning.phases import GeneratorStep, TrainingPairs, TrainingSet, generator_parameters
from wspace.learning.shares import Share
from wspace.learning.system import System
from wspace.recipes.bind import bind
from wspace.recipes.plugins import load_plugins
from wspace.recipes.source import read_recipe
from wspace.runs import pipeline
from wspace.runs.keys import keys
from wspace.runs.pipeline import STAGES
from wspace.runs.store import Store
from wspace.support.errors import Diverged, MissingPackage, UserError
from wspace.support.files import save_tensors
from wspace.support.processes import ALONE, Processes, connected, device_of, gpu_of_this, here, launched, leading
from wspace.support.progress import Progress
from wspace.support.seeding import seeded, stream
from wspace.support.settings import Losses, Train

ROOT = Path(__file__).parents[2]
STEPS = 6
STOPPED = 3  # the step whose checkpoint another number of processes goes on from
LOSSES = Losses(symmetry=0.1, adversarial=0.1)


def loop_of(
    folder: Path, processes: Processes = ALONE, seed: int = 0, settings: Train = SETTINGS, dropout: float = 0.0
) -> TrainingLoop:
    system = system_of(seed, dropout=dropout).eval()
    torch.manual_seed(seed)
    adversary = Adversary(Judge(6, layout=system.tokenizer.layout), ADVERSARY, STEPS, processes)
    checkpoint, trained = folder / "checkpoint.safetensors", generator_parameters(system)
    return TrainingLoop(system, settings, checkpoint, trained, adversary=adversary, processes=processes)


def system_in(loop: TrainingLoop) -> System:
    assert isinstance(loop.module, System)
    return loop.module


def train(
    loop: TrainingLoop,
    weights: Tensor = WEIGHTS[:8],
    precision: str = "float32",
    losses: Losses = LOSSES,
    until: int = STEPS,
) -> None:
    assert isinstance(loop.settings, Train)
    step = GeneratorStep(
        TrainingSet((TrainingPairs(system_in(loop), weights, PROMPTS[:8]),)),
        loop.settings,
        losses,
        torch.device("cpu"),
        symmetry=Units(spec=SPEC),
        adversary=loop.adversary if losses.adversarial else None,
        precision=precision,
        processes=loop.processes,
    )
    while loop.step < until:
        loop.advance(step(loop.step, stream(0, "train", loop.step)))


def assert_near(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Each tensor, by its norm: Adam makes much of the last bits of a gradient that is next to nothing."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        distance, size = torch.linalg.vector_norm(value - other[name]), torch.linalg.vector_norm(other[name])
        assert float(distance) <= 1e-5 * float(size), name


def flat(entry: Mapping[str, Any]) -> dict[str, float]:
    """A line of the log, its groups taken apart."""
    groups = {group: value if isinstance(value, dict) else {"": value} for group, value in entry.items()}
    return {f"{group} {name}": value for group, values in groups.items() for name, value in values.items()}


def state_of(loop: TrainingLoop) -> dict[str, Tensor]:
    assert loop.adversary is not None
    return {n: p.detach() for n, p in loop.parameters.items()} | {
        f"d.{n}": t for n, t in loop.adversary.state().items()
    }


# ---------------------------------------------------------------- alone


def test_alone_nothing_changes() -> None:
    value = torch.tensor([1.5, -2.0])
    ALONE.average([value])
    ALONE.agree([value])
    ALONE.send({"folder": "somewhere"})
    assert value.tolist() == [1.5, -2.0] and ALONE.rows(7) == [slice(0, 7)]
    assert ALONE.averaged({"loss": value[0]}) == {"loss": value[0]}
    assert here() == launched() == ALONE and gpu_of_this() is None


@pytest.mark.parametrize(("batch", "count", "parts"), [(32, 4, 1), (7, 3, 2), (6, 1, 4), (5, 5, 1)])
def test_every_row_of_a_batch_is_in_one_share_and_none_is_empty(batch: int, count: int, parts: int) -> None:
    shares = [rows for rank in range(count) for rows in Processes(rank, count).rows(batch, parts)]
    assert len(shares) == count * parts
    assert [row for rows in shares for row in range(batch)[rows]] == list(range(batch))
    sizes = [rows.stop - rows.start for rows in shares]
    assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("count", "parts", "message"),
    [
        ("5", 1, "train.batch: 4 are too few networks for 5 processes: set 5 or more, or start fewer"),
        (
            "2",
            3,
            "train.batch: 4 are too few networks for 2 processes in 3 parts each (train.accumulate): set 6 or more",
        ),
        (
            "1",
            5,
            "train.batch: 4 are too few networks for one process in 5 parts each (train.accumulate): set 5 or more",
        ),
    ],
)
def test_a_batch_that_is_too_small_is_refused_before_the_run(
    monkeypatch: pytest.MonkeyPatch, count: str, parts: int, message: str
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", count)
    with pytest.raises(UserError) as caught, leading(("cpu", 32, 1), ("cpu", 4, parts)):
        pytest.fail("the run began")
    assert str(caught.value) == message


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert device_of("auto") == torch.device("cuda")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert device_of("auto") == torch.device("cuda", 1)
    assert device_of("cpu") == torch.device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError) as caught:
        device_of("auto")
    assert str(caught.value) == (
        "device: process 2 of this machine has no GPU: torch sees 2; start no more processes than that"
    )


def test_several_processes_without_accelerate_are_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate.state", None)
    monkeypatch.setattr("wspace.support.processes._launched_with_store", lambda: Processes(0, 2))
    with pytest.raises(MissingPackage) as caught, connected("cpu"):
        pytest.fail("connected")
    assert str(caught.value) == 'several processes need the package accelerate: pip install "wspace[multi]"'
    assert here() == ALONE


# ---------------------------------------------------------------- shares of a batch


@dataclass(frozen=True)
class Thread(Processes):
    """One of several threads that train together, in place of a process."""

    brought: list[list[Tensor]] = field(default_factory=list, compare=False)
    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(1), compare=False)

    def average(self, tensors: Sequence[Tensor]) -> None:
        self.brought[self.rank] = [tensor.clone() for tensor in tensors]
        self.barrier.wait(LONGEST)
        means = [torch.stack(each).mean(0) for each in zip(*self.brought, strict=True)]
        self.barrier.wait(LONGEST)
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.copy_(mean)


OF_SIX = replace(SETTINGS, batch=6, augment=0.5)


@pytest.mark.parametrize("losses", [Losses(), LOSSES], ids=["ordinary", "symmetry and adversarial"])
@pytest.mark.parametrize(("count", "parts"), [(1, 4), (2, 1), (3, 1), (2, 3)])
def test_processes_and_parts_train_as_one_process_does_on_the_whole_batch(
    tmp_path: Path, count: int, parts: int, losses: Losses
) -> None:
    whole = loop_of(tmp_path, settings=OF_SIX)
    train(whole, losses=losses)
    brought, barrier = [[] for _ in range(count)], threading.Barrier(count)
    loops = [
        loop_of(tmp_path, Thread(rank, count, None, brought, barrier), settings=replace(OF_SIX, accumulate=parts))
        for rank in range(count)
    ]
    with ThreadPoolExecutor(count) as threads:
        list(threads.map(lambda loop: train(loop, losses=losses), loops))
    for loop in loops:
        assert_near(state_of(loop), state_of(whole))
        for ours, theirs in zip(loop.log, whole.log, strict=True):
            assert flat(ours) == pytest.approx(flat(theirs), rel=1e-4)


def test_dropout_layers_leave_out_the_same_in_parts(tmp_path: Path) -> None:
    def trained(parts: int, seed: int) -> dict[str, Tensor]:
        loop = loop_of(tmp_path, settings=replace(OF_SIX, accumulate=parts), dropout=0.5)
        for number in (1, 2, 3):
            with seeded(seed + number):
                train(loop, until=number)
        return state_of(loop)

    whole = trained(1, 0)
    assert_near(trained(4, 0), whole)
    with pytest.raises(AssertionError):
        assert_near(trained(4, 10), whole)


def test_one_part_at_a_time_is_in_memory(tmp_path: Path) -> None:
    """What goes into the denoiser at once is a part, and the part before has been descended by then."""
    loop = loop_of(tmp_path, settings=replace(OF_SIX, accumulate=3))
    rows, alive = list[int](), list[weakref.ref[Tensor]]()

    def entered(_: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        rows.append(len(made))
        assert not any(hidden() is not None for hidden in alive)
        alive[:] = [weakref.ref(made)]

    denoiser = system_in(loop).generator.denoiser
    assert isinstance(denoiser, Denoiser)
    denoiser.layers[0].register_forward_hook(entered)
    train(loop, losses=Losses(), until=1)
    assert rows == [2, 2, 2]


@pytest.mark.parametrize(
    "draw",
    [
        lambda n, rng: torch.rand(n, generator=rng),
        lambda n, rng: torch.rand((n, 3), generator=rng),
        lambda n, rng: torch.randn(2 * n, 2, generator=rng),
        lambda n, rng: torch.randn(size=(n,), generator=rng),
        lambda n, rng: torch.randint(9, (n, 2), generator=rng),
        lambda n, rng: torch.randint(2, 9, size=(n,), generator=rng),
        lambda n, rng: torch.zeros(n, 2).normal_(generator=rng),
        lambda n, rng: torch.zeros(n).uniform_(0, 2, generator=rng),
        lambda n, rng: torch.bernoulli(torch.full((n, 4), 0.5), generator=rng),
    ],
)
def test_a_draw_of_a_share_is_its_rows_of_the_whole_draw(draw: Callable[[int, torch.Generator], Tensor]) -> None:
    rng = stream(0)
    whole, after = draw(8, rng), torch.rand((), generator=rng)
    each = len(whole) // 8
    for rows in (slice(0, 3), slice(3, 8)):
        rng = stream(0)
        with Share(rows, 8).drawing(torch.device("cpu")):
            part, then = draw(rows.stop - rows.start, rng), torch.rand((), generator=rng)
        assert torch.equal(part, whole[each * rows.start : each * rows.stop]) and torch.equal(then, after)


# ---------------------------------------------------------------- two processes


def worker(folder: Path) -> None:
    """What each of two processes does in the test below; they start differently, and agree."""
    with connected("cpu") as processes:
        assert here() == processes == Processes(processes.rank, 2)
        if processes.rank:
            sent = processes.received()
            assert next(sent) == {"folder": "ü"}
        else:
            processes.send({"folder": "ü"})
        broken = loop_of(folder, processes)
        weights = WEIGHTS[:8] * (float("nan") if processes.rank else 1)
        with pytest.raises(Diverged, match="the discriminator's loss is nan; lower adversary.lr"):
            train(broken, weights)
        loop = loop_of(folder, processes, seed=processes.rank)
        assert loop.adversary is not None
        processes.agree([*loop.module.state_dict().values(), *loop.adversary.state_dict().values()])
        train(loop, until=STOPPED)
        if not processes.rank:
            loop.save()
        train(loop)
        save_tensors(folder / f"{processes.rank}.safetensors", state_of(loop))
        (folder / f"{processes.rank}.json").write_text(json.dumps(loop.log), encoding="utf-8")
        share_the_optimiser(folder, processes, loop)
        if processes.rank:
            assert list(sent) == []
    assert here() == ALONE


def bytes_of_optimiser(loop: TrainingLoop) -> int:
    return sum(moment.nbytes for state in loop.stepped.state.values() for moment in state.values() if moment.dim())


def share_the_optimiser(folder: Path, processes: Processes, whole: TrainingLoop) -> None:
    """As `whole` was trained, each process with a share of the optimiser's state; and from its checkpoint on."""
    (folder / "sharded").mkdir(exist_ok=True)
    settings, first = replace(SETTINGS, shard_optimizer=True), processes.rank == 0
    sharded = loop_of(folder / "sharded", processes, settings=settings)
    train(sharded, until=STOPPED)
    sharded.save()
    train(sharded)
    went_on = loop_of(folder, processes, seed=3, settings=settings)
    assert went_on.resume() and went_on.step == STOPPED
    train(went_on)
    for loop in (sharded, went_on):
        assert loop.log == whole.log
        assert all(torch.equal(value, state_of(whole)[name]) for name, value in state_of(loop).items())
        assert bool(loop.ema_parameters) == bool(loop.best_parameters) == first
    largest = max(p.nbytes for p in whole.parameters.values())
    assert abs(bytes_of_optimiser(sharded) - bytes_of_optimiser(whole) / 2) <= largest


LAUNCHER = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ALONE_ON_A_CORE = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
LONGEST = 900  # seconds that one command may take: on a machine that does much else, importing torch alone is many


def launch(*command: str) -> subprocess.CompletedProcess[str]:
    """By torchrun, as two processes."""
    return subprocess.run(
        [*LAUNCHER, *command],
        cwd=ROOT,
        env=os.environ | ALONE_ON_A_CORE,
        capture_output=True,
        text=True,
        timeout=LONGEST,
    )


TWINS = """
import json, os, runpy, sys
import accelerate.utils, torch
from wspace.cli.deferred import deferred
with deferred():
    from diffusers.schedulers import scheduling_dpmsolver_multistep

folder, module, *rest = sys.argv[1:]
sys.argv[1:] = rest
started = []
for rank in "01":
    if not (process := os.fork()):
        os.environ |= {"RANK": rank, "LOCAL_RANK": rank}
        for place, name in enumerate(("out", "err"), 1):
            os.dup2(os.open(f"{folder}/{rank}.{name}", os.O_CREAT | os.O_WRONLY), place)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        break
    started.append(process)
else:
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in started]))
"""
"""Two processes that differ from those of a launcher in nothing but that they imported once what takes seconds."""


@dataclass(frozen=True)
class End:
    status: int
    out: str
    err: str


def start_two(folder: Path, module: str, *arguments: str) -> list[End]:
    """`python -m` of this module as two processes: without a third, as torchrun is, that starts them and sees to them."""
    folder.mkdir(parents=True)
    with kept_port() as port:
        place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        done = subprocess.run(
            [sys.executable, "-c", TWINS, str(folder), module, *arguments],
            cwd=ROOT, env=os.environ | ALONE_ON_A_CORE | place, capture_output=True, text=True, timeout=LONGEST,
        )  # fmt: skip
    said = [[(folder / f"{rank}.{name}").read_text("utf-8") for name in ("out", "err")] for rank in "01"]
    assert done.returncode == 0, (done.stderr, said)
    return [End(status, *texts) for status, texts in zip(json.loads(done.stdout), said, strict=True)]


@pytest.mark.slow
def test_two_processes_train_as_one_does_and_one_goes_on_where_they_stopped(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ends = start_two(tmp_path_factory.mktemp("said") / "both", "tests.support.test_processes", str(tmp_path))
    assert [end.status for end in ends] == [0, 0], ends
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    logs = [json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]
    assert logs[0] == logs[1]

    checkpoint = "checkpoint.safetensors"
    assert (tmp_path / checkpoint).read_bytes() == (tmp_path / "sharded" / checkpoint).read_bytes()
    alone, restarted = loop_of(tmp_path / "alone"), loop_of(tmp_path / "sharded", seed=2)
    start = {name: value.clone() for name, value in state_of(alone).items()}
    train(alone)
    restarted.resume()
    assert restarted.step == STOPPED
    train(restarted)
    for loop in (alone, restarted):
        assert_near(first, state_of(loop))
        assert [entry.keys() for entry in loop.log] == [entry.keys() for entry in logs[0]]
        for ours, theirs in zip(loop.log, logs[0], strict=True):
            assert flat(ours) == pytest.approx(flat(theirs), rel=1e-4)
    moved = [name for name, value in start.items() if name in first and not torch.equal(first[name], value)]
    assert len(moved) > len(alone.parameters) // 2


RESTARTED = """
import os, sys, torch
from wspace.support.processes import connected

start = os.environ["TORCHELASTIC_RESTART_COUNT"]
with connected("cpu") as processes:
    if processes.rank:
        assert next(processes.received()) == {"start": start}
    else:
        processes.send({"start": start})
    rank = torch.tensor([float(processes.rank)])
    processes.average([rank])
    assert rank.item() == 0.5
    if start == "0" and processes.rank:
        os._exit(9)
    sys.stdout.write(f"start {start}\\n")  # in one piece: both processes write to one pipe
"""


@pytest.mark.slow
def test_processes_that_torchrun_starts_again_do_not_hear_the_dead(tmp_path: Path) -> None:
    """torchrun keeps its store; the first start's addresses and messages are still in it."""
    program = tmp_path / "program.py"
    program.write_text(RESTARTED, encoding="utf-8")
    done = launch("--max-restarts", "1", str(program))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines().count("start 1") == 2


RECIPE = """
dataset: {{use: timm, name: torch/image_folder, path: {path}, test: test, size: 16}}
backbone: {{use: pixels, side: 4}}
text: minilm
target: {{use: module, architecture: {{use: mlp, hidden: [2], activation: tanh}}}}
tasks: {{seen: 20, unseen: 6, classes: [2, 4], evaluate: 4, unseen_classes: 0}}
zoo: {{base_steps: 5, steps: 5, batch: 8}}
opponents: {{steps: 20, universal_steps: 20, rates: [1e-3]}}
symmetry: sign-permutation
tokenizer: {{use: neuron, axis: hidden1}}
conditioner: text-set
generator: {{use: diffusion, denoiser: {{use: mlp, width: 8, depth: 1}}}}
losses: {{symmetry: 0.1}}
task_loss: {{steps: 2, batch: 4}}
train: {{steps: 6, batch: 4, check_every: 2, align: true}}
generate: {{steps: 2}}
metrics: [accuracy]
evaluate: {{bootstrap: 100}}
device: cpu
"""


def recipe_in(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("test", 2)):
        for k in range(6):
            (folder / "data" / split / f"thing {k}").mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 60, (16, 16, 3)) + 30 * k
                Image.fromarray(pixels.astype(np.uint8)).save(folder / "data" / split / f"thing {k}" / f"{i}.png")
    file = folder / "small.yaml"
    file.write_text(RECIPE.format(path=folder / "data"), encoding="utf-8")
    return file


@pytest.mark.slow
def test_the_train_stage_of_two_processes(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    bound = bind(read_recipe(recipe), load_plugins().registry)
    pipeline.run(bound, tmp_path, Progress(), only="zoo")
    first, other = start_two(
        tmp_path / "said", "wspace", "run", str(recipe), "--runs", str(tmp_path), "--only", "train"
    )
    assert first.status == other.status == 0, (first, other)
    assert first.out == f"{tmp_path / 'small'}\n" and other.out == ""
    assert (first.err + other.err).count("train starts") == 1
    (folder,) = (tmp_path / "small").glob("train-*")
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["processes"] == 2 and summary["steps"] == {"task": 2, "train": 6}
    assert {file.name for file in folder.iterdir()} == {
        "artifact.json", "elapsed.json", "generator.safetensors", "log.jsonl", "said.safetensors", "summary.json",
    }  # fmt: skip
    steps = {step.stage.name: step.action for step in pipeline.steps(bound, Store(tmp_path / "small"))}
    assert steps["zoo"] == steps["train"] == "cached"


@pytest.mark.slow
def test_what_two_processes_are_worth_is_measured_by_them() -> None:
    done = launch("-m", "wspace", "bench", "training", "--recipe", "core", "--steps", "1", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["recipe"], result["processes"], result["batch"]) == ("core", 2, 16)
    assert len(result["seconds"]) == len(result["processor_seconds"]) == 2
    assert result["speedup"] == pytest.approx(result["seconds"][0] / result["seconds"][1])


# ---------------------------------------------------------------- several runs of one command


def assert_runs_alike(two: Path, one: Path) -> None:
    """What two processes made, and one: the same zoos and opponents, and generators up to rounding."""
    made = sorted(file.relative_to(one) for file in one.rglob("*.safetensors"))
    assert made and made == sorted(file.relative_to(two) for file in two.rglob("*.safetensors"))
    for file in made:
        if file.parent.name.startswith(("zoo-", "opponents-")):
            assert (two / file).read_bytes() == (one / file).read_bytes(), file
        elif file.name == "generator.safetensors":
            ours, theirs = (torch.cat([t.flatten() for t in load_file(at / file).values()]) for at in (two, one))
            assert float((ours - theirs).norm()) <= 1e-3 * float(theirs.norm()), file
            assert json.loads((two / file.parent / "summary.json").read_text(encoding="utf-8"))["processes"] == 2


def run_twice(recipe: Path | str, folder: Path, *settings: str) -> None:
    """By two processes and by one; their runs are alike."""
    chosen = [word for setting in settings for word in ("--set", setting)]
    command = ["-m", "wspace", "run", str(recipe), *chosen, "--runs"]
    done = launch(*command, str(folder / "two"))
    assert done.returncode == 0, done.stderr
    subprocess.run(
        [sys.executable, *command, str(folder / "one")],
        cwd=ROOT, env=os.environ | ALONE_ON_A_CORE, check=True, capture_output=True, timeout=LONGEST,
    )  # fmt: skip
    assert_runs_alike(folder / "two", folder / "one")


@pytest.mark.slow
def test_two_processes_share_each_run_of_a_study(tmp_path: Path) -> None:
    recipe_in(tmp_path)
    study = tmp_path / "lengths.yaml"
    study.write_text("study: small.yaml\nseeds: [1]\nvariants: {short: {train.steps: 4}, long: {}}\n", encoding="utf-8")
    run_twice(study, tmp_path)


@pytest.mark.slow
@pytest.mark.plugins("igpg", "t2w")
def test_two_processes_share_a_joint_training_and_the_runs_of_its_members(tmp_path: Path) -> None:
    short = (
        "train={steps: 6, check_every: 3, batch: 8, lr: 5e-3}",
        "opponents={steps: 4, universal_steps: 8, rates: [3e-3]}",
    )
    run_twice("igpg-nano", tmp_path, *short, "reconstruction.most_lost=1")


def test_recipes_on_several_devices_are_no_command_for_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError) as caught, leading(("cpu", 8, 1), ("auto", 8, 1)):
        pytest.fail("the run began")
    assert str(caught.value) == (
        "device: the processes of a launcher compute on one kind of device, and recipes name auto and cpu; "
        "--set device=auto says the same of all"
    )


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.slow
def test_what_is_wrong_is_printed_once_and_all_processes_end_with_its_status(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    first, other = start_two(tmp_path / "said", "wspace", "run", "no-such", "--runs", str(runs))
    assert first.status == other.status == 2 and other.err == ""
    assert first.err.startswith("error: no-such: no such file, and no packaged recipe of that name")
    assert len(first.err.splitlines()) == 1 and not runs.exists()


@pytest.mark.slow
def test_a_training_that_diverges_is_told_once(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    first, other = start_two(
        tmp_path / "said", "wspace", "run", str(recipe), "--runs", str(tmp_path), "--set", "train.lr=1e38"
    )
    assert first.status == other.status == 1 and other.err == ""
    assert first.err.splitlines()[-1].startswith("error: ") and first.err.count("lower train.lr") == 1


def test_what_ends_another_process_is_told_by_its_number_unless_the_first_has_failed_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = Processes(1, 2, HashStore())
    monkeypatch.setattr("wspace.support.processes._launched_with_store", lambda: other)
    monkeypatch.setattr("wspace.support.processes._grouped", lambda *_: None)
    monkeypatch.setattr("wspace.support.processes.GRACE", 0.1)
    with pytest.raises(UserError) as told, connected():
        raise UserError("lacks a folder")
    assert str(told.value) == f"process 1 ({platform.node()}): lacks a folder"
    other.store.set("failed", "1")
    with pytest.raises(SystemExit) as quiet, connected():
        raise UserError("lacks a folder")
    assert quiet.value.code == 1 and other.store.check(["left 1"])
    with pytest.raises(SystemExit), connected() as waiting:
        next(waiting.received())


class Launched:
    """`torchrun wspace run`, and what it prints meanwhile."""

    def __init__(self, *command: str):
        self.process = subprocess.Popen(
            [*LAUNCHER, *command], cwd=ROOT, env=os.environ | ALONE_ON_A_CORE, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def until(self, line: str) -> None:
        assert self.process.stderr is not None
        said = list[str]()
        while not said or line not in said[-1]:  # beside which torchrun may have begun one of its own
            said.append(self.process.stderr.readline().rstrip("\n"))
            assert said[-1] or self.process.poll() is None, said

    def worker(self, rank: int) -> int:
        """The process with this number."""
        environments = {
            int(folder.name): (folder / "environ").read_bytes().split(b"\0")
            for folder in Path("/proc").iterdir()
            if folder.name.isdigit() and self._is_ours(folder)
        }
        (number,) = (pid for pid, of_it in environments.items() if f"RANK={rank}".encode() in of_it)
        return number

    def _is_ours(self, folder: Path) -> bool:
        try:
            return int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == self.process.pid
        except OSError:  # it has just ended
            return False


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_launcher_that_is_ended_has_ended_all_at_once_and_one_says_so(tmp_path: Path, by: signal.Signals) -> None:
    """While the first makes a base, for which the others wait."""
    recipe = recipe_in(tmp_path)
    started = Launched("-m", "wspace", "run", str(recipe), "--runs", str(tmp_path), "--set", "zoo.base_steps=10000000")
    started.until("zoo starts")
    time.sleep(1)  # into the base; whatever the others are at by then, they end
    started.process.send_signal(by)
    said = started.process.communicate(timeout=LONGEST)[1]
    assert "forcefully" not in said  # as torchrun says of those that are still there after 30 s, which it kills
    word = "terminated" if by is signal.SIGTERM else "interrupted"
    assert said.count("the same command goes on") == said.count(f"{word}: the same command goes on from here") == 1
    assert "rank1" not in said and "error:" not in said


@pytest.mark.slow
def test_processes_killed_in_training_are_started_again_and_nothing_is_lost(tmp_path: Path) -> None:
    """The second first, then the first one."""
    recipe = recipe_in(tmp_path)
    command = ["-m", "wspace", "run", str(recipe), "--set", "train={steps: 300, batch: 4, check_every: 20}", "--runs"]
    whole = launch(*command, str(tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    killed = Launched("--max-restarts", "2", *command, str(tmp_path / "killed"))
    for rank in (1, 0):
        killed.until("train starts")  # those of the start before are gone
        before = _checkpointed(tmp_path / "killed")
        while _checkpointed(tmp_path / "killed") == before:
            assert killed.process.poll() is None
            time.sleep(0.02)
        os.kill(killed.worker(rank), signal.SIGKILL)
    said = killed.process.communicate(timeout=LONGEST)[1]
    assert killed.process.returncode == 0, said
    assert said.count("train starts") == 1
    made, expected = (next((tmp_path / name).glob("small/train-*")) for name in ("killed", "whole"))
    assert (made / "generator.safetensors").read_bytes() == (expected / "generator.safetensors").read_bytes()
    assert (made / "log.jsonl").read_bytes() == (expected / "log.jsonl").read_bytes()


def _checkpointed(runs: Path) -> int:
    """When the checkpoint of the generator's own loss was last written, in nanoseconds; 0 if it has not been."""
    files = runs.glob("small/train-*.partial/train.checkpoint.safetensors")
    times = []
    for file in files:
        with suppress(FileNotFoundError):  # the stage is done
            times.append(file.stat().st_mtime_ns)
    return max(times, default=0)


# ---------------------------------------------------------------- half precision


def test_half_precision_is_the_generators_alone(tmp_path: Path) -> None:
    """The denoiser multiplies in bfloat16; losses, parameters, gradients and the discriminator stay in float32."""
    seen: dict[str, set[torch.dtype]] = {"denoiser": set(), "discriminator": set()}
    whole, half = loop_of(tmp_path), loop_of(tmp_path)
    assert half.adversary is not None and isinstance(system_in(half).generator.denoiser, Denoiser)
    system_in(half).generator.denoiser.enter.register_forward_hook(lambda *call: seen["denoiser"].add(call[2].dtype))
    half.adversary.discriminator.register_forward_hook(lambda *call: seen["discriminator"].add(call[2].dtype))
    train(whole)
    train(half, precision="bfloat16")
    assert seen == {"denoiser": {torch.bfloat16}, "discriminator": {torch.float32}}
    states = state_of(whole), state_of(half)
    assert all(value.dtype == torch.float32 for value in states[1].values())
    assert any(not torch.equal(value, states[1][name]) for name, value in states[0].items())
    for ours, theirs in zip(half.log, whole.log, strict=True):
        assert ours["terms"]["denoising"] == pytest.approx(theirs["terms"]["denoising"], rel=0.05)


def test_precision_belongs_to_the_training_and_what_follows() -> None:
    source, registry = read_recipe(ROOT / "recipes/core.yaml"), load_plugins().registry
    assert bind(source, registry).precision == "float32"
    half = bind(replace(source, values=source.values | {"precision": "bfloat16"}), registry)
    before, after = keys(bind(source, registry), STAGES), keys(half, STAGES)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"train", "generate", "evaluate", "report"}


def test_who_keeps_what_the_optimiser_keeps_is_no_part_of_the_recipe_of_a_run() -> None:
    source, registry = read_recipe(ROOT / "recipes/core.yaml"), load_plugins().registry
    with_it = read_recipe(ROOT / "recipes/core.yaml", ["train.shard_optimizer=true"])
    whole, sharded = bind(source, registry), bind(with_it, registry)
    assert (whole.train.shard_optimizer, sharded.train.shard_optimizer) == (False, True)
    assert keys(whole, STAGES) == keys(sharded, STAGES) and whole.decisive == sharded.decisive


if __name__ == "__main__":
    worker(Path(sys.argv[1]))
