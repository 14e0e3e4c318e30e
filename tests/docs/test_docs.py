"""The documentation runs: every block of the tutorial, in order, in one folder."""

from __future__ import annotations

import contextlib
import glob
import itertools
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.undrawn import undrawn

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


SHORTER = {
    "dataset={use: folder, path: pictures, size: 64}": (
        "tasks.seen=48", "tasks.unseen=8", "tasks.evaluate=4", "zoo.base_steps=20", "zoo.steps=10", "opponents.steps=5",
        "opponents.universal_steps=10", "opponents.rates=[3e-3]", "train.steps=8", "train.check_every=8",
        "task_loss.steps=8", "task_loss.check_every=8", "evaluate.bootstrap=100",
    ),
    "generator.denoiser.use=mlp": (
        "train.steps=8", "train.check_every=8", "task_loss.steps=8", "task_loss.check_every=8",
    ),
}  # fmt: skip
"""To save time: a setting of the pages -> what is set besides. What it takes to run is looked at elsewhere."""


@pytest.mark.slow
def test_every_block_of_the_tutorial_runs(nano, inside, tmp_path):
    """Its first run is the one that other tests have made, figures and all: it finds everything done."""
    shutil.copytree(nano, tmp_path / "runs/nano")
    run_blocks("docs/tutorial.md", 8, inside, tmp_path)


@pytest.mark.slow
def test_every_block_of_python_about_exports_runs(nano, tmp_path, capsys):
    shutil.copytree(nano, tmp_path / "runs/nano")
    page = (ROOT / "docs/export.md").read_text(encoding="utf-8")
    module, of_torch = (code for language, code in BLOCK.findall(page) if language == "python")
    names: dict[str, object] = {}
    with contextlib.chdir(tmp_path):
        exec(compile(module, "docs/export.md", "exec"), names)
        run, classes = names["run"], names["classifier"].classes
        run.export(run.generate(classes), "torch", "head.pt2")
        side = names["classifier"].side
        assert "96, 96" in of_torch  # the default recipe's
        exec(compile(of_torch.replace("96, 96", f"{side}, {side}"), "docs/export.md", "exec"), {})
    assert names["probabilities"].shape == (2, 3)
    assert names["probabilities"].sum(1).tolist() == pytest.approx([1, 1])
    assert capsys.readouterr().out.startswith(f"{[*classes]} tensor([[")


@pytest.mark.slow
def test_every_block_about_symmetries_runs(inside, tmp_path):
    run_blocks("docs/symmetries.md", 4, inside, tmp_path)


def run_blocks(page, at_least, inside, folder):
    """Commands of ours in this process, which has imported torch; others as the shell runs them."""
    blocks = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    assert len(blocks) >= at_least
    names: dict[str, object] = {}
    with contextlib.chdir(folder), undrawn():
        for language, code in blocks:
            if language == "python":  # later blocks use the names of earlier ones
                exec(compile(code, page, "exec"), names)
                continue
            for line in code.replace("\\\n", " ").splitlines():
                done = command(line, inside)
                assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


def command(line, inside):
    """What a line of a page comes to, run where we are."""
    program, *words = shlex.split(line, comments=True) or [""]
    if program != "wspace" or {"|", "||", "&", "&&", ";", ">", ">>", "<"} & set(words):
        return subprocess.run(["bash", "-euo", "pipefail", "-c", line], capture_output=True, text=True, timeout=300)
    more = [part for setting, others in SHORTER.items() if setting in words for part in others]
    files = [sorted(glob.glob(word)) if "*" in word else [word] for word in words]
    return inside(*itertools.chain(*files), *(part for setting in more for part in ("--set", setting)))


def test_the_readme_and_ci_call_the_same_commands():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    for command in ("pip install -q uv && uv run wspace run recipes/unseen.yaml", "pip install -q uv && uv run pytest"):
        assert command in readme and command in script


def test_ci_runs_what_is_slow_as_well():
    assert "uv run pytest --slow " in (ROOT / ".ci/run").read_text(encoding="utf-8")


def test_files_the_readme_names_are_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"\]\((docs/[\w./-]+)\)", readme) + re.findall(r"`(wspace/[\w./-]+)`", readme)
    assert len(named) > 15
    for name in named:
        if "Ks/" not in name:
            assert (ROOT / name).exists(), name


NAMED = re.compile(r"`([\w.]+)`(?: \([^)]*\))?(?: and `([\w.]+)`(?: \([^)]*\))?)?,? in\s+`(wspace/[\w/]+\.py)`")
"""`A.b` (what it is) and `C.d` (what it is) in `wspace/file.py`."""


def test_what_the_architecture_names_is_in_the_file_that_it_names():
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    pairs = [(name, file) for first, second, file in NAMED.findall(page) for name in (first, second) if name]
    assert len(pairs) >= 12
    for name, file in pairs:
        source = (ROOT / file).read_text(encoding="utf-8")
        for part in name.split("."):
            defined = rf"^ *(?:(?:def|class) {part}\b|{part}(?:: [^=\n]+)? = )"
            assert re.search(defined, source, re.MULTILINE), f"{name} in {file}"


def test_files_the_architecture_names_are_there():
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:\w+/)+(?:\w+\.py)?)`", page)
    assert len(named) > 30
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "wspace" / name).exists(), name
