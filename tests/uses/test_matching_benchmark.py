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
from wspace.uses.bench import rebasin
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
    """Axes of a timm ResNet's parameters, by hand: the permutation specification of Ainsworth et al., 2022, for ResNets."""
    by_hand = rebasin.of_resnet(network)
    entries = []
    for name, tensor in network.named_parameters():
        axes = zip(by_hand.of[name], tensor.shape, strict=True)
        entries.append(WeightEntry(name, tuple(tensor.shape), tuple(perm or str(n) for perm, n in axes)))
    return WeightSpec(tuple(entries), tuple(by_hand.axes))


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


def test_time_and_memory_of_matching_a_model_are_told(
    monkeypatch: pytest.MonkeyPatch, inside: Callable[..., CompletedProcess[str]]
) -> None:
    network = partial(ResNet, Bottleneck, (1, 1, 1, 1), channels=(3, 4, 5, 6))

    def made(_: str) -> ResNet:
        model = network()
        model.default_cfg = {"input_size": (3, 32, 32)}
        return model

    monkeypatch.setattr(timm, "create_model", made)
    result = of_model("resnet50")
    assert result["axes"] == 5 + 2 * 4 and result["parameters"] == sum(p.numel() for p in network().parameters())
    assert result["mib_peak"] >= result["mib_before"] > 0 < result["seconds"]["weights"]
    assert result["cosine"]["before"] < result["cosine"]["weights"] < 1
    both = of_model("resnet50", peer=True, turns=2)
    assert both["cosine"].keys() == {"before", "weights", "git re-basin"} and both["seconds"].keys() == set(
        both["cosine"]
    ) - {"before"}
    assert (
        both["cosine"]["before"] < both["cosine"]["git re-basin"] < 1
        and both["cosine"]["weights"] == result["cosine"]["weights"]
    )


@pytest.mark.parametrize("depth", [1, 2])
def test_the_authors_matching_undoes_a_permutation_as_ours_does(depth: int) -> None:
    torch.manual_seed(0)
    ours = benchmark._perceptron((5, *[9] * depth, 3))
    spec, by_hand = benchmark._spec(ours, depth), rebasin.of_perceptron(depth)
    first = spec.flatten(ours.state_dict())
    group, rng = Units(spec=spec), torch.Generator().manual_seed(0)
    second = group.act(group.sample(1, rng), first[None])[0]
    assert not torch.equal(first, second)
    for tensors in (
        benchmark._by_weights(first, second, spec),
        benchmark._rebasin(by_hand, spec.unflatten(first), spec.unflatten(second)),
    ):
        assert torch.equal(spec.flatten(tensors), first)


def test_of_one_hidden_layer_the_authors_matching_and_ours_are_one() -> None:
    torch.manual_seed(0)
    spec, by_hand = benchmark._spec(benchmark._perceptron((5, 9, 3)), 1), rebasin.of_perceptron(1)
    first, second = torch.randn(2, spec.size)
    theirs = benchmark._rebasin(by_hand, spec.unflatten(first), spec.unflatten(second))
    assert torch.equal(spec.flatten(benchmark._by_weights(first, second, spec)), spec.flatten(theirs))


def test_models_that_cannot_be_matched_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError) as caught:
        of_model("resnt50")
    assert str(caught.value).startswith("bench matching: timm has no model 'resnt50': did you mean resnet50")
    for model, has in (("test_vit", "and VisionTransformer is none"), ("test_resnet", "which have no 'conv1.0'")):
        with pytest.raises(UserError) as caught:
            of_model(model, peer=True)
        assert str(caught.value) == f"bench matching --peer: permutations are written down for plain ResNets, {has}"
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
    assert lines[:2] == ["widths 64-8-10; barriers of the cross-entropy", ""]
    assert lines[2].split() == ["seeds", "images", "before", "weights", "matched", "activations", "matched"]
    assert [line.split()[:3] for line in lines[3:]] == [
        [a, b, part] for a, b in (("0,", "1"), ("2,", "3")) for part in ("test", "train")
    ]
    (line,) = said(*small, "--json")
    rows = json.loads(line)["rows"]
    assert lines[3].split()[3] == f"{rows[0]['barrier']['test']['before']:.3f}"
    assert rows[0]["left"]["test"] == {"weights": None, "activations": None} and len(lines[3].split()) == 6
    lines = said("--pairs", 1, *small[2:], "--peer")
    assert lines[2].endswith("git re-basin matched") and len(lines) == 8
    number = r"\d\.\d{3}"
    assert re.fullmatch(rf"0, 1  ( +{number} \({number}\)){{3}}", lines[-1])
    (line,) = said("--model", "test_resnet")
    assert re.fullmatch(r"test_resnet, [\d,]+ parameters, \d+ axes: \d+ s, \d+ MiB at most \(\d+ before\)", line)
