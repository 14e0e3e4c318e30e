"""Classes as points in feature space: where known ones lie by their images, and where others must by their words.

Everything is in closed form. Features are whitened by the covariance that classes share, so that the nearest point is what
linear discriminant analysis says (Hastie, Tibshirani and Friedman, 2009, section 4.3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from wspace.data.prompts import pad
from wspace.data.tasks import Task
from wspace.interfaces import ClassStatistics, Evidence, Target

SHRINKAGE = 0.1
"""Of the covariance towards a multiple of the identity (Friedman, 1989): a class has few images."""


@dataclass(frozen=True)
class FeatureSpace:
    """Whitened feature space, in which images of a class scatter alike in every direction."""

    centre: Tensor  # (F,), mean over known classes
    whiten: Tensor  # (F, F), z = (x - centre) @ whiten
    points: Tensor  # (n, F), of each known class the mean of its images, whitened; (0, F) where nobody asks for them

    @classmethod
    def of(cls, features: Tensor, labels: Tensor, classes: int) -> FeatureSpace:
        """Features (M, F) and labels (M,) in [0, n), of which every class has some."""
        return cls.around(*class_statistics(features, labels, classes))

    @classmethod
    def around(cls, means: Tensor, within: Tensor) -> FeatureSpace:
        """Means (n, F) of classes, and the covariance (F, F) of images about them."""
        scatter = within.double()
        level = scatter.diagonal().mean().clamp_min(1e-12)
        shrunk = (1 - SHRINKAGE) * scatter + SHRINKAGE * level * torch.eye(len(scatter))
        spread, axes = torch.linalg.eigh(shrunk)
        whiten = (axes * spread.clamp_min(1e-12 * float(level)) ** -0.5).to(means.dtype)
        centre = means.mean(0)
        return cls(centre, whiten, (means - centre) @ whiten)

    def linear(self, points: Tensor, mask: Tensor, rank: int | None = None) -> tuple[Tensor, Tensor]:
        """What linear discriminant analysis makes of tasks whose classes are at these points.

        (B, K, F), (B, K) -> scorers (B, K, F) and biases (B, K), as `scores` has them.
        """
        return self.scores(points, -0.5 * points.square().sum(2), mask, rank)

    def scores(
        self, directions: Tensor, offsets: Tensor, mask: Tensor, rank: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """What is linear here, of features as they are: z @ directions.mT + offsets as features @ scorers.mT + biases.

        (B, K, F), (B, K), (B, K) -> scorers (B, K, F) and biases (B, K). Scores are told up to what is the same for all classes
        of an image. With a `rank` they are of so few independent ones: those along which a task's directions differ most,
        here, where images scatter alike in every direction.
        """
        shown = mask[..., None]
        middle = (directions * shown).sum(1, keepdim=True) / mask.sum(1)[:, None, None]  # (B, 1, F)
        apart = (directions - middle) * shown  # (B, K, F)
        if rank is not None and rank < apart.shape[1]:
            _, among_classes = torch.linalg.eigh((apart @ apart.mT).double())  # (B, K, K), the largest last
            kept = among_classes[..., -rank:].to(directions.dtype)
            apart = kept @ (kept.mT @ apart)
        scorers = apart @ self.whiten.mT
        return scorers, (offsets - scorers @ self.centre) * mask

    def __call__(self, features: Tensor) -> Tensor:
        """(..., F) -> whitened (..., F)."""
        return (features - self.centre) @ self.whiten


def class_statistics(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Means (n, F) of classes, and the covariance (F, F) of images about them.

    Features (M, F) and labels (M,) in [0, n), of which every class has some.
    """
    images = torch.bincount(labels, minlength=classes)  # (n,)
    means = torch.zeros(classes, features.shape[1]).index_add_(0, labels, features) / images[:, None]
    residuals = features - means[labels]
    return means, residuals.mT @ residuals / max(1, len(features) - classes)


def with_others(own: ClassStatistics, others: Sequence[ClassStatistics]) -> ClassStatistics:
    """Classes of a data set, and after them those of other data sets.

    Pictures of another data set lie elsewhere in feature space, whatever they show. So its classes count by where they lie
    about their own mean, which is put on that of the data set. The covariances count alike: one may be of few images. With one
    image of each class there is none, and it is taken to be alike in every direction.
    """
    if not others:
        return own
    centre, every = own.means.mean(0), (own, *others)
    level = max(each.within.diagonal().mean() for each in every)
    unknown = level * torch.eye(len(centre))
    scatter = [each.within if each.within.any() else unknown for each in every]
    return ClassStatistics(
        torch.cat([each.texts for each in every]),
        torch.cat([each.means - each.means.mean(0) + centre for each in every]),
        torch.stack(scatter).mean(0),
    )


@dataclass(frozen=True)
class Spread:
    """How classes scatter about where they are expected, in whitened space: principal axes, and the variance along each."""

    axes: Tensor  # (F, F), orthonormal columns
    variances: Tensor  # (F,)

    @classmethod
    def of(cls, residuals: Tensor) -> Spread:
        """Of n classes about where they were expected: (n, F).

        Where these are measured as means of a few images, the noise of those is in it.

        Their covariance is shrunk towards a multiple of the identity, by the oracle-approximating share (Chen et al., 2010,
        eq. 23, without its terms in 2/F): of fewer classes than dimensions there is none in most directions.
        """
        count, width = residuals.shape
        sample = residuals.double()
        covariance = sample.mT @ sample / count
        squares, trace = covariance.square().sum(), covariance.diagonal().sum()
        beside = (count + 1) * (squares - trace.square() / width)
        share = ((squares + trace.square()) / beside.clamp_min(1e-300)).clamp_max(1)
        variances, axes = torch.linalg.eigh(covariance)
        shrunk = (1 - share) * variances + share * trace / width
        return cls(axes.to(residuals.dtype), shrunk.clamp_min(0).to(residuals.dtype))

    def posterior(self, expected: Tensor, means: Tensor, shots: Tensor, trust: float = 1.0) -> Tensor:
        """Where classes are, now that some images of each were seen: (..., F).

        The mean of a Gaussian whose prior is at `expected` (..., F) with this covariance, divided by `trust`, after `shots`
        (...) images whose mean is `means` (..., F) and that scatter with covariance I (Bishop, 2006, eq. 2.116). Between
        classes' means alone, with a prior at zero, it is what PLDA does (Ioffe, 2006).
        """
        ratio = shots[..., None] * self.variances / trust  # (..., F), of precisions: images' mean to `expected`
        moved = (means - expected) @ self.axes * (ratio / (1 + ratio))
        return expected + moved @ self.axes.mT


@dataclass(frozen=True)
class WordsToPoints:
    """Kernel ridge regression from a class's text to its point (Rasmussen and Williams, 2006, section 2.2).

    Texts are compared without what all known ones share, by a Gaussian of their distance on the unit sphere.
    """

    texts: Tensor  # (n, T), of known classes, centred and of unit length
    shared: Tensor  # (T,)
    coefficients: Tensor  # (n, F)
    width: float
    penalty: float
    length: float  # mean length of the points that known classes are mapped to
    recalled: Spread | None = None  # `left_open`, of one that was stored

    @classmethod
    def fit(cls, texts: Tensor, points: Tensor, width: float, penalty: float) -> WordsToPoints:
        """Texts (n, T) and points (n, F) of known classes."""
        shared = texts.mean(0)
        centred = functional.normalize(texts - shared, dim=1)
        kernel = _gaussian(centred, centred, width)
        coefficients = torch.cholesky_solve(points.double(), _factor(kernel, penalty)).to(points.dtype)
        length = float((kernel @ coefficients).norm(dim=1).mean())
        return cls(centred, shared, coefficients, width, penalty, length)

    def __call__(self, texts: Tensor) -> Tensor:
        """(..., T) -> points (..., F)."""
        return _gaussian(functional.normalize(texts - self.shared, dim=-1), self.texts, self.width) @ self.coefficients

    @cached_property
    def left_open(self) -> Spread:
        """How known classes scatter about where the words of the others place them.

        By leave-one-out residuals, which are had without fitting again (Rasmussen and Williams, 2006, eq. 5.12).
        """
        if self.recalled is not None:
            return self.recalled
        kernel = _gaussian(self.texts, self.texts, self.width)
        inverse = torch.cholesky_inverse(_factor(kernel, self.penalty)).diagonal()  # (n,)
        return Spread.of(self.coefficients / inverse[:, None].to(self.coefficients.dtype))


def _factor(kernel: Tensor, penalty: float) -> Tensor:
    """Cholesky factor (n, n) of a kernel with the penalty on its diagonal, in double precision."""
    return torch.linalg.cholesky(kernel.double() + penalty * torch.eye(len(kernel), dtype=torch.double))


def _gaussian(one: Tensor, other: Tensor, width: float) -> Tensor:
    """exp(-|u - v|^2 / 2 width^2) of unit vectors (..., T), (n, T): (..., n)."""
    return torch.exp((one @ other.mT - 1) / width**2)


@dataclass(frozen=True)
class SemanticMap:
    """ESZSL (Romera-Paredes and Torr, 2015, eq. 5) for all penalties: V (F, T) such that an image x is scored x V t for a
    class of text t.

    V = (X X' + g I)^-1 X Y S' (S S' + l I)^-1, with Y in {-1, 1}; the sizes of X X' and S S' are taken out of the penalties,
    so that they mean the same for any features and any number of images.
    """

    of_features: Tensor  # (F, F), X X'
    of_texts: Tensor  # (T, T), S S'
    of_both: Tensor  # (F, T), X Y S'

    @classmethod
    def of(cls, features: Tensor, labels: Tensor, texts: Tensor) -> SemanticMap:
        """Features (M, F), labels (M,), texts (n, T): all that takes long, once."""
        x, s = features.double(), texts.double()
        sums = torch.zeros(len(texts), x.shape[1], dtype=x.dtype).index_add_(0, labels, x)  # (n, F)
        xy = 2 * sums - x.sum(0)  # (n, F), = Y' X' by classes
        return cls(x.mT @ x, s.mT @ s, xy.mT @ s)

    def matrix(self, feature_penalty: float, text_penalty: float) -> Tensor:
        """V (F, T)."""
        left, right = (
            of + penalty * of.diagonal().mean() * torch.eye(len(of))
            for of, penalty in ((self.of_features, feature_penalty), (self.of_texts, text_penalty))
        )
        return (torch.linalg.solve(left, self.of_both) @ torch.linalg.inv(right)).float()


def heads_at(target: Target, space: FeatureSpace, points: Tensor, texts: Tensor, tasks: Sequence[Task]) -> Tensor:
    """Networks (B, P) for tasks of classes at these points (n, F) and of these texts (n, T)."""
    index, mask = pad(tasks)  # (B, K)
    scorers, bias = space.linear(points[index], mask, target.linear_rank)
    return target.from_linear(scorers, bias, texts[index], mask)


Heads = Callable[[Sequence[Task]], Tensor]
"""Tasks of any classes of a data set -> networks (B, P)."""


LEFT_OUT = 0.2  # share of the known classes that choices are made on
CHOOSING = 128  # tasks of these
WAYS = 10  # classes of each, at most


def best_for_left_out(
    evidence: Evidence, choices: Sequence[tuple[float, ...]], fitted: Callable[..., Heads]
) -> tuple[float, ...]:
    """Of the choices, the one that does best on validation images of known classes that the fit did not see.

    `fitted(known, *choice)` is the fit to the classes `known` alone. Where too few are known for that, it is the first choice.
    """
    rng, known = evidence.rng("left out"), torch.tensor(evidence.classes)
    shuffled = known[torch.randperm(len(known), generator=rng)]
    count = round(LEFT_OUT * len(known))
    if count < 2 or len(known) - count < 2:
        return choices[0]
    left_out, kept = shuffled[:count], tuple(sorted(shuffled[count:].tolist()))
    ways = min(WAYS, count)
    drawn = (left_out[torch.randperm(count, generator=rng)[:ways]] for _ in range(CHOOSING))
    tasks = [tuple(sorted(task.tolist())) for task in drawn]
    return max(choices, key=lambda choice: float(evidence.accuracy(fitted(kept, *choice)(tasks), tasks).mean()))


WIDTHS = (0.6, 0.4, 0.8)  # of the kernel from words, on the unit sphere
PENALTIES = (1.0, 0.3, 3.0)


def space_of(evidence: Evidence, known: Task) -> FeatureSpace:
    """The space of these known classes, with those of auxiliary data sets after them. Made once for all opponents."""

    def fitted() -> FeatureSpace:
        own = class_statistics(*evidence.images(known), len(known))
        classes = with_others(ClassStatistics(evidence.class_texts[list(known)], *own), evidence.auxiliary)
        return FeatureSpace.around(classes.means, classes.within)

    return evidence.once(("space", known), fitted)


def placed_by_words(evidence: Evidence, space: FeatureSpace, known: Task, width: float, penalty: float) -> Tensor:
    """Where the words of all classes place them in the space of these known ones: (n, F), of one length."""
    texts = evidence.class_texts
    of_known = torch.cat([texts[list(known)], *(other.texts for other in evidence.auxiliary)])
    return places_of(texts, of_known, space, width, penalty)


def places_of(texts: Tensor, of_known: Tensor, space: FeatureSpace, width: float, penalty: float) -> Tensor:
    """Where texts (n, T) lie in a space whose classes have the texts `of_known`: (n, F), of one length."""
    of_words = WordsToPoints.fit(of_known, space.points, width, penalty)
    return of_words.length * functional.normalize(of_words(texts), dim=1)


def best_words(evidence: Evidence) -> tuple[float, float]:
    """Width and penalty with which words place known classes best that the fit did not see. Found once for all opponents."""

    def fitted(known: Task, width: float, penalty: float) -> Heads:
        space = space_of(evidence, known)
        places = placed_by_words(evidence, space, known, width, penalty)
        return lambda tasks: heads_at(evidence.target, space, places, evidence.class_texts, tasks)

    def best() -> tuple[float, float]:
        width, penalty = best_for_left_out(evidence, list(product(WIDTHS, PENALTIES)), fitted)
        return width, penalty

    return evidence.once("words", best)
