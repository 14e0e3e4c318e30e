"""Two networks into one by their weights, against brute force and the algorithms written out; and mixtures of conditions."""

from __future__ import annotations

from itertools import permutations
from math import acos, pi, sin, sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.support.stand_ins import Units
from wspace.components.fusions.average import Average
from wspace.components.fusions.git_rebasin import GitRebasin
from wspace.components.fusions.slerp import Slerp
from wspace.components.fusions.task_arithmetic import TaskArithmetic
from wspace.components.fusions.ties import Ties
from wspace.interfaces import Condition
from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.testing.subject import HIDDEN, SPECS, normal
from wspace.weights.interpolation import along, mixed, positions, shares

SPEC = HIDDEN  # one hidden layer of four units: 24 orders of them
seeds = st.integers(0, 10_000)


def networks(seed: int = 0, count: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Two rows of networks, and a base."""
    rng = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, count, SPEC.size, generator=rng)
    return first, second, torch.randn(SPEC.size, generator=rng)


def test_the_average_is_weight_by_weight() -> None:
    first, second, _ = networks()
    for row in range(3):
        for place in range(SPEC.size):
            expected = (float(first[row, place]) + float(second[row, place])) / 2
            assert float(Average().fuse(first, second)[row, place]) == pytest.approx(expected, abs=1e-6)


# ---------------------------------------------------------------- Git Re-Basin


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_git_rebasin_averages_with_the_best_of_all_orders(seed: int) -> None:
    first, second, _ = networks(seed)
    fused = GitRebasin(spec=SPEC).fuse(first, second)
    ours, theirs = SPEC.unflatten(first), SPEC.unflatten(second)
    for row in range(3):
        best, nearest = None, None
        for order in permutations(range(4)):
            moved = {
                "w1": theirs["w1"][row][:, order],
                "b1": theirs["b1"][row][list(order)],
                "w2": theirs["w2"][row][list(order)],
                "b2": theirs["b2"][row],
            }
            distance = sum(float((moved[name] - ours[name][row]).square().sum()) for name in moved)
            if nearest is None or distance < nearest:
                best, nearest = moved, distance
        assert best is not None
        expected = SPEC.flatten({name: (tensor + ours[name][row]) / 2 for name, tensor in best.items()})
        assert torch.allclose(fused[row], expected, atol=1e-6)


def test_git_rebasin_of_a_network_and_itself_in_another_order_is_that_network() -> None:
    first, _, _ = networks()
    moved = Units(spec=SPEC).act(torch.tensor([[3, 1, 0, 2]] * 3), first)
    assert not torch.allclose(Average().fuse(first, moved), first, atol=0.1)
    assert torch.allclose(GitRebasin(spec=SPEC).fuse(first, moved), first, atol=1e-6)


def test_git_rebasin_without_units_to_permute_is_the_average() -> None:
    spec = WeightSpec((WeightEntry("w", (3, 4), ("in", "out")),))
    first, second = normal(2, 12, seed=1), normal(2, 12, seed=2)
    assert torch.equal(GitRebasin(spec=spec).fuse(first, second), Average().fuse(first, second))


# ---------------------------------------------------------------- slerp


@given(seeds, st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_slerp_is_shoemakes_formula_on_each_tensor(seed: int, at: float) -> None:
    first, second, _ = networks(seed, 1)
    fused = SPEC.unflatten(Slerp(at, spec=SPEC).fuse(first, second)[0])
    for name, tensor in fused.items():
        p, q = (SPEC.unflatten(w[0])[name].flatten().tolist() for w in (first, second))
        length_p, length_q = (sqrt(sum(x * x for x in v)) for v in (p, q))
        angle = acos(sum(x * y for x, y in zip(p, q, strict=True)) / (length_p * length_q))
        expected = [(sin((1 - at) * angle) * x + sin(at * angle) * y) / sin(angle) for x, y in zip(p, q, strict=True)]
        assert torch.allclose(tensor.flatten(), torch.tensor(expected), atol=1e-3)


def test_slerp_keeps_the_length_of_tensors_that_are_as_long_and_at_right_angles() -> None:
    spec = WeightSpec((WeightEntry("w", (2,), ("unit",)),))
    first, second = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    fused = Slerp(1 / 3, spec=spec).fuse(first, second)[0]
    assert torch.allclose(fused, 3 * torch.tensor([torch.tensor(pi / 6).cos(), torch.tensor(pi / 6).sin()]))
    assert Average().fuse(first, second)[0].norm() == pytest.approx(3 / sqrt(2))


def test_slerp_of_parallel_networks_is_linear() -> None:
    first, _, _ = networks()
    assert torch.allclose(Slerp(0.25, spec=SPEC).fuse(first, 3 * first), 1.5 * first, rtol=1e-5)
    assert torch.allclose(Slerp(0.5, spec=SPEC).fuse(first, -first), torch.zeros_like(first), atol=1e-6)


# ---------------------------------------------------------------- task arithmetic and TIES


def test_task_arithmetic_adds_what_both_learned() -> None:
    first, second, base = networks()
    fused = TaskArithmetic(0.7, base=base).fuse(first, second)
    for row in range(3):
        for place in range(SPEC.size):
            b = float(base[place])
            expected = b + 0.7 * ((float(first[row, place]) - b) + (float(second[row, place]) - b))
            assert float(fused[row, place]) == pytest.approx(expected, abs=1e-5)
    assert torch.allclose(TaskArithmetic(0.5, base=base).fuse(first, second), Average().fuse(first, second), atol=1e-6)


def written_out(first: list[float], second: list[float], base: list[float], keep: float, scale: float) -> list[float]:
    """Algorithm 1 of Yadav et al. (2023), value by value."""
    vectors = [[w - b for w, b in zip(network, base, strict=True)] for network in (first, second)]
    trimmed = []
    for vector in vectors:  # step 1: trim
        ranked = sorted(range(len(vector)), key=lambda i: -abs(vector[i]))
        kept = set(ranked[: max(1, round(keep * len(vector)))])
        trimmed.append([value if i in kept else 0.0 for i, value in enumerate(vector)])
    merged = []
    for values in zip(*trimmed, strict=True):
        positive = sum(value for value in values if value > 0)
        negative = -sum(value for value in values if value < 0)
        sign = 1 if positive > negative else -1 if negative > positive else 0  # step 2: elect
        agreeing = [value for value in values if value * sign > 0]
        merged.append(sum(agreeing) / len(agreeing) if agreeing else 0.0)  # step 3: disjoint mean
    return [b + scale * m for b, m in zip(base, merged, strict=True)]


@given(seeds, st.sampled_from([0.05, 0.2, 0.5, 1.0]), st.sampled_from([0.3, 1.0]))
@settings(max_examples=25, deadline=None)
def test_ties_is_the_algorithm_written_out(seed: int, keep: float, scale: float) -> None:
    first, second, base = networks(seed)
    fused = Ties(keep, scale, base=base).fuse(first, second)
    for row in range(3):
        expected = written_out(first[row].tolist(), second[row].tolist(), base.tolist(), keep, scale)
        assert torch.allclose(fused[row], torch.tensor(expected), atol=1e-5)


def test_ties_takes_what_one_learned_and_the_other_did_not_whole() -> None:
    base = torch.zeros(5)
    first, second = torch.tensor([[4.0, 0.1, -3.0, 5.0, 0.0]]), torch.tensor([[0.1, 4.0, -1.0, -6.0, 0.0]])
    fused = Ties(0.6, base=base).fuse(first, second)
    assert fused.tolist() == [[4.0, 4.0, -2.0, -6.0, 0.0]]


def test_trimming_keeps_as_many_as_asked_for() -> None:
    learned = normal(4, 50, seed=3)
    assert [int(row.count_nonzero()) for row in Ties(0.2, base=learned[0]).trimmed(learned)] == [10] * 4


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_networks_that_learned_nothing_are_fused_to_their_base(spec: WeightSpec) -> None:
    base = normal(spec.size, seed=4)
    same = base.expand(2, -1)
    ways = [Average(), GitRebasin(spec=spec), Slerp(spec=spec), TaskArithmetic(base=base), Ties(base=base)]
    for way in ways:
        assert torch.allclose(way.fuse(same, same), same, atol=1e-6), type(way).__name__


# ---------------------------------------------------------------- between conditions


def condition(seed: int, length: int = 4) -> Condition:
    """Of three tasks, of which the first has a padded token."""
    mask = torch.ones(3, length, dtype=torch.bool)
    if length > 1:
        mask[0, -1] = False
    return Condition(normal(3, length, 5, seed=seed) * mask[..., None], mask, normal(3, 4, seed=seed + 1))


def test_at_an_end_there_is_the_condition_itself() -> None:
    ends = [condition(10), condition(20, 6)]
    for i, (at, shown) in enumerate(((0.0, slice(0, 4)), (1.0, slice(4, 10)))):
        for way in ("linear", "spherical"):
            counts = along([end.pooled for end in ends], at, way)
            found = mixed(ends, counts)
            assert torch.allclose(found.pooled, ends[i].pooled, atol=1e-6)
            assert torch.allclose(found.tokens[:, shown], ends[i].tokens, atol=1e-6)
            assert torch.equal(found.mask[:, shown], ends[i].mask)
            assert found.mask.sum() == ends[i].mask.sum()  # nothing of the other is to be seen


def test_between_them_both_are_seen_by_what_they_count() -> None:
    ends = [condition(10), condition(20, 6)]
    found = mixed(ends, torch.tensor([[0.25, 0.75]] * 3))
    assert torch.allclose(found.pooled, 0.25 * ends[0].pooled + 0.75 * ends[1].pooled)
    assert torch.equal(found.tokens, torch.cat([0.25 * ends[0].tokens, 0.75 * ends[1].tokens], dim=1))
    assert torch.equal(found.mask, torch.cat([ends[0].mask, ends[1].mask], dim=1))


def test_conditions_of_one_token_are_no_sets() -> None:
    ends = [condition(10, 1), condition(20, 1)]
    found = mixed(ends, torch.tensor([[0.25, 0.75]] * 3))
    assert torch.allclose(found.tokens, 0.25 * ends[0].tokens + 0.75 * ends[1].tokens) and found.mask.all()


def test_the_middle_of_an_arc_is_as_far_from_the_origin_as_its_ends() -> None:
    first, second = torch.eye(3)[:2], torch.eye(3)[[2, 0]]
    ours, theirs = shares(first, second, 0.5, "spherical")
    assert torch.allclose((ours[:, None] * first + theirs[:, None] * second).norm(dim=1), torch.ones(2))
    ours, theirs = shares(first, second, 0.5, "linear")
    assert torch.allclose((ours[:, None] * first + theirs[:, None] * second).norm(dim=1), torch.full((2,), 0.5**0.5))


@given(st.integers(2, 5), st.floats(0, 1))
def test_a_way_through_several_goes_from_corner_to_corner(corners: int, share: float) -> None:
    ends = [normal(2, 4, seed=30 + i) for i in range(corners)]
    counts = along(ends, share * (corners - 1), "linear")
    assert counts.shape == (2, corners) and (counts >= 0).all()
    assert torch.allclose(counts.sum(1), torch.ones(2)) and int((counts[0] > 0).sum()) <= 2
    for number, place in enumerate(positions(corners, corners)):
        assert torch.equal(along(ends, place, "linear")[0], torch.eye(corners)[number])
