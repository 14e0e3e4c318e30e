"""A recipe's components and data, each built when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from wspace.data.features import Extraction, FeatureScale, Pool, extract
from wspace.data.shots import draw_shots
from wspace.data.tasks import Task, TaskSet
from wspace.interfaces import (
    TEST,
    TRAIN,
    VAL,
    Backbone,
    Dataset,
    Images,
    Shots,
    Target,
    Text,
    Wording,
)
from wspace.learning.fitting import accuracies, calibrated
from wspace.learning.probe import check_device
from wspace.recipes.schema import BoundRecipe
from wspace.runs import precision
from wspace.support.errors import DataError, UserError
from wspace.support.files import cache_folder
from wspace.support.processes import device_of
from wspace.support.progress import Progress
from wspace.support.seeding import stream

REMEMBERED = 4  # lists of sentences, with their vectors: classes are looked at by several steps of one command


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
        check_device(self.device)

    @cached_property
    def precision(self) -> precision.Precision:
        """That the generator's own loss is computed in: the recipe's, or what is faster here where that is auto."""
        if self.recipe.precision != "auto":
            return self.recipe.precision
        chosen, share = precision.faster(self.device, self.cache)
        self.progress.say(f"note: precision auto is {chosen} here: bfloat16 takes {share:.2f} times as long as float32")
        return chosen

    def precision_in(self, folder: Path) -> precision.Precision:
        """As `precision`, of the training whose checkpoints are in a folder: where that is auto, what it began in."""
        if self.recipe.precision != "auto":
            return self.recipe.precision
        return precision.as_begun(folder, lambda: self.precision)

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
    def wording(self) -> Wording:
        return self.recipe.wording.build({})

    @cached_property
    def target(self) -> Target:
        return self.recipe.target.build(self.dims())

    @cached_property
    def extraction(self) -> Extraction:
        return Extraction(self.images, self.backbone, self.cache)

    def encode_images(self, encoded: Callable[[Sequence[int]], Iterable[int]]) -> None:
        """Their features now, by what has blocks of them encoded (`extract`), where they would be made when first asked for."""
        if "_raw_features" not in vars(self):
            self._raw_features = extract(self.extraction, self.progress, encoded)

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
        return pool.to(self.device)

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
        sentences = (wording or self.wording).sentences(classes, self.templated(classes))
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
