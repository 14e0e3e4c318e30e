"""Spec files, and files of descriptions, that anybody may have written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.hostile import as_json, cases, held, mutated, names, refused_or_done, values
from wspace.components.wordings.descriptions import read_descriptions
from wspace.weights.tracing.spec_file import read_spec

SHAPES = {"w": (4, 3), "b": (4,), "v": (2, 4)}
RIGHT = "tensors:\n  w: [hidden, 3]\n  b: [hidden]\n  v: [2, hidden]\nfree: [hidden]\n"
axes = st.lists(names | st.integers() | st.sampled_from(["hidden", "2*a", "a/b", "99999999999*a", "0*a", "a b", "3", "-1"]),
                max_size=3)  # fmt: skip
specs = st.fixed_dictionaries({"tensors": st.dictionaries(st.sampled_from([*SHAPES]) | names, axes | values, max_size=4)},
                              optional={"free": axes | values, "more": values})  # fmt: skip
ALIASES = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spec") / "spec.yaml"


@cases(10_000)
@given(mutated(RIGHT.encode()) | specs.map(lambda spec: as_json(spec).encode()))
@example(b"[" * 5000)
@example(ALIASES.encode())
@example(b"tensors: &t {w: *t}\nfree: [hidden]\n")
@example(b"tensors: {w: [2026-13-45]}\n")
@example(b"tensors: {w: [" + b"9" * 5000 + b"]}\n")
def test_a_spec_is_read_or_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with held():
        refused_or_done(lambda: read_spec(file, SHAPES))
        refused_or_done(lambda: read_descriptions(file))
