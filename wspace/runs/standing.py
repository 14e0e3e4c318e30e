"""The classes that a generator was trained on: how others stand to them, and what weights for others are worth."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

from wspace.data.prompts import pad
from wspace.data.splits import UNSEEN_CLASSES, UNSEEN_FAR, UNSEEN_NEAR
from wspace.data.tasks import near_and_far
from wspace.data.twins import APART, listed
from wspace.learning.expectation import SAME, Expectation, ScoredTasks, described, novelty_of
from wspace.runs.artifacts import Zoo
from wspace.runs.store import intact
from wspace.runs.workbench import Workbench
from wspace.support.classes import misspelt
from wspace.support.methods import OURS
from wspace.support.names import PER_TASK
from wspace.support.quantities import counted

LETTERS = 5  # of a word that is taken for a misspelt one: shorter ones are near each other by chance
NAMED = 8  # classes in a note, at most; the rest is counted


@dataclass(frozen=True)
class Standing:
    """How a class stands to those that a generator was trained on."""

    name: str
    kind: Literal["known", "near", "far"]  # known: by name or by text; near: its name shares a word with a known one
    nearest: str  # the known class of the nearest text
    likeness: float  # cosine of the two texts


@dataclass(frozen=True)
class KnownClasses:
    """Of a finished run. Names are given as `check_classes` or `trimmed` leave them."""

    bench: Workbench
    zoo: Zoo
    prompt_texts: Tensor  # (n, T), of every class of the data set
    evaluate: Path  # the folder that stage evaluate left

    def standings(self, names: Sequence[str]) -> list[Standing]:
        """How each of these classes stands to the known ones."""
        known = [self.zoo.classes[number] for number in self.zoo.tasks.classes]
        near, _ = near_and_far((*known, *names), range(len(known)))
        if not names:
            return []
        likeness, nearest = (self.bench.encode_prompt_texts(names) @ self._texts.mT).max(1)  # (K,) each
        likeness = likeness.clamp(-1, 1)  # which rounding goes beyond
        kinds: list[Literal["known", "near", "far"]] = [
            "known" if cosine > 1 - SAME else "near" if number in near else "far"
            for number, cosine in enumerate(likeness.tolist(), len(known))
        ]
        return [
            Standing(name, kind, known[of], cosine)
            for name, kind, of, cosine in zip(names, kinds, nearest.tolist(), likeness.tolist(), strict=True)
        ]

    def notes(self, names: Sequence[str], pictured: Container[str]) -> Iterator[str]:
        """What a user of these classes should know; nothing of unknown ones that come with pictures."""
        same = self._twins_of(names)
        for name, others in same.items():
            yield f"the text encoder makes one vector of {listed([name, *others])}: the same weights are for all of them"
        strangers = [
            standing
            for standing in self.standings([name for name in names if name not in pictured])
            if standing.kind != "known" and standing.nearest not in same.get(standing.name, ())
        ]
        if strangers:
            yield self._note_on(strangers)

    def _note_on(self, strangers: Sequence[Standing]) -> str:
        """How classes that the generator was not trained on stand to those it was, and where their worth stands."""
        named = [
            f"{stranger.name!r} ({stranger.kind}; nearest known: {stranger.nearest!r}, likeness {stranger.likeness:.2f}"
            f"{self._spelt_alike(stranger.name)})"
            for stranger in strangers[:NAMED]
        ]
        more = [counted(len(strangers) - NAMED, "other")] if len(strangers) > NAMED else []
        splits = self.zoo.tasks.splits
        by_kind = [f"{UNSEEN_NEAR}-N and {UNSEEN_FAR}-N"] if any(UNSEEN_FAR in split for split in splits) else []
        scored = [UNSEEN_CLASSES, *by_kind] if UNSEEN_CLASSES in splits else []
        worth = f"scores of {', '.join(scored)} say" if scored else "nothing in its report says"
        return f"the generator was not trained on {', '.join([*named, *more])}; {worth} what weights for such classes are worth"

    def _spelt_alike(self, name: str) -> str:
        """The question whether a class of the data set was meant, where one is spelt almost so and none is spelt so."""
        other = misspelt(name, self.zoo.classes, LETTERS)
        return "" if other is None else f"; did you mean {other!r}?"

    def _twins_of(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Of these class names those that are, to the text encoder, other classes of the zoo, each with these."""
        vectors, of_zoo = self.bench.encode_classes(names), self.zoo.class_texts
        near = torch.cdist(vectors.double(), of_zoo.double()) < APART  # (len(names), n)
        groups = {
            name: [self.zoo.classes[number] for number in row.nonzero().flatten().tolist()]
            for name, row in zip(names, near, strict=True)
        }
        others = {name: [other for other in group if other != name] for name, group in groups.items()}
        return {name: group for name, group in others.items() if group}

    def expected_accuracy(self, names: Sequence[str]) -> Expectation | None:
        """Of weights for a task of these classes, by the tasks that the report scored; None where it scored too few like it."""
        if self._scored_tasks is None:
            return None
        texts = self.bench.encode_prompt_texts(names)  # (K, T)
        novelty, mask = novelty_of(texts, self._texts), torch.ones(1, len(texts), dtype=torch.bool)
        if not self._unknown_scored and (novelty > SAME).any():
            return None
        expected = [
            self._scored_tasks.expect(described(texts[None], share * novelty[None], mask)[0]) for share in (1.0, 0.0)
        ]
        # an unknown class makes no task easier: of scored tasks, which have such classes alone or none, a line may say so
        return min(expected, key=lambda one: one.mean)

    @cached_property
    def _texts(self) -> Tensor:
        """(n, T), of the known classes."""
        return self.prompt_texts[list(self.zoo.tasks.classes)]

    @cached_property
    def _unknown_scored(self) -> list[int]:
        """Classes of scored tasks that the generator was not trained on."""
        tasks = self.zoo.tasks
        scored = {number for split in tasks.splits for task in tasks.scored(split) for number in task}
        return sorted(scored - set(tasks.classes))

    @cached_property
    def _scored_tasks(self) -> ScoredTasks | None:
        per_task, tasks = load_file(intact(self.evaluate, PER_TASK)), self.zoo.tasks
        unknown, rows, accuracies = self._unknown_scored, [], []
        novelty = torch.zeros(len(self.prompt_texts))  # of known classes, which are most
        novelty[unknown] = novelty_of(self.prompt_texts[unknown], self._texts)
        for split in tasks.splits:
            values = per_task.get(f"{split}/accuracy/{OURS}")
            if values is not None:
                index, mask = pad(tasks.scored(split))
                rows.append(described(self.prompt_texts[index], novelty[index], mask))
                accuracies.append(values)
        return ScoredTasks.of(torch.cat(rows), torch.cat(accuracies)) if rows else None
