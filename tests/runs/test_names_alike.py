"""`run` and `generate` of class names of which the text encoder makes one vector."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wspace.runs.run import Run

LONG = "a " * 600  # the encoder reads its first 256 tokens


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Apple", "apple"),
        ("resume", "résumé"),
        ("\N{GRINNING FACE}", "\N{ROCKET}"),
        ("სახლი", "ვაშლი"),
        (f"{LONG}b", f"{LONG}c"),
    ],
)
def test_a_task_of_names_with_one_vector_is_refused(
    inside: Callable, nano: Path, tmp_path: Path, first: str, second: str
) -> None:
    out = tmp_path / "head.safetensors"
    done = inside("generate", nano, "--classes", f"{first}, {second}, camera", "--out", out)
    names = f"{first!r} and {second!r}"
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        f"error: the text encoder makes one vector of {names}: no network can tell them apart; leave out all but one, or "
        "use other names\n",
    )
    assert not out.exists()


def test_a_name_with_the_vector_of_another_class_has_a_note_that_names_both(
    inside: Callable, nano: Path, tmp_path: Path
) -> None:
    trained = [Run.open(nano).zoo.classes[number] for number in Run.open(nano).zoo.tasks.classes]
    other, name = trained[0], trained[1].upper()
    done = inside("generate", nano, "--classes", f"{other}, {name}", "--out", tmp_path / "head.safetensors", "--json")
    sentence = f"the text encoder makes one vector of {name!r} and {trained[1]!r}: the same weights are for all of them"
    assert (done.returncode, done.stderr) == (0, f"note: {sentence}\n")
    done = inside(
        "generate", nano, "--classes", f"{other}, {trained[1]}", "--out", tmp_path / "b.safetensors", "--json"
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.plugins("t2w")
def test_a_data_set_with_such_classes_is_refused(inside: Callable, tmp_path: Path) -> None:
    for number, name in enumerate(("apple", "Apple", "lamp", "crab", "tree")):
        for part in range(4):
            file = tmp_path / "data" / name / f"{part}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((32, 32, 3), 40 * number + part, np.uint8)).save(file)
    dataset = f"{{use: folder, path: {tmp_path / 'data'}, size: 32}}"
    done = inside("run", "nano", "--set", f"dataset={dataset}", "--runs", tmp_path / "runs")
    assert done.returncode == 2 and done.stdout == ""
    *notes, error = done.stderr.splitlines()
    assert any(note.startswith("note: the text encoder makes one vector of 'Apple' and 'apple': ") for note in notes)
    assert error.startswith(
        "error: a task would hold the classes 'Apple' and 'apple', and no network could tell them apart"
    )
