"""Training a generator, of one zoo or of several together: its tokenizer's code, a task loss, its own loss (T2W, eq. 14).

Everything here is modules, tensors and settings. A stage opens artifacts, calls this, and writes what comes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from wspace.data.features import Pool
from wspace.data.tasks import Task
from wspace.interfaces import Moves, Prompts, Symmetry, Target
from wspace.interfaces.weights import WeightSpec
from wspace.learning.adversary import Adversary
from wspace.learning.fitting import TaskBatches
from wspace.learning.loop import Log, LogValues, Step, TrainingLoop, Watch, unwatched
from wspace.learning.on_images import loss_on_images
from wspace.learning.shares import Share
from wspace.learning.system import System
from wspace.learning.terms import SYMMETRY, check_terms
from wspace.support.devices import settled
from wspace.support.errors import UserError
from wspace.support.names import CHECKPOINT
from wspace.support.processes import ALONE, Processes
from wspace.support.progress import Progress
from wspace.support.seeding import on_device
from wspace.support.settings import Losses, Reconstruction, TaskLoss, Train
from wspace.weights.lowrank import squared_distance

Validate = Callable[[], float]
"""Mean accuracy, in [0, 1], of held-out tasks' networks on validation images, as the system would make them now."""

SPREAD_OF = 256  # networks of the zoo behind the unit of `losses.product`


@dataclass(frozen=True, eq=False)
class TrainingPairs:
    """A zoo's networks and their tasks' prompts; and the system that learns from them, in the networks' shape."""

    system: System
    weights: Tensor  # (n, P)
    prompts: Prompts  # of n tasks
    codes: Tensor | None = None  # (n, N, D): the networks as tokens, if they are at hand

    def to(self, device: torch.device) -> TrainingPairs:
        """The same, where every step takes some of them: on this device, but for networks that it has no room for."""
        return replace(self, weights=settled(self.weights, device), prompts=self.prompts.to(device))

    def networks(self, rows: Tensor, device: torch.device) -> Tensor:
        """(B, P), on this device."""
        return self.weights[rows.to(self.weights.device)].to(device)

    def with_codes(self, device: torch.device) -> TrainingPairs:
        """The same, its codes on `device` if the tokenizer is lossy: they are small, and making them takes an encoder."""
        if not self.system.tokenizer.lossy:
            return self
        with torch.no_grad():
            codes = self.system.tokenizer.tokenize(self.weights.to(device)) if self.codes is None else self.codes
        return replace(self, codes=codes.to(device))


@dataclass(frozen=True)
class TrainingSet:
    """What one generator learns from: a zoo; or several, whose systems share every parameter, if `joint`."""

    zoos: tuple[TrainingPairs, ...]
    joint: bool = False  # each batch is of one zoo, which is drawn first

    @property
    def system(self) -> System:
        """The first zoo's. Of several, its parameters are everybody's."""
        return self.zoos[0].system

    def draw(self, batch: int, rng: torch.Generator) -> tuple[TrainingPairs, Tensor]:
        """A zoo, and rows (B,) of it, with repetition."""
        zoo = self.zoos[int(torch.randint(len(self.zoos), (), generator=rng))] if self.joint else self.zoos[0]
        return zoo, torch.randint(len(zoo.weights), (batch,), generator=rng)


def generator_parameters(system: System) -> list[nn.Parameter]:
    """What the generator's own loss trains: all that no task loss trains before it, and that is no tokenizer's code."""
    generator = system.generator
    others = [*([] if generator.task_loss_last else generator.task_parameters()), *system.tokenizer.parameters()]
    return [p for p in system.parameters() if not any(p is other for other in others)]


# ---------------------------------------------------------------- steps


@dataclass(frozen=True)
class ReconstructionStep:
    """The loss of a tokenizer that learns a code, on networks alone."""

    training_set: TrainingSet
    batch: int  # networks a step
    device: torch.device

    def __call__(self, number: int, rng: torch.Generator) -> list[tuple[Tensor, LogValues]]:
        """As `Step`. Raises UserError for a term whose name is reserved."""
        zoo, rows = self.training_set.draw(self.batch, rng)
        tokenizer = zoo.system.tokenizer
        networks = zoo.networks(rows, self.device)
        terms = check_terms(tokenizer, tokenizer.loss(networks, on_device(self.device, rng)))
        total = sum(terms.values(), torch.zeros((), device=self.device))
        return [(total, {"terms": _detached(terms), "tokenizer": tokenizer.log_values()})]


@dataclass(frozen=True)
class TaskLossStep:
    """Cross-entropy of typical networks of seen tasks, on training images; and their distance to the zoo's, if asked for.

    Images, texts and the zoo's networks lie on the device already.
    """

    pairs: TrainingPairs
    settings: TaskLoss
    target: Target
    images: Pool  # of training images
    class_texts: Tensor  # (classes, T), that networks are scored against
    draw_tasks: Callable[[int, torch.Generator], Sequence[Task]]  # so many tasks to train on
    prompts_of: Callable[[Sequence[Task]], Prompts]
    device: torch.device

    def __call__(self, number: int, rng: torch.Generator) -> list[tuple[Tensor, LogValues]]:
        """As `Step`."""
        settings, system = self.settings, self.pairs.system
        tasks = self.draw_tasks(settings.batch, rng)
        batches = TaskBatches(tasks, self.images, self.class_texts)
        networks = system.typical(self.prompts_of(tasks).to(self.device))  # (B, P)
        loss = loss_on_images(self.target, networks, batches, settings.images, settings.dropout, rng)
        if not settings.zoo:
            return [(loss, {})]
        rows = torch.randint(len(self.pairs.weights), (settings.batch,), generator=rng)
        typical = system.typical(self.pairs.prompts[rows].to(self.device))  # (B, P)
        distance = (typical - self.pairs.networks(rows, self.device)).square().mean() / self.zoo_variance
        return [(loss + settings.zoo * distance, {"terms": _detached({"tasks": loss, "zoo": distance})})]

    @cached_property
    def zoo_variance(self) -> Tensor:
        """(), of a weight over the zoo, the mean over weights: the unit of distances to the zoo."""
        return self.pairs.weights.var(0, correction=0).mean().clamp_min(1e-12).to(self.device)


class GeneratorStep:
    """The generator's own loss on networks of the zoo, and the terms that have a weight (T2W, eq. 14).

    With `precision` bfloat16 the generator computes by autocast, the discriminator and every sum in float32. Of each batch
    this process has some rows, in `settings.accumulate` parts. All random numbers are drawn for the whole batch, so that
    the mean gradient over `processes` does not depend on how many there are.
    """

    def __init__(
        self,
        training_set: TrainingSet,
        settings: Train,
        losses: Losses,
        device: torch.device,
        *,
        symmetry: Symmetry | None = None,
        adversary: Adversary | None = None,
        precision: str = "float32",
        processes: Processes = ALONE,
    ):
        """Raises UserError for `losses.product` on networks that are no low-rank products, and for a batch that is too
        small to be shared out."""
        self.settings, self.losses, self.device = settings, losses, device
        self.shares = [Share(rows, settings.batch) for rows in processes.rows(settings.batch, settings.accumulate)]
        self.processes = processes
        self.symmetry, self.adversary = symmetry, adversary
        self.half_precision = precision == "bfloat16"
        self.factors = {SYMMETRY: losses.symmetry, "adversarial": losses.adversarial, "product": losses.product}
        zoos = training_set.zoos
        if not training_set.joint:
            zoos = tuple(zoo.with_codes(device) for zoo in zoos)
        self.training_set = replace(training_set, zoos=zoos)
        self.spreads = {zoo: product_spread(zoo.system.spec, zoo.weights) for zoo in zoos if losses.product}

    def __call__(self, number: int, rng: torch.Generator) -> Iterator[tuple[Tensor, LogValues]]:
        """As `Step`. Raises UserError for a term that the recipe gives a weight and the generator has not, or one whose name
        is reserved."""
        begin = rng.get_state()
        for share in self.shares:
            rng.set_state(begin)
            zoo, rows = self.training_set.draw(share.batch, rng)
            moves = self._moves(zoo.system, share, rng)
            weight = self.processes.count * share.count / share.batch  # sums to 1, in the mean over processes
            with share.drawing(self.device):
                terms = self._terms(number, zoo, rows[share.rows], moves, weight, on_device(self.device, rng))
            log_values = {"terms": {name: weight * value.detach() for name, value in terms.items()}}
            if self.adversary is not None and self.adversary.learns_at(number) and share is self.shares[-1]:
                log_values["discriminator"] = self.adversary.learn()
            weighted = (self.factors.get(name, 1.0) * value for name, value in terms.items())
            yield weight * sum(weighted, torch.zeros((), device=self.device)), log_values

    def _moves(self, system: System, share: Share, rng: torch.Generator) -> Moves | None:
        augment, penalty = self.settings.augment, self.losses.symmetry > 0
        if self.symmetry is None or not (augment or penalty):
            return None
        return system.moves(self.symmetry, share.batch, rng, augment=augment, penalty=penalty, rows=share.rows)

    def _terms(
        self, number: int, zoo: TrainingPairs, rows: Tensor, moves: Moves | None, weight: float, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Of some rows of a batch; where it is the discriminator's turn, it is shown them, with their `weight`."""
        system, losses, device = zoo.system, self.losses, self.device
        with self._autocast():
            if zoo.codes is None:
                pairs = system.pairs(zoo.networks(rows, device), zoo.prompts[rows].to(device), moves)
            else:
                pairs = system.pairs_of(zoo.codes[rows.to(device)], zoo.prompts[rows].to(device), moves)
            terms = system.generator.loss(pairs, rng)
        terms = dict(check_terms(system.generator, terms, penalty=moves is not None and moves.penalty))
        if losses.symmetry and SYMMETRY not in terms:
            raise UserError("losses.symmetry: this generator has no such term; set it to 0")
        if losses.product:
            with self._autocast():
                estimate = system.generator.estimate(pairs, 1.0, rng).float()
            networks = system.tokenizer.detokenize(estimate)  # (B, P)
            distances = squared_distance(system.spec, networks, zoo.networks(rows, device))
            terms["product"] = distances.mean() / self.spreads[zoo]
        if self.adversary is not None:
            discriminator_learns = self.adversary.learns_at(number)
            with torch.set_grad_enabled(not discriminator_learns), self._autocast():
                estimate = system.generator.estimate(pairs, self.adversary.settings.noise, rng).float()  # (B, N, D)
            if discriminator_learns:
                self.adversary.compare(pairs.tokens, estimate, weight)
            else:
                terms["adversarial"] = self.adversary.judge(estimate)
        return terms

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half_precision)


def product_spread(spec: WeightSpec, weights: Tensor) -> float:
    """Mean squared distance of the low-rank products of networks (n, P) to their mean network's.

    Raises UserError if there are none.
    """
    if not spec.products:
        raise UserError("losses.product: the weights of this target are no low-rank products; set it to 0")
    few = weights[:SPREAD_OF]
    mean = weights.mean(0).expand(len(few), -1)
    return max(float(squared_distance(spec, few, mean).mean()), 1e-12)


def _detached(terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in terms.items()}


# ---------------------------------------------------------------- phases


@dataclass(frozen=True)
class GeneratorTraining:
    """What all phases of one generator's training share; a method for each phase, in their order.

    The task loss comes after the generator's own where that says so (`Generator.task_loss_last`).

    A phase takes its section of settings, which must have steps, and returns its log. It goes on from the checkpoint that
    an interrupted attempt left in the folder `checkpoints`. Raises Diverged where a loss is not a number.
    """

    training_set: TrainingSet
    device: torch.device
    seed: int
    checkpoints: Path  # a folder
    progress: Progress
    processes: Processes = ALONE  # that the generator's own loss is shared out among
    watch: Watch = unwatched

    @property
    def system(self) -> System:
        return self.training_set.system

    def reconstruction(self, settings: Reconstruction, validate: Validate) -> Log:
        """The tokenizer's code; `validate` on networks after a round trip."""
        tokenizer = self.system.tokenizer
        kept = self.system.state_dict()
        buffers = {f"tokenizer.{name}": b for name, b in tokenizer.named_buffers() if f"tokenizer.{name}" in kept}
        step = ReconstructionStep(self.training_set, settings.batch, self.device)
        loop = TrainingLoop(
            self.system, settings, self._checkpoint("reconstruction"), list(tokenizer.parameters()), buffers=buffers
        )
        return self._run(loop, "reconstruction", step, validate)

    def task_loss(self, settings: TaskLoss, step: TaskLossStep, validate: Validate) -> Log:
        """The generator's task parameters, which have values already; `validate` on typical networks."""
        loop = TrainingLoop(self.system, settings, self._checkpoint("task"), self.system.generator.task_parameters())
        return self._run(loop, "task", step, validate, start_counts=True)

    def generator(
        self,
        settings: Train,
        losses: Losses,
        validate: Validate,
        *,
        symmetry: Symmetry | None = None,
        adversary: Adversary | None = None,
        precision: str = "float32",
    ) -> Log:
        """All that no phase before trained, in every process at once, from the state of the first; `validate` on samples.

        The `precision` is the first's, too. Raises UserError as `GeneratorStep` does.
        """
        states = [self.system.state_dict(), {} if adversary is None else adversary.state_dict()]
        self.processes.agree([tensor for state in states for tensor in state.values()])
        if self.processes.count > 1:
            half = torch.tensor(float(precision == "bfloat16"), device=self.device)
            self.processes.agree([half])
            precision = "bfloat16" if half else "float32"
        step = GeneratorStep(
            self.training_set,
            settings,
            losses,
            self.device,
            symmetry=symmetry,
            adversary=adversary,
            precision=precision,
            processes=self.processes,
        )
        loop = TrainingLoop(
            self.system,
            settings,
            self._checkpoint("train"),
            generator_parameters(self.system),
            adversary=adversary,
            processes=self.processes,
        )
        return self._run(loop, "train", step, validate)

    def _checkpoint(self, phase: str) -> Path:
        return self.checkpoints / CHECKPOINT.format(phase)

    def _run(
        self, loop: TrainingLoop, phase: str, step: Step, validate: Validate, *, start_counts: bool = False
    ) -> Log:
        return loop.run(
            phase,
            step,
            validate,
            seed=self.seed,
            device=self.device,
            progress=self.progress,
            start_counts=start_counts,
            watch=self.watch,
        )
