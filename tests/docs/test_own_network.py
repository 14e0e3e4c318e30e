"""A network of one's own, as docs/writing-plugins.md has it: run, generated, and loaded by its own class; its batch norm."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from tests.support.stand_ins import Units
from tests.support.undrawn import undrawn
from wspace.learning.fitting import calibrated
from wspace.runs.run import Run
from wspace.support.seeding import stream
from wspace.testing import cases
from wspace.weights.proof import prove

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[2] / "docs/writing-plugins.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## Your own network\n")[2].partition("\n## ")[0]
SMALLER = (
    "target.architecture.channels=8", "tasks.seen=24", "tasks.unseen=6", "tasks.evaluate=4", "zoo.base_steps=30",
    "zoo.base_lr=1e-2", "zoo.lr=1e-2", "zoo.steps=15", "zoo.together=12", "opponents.steps=10",
    "opponents.universal_steps=10", "opponents.check_every=5", "opponents.rates=[1e-2]", "task_loss.steps=4",
    "train.steps=4", "train.check_every=4", "task_loss.check_every=4", "evaluate.bootstrap=100",
)  # fmt: skip
"""Of the page's run, to save time."""

Wspace = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, inside: Wspace) -> Iterator[Path]:
    """Where the page's commands have been run."""
    folder = tmp_path_factory.mktemp("own")
    (code,) = re.findall(r"^```python residual.py\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
    (folder / "residual.py").write_text(code, encoding="utf-8")
    (commands,) = re.findall(r"^```console\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
    with contextlib.chdir(folder), undrawn():
        for line in commands.splitlines():
            command, verb, *arguments = shlex.split(line)
            assert command == "wspace"
            smaller = [word for setting in SMALLER for word in ("--set", setting)] if verb == "run" else []
            done = inside(verb, *arguments, *smaller)
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    yield folder
    sys.modules.pop("residual", None)


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return Run.open(folder / "runs-own/module", [folder / "residual.py"])


def test_the_pages_factory_keeps_the_contract(folder: Path) -> None:
    asked = cases(str(folder / "residual.py"))
    assert len(asked) > 8
    for case in asked:
        case.run()


def test_the_file_is_a_state_dict_of_the_module(folder: Path, run: Run, inside: Wspace) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    with contextlib.chdir(folder):
        exec(compile(code.replace("Residual()", "Residual(8)"), "docs/writing-plugins.md", "exec"), names)
    saved = load_file(folder / "network.safetensors")
    assert saved["1.norm.num_batches_tracked"].dtype == torch.int64 and saved["1.norm.running_var"].gt(0).all()

    classes = run.zoo.classes[:4]
    done = inside("generate", run.folder, "--classes", ", ".join(classes), "--out", folder / "known.safetensors",
                  "--plugin", folder / "residual.py")  # fmt: skip
    assert done.returncode == 0, done.stderr
    scored = inside("score", run.folder, folder / "known.safetensors", "--json", "--plugin", folder / "residual.py")
    network = names["network"]
    network.load_state_dict(load_file(folder / "known.safetensors"))
    features, labels = run.bench.test.of_task((0, 1, 2, 3))
    with torch.no_grad():
        outputs = network.eval()(features.view(-1, 3, 16, 16))
    predicted = functional.cosine_similarity(outputs[:, None], run.bench.class_texts[None, :4], dim=2).argmax(1)
    assert json.loads(scored.stdout)["accuracy"] == pytest.approx(float((predicted == labels).float().mean()))


def test_every_method_is_scored_with_statistics_of_training_images(run: Run) -> None:
    tasks = run.zoo.tasks.scored("unseen-tasks")
    generated = load_file(run.artifacts["generate"] / "generated-unseen-tasks.safetensors")["weights"]
    for weights in (generated, run.opponents.oracle("unseen-tasks")):
        torch.testing.assert_close(run.calibrated(weights, tasks), weights, rtol=1e-4, atol=1e-4)  # they were already
    report = json.loads((run.artifacts["report"] / "report.json").read_text())
    scored = {row["method"] for row in report["scores"] if row["metric"] == "accuracy"}
    assert {"generated", "oracle", "zoo-mean", "ridge", "random"} <= scored


def test_statistics_that_are_wrong_are_taken_anew(run: Run) -> None:
    """Those of the zoo's networks come back, whatever stood there: they depend on weights and training images alone."""
    tasks = run.zoo.tasks.training
    trained, bench = run.zoo.weights[: len(tasks)], run.bench
    tensors = run.target.spec.unflatten(trained.clone())
    for name in run.target.statistics:
        tensors[name] = 9 * tensors[name] + 3
    anew = calibrated(run.target, run.target.spec.flatten(tensors), tasks, bench.train, bench.class_texts)
    torch.testing.assert_close(anew, trained, rtol=1e-3, atol=1e-3)


def test_test_images_have_no_part_in_statistics(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = run.zoo.tasks.scored("unseen-tasks")
    before = run.sample(tasks, stream(0, "draw"))
    monkeypatch.setitem(vars(run.bench), "test", None)
    monkeypatch.setitem(vars(run.bench), "val", None)
    assert torch.equal(run.sample(tasks, stream(0, "draw")), before)


def test_the_symmetry_of_the_residual_stream_is_found(run: Run) -> None:
    assert len(run.target.spec.free) == 1, "both blocks add to what the first convolution gives"
    prove(Units(spec=run.target.spec), run.target, "permutation", (768, 384), stream(0, "proof"))
