"""How new networks are: against the zoo's by brute force over the group, and image by image."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.support.stand_ins import Adapter, Units
from wspace.components.symmetries.gl import GL
from wspace.components.symmetries.sign_permutation import SignPermutation
from wspace.interfaces import Symmetry
from wspace.weights.novelty import Neighbourhood, error_overlap

TARGET = Adapter(4, feature_dim=8, text_dim=6)
ORDER = Units(spec=TARGET.spec)
SYMMETRIES = [ORDER, SignPermutation(spec=TARGET.spec), GL(spec=TARGET.spec)]
SIZE = 30


def rng_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def zoo(seed: int = 0, size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Networks (size, P) around a base (P,), as a zoo has them."""
    drawn = TARGET.init(size + 1, rng_of(seed))
    return drawn[0] + 0.3 * drawn[1:], drawn[0]


def neighbourhood(symmetry: Symmetry | None, seed: int = 0, size: int = SIZE) -> Neighbourhood:
    return Neighbourhood(*zoo(seed, size), symmetry, rng_of(seed))


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_a_copy_in_another_order_or_basis_is_new_only_to_who_does_not_know_the_symmetry(symmetry: Symmetry) -> None:
    weights, _ = zoo()
    planted = symmetry.act(symmetry.sample(SIZE, rng_of(1)), weights)
    found = neighbourhood(symmetry).nearest(planted)
    assert torch.equal(found.index, torch.arange(SIZE)) and found.novelty.max() < 1e-3
    assert neighbourhood(None).nearest(planted).novelty.median() > 1


def test_a_copy_as_it_is_is_not_new() -> None:
    weights, _ = zoo()
    found = neighbourhood(None).nearest(weights[[3, 1, 1]])
    assert found.index.tolist() == [3, 1, 1] and found.novelty.max() < 1e-6


def orbit_distances(networks: Tensor, weights: Tensor, symmetry: Units | None) -> Tensor:
    """(B, n), each the least over the whole group."""
    elements = torch.tensor(list(permutations(range(4)))) if symmetry else torch.arange(4)[None]
    return torch.stack([
        torch.stack([(ORDER.act(elements, network.expand(len(elements), -1)) - other).norm(dim=1).min() for other in weights])
        for network in networks
    ])  # fmt: skip


@pytest.mark.parametrize("symmetry", [ORDER, None])
@settings(deadline=None, max_examples=4, derandomize=True)
@given(seed=st.integers(0, 1000))
def test_novelty_is_the_least_distance_over_the_group_in_units_of_the_zoo(symmetry: Units | None, seed: int) -> None:
    weights, base = zoo(seed, size=12)
    networks = base + 0.25 * TARGET.init(5, rng_of(seed + 1))
    networks = ORDER.act(ORDER.sample(5, rng_of(seed)), networks)
    among = orbit_distances(weights, weights, symmetry)
    unit = among.fill_diagonal_(torch.inf).min(1).values.median()
    expected = orbit_distances(networks, weights, symmetry)
    found = neighbourhood(symmetry, seed, size=12).nearest(networks)
    torch.testing.assert_close(found.novelty, expected.min(1).values / unit, rtol=1e-4, atol=0)
    assert torch.equal(found.index, expected.argmin(1))


def test_what_is_as_far_as_the_zoos_members_from_each_other_has_novelty_one() -> None:
    weights, base = zoo(size=61)
    rest = Neighbourhood(weights[:60], base, ORDER, rng_of(0))
    assert rest.nearest(weights[60:]).novelty.item() == pytest.approx(1, abs=0.1)
    farther = base + 3 * (weights[60:] - base)
    assert rest.nearest(farther).novelty > 1.5


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_novelty_has_no_scale(scale: float) -> None:
    weights, base = zoo()
    networks = base + TARGET.init(4, rng_of(5))
    expected = Neighbourhood(weights, base, ORDER, rng_of(0)).nearest(networks).novelty
    found = Neighbourhood(scale * weights, scale * base, ORDER, rng_of(0)).nearest(scale * networks).novelty
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("size", [2, 3, 9])
def test_a_zoo_may_be_smaller_than_the_number_of_candidates(size: int) -> None:
    weights, _ = zoo(size=size)
    found = neighbourhood(ORDER, size=size).nearest(weights)
    assert found.index.tolist() == list(range(size)) and found.novelty.max() < 1e-3


def test_a_zoo_of_one_network_many_times_has_no_unit_and_still_gives_numbers() -> None:
    weights, base = zoo(size=1)
    found = Neighbourhood(weights.expand(3, -1), base, None, rng_of(0)).nearest(torch.cat([weights, 2 * weights]))
    assert found.novelty[0] == 0 and found.novelty[1] > 1e6 and torch.isfinite(found.novelty).all()


def test_networks_are_the_same_in_blocks_of_any_size() -> None:
    networks = zoo()[1] + 0.3 * TARGET.init(7, rng_of(9))
    whole = neighbourhood(ORDER).nearest(networks)
    parts = Neighbourhood(*zoo(), ORDER, rng_of(0), rows=3).nearest(networks)
    assert torch.equal(parts.index, whole.index)
    torch.testing.assert_close(parts.novelty, whole.novelty)
    first, second, third = whole.split(3)
    assert (
        torch.equal(second.index, whole.index[3:6])
        and torch.equal(third.novelty, whole.novelty[6:])
        and len(first.index) == 3
    )


# ---------------------------------------------------------------- wrong predictions


@settings(deadline=None, max_examples=40, derandomize=True)
@given(data=st.data(), tasks=st.integers(1, 3))
def test_overlap_is_that_of_the_sets_of_wrong_images(data: st.DataObject, tasks: int) -> None:
    columns: list[list[Tensor]] = [[], [], []]
    expected = []
    for _ in range(tasks):
        images = data.draw(st.integers(1, 8))
        rows = [data.draw(st.lists(st.integers(0, 2), min_size=images, max_size=images)) for _ in range(3)]
        first, second, labels = rows
        wrong = {i for i in range(images) if first[i] != labels[i]}
        wrong_too = {i for i in range(images) if second[i] != labels[i]}
        expected.append(len(wrong & wrong_too) / len(wrong | wrong_too) if wrong | wrong_too else 1.0)
        for column, row in zip(columns, rows, strict=True):
            column.append(torch.tensor(row))
    torch.testing.assert_close(error_overlap(*columns), torch.tensor(expected))


def test_networks_that_err_alike_overlap_wholly_and_those_that_never_do_not_at_all() -> None:
    labels = [torch.tensor([0, 1, 2, 0])] * 3
    first = [torch.tensor([1, 1, 2, 0]), torch.tensor([1, 1, 2, 0]), torch.tensor([0, 1, 2, 0])]
    second = [torch.tensor([2, 1, 2, 0]), torch.tensor([0, 0, 2, 0]), torch.tensor([0, 1, 2, 0])]
    assert error_overlap(first, second, labels).tolist() == [1, 0, 1]
