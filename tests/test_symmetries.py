"""Permutations: a group action that leaves the function as it is."""

from __future__ import annotations

from itertools import permutations
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from wspace.errors import UserError
from wspace.symmetries.permutation import Permutation
from wspace.targets.clip_adapter import ClipAdapter
from wspace.weights import WeightEntry, WeightSpec

CHAIN = WeightSpec(
    (
        WeightEntry("w1", (2, 3), ("in", "first")),
        WeightEntry("w2", (4, 3), ("second", "first")),
        WeightEntry("b2", (4,), ("second",)),
        WeightEntry("square", (3, 2, 3), ("first", "in", "first")),
        WeightEntry("out", (4, 2), ("second", "out")),
    ),
    free=("first", "second"),
)
SEEDS = st.integers(0, 10_000)
property_test = settings(deadline=None, max_examples=25, derandomize=True)


def drawn(seed: int, count: int = 4) -> tuple[Permutation, Tensor, Tensor, Tensor]:
    """The symmetry of CHAIN's two hidden axes, two elements a network, and weights (count, P)."""
    symmetry, rng = Permutation(("second", "first"), spec=CHAIN), torch.Generator().manual_seed(seed)
    g, h = symmetry.sample(count, rng), symmetry.sample(count, rng)
    return symmetry, g, h, torch.randn(count, CHAIN.size, generator=rng)


def per_axis(symmetry: Permutation, elements: Tensor) -> list[Tensor]:
    return list(elements.split(symmetry.lengths, dim=1))


@property_test
@given(seed=SEEDS)
def test_the_identity_moves_nothing(seed: int) -> None:
    symmetry, g, _, weights = drawn(seed)
    identity = torch.cat([p.sort(1).values for p in per_axis(symmetry, g)], dim=1)
    assert torch.equal(symmetry.act(identity, weights), weights)


@property_test
@given(seed=SEEDS)
def test_the_inverse_undoes(seed: int) -> None:
    symmetry, g, _, weights = drawn(seed)
    inverse = torch.cat([p.argsort(1) for p in per_axis(symmetry, g)], dim=1)
    assert torch.equal(symmetry.act(inverse, symmetry.act(g, weights)), weights)
    assert torch.equal(symmetry.act(g, symmetry.act(inverse, weights)), weights)


@property_test
@given(seed=SEEDS)
def test_acting_twice_is_acting_with_the_product(seed: int) -> None:
    symmetry, g, h, weights = drawn(seed)
    product = torch.cat(
        [b.gather(1, a) for a, b in zip(per_axis(symmetry, g), per_axis(symmetry, h), strict=True)], dim=1
    )
    assert torch.equal(symmetry.act(g, symmetry.act(h, weights)), symmetry.act(product, weights))


@property_test
@given(seed=SEEDS)
def test_unit_g_i_moves_to_place_i_in_every_tensor(seed: int) -> None:
    symmetry, g, _, weights = drawn(seed)
    before, after = CHAIN.unflatten(weights), CHAIN.unflatten(symmetry.act(g, weights))
    for b in range(len(weights)):
        second, first = (p[b] for p in per_axis(symmetry, g))
        assert torch.equal(after["w1"][b], before["w1"][b][:, first])
        assert torch.equal(after["w2"][b], before["w2"][b][second][:, first])
        assert torch.equal(after["b2"][b], before["b2"][b][second])
        assert torch.equal(after["square"][b], before["square"][b][first][:, :, first])
        assert torch.equal(after["out"][b], before["out"][b][second])


@property_test
@given(seed=SEEDS)
def test_samples_are_permutations_of_each_axis_and_follow_the_seed(seed: int) -> None:
    symmetry, g, h, _ = drawn(seed)
    for elements in (g, h):
        for p, length in zip(per_axis(symmetry, elements), (4, 3), strict=True):
            assert torch.equal(p.sort(1).values, torch.arange(length).expand(len(p), -1))
    assert torch.equal(drawn(seed)[1], g)


def test_samples_are_uniform_over_the_group() -> None:
    symmetry = Permutation(spec=ClipAdapter(3, feature_dim=2, text_dim=2).spec)
    elements = symmetry.sample(6000, torch.Generator().manual_seed(0))
    _, counts = elements.unique(dim=0, return_counts=True)
    assert len(counts) == 6 and float((counts - 1000).square().sum() / 1000) < 20.5  # chi-squared, 5 degrees: p = 0.001


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ["gelu", "none"])
def test_every_element_of_s3_leaves_the_function_unchanged(activation: Literal["gelu", "none"], bias: bool) -> None:
    target = ClipAdapter(3, activation, bias, feature_dim=4, text_dim=5)
    rng = torch.Generator().manual_seed(0)
    weights = (2 * target.init(1, rng)).double().expand(6, -1)  # (6, P)
    features = torch.randn(1, 7, 4, generator=rng, dtype=torch.float64).expand(6, -1, -1)
    texts = functional.normalize(torch.randn(1, 3, 5, generator=rng, dtype=torch.float64), dim=2).expand(6, -1, -1)
    moved = Permutation(spec=target.spec).act(torch.tensor(list(permutations(range(3)))), weights)
    assert len(moved.unique(dim=0)) == 6
    torch.testing.assert_close(target.logits(moved, features, texts), target.logits(weights, features, texts))


def test_an_axis_whose_order_means_something_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        Permutation(("hidden", "text"), spec=ClipAdapter(3, feature_dim=2, text_dim=2).spec)
    assert (
        str(caught.value)
        == "symmetry 'permutation': permuting axis 'text' of this target changes its function; free axes: hidden"
    )


def test_no_axis_at_all_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        Permutation((), spec=CHAIN)
    assert str(caught.value) == "symmetry 'permutation': no axes to permute"


def test_all_free_axes_are_permuted_if_none_is_named() -> None:
    assert Permutation(spec=CHAIN).axes == ("first", "second")
