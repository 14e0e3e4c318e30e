"""Classes as points: discriminant analysis and kernel regression against scikit-learn, ESZSL against its equation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from sklearn.covariance import oas
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.kernel_ridge import KernelRidge
from torch import Tensor
from torch.nn import functional

from wspace.interfaces import ClassStatistics
from wspace.learning import prototypes
from wspace.learning.prototypes import FeatureSpace, SemanticMap, Spread, WordsToPoints, with_others

CLASSES, IMAGES, FEATURES, TEXTS = 6, 40, 5, 8


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def clouds() -> tuple[Tensor, Tensor]:
    """Features (M, F) of classes that scatter alike, more in some directions than in others; and labels (M,)."""
    labels = torch.arange(CLASSES * IMAGES) % CLASSES
    spread = normal(FEATURES, FEATURES, seed=1)
    return 2 * normal(CLASSES, FEATURES, seed=2)[labels] + normal(len(labels), FEATURES, seed=3) @ spread, labels


def texts() -> Tensor:
    return functional.normalize(normal(CLASSES, TEXTS, seed=4) + 1, dim=1)


def test_the_nearest_place_is_what_linear_discriminant_analysis_says(monkeypatch) -> None:
    monkeypatch.setattr(prototypes, "SHRINKAGE", 0.0)
    features, labels = (values.float() if values.is_floating_point() else values for values in clouds())
    space = FeatureSpace.of(features, labels, CLASSES)
    scorers, bias = space.linear(space.points[None], torch.ones(1, CLASSES, dtype=torch.bool))
    scores = features @ scorers[0].mT + bias[0]
    reference = LinearDiscriminantAnalysis(solver="eigen").fit(features.numpy(), labels.numpy())
    expected = torch.from_numpy(reference.decision_function(features.numpy())).float()
    within = len(labels) / (len(labels) - CLASSES)  # its covariance is over M, ours over M - n
    off = (scores - scores.mean(1, keepdim=True)) * within - (expected - expected.mean(1, keepdim=True))
    assert off.abs().max() < 1e-2 * expected.abs().max()
    assert torch.equal(scores.argmax(1), torch.from_numpy(reference.predict(features.numpy())))


def test_images_of_a_class_scatter_alike_in_every_direction_once_whitened() -> None:
    features, labels = clouds()
    space = FeatureSpace.of(features.float(), labels, CLASSES)
    whitened = (features.float() - space.centre) @ space.whiten
    _, within = prototypes.class_statistics(whitened, labels, CLASSES)
    assert (within - torch.diag(within.diagonal())).abs().max() < 1e-3  # shrinkage leaves the axes
    assert within.diagonal().max() < 1.2


def test_words_are_mapped_as_by_kernel_ridge_regression() -> None:
    known, points, asked = (
        texts(),
        normal(CLASSES, FEATURES, seed=5),
        functional.normalize(normal(3, TEXTS, seed=6), dim=1),
    )
    width, penalty = 0.7, 0.3
    mapped = WordsToPoints.fit(known, points, width, penalty)(asked)
    shared = known.mean(0)
    reference = KernelRidge(alpha=penalty, kernel="rbf", gamma=1 / (2 * width**2))
    reference.fit(functional.normalize(known - shared, dim=1).numpy(), points.numpy())
    np.testing.assert_allclose(
        mapped, reference.predict(functional.normalize(asked - shared, dim=1).numpy()), rtol=1e-6
    )


def test_what_words_leave_open_is_what_a_fit_without_the_class_gets_wrong() -> None:
    known, points, width, penalty = texts(), normal(CLASSES, FEATURES, seed=5), 0.7, 0.3
    centred = functional.normalize(known - known.mean(0), dim=1).numpy()
    residuals = []
    for left_out in range(CLASSES):
        others = [number for number in range(CLASSES) if number != left_out]
        reference = KernelRidge(alpha=penalty, kernel="rbf", gamma=1 / (2 * width**2))
        reference.fit(centred[others], points[others].numpy())
        residuals.append(points[left_out].numpy() - reference.predict(centred[[left_out]])[0])
    spread, _ = oas(np.stack(residuals), assume_centered=True)
    left_open = WordsToPoints.fit(known, points, width, penalty).left_open
    np.testing.assert_allclose(left_open.axes * left_open.variances @ left_open.axes.mT, spread, rtol=1e-6, atol=1e-9)


def test_pictures_move_a_class_to_where_both_they_and_what_was_expected_have_it() -> None:
    spread = Spread.of(normal(20, FEATURES, seed=8))
    expected, means, trust = normal(3, FEATURES, seed=9), normal(3, FEATURES, seed=10), 2.0
    shots = torch.tensor([0, 1, 4])
    prior = spread.axes * spread.variances @ spread.axes.mT / trust
    for moved, at, mean, count in zip(
        spread.posterior(expected, means, shots, trust), expected, means, shots, strict=True
    ):
        precision = torch.linalg.inv(prior) + count * torch.eye(FEATURES)
        reference = torch.linalg.solve(precision, torch.linalg.inv(prior) @ at + count * mean)
        torch.testing.assert_close(moved, reference)
    nowhere = Spread.of(torch.zeros(4, FEATURES, dtype=torch.float64))
    torch.testing.assert_close(nowhere.posterior(expected, means, shots), expected)


def test_classes_of_another_data_set_count_by_where_they_lie_about_their_own_mean() -> None:
    own, other = (
        ClassStatistics(
            texts() + number, normal(CLASSES, FEATURES, seed=7 + number), (1 + number) * torch.eye(FEATURES)
        )
        for number in range(2)
    )
    elsewhere = replace(other, means=other.means + 100)
    assert with_others(own, []) is own
    together, moved = with_others(own, [other]), with_others(own, [elsewhere])
    torch.testing.assert_close(together.texts, torch.cat([own.texts, other.texts]))
    torch.testing.assert_close(together.means[:CLASSES], own.means)
    torch.testing.assert_close(moved.means, together.means)
    about = together.means[CLASSES:] - own.means.mean(0)
    torch.testing.assert_close(about, other.means - other.means.mean(0))
    torch.testing.assert_close(together.within, 1.5 * torch.eye(FEATURES))
    of_one_image = replace(own, within=torch.zeros(FEATURES, FEATURES))
    spread = replace(other, within=torch.diag(torch.arange(FEATURES) + 1.0))
    expected = (spread.within + 3 * torch.eye(FEATURES)) / 2  # 3 is the mean of 1 to 5
    torch.testing.assert_close(with_others(of_one_image, [spread]).within, expected)


def test_eszsl_is_its_closed_form() -> None:
    features, labels = clouds()
    of_features, of_texts = 0.1, 0.2
    x, s, y = (
        features.mT,
        texts().mT,
        -torch.ones(len(labels), CLASSES, dtype=torch.float64),
    )  # as the paper writes them
    y[torch.arange(len(labels)), labels] = 1
    left = x @ x.mT
    left = left + of_features * left.diagonal().mean() * torch.eye(FEATURES)
    right = s @ s.mT
    right = right + of_texts * right.diagonal().mean() * torch.eye(TEXTS)
    expected = torch.linalg.inv(left) @ x @ y @ s.mT @ torch.linalg.inv(right)
    torch.testing.assert_close(
        SemanticMap.of(features, labels, texts()).matrix(of_features, of_texts), expected.float(), rtol=1e-4, atol=1e-5
    )


def test_of_few_independent_scores_those_are_kept_along_which_points_differ_most() -> None:
    features, labels = (values.float() if values.is_floating_point() else values for values in clouds())
    space = FeatureSpace.of(features, labels, CLASSES)
    mask = torch.tensor([[True] * CLASSES, [True] * 4 + [False] * 2])
    points = space.points.expand(2, -1, -1)
    scorers, bias = space.linear(points, mask, rank=2)
    for row, count in enumerate((CLASSES, 4)):
        own = space.points[:count]
        u, s, v = torch.linalg.svd(own - own.mean(0), full_matrices=False)
        nearest = (u[:, :2] * s[:2]) @ v[:2]
        torch.testing.assert_close(scorers[row, :count], nearest @ space.whiten.mT, rtol=1e-3, atol=1e-4)
        expected = -0.5 * own.square().sum(1) - scorers[row, :count] @ space.centre
        torch.testing.assert_close(bias[row, :count], expected, rtol=1e-3, atol=1e-4)
        assert not scorers[row, count:].any() and not bias[row, count:].any()
