"""What a zoo's weights alone give: Gaussians against numpy, soups against the group, and which networks they are made of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.support.stand_ins import Adapter, Units
from wspace.components.opponents.aligned_soup import AlignedSoup
from wspace.components.opponents.gaussian import Gaussian
from wspace.components.opponents.pca_gaussian import PcaGaussian
from wspace.components.symmetries.sign_permutation import SignPermutation
from wspace.interfaces import Contest, Evidence, Opponent, Symmetry, Task
from wspace.interfaces.weights import WeightSpec
from wspace.learning.baselines import gaussian, likeness, principal_gaussian, to_fit
from wspace.support.progress import Progress
from wspace.testing.opponents import contests_of, evidence_of

TARGET = Adapter(4, "tanh", feature_dim=8, text_dim=6)
SYMMETRIES = [Units(spec=TARGET.spec), SignPermutation(spec=TARGET.spec)]
ONE: tuple[Task, ...] = ((0, 1),)


def rng_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=rng_of(seed), dtype=torch.float64)


class Said(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def asked(
    opponent: Opponent, tasks: tuple[Task, ...], symmetry: Symmetry | None = None, count: int = 3
) -> tuple[Evidence, Contest]:
    """A zoo of the target without a base, a network for each of `tasks`; and a contest of the first ones, `count` of them."""
    different = {task: number for number, task in enumerate(dict.fromkeys(tasks))}
    descriptions = torch.eye(len(different) + 1)[[1 + different[task] for task in tasks]]
    evidence = replace(
        evidence_of(opponent), target=TARGET, shared_base=None, weights=TARGET.init(len(tasks), rng_of(1)), tasks=tasks,
        described=descriptions, symmetry=symmetry, progress=Said(),
    )  # fmt: skip
    return evidence, Contest("seen", (tasks * count)[:count], descriptions.repeat(count, 1)[:count])


def drawn(opponent: Opponent, evidence: Evidence, contest: Contest) -> Tensor:
    opponent.choose(evidence)
    return opponent.weights(evidence, contest)


# ---------------------------------------------------------------- the mathematics


def test_an_independent_gaussian_has_each_weights_mean_and_spread() -> None:
    networks, noise = normal(7, 5, seed=0), normal(3, 5, seed=1)
    expected = networks.numpy().mean(0) + networks.numpy().std(0, ddof=1) * noise.numpy()
    np.testing.assert_allclose(gaussian(networks, noise), expected)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(count=st.integers(2, 9), size=st.integers(1, 12), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_a_principal_gaussian_has_the_covariance_of_the_first_axes(
    count: int, size: int, share: float, seed: int
) -> None:
    """Against numpy's: what it makes of standard axes is a root of the covariance that it draws from."""
    networks = normal(count, size, seed=seed)
    axes = 1 + round(share * (count - 2))
    root = (principal_gaussian(networks, torch.eye(axes, dtype=torch.float64)) - networks.mean(0)).numpy()
    values, vectors = np.linalg.eigh(np.cov(networks.numpy().T).reshape(size, size))
    kept = vectors[:, ::-1][:, :axes] * values[::-1][:axes]
    np.testing.assert_allclose(root.T @ root, kept @ vectors[:, ::-1][:, :axes].T, atol=1e-10)


def test_along_all_axes_a_principal_gaussian_has_the_zoos_own_covariance() -> None:
    networks = normal(6, 20, seed=3)
    root = principal_gaussian(networks, torch.eye(5, dtype=torch.float64)) - networks.mean(0)
    np.testing.assert_allclose((root.T @ root).numpy(), np.cov(networks.numpy().T), atol=1e-10)


def test_networks_of_one_task_are_alike_to_the_last_bit() -> None:
    tasks: tuple[Task, ...] = ((0, 1), (2, 3), (0, 1), (4, 5))
    described = normal(4, 9, seed=4)
    alike = likeness(described, normal(3, 9, seed=5), tasks)
    assert torch.equal(alike[:, 0], alike[:, 2]) and (alike[:, 0] != alike[:, 1]).all()


# ---------------------------------------------------------------- of which networks


def test_a_gaussian_is_fitted_to_networks_of_the_task_where_there_are_several_and_to_all_where_not() -> None:
    several: tuple[Task, ...] = ((0, 1), (2, 3), (0, 1), (2, 3), (2, 3))
    evidence, contest = asked(Gaussian(), several, count=4)
    fitted = {tuple(rows.tolist()): networks for rows, networks in to_fit(evidence, contest, None)}
    assert set(fitted) == {(0, 2), (1, 3)}
    assert torch.equal(fitted[0, 2], evidence.weights[[0, 2]]) and torch.equal(
        fitted[1, 3], evidence.weights[[1, 3, 4]]
    )
    one_each: tuple[Task, ...] = ((0, 1), (2, 3), (4, 5))
    evidence, contest = asked(Gaussian(), one_each)
    ((rows, networks),) = to_fit(evidence, contest, None)
    assert rows.tolist() == [0, 1, 2] and torch.equal(networks, evidence.weights)


def test_a_soup_is_of_the_networks_described_most_alike_and_drawn_among_equals() -> None:
    several: tuple[Task, ...] = ((0, 1), (2, 3)) * 3
    evidence, contest = asked(AlignedSoup(), several)
    evidence = replace(evidence, target=Bound())
    soups = drawn(AlignedSoup(of=2), evidence, contest)
    for number, soup in enumerate(soups):
        copies = evidence.weights[[row for row, task in enumerate(several) if task == contest.tasks[number]]]
        pairs = torch.stack([copies[[0, 1]].mean(0), copies[[0, 2]].mean(0), copies[[1, 2]].mean(0)])
        assert (pairs - soup).abs().amax(1).min() < 1e-6
    many = drawn(AlignedSoup(of=4), *asked(AlignedSoup(), ONE * 12, SYMMETRIES[0], count=8))
    assert len(many.unique(dim=0)) == 8


# ---------------------------------------------------------------- matched


@pytest.mark.parametrize("symmetry", SYMMETRIES, ids=lambda symmetry: type(symmetry).__name__)
def test_the_order_of_units_in_the_zoo_makes_no_difference_to_a_soup(symmetry: Symmetry) -> None:
    """But for the order of units of the network that the others are matched to."""
    evidence, contest = asked(AlignedSoup(), ONE * 9, symmetry)
    moved = replace(evidence, weights=symmetry.act(symmetry.sample(9, rng_of(2)), evidence.weights))
    soups, of_moved = (drawn(AlignedSoup(of=5), its, contest) for its in (evidence, moved))
    assert (soups - of_moved).abs().max() > 0.01
    torch.testing.assert_close(symmetry.canonicalize(of_moved, soups), soups)


@pytest.mark.parametrize("opponent", [Gaussian(align=True), PcaGaussian(align=True), PcaGaussian(axes=2, align=True)])
@pytest.mark.parametrize("symmetry", SYMMETRIES, ids=lambda symmetry: type(symmetry).__name__)
def test_the_order_of_units_in_the_zoo_makes_no_difference_to_an_aligned_gaussian(
    symmetry: Symmetry, opponent: Opponent
) -> None:
    evidence, contest = asked(opponent, ONE * 9, symmetry)
    evidence = replace(evidence, shared_base=TARGET.init(1, rng_of(3))[0])
    moved = replace(evidence, weights=symmetry.act(symmetry.sample(9, rng_of(2)), evidence.weights))
    torch.testing.assert_close(drawn(opponent, moved, contest), drawn(opponent, evidence, contest))
    plain = type(opponent)()
    assert (drawn(plain, moved, contest) - drawn(plain, evidence, contest)).abs().max() > 0.01


def test_copies_of_one_network_in_other_orders_make_a_soup_that_is_that_network() -> None:
    symmetry = SYMMETRIES[0]
    evidence, contest = asked(AlignedSoup(), ONE * 6)  # the recipe names no symmetry: the target calls an axis free
    copies = symmetry.act(symmetry.sample(6, rng_of(4)), evidence.weights[:1].expand(6, -1))
    soups = drawn(AlignedSoup(of=6), replace(evidence, weights=copies), contest)
    torch.testing.assert_close(symmetry.canonicalize(soups, copies[0]), copies[:1].expand(3, -1))


class Bound(Adapter):
    """No axis is free."""

    def __init__(self) -> None:
        super().__init__(4, feature_dim=8, text_dim=6)
        self.spec = WeightSpec(self.spec.entries)


@pytest.mark.parametrize(
    ("name", "opponent"),
    [
        ("aligned-soup", AlignedSoup(of=6)),
        ("gaussian", Gaussian(align=True)),
        ("pca-gaussian", PcaGaussian(align=True)),
    ],
)
def test_where_nothing_says_how_to_match_networks_they_are_taken_as_they_are_and_it_is_said(
    name: str, opponent: Opponent
) -> None:
    evidence, contest = asked(opponent, ONE * 6)
    evidence = replace(evidence, target=Bound())
    made = drawn(opponent, evidence, contest)
    assert isinstance(evidence.progress, Said) and evidence.progress.lines == [
        f"note: the opponent '{name}' takes networks as they are: the target has no free axis, and the recipe no symmetry, to "
        "match them by"
    ]
    plain = (
        evidence.weights.mean(0).expand(3, -1) if name == "aligned-soup" else drawn(type(opponent)(), evidence, contest)
    )
    torch.testing.assert_close(made, plain)


def test_axes_that_the_networks_do_not_span_are_told_once() -> None:
    evidence, contest = asked(PcaGaussian(), ONE * 4)
    opponent = PcaGaussian(axes=9)
    made = drawn(opponent, evidence, contest)
    assert torch.equal(made, drawn(PcaGaussian(), evidence, contest))
    opponent.weights(evidence, contest)
    assert isinstance(evidence.progress, Said) and evidence.progress.lines == [
        "note: the opponent 'pca-gaussian' draws along 3 axes, not 9; networks span no more"
    ]


def test_they_answer_for_a_zoo_with_a_base_and_a_network_of_each_task() -> None:
    for opponent in (AlignedSoup(), Gaussian(), Gaussian(align=True), PcaGaussian(axes=3, align=True)):
        evidence = evidence_of(opponent)
        for contest in contests_of(opponent):
            assert torch.isfinite(drawn(opponent, evidence, contest)).all()
