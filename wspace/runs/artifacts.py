"""What stages left, read: the zoo, and the opponents that train on images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wspace.data.features import FeatureScale
from wspace.data.prompts import prompts_of
from wspace.data.splits import SEEN
from wspace.data.tasks import Task, TaskSet
from wspace.interfaces import Prompts, Shots, Target
from wspace.runs.store import intact, manifest_of
from wspace.support.checkpoints import fingerprint_of
from wspace.support.errors import FileError, UserError, WspaceError
from wspace.support.files import read_json, save_tensors, write_text
from wspace.support.methods import ORACLE, UNIVERSAL
from wspace.support.names import (
    CHOSEN,
    KEPT,
    OPPONENT,
    OPPONENT_OF_ALL,
    SCORES,
    TASKS,
    WORLD,
    WORLD_TENSORS,
    ZOO_HEADER,
)
from wspace.weights.zoo.format import StoredZoo


def keep(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a file of a stage's folder that the next attempt, if this one is interrupted, is to find.

    A hash is written down before its file, so that every file has one. Raises OSError.
    """
    written = file.parent / KEPT / file.name
    written.parent.mkdir(exist_ok=True)
    write_text(written, _hash_of(tensors))
    save_tensors(file, tensors)


def kept(file: Path) -> bool:
    """Whether a file that was to be kept is there, and as it was written; of older versions, whether it can be read."""
    try:
        tensors = load_file(file)
    except (SafetensorError, FileNotFoundError):
        return False
    written = file.parent / KEPT / file.name
    return not written.is_file() or written.read_bytes() == _hash_of(tensors).encode()


def _hash_of(tensors: Mapping[str, Tensor]) -> str:
    return fingerprint_of(dict(sorted(tensors.items())))


@dataclass(frozen=True)
class Zoo:
    """The zoo stage's folder, read: a zoo as `wspace.weights.zoo.format` has it, and what a run adds to it."""

    folder: Path

    @cached_property
    def tasks(self) -> TaskSet:
        return TaskSet.load(intact(self.folder, TASKS))

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return tuple(read_json(intact(self.folder, WORLD))["classes"])

    def prompts(self, tasks: Sequence[Task], texts: Tensor, shots: Shots | None = None) -> Prompts:
        """What these texts (n, T) of all classes say of tasks of its data set, and what these are called."""
        return prompts_of(tasks, texts, self.classes, shots, ordered=self.tasks.ordered)

    @cached_property
    def dims(self) -> dict[str, int]:
        """feature_dim and text_dim: the shapes of the target follow from them."""
        world = read_json(intact(self.folder, WORLD))
        return {"feature_dim": world["feature_dim"], "text_dim": world["text_dim"]}

    def check(self, accepted: Mapping[str, Sequence[str]]) -> None:
        """Raise WspaceError unless images and encoders have a fingerprint by which the zoo knows what it was trained on."""
        made = read_json(intact(self.folder, WORLD))["fingerprints"]
        changed = [name for name, fingerprints in accepted.items() if made[name] not in fingerprints]
        if changed:
            pictures = ((manifest_of(self.folder) or {}).get("slots") or {}).get("dataset.path")
            if changed == ["images"] and pictures is not None:
                raise WspaceError(
                    f"{self.folder}: made with other pictures than {pictures} has now: put back those that were there, or run "
                    "the recipe again, which makes the zoo anew"
                )
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
        return load_file(intact(self.folder, WORLD_TENSORS))

    @cached_property
    def stored(self) -> StoredZoo:
        """Raises FileError for that of a run which was pushed to a hub without its zoo's networks."""
        if (self.folder / WORLD).is_file() and not (self.folder / ZOO_HEADER).is_file():
            raise FileError(
                f"{self.folder}: the run came here without the zoo's networks; `wspace push --whole` takes them along, and "
                "`wspace run` makes them again"
            )
        return StoredZoo.open(self.folder)

    @property
    def shares_base(self) -> bool:
        """Whether its networks began at one base; or each at weights of its own (`zoo.start: fresh`)."""
        return self._base is not None

    @property
    def base(self) -> Tensor:
        """(P,), that its networks began at. Raises UserError where each began at weights of its own."""
        if self._base is None:
            raise UserError(
                f"{self.folder}: each of its networks began at weights of its own (zoo.start: fresh), and there is no base"
            )
        return self._base

    @property
    def reference(self) -> Tensor:
        """(P,), that networks are aligned to, and looked at from: the base, or the zoo's first network where there is none."""
        return self.weights[0] if self._base is None else self._base

    def starts(self, target: Target, count: int, rng: torch.Generator) -> Tensor:
        """(count, P), where networks begin that are trained as the zoo's are: at its base, or each at fresh weights."""
        return target.init(count, rng) if self._base is None else self._base.expand(count, -1)

    @cached_property
    def _base(self) -> Tensor | None:
        return self.stored.parent("base")

    @cached_property
    def weights(self) -> Tensor:
        """(n, P), of all seen tasks, the held-out ones last."""
        return self.stored.weights()


def chosen_of(evaluate: Path) -> dict[str, float]:
    """What opponents chose on validation images, of the evaluate stage's folder: `ridge_penalty`."""
    scores = read_json(intact(evaluate, SCORES))
    return scores["chosen"] if "chosen" in scores else {"ridge_penalty": scores["ridge_penalty"]}  # before 0.2


@dataclass(frozen=True)
class TrainedOpponents:
    """The opponents stage's folder, read."""

    folder: Path

    def weights(self, method: str, split: str) -> Tensor:
        """(B, P), of the scored tasks of a split; or (1, P), one network for every task.

        Raises UserError if the run has no such opponent.
        """
        return load_file(self.file(method, split))["weights"]

    def file(self, method: str, split: str) -> Path:
        """Where `weights` lie. Raises UserError as that does."""
        files = (self.folder / OPPONENT.format(method, split), self.folder / OPPONENT_OF_ALL.format(method))
        file = next((file for file in files if file.is_file()), None)
        if file is None:
            raise UserError(
                f"this run has no opponent {method!r} that trains on images; its recipe leaves it out of `against`, or it "
                "does not apply to such a zoo"
            )
        return intact(self.folder, file.name)

    def has(self, method: str) -> bool:
        """Whether an opponent that trains on images was asked."""
        return (
            any(self.folder.glob(OPPONENT.format(method, "*")))
            or (self.folder / OPPONENT_OF_ALL.format(method)).is_file()
        )

    def chosen(self, method: str) -> dict[str, float]:
        """What an opponent chose on validation images."""
        file = self.folder / CHOSEN.format(method)
        return read_json(intact(self.folder, file.name)) if file.is_file() else {}

    @cached_property
    def universal(self) -> Tensor:  # (P,)
        return self.weights(UNIVERSAL, SEEN)[0]

    def oracle(self, split: str) -> Tensor:
        """(B, P), of the scored tasks of a split."""
        return self.weights(ORACLE, split)
