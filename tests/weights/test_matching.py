"""Matching networks by weights and by activations, and the barrier between them, against brute force and planted answers."""

from __future__ import annotations

import copy
import gc
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.optim.swa_utils import update_bn

from tests.support.stand_ins import Units
from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.support.errors import UserError
from wspace.weights.matching import by_weights as descent
from wspace.weights.matching.activations import Measure, match_activations
from wspace.weights.matching.barrier import Line, MeanLoss, straight_line, take_statistics
from wspace.weights.matching.by_weights import Move, assigned, match, move, moved
from wspace.weights.tracing.infer import infer

SEEDS = st.integers(0, 10_000)
property_test = settings(deadline=None, max_examples=10, derandomize=True)


def rng_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def said_by(call: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    return str(caught.value)


# ---------------------------------------------------------------- networks and their axes


class Convolutions(nn.Module):
    """A stem and a residual block with batch norm, one convolution of it a channel by itself; flattened at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.widen, self.widen_norm = nn.Conv2d(8, 12, 1, bias=False), nn.BatchNorm2d(12)
        self.each, self.each_norm = nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False), nn.BatchNorm2d(12)
        self.narrow, self.narrow_norm = nn.Conv2d(12, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.pool, self.head = nn.AdaptiveAvgPool2d(2), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu_(self.stem_norm(self.stem(x)))
        y = functional.relu_(self.widen_norm(self.widen(x)))
        y = functional.relu_(self.each_norm(self.each(y)))
        x = functional.relu(x + self.narrow_norm(self.narrow(y)))
        return self.head(self.pool(x).flatten(1))


class Transformer(nn.Module):
    """An embedding and a block before normalisation; queries and keys of a head are permuted within it, as are values."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(11, 12), nn.LayerNorm(12)
        self.qkv, self.proj = nn.Linear(12, 36), nn.Linear(12, 12)
        self.up, self.down, self.head = nn.Linear(12, 20), nn.Linear(20, 12), nn.Linear(12, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        q, k, v = self.qkv(self.norm(x)).unflatten(2, (3, 3, 4)).permute(2, 0, 3, 1, 4)
        x = x + self.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return self.head((x + self.down(functional.gelu(self.up(x)))).mean(1))


def perceptron(*widths: int) -> nn.Sequential:
    layers = [nn.Linear(n, m) for n, m in pairwise(widths)]
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU(inplace=True))))[:-1]


def spec_of(network: nn.Module, weights: dict[str, tuple[str, ...]], free: tuple[str, ...]) -> WeightSpec:
    """Axes of the layers' weights; one-dimensional tensors are along the first one, or that of their own name."""
    entries = []
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            axes = weights.get(name) or weights[f"{name.rpartition('.')[0]}.weight"]
            entries.append(WeightEntry(name, tuple(tensor.shape), axes[: tensor.ndim]))
    return WeightSpec(tuple(entries), free)


@dataclass(frozen=True)
class Case:
    build: Callable[[], nn.Module]
    weights: dict[str, tuple[str, ...]]
    free: tuple[str, ...]
    inputs: Callable[[int, torch.Generator], Tensor]

    def made(self, seed: int) -> tuple[nn.Module, WeightSpec]:
        """With every parameter drawn, so that no unit is like another."""
        network, rng = self.build().eval(), rng_of(seed)
        with torch.no_grad():
            for parameter in network.parameters():
                size = parameter[0].numel() if parameter.ndim > 1 else 4
                parameter.copy_(torch.randn(parameter.shape, generator=rng) / size**0.5)
        spec = spec_of(network, self.weights, self.free)
        take_statistics(network, [self.inputs(32, rng)])
        return network, spec


CASES = {
    "mlp": Case(
        lambda: perceptron(7, 10, 9, 6, 4),
        {"0.weight": ("a", "in"), "2.weight": ("b", "a"), "4.weight": ("c", "b"), "6.weight": ("out", "c")},
        ("a", "b", "c"),
        lambda n, rng: torch.randn(n, 7, generator=rng),
    ),
    "cnn": Case(
        Convolutions,
        {
            "stem.weight": ("stream", "3", "3", "3"),
            "stem_norm.weight": ("stream",),
            "widen.weight": ("wide", "stream", "1", "1"),
            "widen_norm.weight": ("wide",),
            "each.weight": ("wide", "1", "3", "3"),
            "each_norm.weight": ("wide",),
            "narrow.weight": ("stream", "wide", "1", "1"),
            "narrow_norm.weight": ("stream",),
            "head.weight": ("class", "stream/4"),
        },
        ("stream", "wide"),
        lambda n, rng: torch.randn(n, 3, 5, 5, generator=rng),
    ),
    "transformer": Case(
        Transformer,
        {
            "embed.weight": ("11", "stream"),
            "norm.weight": ("stream",),
            "qkv.weight": ("2*heads[3]/keys[4] + heads/values[4]", "stream"),
            "proj.weight": ("stream", "heads/values"),
            "up.weight": ("wide", "stream"),
            "down.weight": ("stream", "wide"),
            "head.weight": ("class", "stream"),
        },
        ("stream", "heads", "keys", "values", "wide"),
        lambda n, rng: torch.randint(11, (n, 6), generator=rng),
    ),
}
each = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def moved_by(network: nn.Module, spec: WeightSpec, moves: dict[str, Move]) -> nn.Module:
    other = copy.deepcopy(network)
    flat = spec.flatten(other.state_dict())[None]
    other.load_state_dict(spec.unflatten(move(flat, spec, moves)[0]), strict=False)
    return other


def planted(network: nn.Module, spec: WeightSpec, seed: int) -> tuple[nn.Module, dict[str, Tensor]]:
    """A permuted copy, and the places that undo it."""
    group = Units(spec=spec)
    element = group.sample(1, rng_of(seed))
    parts = dict(zip(group.axes, element.split(group.lengths, dim=1), strict=True))
    undone = dict(zip(group.axes, group.inverse(element).split(group.lengths, dim=1), strict=True))
    return moved_by(network, spec, {axis: Move(places) for axis, places in parts.items()}), undone


def by_weights(network: nn.Module, reference: nn.Module, spec: WeightSpec) -> dict[str, Move]:
    parameters = dict(network.named_parameters())
    of_parameters = replace(spec, entries=tuple(e for e in spec.entries if e.name in parameters))
    ours, theirs = (of_parameters.flatten(n.state_dict()) for n in (network, reference))
    return match(ours[None], theirs, of_parameters, spec.free)


# ---------------------------------------------------------------- what is found


@each
@property_test
@given(seed=SEEDS)
def test_a_planted_permutation_of_every_axis_is_found(case: Case, seed: int) -> None:
    network, spec = case.made(seed)
    other, undone = planted(network, spec, seed)
    batches = [case.inputs(n, rng_of(n)) for n in (40, 17)]
    expected = {axis: places.tolist() for axis, places in undone.items()}
    for moves in (
        by_weights(other, network, spec),
        match_activations(other, network, batches, spec),
        match_activations(other, network, batches, spec, measure="product"),
    ):
        assert {axis: found.places.tolist() for axis, found in moves.items()} == expected
    same = moved_by(other, spec, moves).state_dict()
    assert all(torch.equal(same[name], tensor) for name, tensor in network.state_dict().items())


def best_of_all(worth: np.ndarray) -> list[int]:
    everyone = np.array(list(permutations(range(len(worth)))))
    return everyone[worth[np.arange(len(worth)), everyone].sum(1).argmax()].tolist()


@property_test
@given(seed=SEEDS, measure=st.sampled_from(["correlation", "product"]))
def test_by_activations_the_best_of_all_permutations_is_taken(seed: int, measure: Measure) -> None:
    case = CASES["mlp"]
    (network, spec), (reference, _) = case.made(seed), case.made(seed + 1)
    batches = [case.inputs(n, rng_of(seed + n)) for n in (30, 11)]
    found = match_activations(network, reference, batches, spec, ("c",), measure)
    with torch.no_grad():
        ours, theirs = (made[:5](torch.cat(batches)).double().numpy() for made in (network, reference))
    worth = np.corrcoef(theirs.T, ours.T)[:6, 6:] if measure == "correlation" else theirs.T @ ours
    assert {axis: move.places[0].tolist() for axis, move in found.items()} == {"c": best_of_all(worth)}


def test_layers_that_add_to_one_stream_are_added_and_positions_are_samples() -> None:
    case = CASES["cnn"]
    (network, spec), (reference, _) = case.made(0), case.made(1)
    images, worth = case.inputs(20, rng_of(0)), np.zeros((8, 8))
    for name in ("stem", "narrow"):
        rows = []
        for made in (network, reference):
            seen: list[Tensor] = []
            with made.get_submodule(name).register_forward_hook(lambda _m, _i, y, to=seen: to.append(y.clone())):
                made(images)
            rows.append(seen[0].detach().double().transpose(0, 1).flatten(1).numpy())
        worth += np.corrcoef(rows[1], rows[0])[:8, 8:]
    found = match_activations(network, reference, images.split(7), spec)
    assert found["stream"].places[0].tolist() == best_of_all(worth)


@property_test
@given(seed=SEEDS)
def test_by_weights_the_best_of_all_permutations_of_one_hidden_layer_is_taken(seed: int) -> None:
    spec = spec_of(perceptron(3, 5, 2), {"0.weight": ("hidden", "in"), "2.weight": ("out", "hidden")}, ("hidden",))
    weights, reference = torch.randn(2, spec.size, generator=rng_of(seed))
    found = match(weights[None], reference, spec, spec.free)
    everyone = torch.tensor(list(permutations(range(5))))
    members = move(weights.expand(len(everyone), -1), spec, {"hidden": Move(everyone)})
    assert torch.equal(move(weights[None], spec, found)[0], members[(members - reference).square().sum(1).argmin()])


@each
def test_only_what_depends_on_a_move_is_taken_anew_after_it(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of tensors are kept as long as nothing along their other dimensions moves, if there is memory for them."""
    products = Counter[bool]()

    def counted(*arguments: Any, **options: Any) -> Tensor:
        products[kept] += "but" in options
        return moved(*arguments, **options)

    monkeypatch.setattr(descent, "moved", counted)
    (network, spec), (other, _) = case.made(0), case.made(1)
    first, second = (spec.flatten(n.state_dict()) for n in (network, other))
    matched = {}
    for kept in (True, False):
        monkeypatch.setattr(descent, "VALUES", descent.VALUES if kept else 0)
        matched[kept] = match(second[None], first, spec, spec.free)
    assert products[True] < products[False]
    for axis in spec.free:
        assert torch.equal(matched[True][axis].places, matched[False][axis].places)


def test_a_long_axis_is_assigned_without_a_list_of_all_its_pairs() -> None:
    spec = WeightSpec((WeightEntry("w", (1500, 2), ("a", "2")),), ("a",))
    gc.collect()
    tracemalloc.start()
    assigned({"a": torch.eye(1500)[None]}, spec)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * 8 * 1500**2  # numbers of the table, twice as many bits


def test_a_unit_that_does_nothing_takes_no_place_of_another() -> None:
    """A unit's correlation is none where it is a constant, however large: rounding would correlate with anything."""
    network, spec = CASES["mlp"].made(0)
    with torch.no_grad():
        network[0].weight[3] = 0
        network[0].bias[3] = 1e4 / 3
    other, undone = planted(network, spec, 0)
    found = match_activations(other, network, [CASES["mlp"].inputs(50, rng_of(0))], spec)
    assert found["a"].places.tolist() == undone["a"].tolist()


# ---------------------------------------------------------------- how it is found


def test_memory_does_not_grow_with_the_batches() -> None:
    (network, spec), (reference, _) = CASES["cnn"].made(0), CASES["cnn"].made(1)
    held: list[int] = []

    def batches(count: int) -> Iterator[Tensor]:
        for number in range(count):
            yield CASES["cnn"].inputs(16, rng_of(number))
            gc.collect()
            held.append(sum(o.nbytes for o in gc.get_objects() if type(o) in (Tensor, nn.Parameter)))

    match_activations(network, reference, batches(3), spec)
    assert held[0] > 0 and held[1:] == held[:1] * 2


def test_networks_stay_in_their_mode_and_keep_no_hooks() -> None:
    network, spec = CASES["cnn"].made(0)
    network.train()
    network.stem_norm.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    match_activations(network, network, [CASES["cnn"].inputs(4, rng_of(0))], spec)
    assert network.training and network.widen_norm.training and not network.stem_norm.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in network.modules())


def test_a_transposed_convolution_makes_its_second_dimension() -> None:
    network = nn.Sequential(nn.ConvTranspose2d(2, 6, 2, stride=2), nn.ReLU(), nn.Conv2d(6, 1, 1))
    axes = {"0.weight": ("2", "hidden", "2", "2"), "0.bias": ("hidden",), "2.weight": ("1", "hidden", "1", "1")}
    spec = spec_of(network, axes, ("hidden",))
    other, undone = planted(network, spec, 1)
    found = match_activations(other, network, [torch.randn(4, 2, 3, 3, generator=rng_of(0))], spec)
    assert found["hidden"].places.tolist() == undone["hidden"].tolist()


class Attention(nn.Module):
    """torch's own, which applies its weights without a layer."""

    def __init__(self, **options: Any):
        super().__init__()
        self.embed, self.attend, self.head = nn.Linear(5, 12), nn.MultiheadAttention(12, 3, **options), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        others = (x, x) if not self.attend._qkv_same_embed_dim else (h, h) if self.attend.batch_first else (h.tanh(), h)
        return self.head(h + self.attend(h, *others)[0])


class Applied(nn.Module):
    """Weights that the module's own code applies: as linear maps and as products, one of them a layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.gate = nn.Parameter(torch.zeros(5, 9)), nn.Linear(5, 9)
        self.mix, self.head = nn.Parameter(torch.zeros(6, 9)), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = (x @ self.up).relu() * functional.linear(x, weight=self.gate.weight)
        return self.head(functional.linear(h, self.mix).relu())


class Transposed(Applied):
    """The same, each weight the other way round, and of one as many inputs as units."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.mix = nn.Parameter(torch.zeros(9, 5)), nn.Parameter(torch.zeros(9, 9))
        self.head = nn.Linear(9, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = (x @ self.up.T).relu() * torch.mm(x.flatten(0, 1), self.gate.weight.t()).view(*x.shape[:-1], 9)
        return self.head(functional.linear(h, self.mix.mT).relu())


@pytest.mark.parametrize("measure", ["correlation", "product"])
@pytest.mark.parametrize(
    ("build", "axes"),
    [
        (Attention, 4),
        (lambda: Attention(batch_first=True), 4),
        (lambda: Attention(bias=False, add_bias_kv=True), 4),
        (lambda: Attention(kdim=5, vdim=5), 4),
        (lambda: nn.Sequential(nn.Linear(5, 12), nn.TransformerEncoderLayer(12, 2, 7, batch_first=True), nn.Linear(12, 2)), 5),
        (Applied, 2),
        (Transposed, 2),
        (lambda: nn.Sequential(weight_norm(nn.Linear(5, 9)), nn.ReLU(), spectral_norm(nn.Linear(9, 6)), nn.Linear(6, 2)), 2),
    ],
    ids=["attention", "batch first", "no bias", "other keys", "encoder layer", "applied", "transposed", "parametrised"],
)  # fmt: skip
def test_units_are_read_where_no_layer_makes_them(build: Callable[[], nn.Module], axes: int, measure: Measure) -> None:
    network, rng = build().eval(), rng_of(0)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(
                torch.randn(weight.shape, generator=rng) / (weight[0].numel() if weight.ndim > 1 else 4) ** 0.5
            )
    spec = infer(network, torch.zeros(2, 6, 5)).spec(network)
    other, undone = planted(network, spec, 1)
    batches = [torch.randn(n, 6, 5, generator=rng) for n in (40, 17)]
    found = match_activations(other, network, batches, spec, measure=measure)
    assert len(spec.free) == axes
    assert {axis: move.places.tolist() for axis, move in found.items()} == {a: p.tolist() for a, p in undone.items()}


def test_what_cannot_be_matched_by_activations_is_said() -> None:
    network, spec = CASES["mlp"].made(0)
    inputs = [CASES["mlp"].inputs(4, rng_of(0))]
    nobody = (
        "activation matching: no linear layer, convolution or embedding was seen to make axis {!r}: give inputs that reach "
        "one, or match weights"
    )
    assert said_by(lambda: match_activations(network, network, [], spec)) == nobody.format("a")
    assert said_by(lambda: match_activations(network, network, inputs, spec, ("b", "in"))) == nobody.format("in")
    shallow = perceptron(7, 10, 9, 4)
    assert said_by(lambda: match_activations(network, shallow, inputs, spec)) == (
        "activation matching: the networks differ in the shape of '4.weight'"
    )


# ---------------------------------------------------------------- barriers


@each
def test_the_barrier_to_a_permuted_copy_goes_away(case: Case) -> None:
    network, spec = case.made(0)
    other, _ = planted(network, spec, 1)
    inputs = [case.inputs(24, rng_of(n)) for n in range(2)]
    take_statistics(network, inputs)
    with torch.no_grad():
        batches = [(x, network(x)) for x in inputs]
    loss = MeanLoss(network, batches, functional.mse_loss)
    before = straight_line(network.state_dict(), other.state_dict(), loss, 5)
    assert max(before.losses[0], before.losses[-1]) < 1e-8 < 1e-2 < before.barrier
    for moves in (by_weights(other, network, spec), match_activations(other, network, inputs, spec)):
        after = straight_line(network.state_dict(), moved_by(other, spec, moves).state_dict(), loss, 5)
        assert after.barrier < 1e-8


def test_the_barrier_is_taken_over_the_mix_of_the_ends() -> None:
    """Of (w - 1)² from w = 0 to w = 4: 1, 0, 1, 4, 9, and the mix of the ends 1, 3, 5, 7, 9."""
    ends = {"w": torch.tensor(0.0), "steps": torch.tensor(7)}, {"w": torch.tensor(4.0), "steps": torch.tensor(9)}
    seen = []

    def loss(state: Any, sign: float) -> float:
        seen.append(int(state["steps"]))
        return sign * float((state["w"] - 1) ** 2)

    valley, hill = (straight_line(*ends, lambda state, sign=sign: loss(state, sign), 5) for sign in (1, -1))
    assert valley == Line((0.0, 0.25, 0.5, 0.75, 1.0), (1.0, 0.0, 1.0, 4.0, 9.0)) and valley.barrier == 0
    assert hill.barrier == 4 and set(seen) == {7}


def test_the_loss_is_the_mean_over_samples_of_batches_of_any_size() -> None:
    network, _ = CASES["mlp"].made(0)
    other, _ = CASES["mlp"].made(1)
    inputs = CASES["mlp"].inputs(23, rng_of(0))
    labels = torch.randint(4, (23,), generator=rng_of(1))
    loss = MeanLoss(network, list(zip(inputs.split(10), labels.split(10), strict=True)))
    expected = functional.cross_entropy(other(inputs), labels)
    assert loss(other.state_dict()) == pytest.approx(expected.item(), rel=1e-5)
    assert torch.equal(network[0].weight, CASES["mlp"].made(0)[0][0].weight), "the module itself stays"


def test_statistics_of_batch_norm_are_those_of_torch_and_dropout_stays_off() -> None:
    batches = [CASES["cnn"].inputs(n, rng_of(n)) for n in (9, 16)]
    ours = nn.Sequential(nn.Dropout(0.5), CASES["cnn"].made(0)[0]).eval()
    theirs = copy.deepcopy(ours[1])
    take_statistics(ours, batches)
    update_bn(batches, theirs)
    for (name, found), (_, expected) in zip(ours[1].state_dict().items(), theirs.state_dict().items(), strict=True):
        torch.testing.assert_close(found, expected, msg=name)
    assert not any(layer.training for layer in ours.modules())
    assert {layer.momentum for layer in ours.modules() if isinstance(layer, nn.BatchNorm2d)} == {0.1}


def test_a_loss_on_the_way_takes_statistics_of_its_own() -> None:
    (network, _), (other, _) = CASES["cnn"].made(0), CASES["cnn"].made(1)
    inputs, more = CASES["cnn"].inputs(30, rng_of(0)), CASES["cnn"].inputs(25, rng_of(1))
    labels = torch.randint(5, (30,), generator=rng_of(2))
    middle = {
        name: (tensor + other.state_dict()[name]) / 2 if tensor.is_floating_point() else tensor
        for name, tensor in network.state_dict().items()
    }
    for given_inputs in (None, [more]):
        found = straight_line(
            network.state_dict(), other.state_dict(), MeanLoss(network, [(inputs, labels)], inputs=given_inputs), 3
        )
        by_hand = copy.deepcopy(network)
        by_hand.load_state_dict(middle)
        update_bn(given_inputs or [inputs], by_hand)
        expected = functional.cross_entropy(by_hand.eval()(inputs), labels)
        assert found.losses[1] == pytest.approx(expected.item(), rel=1e-4)


def test_lines_that_cannot_be_drawn_are_refused() -> None:
    network, _ = CASES["mlp"].made(0)
    state, wider = network.state_dict(), perceptron(7, 11, 9, 6, 4).state_dict()
    assert said_by(lambda: straight_line(state, wider, lambda _: 0.0)) == (
        "no straight line between these networks: they differ in the shape of '0.weight'"
    )
    assert said_by(lambda: straight_line(state, state, lambda _: 0.0, 2)) == (
        "a straight line needs 3 points or more: its ends say nothing of the way"
    )
    assert said_by(lambda: MeanLoss(network, [])(state)) == "there are no batches to take a loss over"
    assert said_by(lambda: MeanLoss(network, [])({"8.weight": torch.zeros(1)})) == "the module has no tensor '8.weight'"


# ---------------------------------------------------------------- what is refused

PLAIN = WeightSpec(
    (WeightEntry("w1", (2, 3), ("in", "units")), WeightEntry("w2", (3, 2), ("units", "out"))), ("units",)
)


@pytest.mark.parametrize(
    ("axes", "change", "message"),
    [
        ((), {}, "no axis to act on; free axes: units"),
        (("nosuch",), {}, "this target has no axis 'nosuch'; it has in, out, units"),
        ("units", {}, "axes are a list of names, not 'units' alone: write ['units']"),
        (("units", "units"), {}, "axis 'units' is named twice"),
        (
            ("units",),
            {"weights": torch.full((1, 12), torch.nan)},
            "tensor 'w1' of the networks to move holds values that are not finite numbers",
        ),
        (
            ("units",),
            {"reference": torch.tensor([0.0] * 11 + [torch.inf])},
            "tensor 'w2' of the reference holds values that are not finite numbers",
        ),
        (
            ("units",),
            {"reference": torch.zeros(11)},
            "weights are (B, 12) and the reference (12,) or (B, 12) for this spec, not (1, 12) and (11,)",
        ),
        (
            ("units",),
            {"weights": torch.zeros(1, 12).half()},
            "weights are torch.float16 and the reference is torch.float32: bring both to one floating dtype, as by .float()",
        ),
    ],
)
def test_weights_and_axes_that_cannot_be_matched_are_refused(
    axes: Any, change: dict[str, Tensor], message: str
) -> None:
    given = {"weights": torch.zeros(1, 12), "reference": torch.zeros(12)} | change
    assert said_by(lambda: match(given["weights"], given["reference"], PLAIN, axes)) == f"weight matching: {message}"


def test_units_of_an_axis_that_no_tensor_has_are_not_moved() -> None:
    moves = {"nosuch": Move(torch.zeros(1, 3, dtype=torch.long))}
    assert said_by(lambda: move(torch.zeros(1, 12), PLAIN, moves)) == (
        "moving units: this target has no axis 'nosuch'; it has in, out, units"
    )


def test_activations_that_are_no_numbers_and_axes_that_are_none_are_not_matched() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    axes = {"0.weight": ("units", "2"), "0.bias": ("units",), "2.weight": ("2", "units"), "2.bias": ("2",)}
    entries = (WeightEntry(name, tuple(p.shape), axes[name]) for name, p in net.named_parameters())
    spec = WeightSpec(tuple(entries), ("units",))
    batches = [torch.full((4, 2), torch.nan)]
    assert said_by(lambda: match_activations(net, net, batches, spec)) == (
        "activation matching: what a network does along axis 'units' is not a finite number: look for nan or inf in the "
        "inputs and the weights"
    )
    assert said_by(lambda: match_activations(net, net, batches, spec, ["unit"])) == (
        "activation matching: this target has no axis 'unit'; it has units"
    )
    assert said_by(lambda: match_activations(net, net, batches, replace(spec, free=()))) == (
        "activation matching: no axis to act on; free axes: none"
    )
