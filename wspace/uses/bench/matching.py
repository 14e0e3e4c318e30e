"""What the documentation claims of matching, measured: `wspace bench matching`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.support.errors import MissingPackage, UnknownComponent, UserError, nearest
from wspace.support.memory import peak_mib
from wspace.support.progress import Progress
from wspace.support.seeding import seeded, stream
from wspace.uses.bench import rebasin
from wspace.weights.matching.activations import match_activations
from wspace.weights.matching.barrier import MeanLoss, straight_line
from wspace.weights.matching.by_weights import match, move
from wspace.weights.tracing.infer import infer

BATCH, RATE = 128, 1e-3
TEST = 360  # of 1,797 digits
POINTS = 25  # of a straight line
PEER = "git re-basin"
Tensors = Mapping[str, Tensor]


def of_digits(
    pairs: int, width: int, depth: int, steps: int, progress: Progress, peer: bool = False, turns: int = 1
) -> dict[str, Any]:
    """Barriers between perceptrons trained from independent seeds on scikit-learn's digits, before and after matching.

    Networks of pair p have seeds 2 p and 2 p + 1, for initial weights and batches; activations are those on the training
    images. Barriers are of the cross-entropy, on training and on test images. With `peer`, weights are also matched as the
    authors of Git Re-Basin published it. Each way takes as many turns, by turns; seconds are medians. Raises MissingPackage.
    """
    images = _digits()
    widths = (images["train"][0].shape[1], *[width] * depth, 10)
    rows = []
    with progress.bar("networks", 2 * pairs) as bar:
        for pair in range(pairs):
            networks = []
            for seed in (2 * pair, 2 * pair + 1):
                networks.append(_trained(widths, images["train"], steps, seed))
                bar.advance(1)
            ours, theirs = networks
            rows.append(_barriers(ours, theirs, images, peer, turns))
    return {
        "benchmark": "matching",
        "data": "digits",
        "widths": list(widths),
        "steps": steps,
        "points": POINTS,
        "threads": torch.get_num_threads(),
        "rows": rows,
    }


def _digits() -> dict[str, tuple[Tensor, Tensor]]:
    """Pictures (m, 64) of values up to 1, and their digits (m,)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingPackage(
            'bench matching needs scikit-learn, for its digits: pip install "wspace[bench]"'
        ) from error
    pixels, digits = (torch.as_tensor(array) for array in load_digits(return_X_y=True))
    order = torch.randperm(len(digits), generator=stream(0, "digits"))
    pixels, digits = pixels[order].float() / 16, digits[order]
    return {"test": (pixels[:TEST], digits[:TEST]), "train": (pixels[TEST:], digits[TEST:])}


def _perceptron(widths: tuple[int, ...]) -> nn.Sequential:
    layers = [part for n, m in pairwise(widths) for part in (nn.Linear(n, m), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def _spec(network: nn.Module, depth: int) -> WeightSpec:
    """Of a perceptron: one free axis for each hidden layer."""
    axes = ["pixel", *(f"hidden{n}" for n in range(1, depth + 1)), "digit"]
    entries = []
    for number, (n, m) in enumerate(pairwise(axes)):
        layer = network.get_submodule(str(2 * number))
        for name, tensor in layer.state_dict().items():
            entries.append(WeightEntry(f"{2 * number}.{name}", tuple(tensor.shape), (m, n)[: tensor.ndim]))
    return WeightSpec(tuple(entries), tuple(axes[1:-1]))


def _trained(widths: tuple[int, ...], data: tuple[Tensor, Tensor], steps: int, seed: int) -> nn.Sequential:
    with seeded(seed):
        network = _perceptron(widths)
    (pixels, digits), rng = data, stream(seed, "batches")
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = torch.randint(len(digits), (BATCH,), generator=rng)
        loss = functional.cross_entropy(network(pixels[rows]), digits[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
    return network


def _barriers(
    ours: nn.Module, theirs: nn.Module, images: Mapping[str, tuple[Tensor, Tensor]], peer: bool, turns: int
) -> dict[str, Any]:
    """The second network is moved towards the first."""
    depth = sum(isinstance(layer, nn.Linear) for layer in ours.modules()) - 1
    spec, by_hand = _spec(ours, depth), rebasin.of_perceptron(depth)
    first, second = (spec.flatten(network.state_dict()) for network in (ours, theirs))
    ways = {
        "weights": lambda: _by_weights(first, second, spec),
        "activations": lambda: spec.unflatten(
            move(second[None], spec, match_activations(theirs, ours, images["train"][0].split(BATCH), spec))[0]
        ),
    }
    if peer:
        ways[PEER] = lambda: _rebasin(by_hand, spec.unflatten(first), spec.unflatten(second))
    moved, seconds = _by_turns(ways, turns)
    moved = {"before": spec.unflatten(second), **moved}
    barrier, accuracy = {}, {}
    for part, (pixels, digits) in images.items():
        loss = MeanLoss(ours, [(pixels, digits)])
        barrier[part] = {
            how: straight_line(spec.unflatten(first), tensors, loss, POINTS).barrier for how, tensors in moved.items()
        }
        with torch.no_grad():
            accuracy[part] = [float((n(pixels).argmax(1) == digits).float().mean()) for n in (ours, theirs)]
    left = {  # None where there was none to begin with
        part: {how: values[how] / values["before"] if values["before"] else None for how in ways}
        for part, values in barrier.items()
    }
    return {"barrier": barrier, "left": left, "accuracy": accuracy, **seconds}


def _by_weights(first: Tensor, second: Tensor, spec: WeightSpec) -> dict[str, Tensor]:
    return spec.unflatten(move(second[None], spec, match(second[None], first, spec, spec.free))[0])


def _rebasin(by_hand: rebasin.ByHand, first: Tensors, second: Tensors) -> dict[str, Tensor]:
    return by_hand.matched(first, second, np.random.default_rng(0))


def _by_turns(
    ways: Mapping[str, Callable[[], dict[str, Tensor]]], turns: int
) -> tuple[dict[str, dict[str, Tensor]], dict[str, dict[str, float]]]:
    """What each way gives, and the medians of its seconds, on the clock and of the processor."""
    given = dict[str, dict[str, Tensor]]()
    taken: dict[str, dict[str, list[float]]] = {"seconds": {}, "processor_seconds": {}}
    for _ in range(turns):
        for how, way in ways.items():
            started = time.perf_counter(), time.process_time()
            given[how] = way()
            ended = time.perf_counter(), time.process_time()
            for kind, before, after in zip(taken, started, ended, strict=True):
                taken[kind].setdefault(how, []).append(after - before)
    return given, {kind: {how: median(each) for how, each in of.items()} for kind, of in taken.items()}


# ---------------------------------------------------------------- how long it takes, and what memory


def of_model(model: str, peer: bool = False, turns: int = 1) -> dict[str, Any]:
    """Weight matching of two timm models of random weights, which is the hardest there is: nothing agrees.

    Along every axis that `infer` finds free, by parameters alone: running statistics follow from these. Memory is the most
    that this process has had, with both networks and the libraries it has loaded; `mib_before` is that just before. With
    `peer`, two ResNets are also matched as the authors of Git Re-Basin published it, by turns. Raises UserError for a model
    that timm has not, or that has no free axis, and for a peer on what is no plain ResNet.
    """
    if not timm.is_model(model):
        raise UnknownComponent(f"bench matching: timm has no model {model!r}{nearest(model, timm.list_models())}")
    networks = []
    for seed in range(2):
        with seeded(seed):
            networks.append(timm.create_model(model).eval())
    ours, theirs = networks
    by_hand = rebasin.of_resnet(ours) if peer else None
    inferred = infer(ours, torch.zeros(1, *ours.default_cfg["input_size"]))
    if not inferred.free:
        raise UserError(f"bench matching: no axis of {model} is known to be free: {'; '.join(inferred.notes)}")
    entries = (WeightEntry(name, tuple(p.shape), inferred.axes[name]) for name, p in ours.named_parameters())
    spec = WeightSpec(tuple(entries), inferred.free)
    first, second = (spec.flatten(network.state_dict()) for network in (ours, theirs))
    before = peak_mib()
    ways = {"weights": lambda: _by_weights(first, second, spec)}
    if by_hand is not None:
        ways[PEER] = lambda: _rebasin(by_hand, spec.unflatten(first), spec.unflatten(second))
    moved, seconds = _by_turns(ways, turns)
    moved = {"before": spec.unflatten(second), **moved}
    return {
        "benchmark": "matching",
        "model": model,
        "parameters": spec.size,
        "axes": len(spec.free),
        "threads": torch.get_num_threads(),
        **seconds,
        "mib_before": before,
        "mib_peak": peak_mib(),
        "cosine": {
            how: float(functional.cosine_similarity(first, spec.flatten(tensors), dim=0))
            for how, tensors in moved.items()
        },
    }
