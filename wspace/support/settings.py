"""What a recipe may say of each stage, apart from components.

The fields are the schema: names, types, bounds and defaults. One that is added later says since when (`Since`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

from wspace.support.elsewhere import Address
from wspace.support.parameters import Since


def is_section(value: object) -> bool:
    """Whether it is one of the classes below, or an instance of one."""
    return (value if isinstance(value, type) else type(value)).__module__ == __name__


@dataclass(frozen=True)
class Tasks:
    """Which tasks: random sets of classes, described by a template. Seen and unseen ones never coincide."""

    seen: Annotated[int, Ge(1)] = 4800
    unseen: Annotated[int, Ge(1)] = 1200
    classes: tuple[Annotated[int, Ge(2)], Annotated[int, Ge(2)]] = (8, 32)  # fewest and most classes of a task
    template: str = "a photo of {}"
    evaluate: Annotated[int, Ge(2)] = 200  # tasks of each split that are scored
    held_out: Annotated[float, Ge(0), Lt(1)] = (
        0.1  # share of the seen tasks kept for choosing; 0: a copy of each instead
    )
    unseen_classes: Annotated[float, Ge(0), Lt(1)] = 0.15  # share of the classes that nothing is trained on
    unseen_ways: Annotated[tuple[Annotated[int, Ge(2)], ...], Since("0.2")] = ()
    """Classes of a task in further splits of unseen classes, each of all of them, of near ones and of far ones."""
    unseen_orders: Annotated[int, Ge(0), Since("0.2")] = 0
    """Tasks of a further split, where outputs stand for classes in order: sets of classes that a network was trained for, in
    orders that none was. Unseen tasks are then of sets that none was trained for in any order."""
    pictures: Annotated[tuple[Annotated[int, Ge(1)], ...], Since("0.2")] = ()
    """Pictures of each class that tasks of unseen classes come with, in further splits of the same tasks."""
    known: Annotated[Annotated[int, Ge(4)] | None, Since("0.2")] = None
    """At most so many of the classes that are not set apart are known, drawn by the seed; nothing is made of the rest."""


@dataclass(frozen=True)
class Zoo:
    """How the training weights are made: a shared base, then one specialisation for each task (T2W, algorithm 2).

    With `source`, networks are taken from a zoo, by its folder or its address, and not trained; a base still is, where that
    zoo has none.
    """

    source: Path | Address | None = None
    start: Annotated[Literal["base", "fresh"], Since("0.2")] = "base"
    """What networks begin at: a base that all of them share; or, of each, fresh weights of its own, and there is no base."""
    copies: Annotated[int, Ge(1), Since("0.1")] = 1  # networks of each seen task, which met its images in other orders
    base_steps: Annotated[int, Ge(0)] = 300
    base_batch: Annotated[int, Ge(1)] = 256
    base_lr: Annotated[float, Gt(0)] = 1e-3
    steps: Annotated[int, Ge(1)] = 120
    batch: Annotated[int, Ge(1)] = 32
    lr: Annotated[float, Gt(0)] = 1e-3
    average: Annotated[float, Ge(0), Le(1)] = 0.5  # the last part of the steps, whose iterates are averaged
    together: Annotated[int, Ge(1)] = 64  # networks trained at once


@dataclass(frozen=True)
class Opponents:
    """How hard the methods trained on images try: `universal` and `oracle` stop, and choose a rate, on validation images."""

    steps: Annotated[int, Ge(1)] = 400  # of the oracle, at most
    universal_steps: Annotated[int, Ge(1)] = 3000  # at most
    check_every: Annotated[int, Ge(1)] = 20
    patience: Annotated[int, Ge(1)] = 5  # checks without improvement before stopping
    rates: Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1)] = (3e-4, 1e-3, 3e-3)


@dataclass(frozen=True)
class Train:
    """How the generator is trained."""

    steps: Annotated[int, Ge(0)] = 1000
    batch: Annotated[int, Ge(1)] = 64
    lr: Annotated[float, Gt(0)] = 4e-4
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.05  # share of the steps
    weight_decay: Annotated[float, Ge(0)] = 0.0
    clip: Annotated[float, Gt(0)] | None = 1.0  # norm of the gradient
    ema: Annotated[float, Ge(0), Lt(1)] = 0.995  # decay of the averaged parameters, which are what samples
    augment: Annotated[float, Ge(0), Le(1)] = 0.0  # share of networks moved by a random element of the symmetry
    align: bool = False  # networks first moved by the symmetry to be near the base, or without one near the zoo's first
    check_every: Annotated[int, Ge(1)] = 100  # steps between looks at held-out tasks, each a point to go on from
    accumulate: Annotated[int, Ge(1), Since("0.2")] = 1
    """Parts that each process computes its share of a batch in, one after the other: less memory, the same gradient."""
    shard_optimizer: Annotated[bool, Since("0.2")] = False
    """Whether several processes share out what AdamW keeps of each parameter (ZeRO, stage 1): less memory, the same numbers."""
    tokens: Annotated[Annotated[int, Ge(1)] | None, Since("0.2")] = None
    """So many tokens of each network a step, drawn anew; networks are then read, drawn and scored part by part, never all at
    once; a predictor is to take parts, or the zoo's mean takes its place. For networks too large for anything else."""


@dataclass(frozen=True)
class Reconstruction:
    """How a tokenizer that loses something (an autoencoder) is trained, before all else: on the zoo's networks alone.

    It is kept as it was when networks held out did best after a round trip, on validation images.
    """

    steps: Annotated[int, Ge(0)] = 1000
    batch: Annotated[int, Ge(1)] = 64
    lr: Annotated[float, Gt(0)] = 1e-3
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.05
    weight_decay: Annotated[float, Ge(0)] = 0.0
    clip: Annotated[float, Gt(0)] | None = 1.0
    ema: Annotated[float, Ge(0), Lt(1)] = 0.0
    check_every: Annotated[int, Ge(1)] = 100
    most_lost: Annotated[float, Ge(0), Le(1)] = (
        0.05  # accuracy that a round trip may cost; the run ends if it costs more
    )


@dataclass(frozen=True)
class Losses:
    """Weights of the terms beside the generator's own (T2W, eq. 14); 0: not computed."""

    symmetry: Annotated[float, Ge(0)] = 0.0  # lambda_1, eq. 12
    adversarial: Annotated[float, Ge(0)] = 0.0  # lambda_2, eq. 13
    product: Annotated[float, Ge(0)] = 0.0  # squared distance of low-rank products (LoRA), over the zoo's own spread


@dataclass(frozen=True)
class Adversary:
    """How the discriminator is trained, where `losses.adversarial` is above 0: it and the generator take turns."""

    lr: Annotated[float, Gt(0)] = 1e-3
    turn: Annotated[int, Ge(1)] = 1  # steps of one, then as many of the other
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.1  # share of the steps in which it learns and the generator is spared
    noise: Annotated[float, Gt(0), Le(1)] = 0.2  # most noise in the networks that the generator is judged by


@dataclass(frozen=True)
class TaskLoss:
    """How a generator's task parameters are trained, before the rest: by the loss of its networks on training images.

    Steps stop counting when held-out tasks no longer gain on validation images.
    """

    steps: Annotated[int, Ge(0)] = 0  # 0: not at all
    batch: Annotated[int, Ge(1)] = 64  # tasks a step
    fresh: bool = (
        True  # tasks of the known classes drawn anew at every step, none of them held out or unseen; or the zoo's
    )
    images: Annotated[int, Ge(1)] = 32  # of each task
    lr: Annotated[float, Gt(0)] = 6e-3
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.3
    """Share of image features, to one part in 256, that each step leaves out: against learning the training images by heart."""
    zoo: Annotated[float, Ge(0), Since("0.1")] = (
        0.0  # weight of a term beside it: squared distance to the zoo's networks, over their own
    )
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.05
    weight_decay: Annotated[float, Ge(0)] = 0.0
    clip: Annotated[float, Gt(0)] | None = None
    ema: Annotated[float, Ge(0), Lt(1)] = 0.0
    check_every: Annotated[int, Ge(1)] = 100


@dataclass(frozen=True)
class Generate:
    """How weights are drawn for the report. The command line may say otherwise."""

    steps: Annotated[int, Ge(1)] = 20  # of the sampler
    guidance: Annotated[float, Ge(0)] = 1.0  # scale of classifier-free guidance; 1: the condition as it is
    temperature: Annotated[float, Ge(0)] = 0.0  # scale of every random draw; 0: the most typical network
    sampler: str | None = None  # the generator's own default


@dataclass(frozen=True)
class Evaluate:
    bootstrap: Annotated[int, Ge(100)] = 2000  # resamples of the tasks behind each confidence interval
    confidence: Annotated[float, Gt(0), Lt(1)] = 0.95
    accurate: Annotated[float, Gt(0), Le(1), Since("0.2")] = (
        0.9  # share of the zoo's own accuracy that a network has to reach to count as accurate and new
    )
