"""What `wspace bench matching` measures, at a small size."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from subprocess import CompletedProcess

import pytest
import timm
import torch
from sklearn.datasets import load_digits
from timm.models.resnet import BasicBlock, Bottleneck, ResNet

from tests.support.stand_ins import Units
from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.support.errors import UserError
from wspace.support.progress import Progress
from wspace.uses.bench import matching as benchmark
from wspace.uses.bench.matching import of_digits, of_model
from wspace.weights.tracing.infer import Inferred, infer


def test_matching_takes_most_of_the_barrier_between_independent_networks_away() -> None:
    result = of_digits(1, 96, 2, 250, Progress())
    (row,) = result["rows"]
    assert result["widths"] == [64, 96, 96, 10] and min(row["accuracy"]["test"]) > 0.9
    assert row["barrier"]["train"]["before"] > 0.3
    for how in ("weights", "activations"):
        for part in ("train", "test"):
            ratio = row["barrier"][part][how] / row["barrier"][part]["before"]
            assert ratio == row["left"][part][how] < 0.3


def test_digits_are_split_once_and_whole() -> None:
    parts = benchmark._digits()
    pixels, labels = load_digits(return_X_y=True)
    assert {name: len(digits) for name, (_, digits) in parts.items()} == {"test": 360, "train": 1437}
    both = [torch.cat(tensors) for tensors in zip(*parts.values(), strict=True)]
    rows = {(*row, label) for row, label in zip((16 * both[0]).int().tolist(), both[1].tolist(), strict=True)}
    assert rows == {(*map(int, row), int(label)) for row, label in zip(pixels, labels, strict=True)}


def resnet_spec(network: ResNet) -> WeightSpec:
    """Axes of a timm ResNet's parameters, by hand: one for each stage's stream and one for each convolution within a block.

    The permutation specification of Ainsworth et al., 2022, for ResNets.
    """
    axes, stream = {"conv1": ("stem", "color"), "bn1": ("stem",)}, "stem"
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        for number, block in enumerate(network.get_submodule(stage).children()):
            at, has = f"{stage}.{number}", dict(block.named_children())
            convolutions = [name for name in ("conv1", "conv2", "conv3") if name in has]
            out = stage if has.get("downsample") is not None else stream
            source = stream
            for place, name in enumerate(convolutions, 1):
                to = out if place == len(convolutions) else f"{at}.{name}"
                axes |= {f"{at}.{name}": (to, source), f"{at}.bn{place}": (to,)}
                source = to
            if out != stream:
                axes |= {f"{at}.downsample.0": (out, stream), f"{at}.downsample.1": (out,)}
            stream = out
    axes["fc"] = ("class", stream)
    entries = []
    for name, tensor in network.named_parameters():
        named = axes[name.rpartition(".")[0]][: tensor.ndim]
        entries.append(WeightEntry(name, tuple(tensor.shape), (*named, *map(str, tensor.shape[len(named) :]))))
    found = dict.fromkeys(axis for named in axes.values() for axis in named)
    return WeightSpec(tuple(entries), tuple(axis for axis in found if axis not in ("color", "class")))


def partition(axes: Mapping[str, tuple[str, ...]], spec: WeightSpec) -> set[frozenset[tuple[str, int]]]:
    """Which dimensions of the parameters are one axis, whatever it is called."""
    groups: dict[str, set[tuple[str, int]]] = {}
    for entry in spec.entries:
        for dim, axis in enumerate(axes[entry.name]):
            if not axis.isdigit():
                groups.setdefault(axis, set()).add((entry.name, dim))
    return {frozenset(group) for group in groups.values() if len(group) > 2}


@pytest.mark.parametrize(
    ("block", "first", "count"),
    [(BasicBlock, 64, 4 + 6), (BasicBlock, 4, 5 + 6), (Bottleneck, 4, 5 + 2 * 6)],  # streams, and within the six blocks
    ids=["stem in the first stream", "stem apart", "bottleneck"],
)
def test_the_axes_of_a_resnet_leave_its_function(block: type[BasicBlock | Bottleneck], first: int, count: int) -> None:
    torch.manual_seed(0)
    network = ResNet(block, (2, 1, 2, 1), channels=(first, 6, 4, 5), num_classes=3, zero_init_last=False).double()
    assert network.training, "batch norm by the batch: running statistics are no parameters"
    spec = resnet_spec(network)
    assert len(spec.free) == count
    assert partition(infer(network.float().eval(), torch.zeros(1, 3, 32, 32)).axes, spec) == partition(
        {entry.name: entry.axes for entry in spec.entries}, spec
    )
    network.double().train()
    group, rng = Units(spec=spec), torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 32, 32, generator=rng, dtype=torch.float64)
    flat = spec.flatten(network.state_dict())[None]
    expected = network(images)
    for axis in spec.free:
        alone = Units((axis,), spec=spec)
        moved = alone.act(torch.arange(spec.axis_size(axis)).roll(1)[None], flat)
        assert not torch.equal(moved, flat)
        network.load_state_dict(spec.unflatten(moved[0]), strict=False)
        torch.testing.assert_close(network(images), expected)
    network.load_state_dict(spec.unflatten(group.act(group.sample(1, rng), flat)[0]), strict=False)
    torch.testing.assert_close(network(images), expected)


def test_time_and_memory_of_matching_a_model_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    network = partial(ResNet, Bottleneck, (1, 1, 1, 1), channels=(3, 4, 5, 6))

    def made(_: str) -> ResNet:
        model = network()
        model.default_cfg = {"input_size": (3, 32, 32)}
        return model

    monkeypatch.setattr(timm, "create_model", made)
    result = of_model("resnet50")
    assert result["axes"] == 5 + 2 * 4 and result["parameters"] == sum(p.numel() for p in network().parameters())
    assert result["mib_peak"] >= result["mib_before"] > 0 < result["seconds"]
    assert result["cosine"]["before"] < result["cosine"]["after"] < 1


def test_models_that_cannot_be_matched_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError) as caught:
        of_model("resnt50")
    assert str(caught.value).startswith("bench matching: timm has no model 'resnt50': did you mean resnet50")
    monkeypatch.setattr(benchmark, "infer", lambda *_: Inferred({}, (), ("This.", "That.")))
    with pytest.raises(UserError) as caught:
        of_model("test_resnet")
    assert str(caught.value) == "bench matching: no axis of test_resnet is known to be free: This.; That."


def test_the_command_prints_a_line_for_each_pair_and_its_images_or_one_object(
    inside: Callable[..., CompletedProcess[str]],
) -> None:
    def said(*arguments: object) -> list[str]:
        done = inside("bench", "matching", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    small = ("--pairs", 2, "--width", 8, "--depth", 1, "--steps", 20)
    lines = said(*small)
    assert lines[:3] == [
        "widths 64-8-10; barriers of the cross-entropy",
        "",
        "seeds  images  before  weights matched  activations matched",
    ]
    assert [line.split()[:3] for line in lines[3:]] == [
        [a, b, part] for a, b in (("0,", "1"), ("2,", "3")) for part in ("test", "train")
    ]
    (line,) = said(*small, "--json")
    rows = json.loads(line)["rows"]
    assert lines[3].split()[3] == f"{rows[0]['barrier']['test']['before']:.3f}"
    assert rows[0]["left"]["test"] == {"weights": None, "activations": None} and len(lines[3].split()) == 6
    (line,) = said("--model", "test_resnet")
    assert re.fullmatch(r"test_resnet, [\d,]+ parameters, \d+ axes: \d+ s, \d+ MiB at most \(\d+ before\)", line)
