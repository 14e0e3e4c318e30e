"""`wspace spec`: the axes of a module, written, printed and proven."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import timm

from wspace.weights.tracing.rules import RULES
from wspace.weights.tracing.spec_file import read_spec

ERROR = 1e-5  # relative, float32
Wspace = Callable[..., CompletedProcess[str]]
VIT = (
    "vit_tiny_patch16_224",
    "--input",
    "3x32x32",
    "--arg",
    "img_size=32",
    "--arg",
    "patch_size=16",
    "--arg",
    "depth=1",
)


def test_the_command_prints_a_spec_and_its_proof(inside: Wspace, tmp_path: Path) -> None:
    file = tmp_path / "vit.yaml"
    done = inside("spec", *VIT, "--out", file)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert printed[0] == str(file)
    proof = r"# proven: permuting all 5 free axes changes the outputs by \d\.\de-0\d of the largest"
    assert re.fullmatch(proof, printed[1])
    said = json.loads(inside("spec", *VIT, "--json").stdout)
    assert said["error"] < ERROR and said["free"][0] == "patch_embed.proj"
    net = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=16, depth=1)
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert {name: list(dims) for name, dims in read_spec(file, shapes).axes.items()} == said["tensors"]


@pytest.mark.slow
def test_the_command_makes_a_table_of_several_models(
    inside: Wspace,
) -> None:
    done = inside("spec", "test_resnet", "test_convnext", "--input", "3x32x32")
    assert done.returncode == 0, done.stderr
    lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == ["model", "---|---|---|---|---|---|---", "test_resnet", "test_convnext"]
    assert all(float(line[4]) < ERROR and int(line[2]) > 5 for line in lines[2:])
    assert lines[0][-2:] == ["CPU to infer", "CPU to prove"]
    assert all(re.fullmatch(r"\d+\.\d s", seconds) for line in lines[2:] for seconds in line[5:])


@pytest.mark.slow
def test_below_the_table_stands_what_was_not_understood_and_of_which_model(
    inside: Wspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(RULES, "avg_pool2d")
    done = inside("spec", "test_resnet", "test_convnext", "--input", "3x32x32")
    assert done.returncode == 0, done.stderr
    note = "operation aten.avg_pool2d.default is not understood: the axes that it reads stay in place"
    assert done.stdout.splitlines()[-2:] == ["", f"test_resnet: {note}"]


def test_the_command_refuses_what_it_cannot_use(
    inside: Wspace,
) -> None:
    for arguments, said in (
        (("resnet81",), "error: timm has no model 'resnet81': did you mean resnet18, "),
        (("resnet18", "--input", "3x0x32"), "error: --input: '3x0x32' is no size of a picture, such as 3x64x64\n"),
        (("resnet18", "resnet34", "--json"), "error: --out and --json: name one model\n"),
        (("resnet18", "--arg", "depth"), "error: --arg: 'depth' is not NAME=VALUE\n"),
        (("resnet18", "--arg", "dpth=2"), "error: timm cannot make resnet18: TypeError: "),
        (("resnet18", "--arg", "act_layer=nosuch"), "error: timm cannot make resnet18: "),
        (
            ("vit_tiny_patch16_224", "--arg", "act_layer=nosuch"),
            "error: timm cannot make vit_tiny_patch16_224: KeyError: 'nos",
        ),
        (("resnet18", "--arg", "checkpoint_path=nosuch"), "error: timm cannot make resnet18: FileNotFoundError"),
        (("resnet18", "--arg", "in_chans={"), "error: --arg in_chans={: the value is not YAML; text that YAML cannot "),
    ):
        done = inside("spec", *arguments)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
