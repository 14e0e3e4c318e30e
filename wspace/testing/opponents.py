"""Laws of opponents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from wspace.data.features import Pool
from wspace.data.shots import draw_shots
from wspace.interfaces import Contest, Evidence, Opponent, Task
from wspace.learning.baselines import descriptions
from wspace.learning.fitting import accuracies, fit_on
from wspace.support import settings
from wspace.support.errors import reason
from wspace.support.progress import Progress
from wspace.support.seeding import stream
from wspace.testing import toys
from wspace.testing.law import check
from wspace.testing.subject import HIDDEN, TEXTS, Subject, Toy, normal, twice

CLASSES, IMAGES, HELD_OUT, SHOTS = 8, 6, 4, 2  # images and shots are of each class
TASKS: tuple[Task, ...] = tuple((c, (c + 1 + n) % CLASSES) for n in range(2) for c in range(CLASSES))
SPLITS: dict[str, tuple[Task, ...]] = {"seen": TASKS[:3], "unseen-tasks": ((0, 1, 4), (2, 5))}
PLACES = range(101)
PROMINENCE = ("headline", "tables", "report")


@check("opponent")
def check_its_report_knows_what_it_is(subject: Subject) -> None:
    """Its words and its place are literals of its class: tables are made without an import."""
    made, read = _opponent(subject), subject.bound.signature.constants
    names = ("what", "called", "place", "prominence", "novelty", "from_zoo", "trains_on_images", "takes_pictures")
    for name in names:
        if name in read or name in ("what", "called", "place") or getattr(made, name) != getattr(Opponent, name):
            value = getattr(made, name, None)
            subject.hold(
                name in read and read[name] == value,
                f"its class should say `{name}` itself, as a literal, and in its source there is {read.get(name)!r}, "
                f"where it has {value!r}",
            )
    for name in ("what", "called"):
        subject.hold(
            isinstance(read[name], str) and read[name].strip(), f"`{name}` should be words, and is {read[name]!r}"
        )
    subject.hold(read["place"] in PLACES, f"`place` should be from 0 to 100, and is {read['place']!r}")
    shown = made.prominence
    subject.hold(shown in PROMINENCE, f"`prominence` should be one of {', '.join(PROMINENCE)}, and is {shown!r}")


@check("opponent")
def check_what_it_chooses_are_numbers(subject: Subject) -> None:
    opponent = _opponent(subject)
    chosen: Any = opponent.choose(evidence_of(opponent))
    right = isinstance(chosen, dict) and all(isinstance(n, str) and isfinite(v) for n, v in chosen.items())
    subject.hold(right, f"`choose` should give finite numbers by name, for the report, and gave {chosen!r}")


@check("opponent")
def check_networks_are_shaped_as_weights(subject: Subject) -> None:
    """A row for each task, or one network for all."""
    for contest, weights in _answers(subject, _opponent(subject)):
        ndim = weights.ndim if isinstance(weights, Tensor) else 2
        shape = (HIDDEN.size,) if ndim == 1 else (len(contest.tasks), HIDDEN.size)
        subject.shaped(f"its networks for {len(contest.tasks)} tasks", weights, shape)


@check("opponent")
def check_gives_the_same_twice(subject: Subject) -> None:
    """From the same evidence, whatever torch's global random numbers are: its own come from `evidence.rng`."""
    first, second = twice(lambda rng: [weights for _, weights in _answers(subject, _opponent(subject))])
    for one, other in zip(first, second, strict=True):
        subject.equal("its networks from the same evidence, a second time", other, one)


@check("opponent")
def check_evidence_stays_as_it_is(subject: Subject) -> None:
    """Others go by the same tensors after it."""
    opponent = _opponent(subject)
    evidence, contests = evidence_of(opponent), contests_of(opponent)
    given = {
        "the zoo's weights": evidence.weights,
        "the zoo's base": evidence.base,
        "class texts": evidence.class_texts,
    }
    if not opponent.trains_on_images:
        given |= {"descriptions of the zoo's tasks": evidence.descriptions}
        given |= {"networks drawn for others": contests[0].mismatched}
    before = {what: tensor.clone() for what, tensor in given.items()}
    opponent.choose(evidence)
    for contest in contests:
        opponent.weights(evidence, contest)
    for what, tensor in given.items():
        subject.equal(f"{what}, afterwards", tensor, before[what])


@check("opponent")
def check_goes_by_no_network_of_the_zoo_if_it_says_so(subject: Subject) -> None:
    """One that is not `from_zoo` is asked where networks are too large to be together: there is their mean alone."""
    if _opponent(subject).from_zoo:
        return
    answers = [weights for _, weights in _answers(subject, _opponent(subject))]
    opponent = _opponent(subject)
    evidence = evidence_of(opponent)
    evidence = replace(evidence, weights=evidence.weights[:0], given_mean=evidence.weights.mean(0))
    try:
        opponent.choose(evidence)
        without = [opponent.weights(evidence, contest) for contest in contests_of(opponent)]
    except Exception as error:
        subject.fail(f"without the zoo's networks it should do as well, and raised {reason(error)}")
    for one, other in zip(without, answers, strict=True):
        subject.equal("its networks without the zoo's", one, other)


def _opponent(subject: Subject) -> Opponent:
    """A fresh one: it may keep what it chose."""
    return subject.build(subject.instances[0].around)


def _answers(subject: Subject, opponent: Opponent) -> Iterator[tuple[Contest, Tensor]]:
    evidence = evidence_of(opponent)
    opponent.choose(evidence)
    for contest in contests_of(opponent):
        yield contest, opponent.weights(evidence, contest)


def evidence_of(opponent: Opponent) -> Evidence:
    """A toy zoo of 16 networks for tasks of two classes, of which the last four are held out; and six images a class."""
    target, texts = Toy(HIDDEN), normal(CLASSES, TEXTS, seed=70)
    train, val = (_pool(seed) for seed in (71, 72))

    return Evidence(
        target=target,
        shared_base=normal(HIDDEN.size, seed=73),
        weights=normal(len(TASKS), HIDDEN.size, seed=74),
        tasks=TASKS,
        held_out=HELD_OUT,
        classes=tuple(range(CLASSES)),
        class_texts=texts,
        images=train.of_task,
        accuracy=lambda weights, tasks: accuracies(target, weights, tasks, val, texts),
        fit=fit_on(target, train, val, texts),
        rng=lambda *names: stream(0, *names),
        effort=settings.Opponents(steps=4, universal_steps=4, check_every=2, patience=1, rates=(1e-3, 1e-2)),
        zoo=settings.Zoo(base_batch=8, steps=4, batch=4, together=5),
        progress=Progress(),
        described=None if opponent.trains_on_images else _described()[0],
        shown=(SHOTS,) if opponent.takes_pictures else (),
    )


def contests_of(opponent: Opponent) -> list[Contest]:
    """Two splits, of three tasks and of two; with a few pictures of each class where it takes such."""
    contests = []
    for number, (split, tasks) in enumerate(SPLITS.items()):
        drawn = normal(len(tasks), HIDDEN.size, seed=75 + number)
        description = (None, None) if opponent.trains_on_images else (_described()[1 + number], drawn)
        shots = draw_shots(_pool(seed=77), tasks, SHOTS, stream(0, split)) if opponent.takes_pictures else None
        contests.append(Contest(split, tasks, *description, shots))
    return contests


def _described() -> list[Tensor]:
    counts = (len(TASKS), *map(len, SPLITS.values()))
    return descriptions(*(toys.prompts_of(count, seed=seed) for seed, count in enumerate(counts)), places=0)


def _pool(seed: int) -> Pool:
    labels = torch.arange(CLASSES).repeat_interleave(IMAGES)
    return Pool.of(normal(CLASSES, 7, seed=76)[labels] + 0.3 * normal(len(labels), 7, seed=seed), labels, CLASSES)
