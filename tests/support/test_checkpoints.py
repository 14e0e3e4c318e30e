"""Files of weights that others wrote: out of their wrappers, or named for what they are instead."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from wspace.support.checkpoints import left_over, read_state, some_of
from wspace.support.errors import FileError

STATE = {"conv.weight": torch.arange(6.0).view(2, 3), "fc.bias": torch.ones(2)}


def refusal(file: Path) -> str:
    with pytest.raises(FileError) as caught:
        read_state(file)
    return str(caught.value)


def optimizer() -> dict[str, Any]:
    layer = nn.Linear(2, 2)
    adam = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    adam.step()
    return adam.state_dict()


def is_state(read: dict[str, Tensor]) -> bool:
    return list(read) == list(STATE) and all(torch.equal(read[name], tensor) for name, tensor in STATE.items())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "pytorch-lightning_version": "2.5"},
        lambda state: {"model_state_dict": state, "optimizer_state_dict": optimizer(), "loss": torch.tensor(0.5)},
        lambda state: {"model": state, "optimizer": optimizer(), "epoch": 3},
        lambda state: {"ema": {"module": state, "decay": 0.999}, "model": {"conv.weight": torch.zeros(2, 3)}},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {"net": state, "acc": 91.2},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()},
        lambda state: {f"module._orig_mod.{name}": tensor for name, tensor in state.items()},
        lambda state: {f"module.module.{name}": tensor for name, tensor in state.items()},
        lambda state: {name.replace(".", "._orig_mod."): tensor for name, tensor in state.items()},
        lambda state: {"n_averaged": torch.tensor(7)} | {f"module.{name}": tensor for name, tensor in state.items()},
    ],
)
def test_weights_come_out_of_what_trainers_put_around_them(wrap: Callable[[Any], Any], tmp_path: Path) -> None:
    torch.save(wrap(STATE), tmp_path / "checkpoint.pt")
    assert is_state(read_state(tmp_path / "checkpoint.pt"))


def test_a_part_of_a_network_that_is_called_module_keeps_its_name(tmp_path: Path) -> None:
    save_file({"module.weight": torch.ones(2), "head.weight": torch.ones(3)}, tmp_path / "file.safetensors")
    assert set(read_state(tmp_path / "file.safetensors")) == {"module.weight", "head.weight"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (optimizer(), "is the state of an optimizer, and not of a network"),
        ({"last_epoch": 3, "base_lrs": [0.1]}, "holds last_epoch, base_lrs, and no tensors of a network by name"),
        ({}, "holds nothing, and no tensors of a network by name"),
        ([torch.ones(2)], "holds a list, and not tensors by name: save the network's state_dict()"),
        (
            nn.Linear(2, 2),
            "holds an object (torch.nn.modules.linear.Linear), which is not unpickled, and not tensors alone: save the "
            "state_dict()",
        ),
    ],
)
def test_what_is_no_network_is_named_for_what_it_is(content: object, expected: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "file.pt")
    assert refusal(tmp_path / "file.pt") == f"{tmp_path}/file.pt: {expected}"


@pytest.mark.filterwarnings("ignore")  # of torch, that scripting is old
def test_files_that_are_none_are_named_for_what_they_are(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "scripted.pt")
    assert refusal(tmp_path / "scripted.pt") == (
        f"{tmp_path}/scripted.pt: is a scripted module, and not tensors alone: save its state_dict()"
    )
    for name in ("pointer.bin", "pointer.safetensors"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n")
        assert refusal(tmp_path / name) == (
            f"{tmp_path}/{name}: is a pointer of Git LFS, and not the file itself: `git lfs pull` brings it"
        )
    (tmp_path / "short.pt").write_bytes(b"PK\x03\x04")
    assert "short.pt: truncated, or not a file of weights" in refusal(tmp_path / "short.pt")


def trainer_folder(folder: Path) -> Path:
    """As transformers' Trainer leaves it, its weights in two shards."""
    folder.mkdir()
    for number, (name, tensor) in enumerate(STATE.items(), start=1):
        save_file({name: tensor}, folder / f"model-0000{number}-of-00002.safetensors")
    places = {name: f"model-0000{number}-of-00002.safetensors" for number, name in enumerate(STATE, start=1)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    torch.save(optimizer(), folder / "optimizer.pt")
    return folder


def test_a_checkpoint_in_shards_is_read_by_its_index(tmp_path: Path) -> None:
    folder = trainer_folder(tmp_path / "checkpoint-500")
    index = folder / "model.safetensors.index.json"
    assert is_state(read_state(index))
    assert refusal(folder) == (
        f"{folder}: is a folder: name the file of weights in it: did you mean model.safetensors.index.json, "
        "model-00002-of-00002.safetensors or model-00001-of-00002.safetensors?"
    )
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert refusal(index) == f"{index}: lists model-00002-of-00002.safetensors, which is not beside it"
    for wrong in ('{"weight_map": {"a": "../a.safetensors"}}', '{"weight_map": {"a": "/etc/passwd"}}'):
        index.write_text(wrong)
        assert "which is not beside it" in refusal(index)
    for wrong in ("{}", "[]", '{"weight_map": {}}', '{"weight_map": {"a": 3}}'):
        index.write_text(wrong)
        assert refusal(index) == f"{index}: has no `weight_map` that says in which file each tensor is"


def test_only_a_classifier_may_be_left_over() -> None:
    given = ["blocks.0.weight", "blocks.1.weight", "head.fc.weight", "fc.bias", "pre_classifier.bias", "header.weight"]
    assert left_over(given, ["blocks.0.weight"]) == ["blocks.1.weight", "header.weight"]
    assert some_of(list("abc")) == "a, b, c" and some_of(list("abcdef")) == "a, b, c and 3 more"
