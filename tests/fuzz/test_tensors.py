"""Files of tensors and folders of adapters that anybody may have written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.hostile import (
    altered,
    as_json,
    cases,
    headers,
    held,
    mutated,
    names,
    numbers,
    refused_or_done,
    safetensors_file,
    values,
)  # fmt: skip
from wspace.support.checkpoints import read_state
from wspace.support.errors import FileError
from wspace.weights.files.network import METADATA, Network
from wspace.weights.files.peft import CONFIG, README, WEIGHTS, AdapterFolder

TERABYTES = {"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
NOTHING_OF_MUCH = {"w": {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


about = st.fixed_dictionaries({}, optional={METADATA: values.map(as_json) | st.text(max_size=20)})


@cases(10_000)
@given(headers(), st.binary(max_size=64), st.none() | st.sampled_from([0, 1, 7, 2**31, 2**40, 2**63, 2**64 - 1]), about)
@example(TERABYTES, b"", None, {})
@example(TERABYTES, b"", 2**63, {})
@example(NOTHING_OF_MUCH, b"", None, {})
@example({}, b"", None, {METADATA: "[" * 5_000})
@example({}, b"", None, {METADATA: "9" * 10_000})
def test_weights_are_read_or_refused(folder: Path, header: dict, data: bytes, length: int | None, about: dict) -> None:
    file = folder / "w.safetensors"
    file.write_bytes(safetensors_file(header | ({"__metadata__": about} if about else {}), data, length))
    with held():
        refused_or_done(lambda: Network.read(file))
        refused_or_done(lambda: read_state(file))


@cases(12_000)
@given(st.sampled_from([".safetensors", ".pt", ".bin", ".index.json"]), st.binary(max_size=80) | mutated(
    safetensors_file({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(8))))  # fmt: skip
def test_any_bytes_are_weights_or_refused(folder: Path, suffix: str, content: bytes) -> None:
    file = folder / f"any{suffix}"
    file.write_bytes(content)
    with held():
        refused_or_done(lambda: read_state(file))


LAYERS = ["q", "v", "model.layers.0.q_proj", "x" * 300]
PLAIN = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q", "v"], "rank_pattern": {}, "alpha_pattern": {},
         "bias": "none", "use_dora": False, "init_lora_weights": True, "exclude_modules": None}  # fmt: skip
expressions = st.sampled_from(["(a+)+$", ".*q", "(.*)*x", "(q|v)", "[", "(?i)q", "q{99999999999}", "(" * 500, "(a|a)*$",
                               "(?:.*?(?:a|b).*?){1,9}c", "\\", "", ".*.*.*.*.*=.*", "(x+x+)+y", "q$"])  # fmt: skip
ADAPTER = {
    f"base_model.model.{layer}.lora_{which}.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, 8]}
    for layer in LAYERS[:1]
    for which, shape in (("A", [1, 2]), ("B", [2, 1]))
}


@st.composite
def configurations(draw: st.DrawFn) -> object:
    config = draw(altered(PLAIN))
    if isinstance(config, dict) and draw(st.booleans()):
        config["target_modules"] = draw(expressions | st.lists(names, max_size=3))
    if isinstance(config, dict) and draw(st.booleans()):
        config[draw(st.sampled_from(["rank_pattern", "alpha_pattern"]))] = draw(
            st.dictionaries(expressions | names, numbers, max_size=3)
        )
    return config


tensors = (
    st.sampled_from([f"base_model.model.{layer}.lora_{which}.weight" for layer in LAYERS for which in "AB"]) | names
)
fronts = st.sampled_from(
    [
        "", "---\nwspace_task: {texts: [a], classes: 7}\n---\n", "---\na: &a [*a]\n---\n", "---\n[[[[\n---\n",
        "---\nwspace_task: {texts: 3}\n---\n", "---\n" + "[" * 5000 + "\n---\n", "---\n2026-13-45\n---\n",
    ]
)  # fmt: skip


@cases(8_000)
@given(configurations(), headers(tensors, 16), st.text(max_size=60), fronts)
def test_adapters_are_read_or_refused(folder: Path, config: object, header: dict, readme: str, front: str) -> None:
    (folder / CONFIG).write_text(as_json(config))
    (folder / WEIGHTS).write_bytes(safetensors_file(header, bytes(64)))
    (folder / README).write_text(front + readme, encoding="utf-8", errors="replace")

    def read() -> None:
        AdapterFolder.open(folder).read()

    with held():
        refused_or_done(read)


@pytest.mark.parametrize("where", ["target_modules", "rank_pattern"])
def test_an_expression_that_takes_for_ever_is_refused_in_seconds(tmp_path: Path, monkeypatch, where: str) -> None:
    monkeypatch.setattr("wspace.support.expressions.SECONDS", 0.5)
    layer, hostile = "a" * 40, "(a+)+b"
    header = {f"base_model.model.{layer}.lora_{which}.weight": {"dtype": "F32", "shape": shape, "data_offsets": offsets}
              for which, shape, offsets in (("A", [1, 2], [0, 8]), ("B", [2, 1], [8, 16]))}  # fmt: skip
    (tmp_path / CONFIG).write_text(json.dumps(PLAIN | {where: hostile if where == "target_modules" else {hostile: 1}}))
    (tmp_path / WEIGHTS).write_bytes(safetensors_file(header, bytes(16)))
    with pytest.raises(
        FileError, match=r"adapter_config.json: its regular expressions cannot be used: they take longer"
    ):
        AdapterFolder.open(tmp_path)
