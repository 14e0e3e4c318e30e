"""Several processes at the generator's training, and half precision in it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from tests.learning.test_training_loop import ADVERSARY, PROMPTS, SETTINGS, SPEC, WEIGHTS, system_of
from tests.support.stand_ins import Judge, Units
from wspace.components.denoisers.mlp import MLP as Denoiser
from wspace.learning.adversary import Adversary
from wspace.learning.loop import TrainingLoop
from wspace.learning.phases import GeneratorStep, TrainingPairs, TrainingSet, generator_parameters
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
from wspace.support.seeding import stream
from wspace.support.settings import Losses

ROOT = Path(__file__).parents[2]
STEPS = 6
LOSSES = Losses(symmetry=0.1, adversarial=0.1)


def loop_of(folder: Path, processes: Processes = ALONE, seed: int = 0) -> TrainingLoop:
    system = system_of(seed).eval()
    torch.manual_seed(seed)
    adversary = Adversary(Judge(6, layout=system.tokenizer.layout), ADVERSARY, STEPS, processes)
    checkpoint, trained = folder / "checkpoint.safetensors", generator_parameters(system)
    return TrainingLoop(system, SETTINGS, checkpoint, trained, adversary=adversary, processes=processes)


def system_in(loop: TrainingLoop) -> System:
    assert isinstance(loop.module, System)
    return loop.module


def train(loop: TrainingLoop, weights: Tensor = WEIGHTS[:8], precision: str = "float32") -> None:
    step = GeneratorStep(
        TrainingSet((TrainingPairs(system_in(loop), weights, PROMPTS[:8]),)),
        SETTINGS,
        LOSSES,
        torch.device("cpu"),
        batch=loop.processes.share(SETTINGS.batch),
        symmetry=Units(spec=SPEC),
        adversary=loop.adversary,
        precision=precision,
    )
    while loop.step < STEPS:
        loop.advance(*step(loop.step, stream(0, "train", loop.step, *loop.processes.own_stream)))


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
    assert value.tolist() == [1.5, -2.0] and ALONE.share(7) == 7 and ALONE.own_stream == ()
    assert ALONE.averaged({"loss": value[0]}) == {"loss": value[0]}
    assert here() == launched() == ALONE and gpu_of_this() is None


def test_a_batch_is_shared_out_evenly_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Processes(1, 4).share(32) == 8 and Processes(1, 4).own_stream == (1,)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError) as caught, leading("cpu", 4):
        pytest.fail("the run began")
    assert str(caught.value) == "train.batch: 4 cannot be shared out evenly among 3 processes"


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
    with pytest.raises(MissingPackage) as caught, connected(torch.device("cpu")):
        pytest.fail("connected")
    assert str(caught.value) == 'several processes need the package accelerate: pip install "wspace[multi]"'
    assert here() == ALONE


# ---------------------------------------------------------------- two processes


def worker(folder: Path) -> None:
    """What each of two processes does in the test below; they start differently, and agree."""
    with connected(torch.device("cpu")) as processes:
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
        train(loop)
        save_tensors(folder / f"{processes.rank}.safetensors", state_of(loop))
        (folder / f"{processes.rank}.json").write_text(json.dumps(loop.log), encoding="utf-8")
        if processes.rank:
            assert list(sent) == []
    assert here() == ALONE


def launch(count: int, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count))
    return subprocess.run(
        [sys.executable, *launcher, *command],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_two_processes_train_as_one_does_on_the_batches_of_both(tmp_path: Path) -> None:
    program = "import sys, pathlib, tests.support.test_processes as t; t.worker(pathlib.Path(sys.argv[1]))"
    with socket.create_server(("localhost", 0)) as free:  # what torchrun would say, without a third process to say it
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            cwd=ROOT,
            env=os.environ | place | {"RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    errors = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], errors
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    logs = [json.loads((tmp_path / f"{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]
    assert logs[0] == logs[1]

    loop, symmetry = loop_of(tmp_path), Units(spec=SPEC)
    adversary, system = loop.adversary, system_in(loop)
    assert adversary is not None
    start = {name: value.clone() for name, value in state_of(loop).items()}
    for number in range(STEPS):
        total, tokens, generated = torch.zeros(()), [], []
        for names in ((), (1,)):
            rng = stream(0, "train", number, *names)
            rows = torch.randint(8, (SETTINGS.batch // 2,), generator=rng)
            moves = system.moves(symmetry, SETTINGS.batch // 2, rng, augment=0.0, penalty=True)
            pairs = system.pairs(WEIGHTS[rows], PROMPTS[rows], moves)
            terms = system.generator.loss(pairs, rng)
            total = total + (terms["denoising"] + LOSSES.symmetry * terms["symmetry"]) / 2
            tokens.append(pairs.tokens)
            generated.append(system.generator.estimate(pairs, ADVERSARY.noise, rng))
        if adversary.learns_at(number):
            adversary.learn(torch.cat(tokens), torch.cat(generated))
        else:
            total = total + LOSSES.adversarial * adversary.judge(torch.cat(generated))
        loop.advance(total, {})
        assert logs[0][number]["loss"] == pytest.approx(loop.log[number]["loss"], rel=1e-4)
        assert logs[0][number]["gradient"] == pytest.approx(loop.log[number]["gradient"], rel=1e-3)
    for name, value in state_of(loop).items():
        torch.testing.assert_close(first[name], value, rtol=1e-3, atol=1e-4)
    moved = [name for name, value in start.items() if name in first and not torch.equal(first[name], value)]
    assert len(moved) > len(loop.parameters) // 2


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


def test_the_train_stage_of_two_processes(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path)
    bound = bind(read_recipe(recipe), load_plugins().registry)
    pipeline.run(bound, tmp_path, Progress(), only="zoo")
    done = launch(2, "-m", "wspace", "run", str(recipe), "--runs", str(tmp_path), "--only", "train")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'small'}\n" and done.stderr.splitlines().count("train starts") == 1
    (folder,) = (tmp_path / "small").glob("train-*")
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["processes"] == 2 and summary["steps"] == {"task": 2, "train": 6}
    assert {file.name for file in folder.iterdir()} == {
        "artifact.json", "elapsed.json", "generator.safetensors", "log.jsonl", "said.safetensors", "summary.json",
    }  # fmt: skip
    steps = {step.stage.name: step.action for step in pipeline.steps(bound, Store(tmp_path / "small"))}
    assert steps["zoo"] == steps["train"] == "cached"


def test_a_study_is_refused_to_several_processes(tmp_path: Path, wspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = wspace("run", ROOT / "recipes/tables/table1.yaml", "--runs", tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: a study runs in one process: start it without torchrun or accelerate\n"
    assert list(tmp_path.iterdir()) == []


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
