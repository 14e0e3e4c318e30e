"""The documentation runs: every block of the tutorial, in order, in one folder."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_block_of_the_tutorial_runs(nano, tmp_path):
    """Its first run is the one that other tests have made: it finds everything done."""
    shutil.copytree(nano, tmp_path / "runs/nano")
    run_blocks("docs/tutorial.md", 8, tmp_path)


def test_every_block_about_symmetries_runs(tmp_path):
    run_blocks("docs/symmetries.md", 4, tmp_path)


def run_blocks(page, at_least, tmp_path):
    blocks = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    assert len(blocks) >= at_least
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    names: dict[str, object] = {}
    for language, code in blocks:
        if language == "python":  # later blocks use the names of earlier ones
            with contextlib.chdir(tmp_path):
                exec(compile(code, page, "exec"), names)
            continue
        command = ["bash", "-euo", "pipefail", "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"


def test_the_readme_and_ci_call_the_same_commands():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    for command in ("pip install -q uv && uv run wspace run recipes/t2w.yaml", "pip install -q uv && uv run pytest"):
        assert command in readme and command in script


def test_files_the_readme_names_are_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"\]\((docs/[\w./-]+)\)", readme) + re.findall(r"`(wspace/[\w./-]+)`", readme)
    assert len(named) > 15
    for name in named:
        if "Ks/" not in name:
            assert (ROOT / name).exists(), name
