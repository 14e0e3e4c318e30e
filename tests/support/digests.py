"""Do two run folders hold the same tensors and scores? What "bytes must not change" is checked with.

On one machine, run some recipes with the code before a change and with the code after it, and compare:

    uv run wspace run nano --runs runs-before     # in a checkout of before
    uv run wspace run nano --runs runs-after
    uv run python -m tests.support.digests runs-before runs-after nano

Artifacts are compared stage by stage, whatever their folders are called: keys may change, what they stand for may not.
Exit status: 0 the same, 1 something differs (a line for each thing that does), 2 there is nothing to compare.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from wspace.support.names import RUN, SCORES
from wspace.support.quantities import counted

COMPARED = ("scores", "differences")
"""Of `scores.json`: what must be equal. What stands beside them (seconds, say) may differ."""


def digests(file: Path) -> dict[str, str]:
    """Of each tensor in a safetensors file, by name: a hash of dtype, shape and bytes. Metadata have no part in it."""
    with safe_open(file, "pt") as opened:
        return {name: _digest(opened.get_tensor(name)) for name in sorted(opened.keys())}


def _digest(tensor: torch.Tensor) -> str:
    content = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + content).hexdigest()


def runs_in(folder: Path) -> list[Path]:
    """The runs at or below a folder, relative to it: one of an ordinary recipe, one for each member of others."""
    return sorted(file.parent.relative_to(folder) for file in folder.rglob(RUN))


def tensor_files(artifact: Path) -> list[Path]:
    return sorted(file.relative_to(artifact) for file in artifact.rglob("*.safetensors"))


def differences(before: Path, after: Path) -> Iterator[str]:
    """What of a run, or of the members of a study or a joint recipe, is not the same: a line each."""
    for run in sorted({*runs_in(before), *runs_in(after)}):
        name = before.name if run == Path() else f"{before.name}/{run}"
        sides = before / run, after / run
        if missing := [str(side) for side in sides if not (side / RUN).is_file()]:
            yield f"{name}: no run in {missing[0]}"
            continue
        yield from _of_run(name, *sides)


def _of_run(name: str, before: Path, after: Path) -> Iterator[str]:
    first, second = ({stage: side / folder for stage, folder in _read(side / RUN)["stages"].items()}
                     for side in (before, after))  # fmt: skip
    for stage in sorted(first.keys() ^ second.keys()):
        yield f"{name}: stage {stage} is in one of them only"
    for stage in [stage for stage in first if stage in second]:
        yield from _of_artifact(f"{name} {stage}", first[stage], second[stage])


def _of_artifact(name: str, before: Path, after: Path) -> Iterator[str]:
    files = tensor_files(before), tensor_files(after)
    for file in sorted(set(files[0]) ^ set(files[1])):
        yield f"{name}: {file} is in one of them only"
    for file in [file for file in files[0] if file in files[1]]:
        ours, theirs = digests(before / file), digests(after / file)
        for tensor in sorted(ours.keys() | theirs.keys()):
            if ours.get(tensor) != theirs.get(tensor):
                yield f"{name}: {file}: {tensor} differs"
    if (before / SCORES).is_file() or (after / SCORES).is_file():
        ours, theirs = (_read(side / SCORES) if (side / SCORES).is_file() else {} for side in (before, after))
        yield from (f"{name}: {SCORES}: {key} differ" for key in COMPARED if ours.get(key) != theirs.get(key))


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def main(arguments: Sequence[str]) -> int:
    if len(arguments) < 3:
        print("usage: python -m tests.support.digests RUNS_BEFORE RUNS_AFTER NAME...", file=sys.stderr)
        return 2
    before, after = map(Path, arguments[:2])
    status = 0
    for name in arguments[2:]:
        runs = runs_in(before / name)
        if not runs:
            print(f"{before / name}: no finished run", file=sys.stderr)
            return 2
        lines = list(differences(before / name, after / name))
        print(*(f"DIFF {line}" for line in lines), sep="\n", end="\n" if lines else "")
        artifacts = [(before / name / run / folder) for run in runs
                     for folder in _read(before / name / run / RUN)["stages"].values()]  # fmt: skip
        count = sum(len(tensor_files(artifact)) for artifact in artifacts)
        files, found = counted(count, "file"), counted(len(lines), "difference")
        print(f"{name}: {counted(len(runs), 'run')}, {files} of tensors compared, {found}")
        status = status or int(bool(lines))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
