"""A zoo on disk: many trained sets of weights of one target, each with its task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wspace.data.features import FeatureScale
from wspace.data.tasks import TaskSet
from wspace.support.errors import WspaceError
from wspace.support.files import read_json, save_tensors
from wspace.support.names import ORACLE, TASKS, UNIVERSAL, WORLD, WORLD_TENSORS
from wspace.weights.zoo.format import StoredZoo


def once(file: Path, make: Callable[[], Tensor]) -> Tensor:
    """Weights of a file, made now unless an interrupted attempt left them whole."""
    if file.is_file():
        try:
            return load_file(file)["weights"]
        except (SafetensorError, KeyError):
            file.unlink()
    weights = make()
    save_tensors(file, {"weights": weights})
    return weights


@dataclass(frozen=True)
class Zoo:
    """The zoo stage's folder, read: a zoo as `wspace.weights.zoo.format` has it, and what a run adds to it."""

    folder: Path

    @cached_property
    def tasks(self) -> TaskSet:
        return TaskSet.load(self.folder / TASKS)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return tuple(read_json(self.folder / WORLD)["classes"])

    @cached_property
    def dims(self) -> dict[str, int]:
        """feature_dim and text_dim: the shapes of the target follow from them."""
        world = read_json(self.folder / WORLD)
        return {"feature_dim": world["feature_dim"], "text_dim": world["text_dim"]}

    def check(self, fingerprints: Mapping[str, str]) -> None:
        """Raise WspaceError if images or encoders, by their fingerprints, are no longer those the zoo was trained on."""
        made = read_json(self.folder / WORLD)["fingerprints"]
        changed = [name for name, fingerprint in fingerprints.items() if made[name] != fingerprint]
        if changed:
            raise WspaceError(
                f"{self.folder}: made with other {' and '.join(changed)} than those here now (has a package that carries "
                "them been upgraded?): run the recipe again with --force zoo"
            )

    @cached_property
    def class_texts(self) -> Tensor:  # (n, T)
        return self._world["class_texts"]

    @cached_property
    def scale(self) -> FeatureScale:
        return FeatureScale(self._world["feature_rms"])

    @cached_property
    def _world(self) -> dict[str, Tensor]:
        return load_file(self.folder / WORLD_TENSORS)

    @cached_property
    def stored(self) -> StoredZoo:
        return StoredZoo.open(self.folder)

    @cached_property
    def base(self) -> Tensor:  # (P,)
        base = self.stored.parent("base")
        assert base is not None, "the zoo stage leaves one"
        return base

    @cached_property
    def weights(self) -> Tensor:
        """(n, P), of all seen tasks, the held-out ones last."""
        return self.stored.weights()


@dataclass(frozen=True)
class Trained:
    """The opponents stage's folder, read."""

    folder: Path

    @cached_property
    def universal(self) -> Tensor:  # (P,)
        return load_file(self.folder / UNIVERSAL)["weights"][0]

    def oracle(self, split: str) -> Tensor:
        """(B, P), of the scored tasks of a split."""
        return load_file(self.folder / ORACLE.format(split))["weights"]
