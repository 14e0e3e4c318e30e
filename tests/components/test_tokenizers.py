"""Tokenizers against loops over single weights."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.support.stand_ins import Adapter, Units
from wspace.components.tokenizers.chunk import Chunk
from wspace.components.tokenizers.neuron import Neuron
from wspace.interfaces import Tokenizer
from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.support.errors import UserError

KINDS = ["chunk-minmax", "chunk-zscore", "chunk-centered", "neuron-zscore", "neuron-centered"]
DIMS = st.integers(1, 7)
settings.register_profile("tokenizers", deadline=None, max_examples=15, derandomize=True)
every = settings.get_profile("tokenizers")


def spec_of(features: int, hidden: int, texts: int, bias: bool) -> WeightSpec:
    return Adapter(hidden, "gelu", bias, feature_dim=features, text_dim=texts).spec


def build(kind: str, spec: WeightSpec, size: int = 4) -> Tokenizer:
    name, scale = kind.split("-")
    return Chunk(size, scale, spec=spec) if name == "chunk" else Neuron("hidden", scale, spec=spec)  # type: ignore[arg-type]


def zoo(spec: WeightSpec, count: int = 5, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, spec.size, generator=rng) * 3 + torch.randn(spec.size, generator=rng)  # (count, P)


def positions(kind: str, spec: WeightSpec, size: int) -> list[list[int]]:
    """The weights in every token, by loops: a list of indices a token."""
    index = {e.name: torch.arange(spec.size)[spec.slices[e.name]].view(e.shape) for e in spec.entries}
    if kind.startswith("chunk"):
        flat = [index[e.name].flatten().tolist() for e in spec.entries]
        return [tensor[i : i + size] for tensor in flat for i in range(0, len(tensor), size)]
    units: list[list[int]] = []
    for unit in range(spec.axis_size("hidden")):
        units.append([])
        for e in spec.entries:
            if "hidden" in e.axes:
                units[-1] += index[e.name].select(e.axes.index("hidden"), unit).flatten().tolist()
    rest = [i for e in spec.entries if "hidden" not in e.axes for i in index[e.name].flatten().tolist()]
    return units + [rest[i : i + len(units[0])] for i in range(0, len(rest), len(units[0]))]


def scales(kind: str, spec: WeightSpec, weights: Tensor, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Shift and scale of every weight, by the words of fit_scale and loops over groups."""
    values, how = weights.double().numpy(), kind.split("-")[1]
    tensors = [list(range(s.start, s.stop)) for s in spec.slices.values()]
    groups = positions(kind, spec, size) if how == "minmax" else tensors
    shift, scale = np.zeros(spec.size), np.ones(spec.size)
    for group in groups:
        block = values[:, group]
        if how == "minmax":
            shift[group], scale[group] = (block.max() + block.min()) / 2, (block.max() - block.min()) / 2
        elif how == "zscore":
            shift[group], scale[group] = block.mean(), block.std()
        else:
            shift[group], scale[group] = block.mean(0), (block - block.mean(0)).std()
    return shift, scale


@pytest.mark.parametrize("kind", KINDS)
@every
@given(features=DIMS, hidden=DIMS, texts=DIMS, bias=st.booleans(), size=st.integers(1, 11))
def test_every_token_value_is_the_scaled_weight_that_a_loop_puts_there(
    kind: str, features: int, hidden: int, texts: int, bias: bool, size: int
) -> None:
    spec = spec_of(features, hidden, texts, bias)
    weights, tokenizer = zoo(spec), build(kind, spec, size)
    tokenizer.fit(weights)
    tokens, mask = tokenizer.tokenize(weights), tokenizer.layout.mask  # (B, N, D), (N, D)
    shift, scale = scales(kind, spec, weights, size)
    scaled = (weights.double().numpy() - shift) / scale

    where = positions(kind, spec, size)
    assert mask.shape == tokens.shape[1:] == (tokenizer.layout.count, tokenizer.layout.width)
    assert len(where) == len(mask)
    assert int(mask.sum()) == spec.size == len({i for token in where for i in token})
    assert not tokens[:, ~mask].any()
    for token, indices in enumerate(where):
        assert mask[token].tolist() == [True] * len(indices) + [False] * (mask.shape[1] - len(indices))
        np.testing.assert_allclose(tokens[:, token, : len(indices)].numpy(), scaled[:, indices], atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@every
@given(
    features=DIMS,
    hidden=DIMS,
    texts=DIMS,
    bias=st.booleans(),
    size=st.integers(1, 11),
    seed=st.integers(1, 99),
)
def test_the_round_trip_is_exact_up_to_rounding_for_networks_outside_the_zoo_too(
    kind: str, features: int, hidden: int, texts: int, bias: bool, size: int, seed: int
) -> None:
    spec = spec_of(features, hidden, texts, bias)
    tokenizer = build(kind, spec, size)
    for weights in (zoo(spec), zoo(spec, 1, seed)):
        torch.testing.assert_close(tokenizer.detokenize(tokenizer.tokenize(weights)), weights, rtol=0, atol=1e-6)
    tokenizer.fit(zoo(spec))
    for weights in (zoo(spec), zoo(spec, 1, seed)):
        torch.testing.assert_close(tokenizer.detokenize(tokenizer.tokenize(weights)), weights, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@every
@given(features=DIMS, hidden=DIMS, texts=DIMS, bias=st.booleans(), size=st.integers(1, 11))
def test_values_are_arranged_where_their_weights_lie_unscaled_and_collected_again(
    kind: str, features: int, hidden: int, texts: int, bias: bool, size: int
) -> None:
    spec = spec_of(features, hidden, texts, bias)
    tokenizer, values = build(kind, spec, size), zoo(spec, 2, 5)
    tokenizer.fit(zoo(spec))
    tokens = tokenizer.arrange(values)
    for token, indices in enumerate(positions(kind, spec, size)):
        assert torch.equal(tokens[:, token, : len(indices)], values[:, indices])
    assert not tokens[:, ~tokenizer.layout.mask].any()
    assert torch.equal(tokenizer.collect(tokens), values)
    filled = torch.where(tokenizer.layout.mask, tokens, 9.0)
    assert torch.equal(tokenizer.collect(filled), values)


def test_the_layout_says_how_many_tokens_are_hidden_units() -> None:
    spec = spec_of(3, 5, 4, True)
    assert [build(kind, spec).layout.units for kind in KINDS] == [0, 0, 0, 5, 5]


@pytest.mark.parametrize("kind", KINDS)
def test_padding_that_a_generator_fills_changes_no_weight(kind: str) -> None:
    spec = spec_of(3, 2, 5, True)
    tokenizer = build(kind, spec)
    assert not tokenizer.layout.mask.all()
    tokens = tokenizer.tokenize(zoo(spec))
    filled = torch.where(tokenizer.layout.mask, tokens, 9.0)
    assert torch.equal(tokenizer.detokenize(filled), tokenizer.detokenize(tokens))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, 0.1, -1.7, 123.4])
def test_weights_that_never_vary_keep_their_scale(kind: str, value: float) -> None:
    spec = spec_of(3, 2, 5, True)
    tokenizer, weights = build(kind, spec), torch.full((7, spec.size), value)
    tokenizer.fit(weights)
    tokens = tokenizer.tokenize(weights)
    assert tokens.abs().max() < 1e-4
    torch.testing.assert_close(tokenizer.detokenize(tokens), weights)
    other = weights + 0.5  # one that does differ is not blown up
    differing = tokenizer.tokenize(other)[:, tokenizer.layout.mask]
    torch.testing.assert_close(differing, torch.full((7, spec.size), 0.5), rtol=0, atol=1e-4)


def test_a_zoo_of_one_network_has_finite_tokens() -> None:
    spec = spec_of(3, 2, 5, True)
    for kind in KINDS:
        tokenizer = build(kind, spec)
        tokenizer.fit(zoo(spec, 1))
        assert torch.isfinite(tokenizer.tokenize(zoo(spec, 3, 1))).all()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("scale", ["zscore", "centered"])
def test_permuting_hidden_units_permutes_neuron_tokens(scale: Literal["zscore", "centered"], bias: bool) -> None:
    spec = spec_of(3, 5, 4, bias)
    symmetry, weights = Units(spec=spec), zoo(spec)
    g = symmetry.sample(1, torch.Generator().manual_seed(1)).expand(len(weights), -1)  # one for the whole zoo
    moved = symmetry.act(g, weights)
    before, after = Neuron(scale=scale, spec=spec), Neuron(scale=scale, spec=spec)
    before.fit(weights)
    after.fit(moved if scale == "centered" else weights)  # a mean of each weight moves along with the weights
    tokens = before.tokenize(weights)
    expected = torch.cat([tokens[:, g[0]], tokens[:, 5:]], dim=1)
    assert not torch.equal(g[0], torch.arange(5))
    torch.testing.assert_close(after.tokenize(moved), expected)


def test_neuron_tokens_follow_any_axis_of_any_tensor() -> None:
    spec = WeightSpec(
        (
            WeightEntry("k", (2, 3, 2), ("a", "unit", "b")),
            WeightEntry("b", (3,), ("unit",)),
            WeightEntry("c", (7,), ("d",)),
        )
    )
    tokenizer = Neuron("unit", spec=spec)
    weights = torch.arange(22.0)[None]
    tokens = tokenizer.tokenize(weights)[0]
    assert tokens[1].tolist() == [2, 3, 8, 9, 13]
    assert tokens[3:].tolist() == [[15, 16, 17, 18, 19], [20, 21, 0, 0, 0]]
    assert torch.equal(tokenizer.detokenize(tokens[None]), weights)


def test_an_axis_the_target_lacks_is_named_with_those_it_has() -> None:
    with pytest.raises(UserError) as caught:
        Neuron("channel", spec=spec_of(3, 2, 4, True))
    assert str(caught.value) == "tokenizer 'neuron': this target has no axis 'channel'; it has feature, hidden, text"


def test_scales_are_saved_and_places_are_not() -> None:
    for kind in KINDS:
        assert set(build(kind, spec_of(3, 2, 4, True)).state_dict()) == {"shift", "spread"}
