"""Methods of few pictures, each against a reference of its own: scikit-learn, or a loop over pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import pytest
import torch
from sklearn.covariance import oas
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional

from wspace.components.opponents.logistic import Logistic
from wspace.components.opponents.nearest_mean import NearestMean
from wspace.components.opponents.shrunk_mean import ShrunkMean
from wspace.components.opponents.tip_linear import TipLinear
from wspace.data.shots import draw_shots
from wspace.interfaces import Contest, Evidence, Opponent, Shots, Task
from wspace.learning.few_shots import logistic_regression
from wspace.learning.prototypes import FeatureSpace, best_words, placed_by_words, space_of
from wspace.support.seeding import stream
from wspace.testing import opponents as toy
from wspace.testing.subject import HIDDEN, Toy

METHODS = (NearestMean, ShrunkMean, Logistic, TipLinear)
TASKS: tuple[Task, ...] = ((0, 1, 4), (2, 5))
COUNT = 2  # pictures of each class


def shots_of(tasks: Sequence[Task] = TASKS) -> Shots:
    return draw_shots(toy._pool(seed=77), tasks, COUNT, stream(0, "shots"))


class Plain(Toy):
    """A target that is nothing but linear scores."""

    def from_linear(self, scorers: Tensor, bias: Tensor, texts: Tensor, mask: Tensor) -> Tensor:
        return torch.cat([scorers, bias[..., None]], dim=2).flatten(1)

    def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:
        of_classes = weights.unflatten(1, (texts.shape[1], -1))  # (B, K, F + 1)
        return features @ of_classes[..., :-1].mT + of_classes[:, None, :, -1]


def evidence_of(opponent: Opponent, *, last: bool = False) -> Evidence:
    """By which the first choice is best, or the last."""
    better = count()

    def accuracy(weights: Tensor, tasks: Sequence[Task]) -> Tensor:
        return torch.full((len(tasks),), float(next(better) if last else 0))

    return replace(toy.evidence_of(opponent), target=Plain(HIDDEN), accuracy=accuracy)


def answered(method: type[Opponent], shots: Shots, *, last: bool = False) -> tuple[Tensor, dict[str, float]]:
    """Scores (B, M, K) of its networks for the tasks, up to what is the same for all classes; and what it chose."""
    opponent = method()
    evidence = evidence_of(opponent, last=last)
    chosen = opponent.choose(evidence)
    weights = opponent.weights(evidence, Contest("unseen-classes-2-pictures-2", TASKS, shots=shots))
    return evidence.target.logits(weights, asked_images().expand(len(TASKS), -1, -1), torch.zeros(2, 3, 1)), chosen


def asked_images() -> Tensor:
    return toy._pool(seed=78).features


def whitened() -> FeatureSpace:
    evidence = evidence_of(NearestMean())
    return FeatureSpace.of(*evidence.images(evidence.classes), len(evidence.classes))


def test_logistic_regression_on_few_pictures_is_scikit_learns() -> None:
    shots, penalty = shots_of(), 0.05
    directions, offsets = logistic_regression(shots, penalty)
    for row, task in enumerate(TASKS):
        ways, asked = len(task), asked_images()
        pictures = shots.features[row, :ways].flatten(0, 1).double()
        of_two = 2 if ways == 2 else 1  # of two classes it has the difference alone, whose square is twice ours
        reference = LogisticRegression(C=of_two / (penalty * len(pictures)), tol=1e-10, max_iter=10_000)
        reference.fit(pictures.numpy(), torch.arange(ways).repeat_interleave(COUNT).numpy())
        scores = asked @ directions[row, :ways].mT + offsets[row, :ways]
        expected = torch.from_numpy(reference.decision_function(asked.double().numpy())).float()
        ours = scores[:, 1] - scores[:, 0] if ways == 2 else scores - scores.mean(1, keepdim=True)
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)
        assert not directions[row, ways:].any() and not offsets[row, ways:].any()


def test_a_class_with_fewer_pictures_counts_as_much_as_one_with_more() -> None:
    features = torch.randn(1, 2, 4, 3, generator=torch.Generator().manual_seed(0))
    features[0, 1, 2:] = features[0, 1, :2]  # the same two pictures, twice
    twice = Shots(features, torch.tensor([[4, 4]]))
    fewer = features.clone()
    fewer[0, 1, 2:] = 0
    for one, other in zip(
        logistic_regression(twice, 0.1), logistic_regression(Shots(fewer, torch.tensor([[4, 2]])), 0.1), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("as_they_are", [False, True])
def test_the_nearest_mean_is_that_of_whitened_pictures(as_they_are: bool) -> None:
    shots, space = shots_of(), whitened()
    scores, chosen = answered(NearestMean, shots, last=as_they_are)
    assert chosen == {"one_length_2": 0.0 if as_they_are else 1.0}
    asked = space(asked_images())
    for row, task in enumerate(TASKS):
        pictures = [[space(picture) for picture in shots.features[row, place]] for place in range(len(task))]
        if as_they_are:
            nearest = torch.cdist(asked, torch.stack([sum(of_class) / COUNT for of_class in pictures])).argmin(1)
        else:
            means = torch.stack([sum(picture / picture.norm() for picture in of_class) for of_class in pictures])
            nearest = functional.cosine_similarity(asked[:, None], means, dim=2).argmax(1)
        assert torch.equal(scores[row, :, : len(task)].argmax(1), nearest)


@pytest.mark.parametrize("last", [False, True])
def test_the_shrunken_mean_believes_pictures_as_far_as_known_classes_differ(last: bool) -> None:
    shots, space = shots_of(), whitened()
    scores, chosen = answered(ShrunkMean, shots, last=last)
    assert chosen == {"trust_2": 2.0 if last else 1.0}
    among, _ = oas(space.points.double().numpy(), assume_centered=True)
    kept = torch.from_numpy(among) @ torch.linalg.inv(
        torch.from_numpy(among) + chosen["trust_2"] / COUNT * torch.eye(len(among))
    )
    asked = space(asked_images()).double()
    for row, task in enumerate(TASKS):
        means = torch.stack([space(shots.features[row, place]).mean(0) for place in range(len(task))]).double()
        nearest = functional.cosine_similarity(asked[:, None], means @ kept.mT, dim=2).argmax(1)
        assert torch.equal(scores[row, :, : len(task)].argmax(1), nearest)


@pytest.mark.parametrize("last", [False, True])
def test_the_linear_tip_adapter_adds_the_pictures_likeness_to_the_words_scores(last: bool) -> None:
    shots = shots_of()
    scores, chosen = answered(TipLinear, shots, last=last)
    assert chosen == {"share_2": 4.0 if last else 1.0}
    evidence = evidence_of(TipLinear(), last=last)
    space = whitened()
    places = placed_by_words(evidence, space, evidence.classes, *best_words(evidence))
    for row, task in enumerate(TASKS):
        for number, image in enumerate(space(asked_images())):
            expected = []
            for place, of_class in enumerate(task):
                keys = [space(picture) for picture in shots.features[row, place]]
                likeness = sum(image @ key / key.norm() for key in keys) / COUNT
                words = image @ places[of_class] / places[of_class].norm()
                expected.append(float(words + chosen["share_2"] * likeness))
            off = scores[row, number, : len(task)] / places.norm(dim=1).mean() - torch.tensor(expected)
            assert (off - off.mean()).abs().max() < 1e-3


def test_the_logistic_head_is_that_of_whitened_pictures_of_one_length() -> None:
    shots, space = shots_of(), whitened()
    scores, chosen = answered(Logistic, shots)
    points = functional.normalize(space(shots.features), dim=3) * shots.there[..., None]
    directions, offsets = logistic_regression(Shots(points, shots.counts), chosen["penalty_2"])
    length = space(evidence_of(Logistic()).images(tuple(range(toy.CLASSES)))[0]).norm(dim=1).mean()
    expected = space(asked_images()) @ directions.mT / length + offsets[:, None]
    for row, task in enumerate(TASKS):
        off = (scores[row] - expected[row])[:, : len(task)]
        assert (off - off.mean(1, keepdim=True)).abs().max() < 1e-2 * expected[row].abs().max()


def test_methods_share_what_they_fit_alike() -> None:
    evidence, spaces = evidence_of(NearestMean()), list[FeatureSpace]()
    for method in (NearestMean(), ShrunkMean()):
        method.choose(evidence)
        spaces.append(space_of(evidence, evidence.classes))
    assert spaces[0] is spaces[1]
    other = replace(evidence, auxiliary=())
    assert space_of(other, evidence.classes) is not spaces[0]


@pytest.mark.parametrize("method", METHODS)
def test_no_order_among_a_classs_pictures_means_anything(method: type[Opponent]) -> None:
    shots = shots_of()
    turned = Shots(shots.features.flip(2), shots.counts)
    assert not torch.equal(turned.features, shots.features)
    for one, other in zip(answered(method, shots), answered(method, turned), strict=True):
        assert one == other if isinstance(one, dict) else torch.allclose(one, other, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_choices_are_made_for_each_number_of_pictures_on_known_classes_alone(method: type[Opponent]) -> None:
    opponent = method()
    evidence, seen = toy.evidence_of(opponent), list[int]()

    def images(task: Task) -> tuple[Tensor, Tensor]:
        seen.extend(task)
        return toy.evidence_of(opponent).images(task)

    known = replace(evidence, images=images, classes=(0, 1, 2, 3, 5, 6), shown=(1, 3))
    chosen = opponent.choose(known)
    assert set(seen) == set(known.classes)
    assert {name.rpartition("_")[2] for name in chosen} == {"1", "3"}
