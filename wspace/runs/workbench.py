"""A recipe's components and data, each built when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from wspace.data.features import Extraction, FeatureScale, Pool, extract
from wspace.data.shots import draw_shots
from wspace.data.tasks import Task, TaskSet
from wspace.data.twins import APART
from wspace.interfaces import (
    PICTURE,
    PICTURE_SIDE,
    TEST,
    TRAIN,
    VAL,
    Backbone,
    ClassStatistics,
    Conditioner,
    Dataset,
    Images,
    Shots,
    Target,
    Text,
    Told,
    Wording,
)
from wspace.learning.fitting import accuracies, calibrated
from wspace.learning.prototypes import class_statistics, with_others
from wspace.recipes.schema import BoundRecipe
from wspace.support.errors import DataError, UserError
from wspace.support.files import cache_folder
from wspace.support.processes import device_of
from wspace.support.progress import Progress
from wspace.support.seeding import stream

REMEMBERED = 4  # lists of sentences, with their vectors: classes are looked at by several steps of one command
PICTURES = 8  # training images of each class that a conditioner is shown


def in_words(block: Mapping[str, Any]) -> str:
    """A component's block of a recipe as a text encoder may read it: "module, architecture mlp, hidden 32 32"."""
    parts = []
    for name, value in block.items():
        if isinstance(value, Mapping):
            text = in_words(value)
        else:
            text = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        parts.append(text if name == "use" else f"{name.replace('_', ' ')} {text}")
    return ", ".join(parts)


class Workbench:
    """`dims` gives `feature_dim` and `text_dim` where they are on record; otherwise encoders are built to tell them.

    `scale` is that of features, if they are to be on that of other images; otherwise it is of the data set's own.
    """

    def __init__(
        self,
        recipe: BoundRecipe,
        progress: Progress,
        cache: Path | None = None,
        dims: Callable[[], Mapping[str, int]] | None = None,
        scale: FeatureScale | None = None,
    ):
        self.recipe, self.progress, self.given_scale = recipe, progress, scale
        self.dims = dims or (lambda: {"feature_dim": self.backbone.dim, "text_dim": self.text.dim})
        self.cache = cache or cache_folder()
        self.device = device_of(recipe.device)

    @cached_property
    def dataset(self) -> Dataset:
        return self.recipe.dataset.build({})

    @cached_property
    def images(self) -> Images:
        images = self.dataset.load(self.cache)
        for warning in images.warnings:
            self.progress.say(f"warning: {warning}")
        return images

    @cached_property
    def backbone(self) -> Backbone:
        return self.recipe.backbone.build({"device": self.device})

    @cached_property
    def text(self) -> Text:
        return self.recipe.text.build({"device": self.device})

    @cached_property
    def target(self) -> Target:
        return self.recipe.target.build(self.dims())

    @cached_property
    def extraction(self) -> Extraction:
        return Extraction(self.images, self.backbone, self.cache)

    @cached_property
    def _raw_features(self) -> Tensor:
        return extract(self.extraction, self.progress)

    @cached_property
    def _split(self) -> Tensor:
        return torch.as_tensor(self.images.split)

    @cached_property
    def scale(self) -> FeatureScale:
        return self.given_scale or FeatureScale.of(self._raw_features[self._split == TRAIN])

    @cached_property
    def train(self) -> Pool:
        return self._pool(TRAIN)

    @cached_property
    def val(self) -> Pool:
        """Training images kept apart: every choice is made on these."""
        return self._pool(VAL)

    @cached_property
    def test(self) -> Pool:
        return self._pool(TEST)

    def _pool(self, split: int) -> Pool:
        rows, classes = torch.nonzero(self._split == split).flatten(), self.images.classes
        name = ("training", "validation", "test")[split]
        if not len(rows):
            raise DataError(f"the data set has no {name} images")
        pool = Pool.of(self.scale(self._raw_features[rows]), torch.as_tensor(self.images.labels)[rows], len(classes))
        empty = [c for c, count in zip(classes, pool.counts.tolist(), strict=True) if not count]
        if empty and split != VAL:  # a class may do without validation images, which only help to choose
            raise DataError(f"class {empty[0]!r} has no {name} images")
        return pool

    def calibrated(self, weights: Tensor, tasks: Sequence[Task]) -> Tensor:
        """Networks (B, P) ready to be scored on tasks[b]: `wspace.learning.fitting.calibrated`, on training images."""
        if not self.target.statistics:
            return weights
        return calibrated(self.target, weights, tasks, self.train, self.class_texts)

    def accuracies(self, weights: Tensor, tasks: Sequence[Task], pool: Pool) -> Tensor:
        """Accuracy (B,) of networks (B, P), calibrated, each on all of the pool's images of tasks[b]."""
        return accuracies(self.target, self.calibrated(weights, tasks), tasks, pool, self.class_texts)

    def shots_of(self, tasks: TaskSet, split: str) -> Shots | None:
        """Training images that the tasks of a split come with, where it is one of those that come with some.

        Of the same tasks, 1 picture of a class is among 2 of it.
        """
        if (shown := tasks.shown.get(split)) is None:
            return None
        rng = stream(self.recipe.seed, "pictures of", shown.split)
        return draw_shots(self.train, tasks.scored(split), shown.pictures, rng)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of all that weights are trained on: a package upgrade can change what a recipe does not name."""
        return {"images": self.images.fingerprint, "backbone": self.backbone.fingerprint, "text": self.text.fingerprint}

    @property
    def accepted(self) -> dict[str, tuple[str, ...]]:
        """`fingerprints`, each with those by which earlier versions of wspace knew the same."""
        former = {"images": self.images.former_fingerprints}
        return {name: (now, *former.get(name, ())) for name, now in self.fingerprints.items()}

    def context_for(self, conditioner: Conditioner, classes: Sequence[int]) -> Told | None:
        """If it asks: what it looks at of these classes' training images, and the target in words."""
        if not conditioner.asks:
            return None
        texts, words = (
            self.prompt_texts[list(classes)],
            self.text.encode([in_words(self.recipe.target.told(later=False))])[0],
        )
        if conditioner.looks_at == "pictures":
            return Told(texts, self._small_pictures(classes), words)
        own = ClassStatistics(texts, *class_statistics(*self.train.of_task(classes), len(classes)))
        every = with_others(own, self.auxiliary(classes, lambda bench: bench.prompt_texts))
        no_pictures = torch.zeros(len(every.texts), 0, PICTURE)
        return Told(every.texts, no_pictures, words, every.means, every.within)

    def auxiliary(self, known: Sequence[int], texts: Callable[[Workbench], Tensor]) -> list[ClassStatistics]:
        """Of each auxiliary data set, by the recipe's encoders and on its scale of features.

        Classes of the recipe's own data set that are not `known` are set apart. Under the name of one, or the same text,
        nothing is known from elsewhere either. Raises DataError where that leaves fewer than two classes.
        """
        apart = sorted(set(range(len(self.images.classes))) - set(known))
        statistics = []
        for bound in self.recipe.auxiliary:
            recipe = replace(self.recipe, dataset=bound, auxiliary=())
            bench = Workbench(recipe, self.progress, self.cache, self.dims, self.scale)
            distances = torch.cdist(bench.class_texts.double(), self.class_texts[apart].double())
            kept = torch.nonzero((distances >= APART).all(1)).flatten().tolist()
            if len(kept) < 2:
                raise DataError(
                    f"auxiliary: of the classes of data set {bound.name!r} all but {len(kept)} are set apart as unseen; "
                    "two are the least that say anything"
                )
            of_images = class_statistics(*bench.train.of_task(kept), len(kept))
            statistics.append(ClassStatistics(texts(bench)[kept], *of_images))
        return statistics

    def _small_pictures(self, classes: Sequence[int]) -> Tensor:
        """Some training images of each class, made small: (n, PICTURES, PICTURE)."""
        pictures, rng = [], stream(0, "pictures")
        for number in classes:
            rows = np.flatnonzero((self.images.labels == number) & (self.images.split == TRAIN))
            if not len(rows):
                name = self.images.classes[number]
                raise DataError(
                    f"class {name!r} has no training images, and the recipe's conditioner looks at some of each"
                )
            chosen = rows[(torch.rand(PICTURES, generator=rng) * len(rows)).long().numpy()]
            pixels = torch.as_tensor(self.images.read(chosen)).permute(0, 3, 1, 2).float() / 127.5 - 1  # (S, 3, s, s)
            pictures.append(functional.adaptive_avg_pool2d(pixels, PICTURE_SIDE).flatten(1))
        return torch.stack(pictures)

    @cached_property
    def class_texts(self) -> Tensor:
        """(n, T), of every class of the data set: what networks are scored against."""
        return self.encode_classes(self.images.classes)

    @cached_property
    def prompt_texts(self) -> Tensor:
        """(n, T), of every class of the data set: what the generator is conditioned on."""
        return self.encode_prompt_texts(self.images.classes)

    def encode_classes(self, classes: Sequence[str]) -> Tensor:
        """(len(classes), T). Raises UserError for a template that has no place for the class."""
        return self._vectors(tuple(self.templated(classes)))

    def encode_prompt_texts(self, classes: Sequence[str], wording: Wording | None = None) -> Tensor:
        """Of each class the mean of its sentences' vectors, brought back to unit length: (len(classes), T).

        `wording` is that of the recipe unless given. Raises UserError.
        """
        sentences = (wording or self.recipe.wording.build({})).sentences(classes, self.templated(classes))
        vectors = self._vectors(tuple(sentence for of_class in sentences for sentence in of_class))
        means = [of_class.mean(0) for of_class in vectors.split([len(of_class) for of_class in sentences])]
        return functional.normalize(torch.stack(means), dim=1)

    @cached_property
    def _vectors(self) -> Callable[[tuple[str, ...]], Tensor]:
        """Of sentences, (n, T), by the text encoder, which is not asked again for what it was just asked for."""
        return lru_cache(REMEMBERED)(lambda sentences: self.text.encode(list(sentences)))

    def templated(self, classes: Sequence[str]) -> list[str]:
        """The recipe's template, filled in. Raises UserError if it has no place for the class."""
        template = self.recipe.tasks.template
        if "{}" not in template:
            raise UserError(f"tasks.template: {template!r} has no {{}} where the class name goes")
        return [template.replace("{}", name) for name in classes]
