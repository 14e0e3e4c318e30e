"""A step of training the generator, and the same step as one writes it down, in float32 with AdamW as it comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from wspace.data.features import Pool
from wspace.data.prompts import prompts_of
from wspace.data.tasks import Task
from wspace.interfaces import Condition, Discriminator, Prompts
from wspace.learning.denoising import sinusoids
from wspace.learning.loop import TrainingLoop
from wspace.learning.phases import TaskLossStep, TrainingPairs, generator_parameters
from wspace.learning.system import System
from wspace.recipes.schema import BoundRecipe
from wspace.runs.assemble import build_system, generator_step, symmetry_of
from wspace.runs.stages import Job
from wspace.runs.stages.train import adversary_of
from wspace.runs.workbench import Workbench
from wspace.support.errors import UserError
from wspace.support.progress import Progress
from wspace.support.quantities import counted
from wspace.support.seeding import seeded, stream

NETWORKS, CLASSES = 64, 20  # of a zoo of random numbers; and of each task, where a task loss is taken
IMAGES = 100  # of each class
LEVELS = 1000

Phase = Literal["train", "task"]

Take = Callable[[int], object]
"""Take step number so many of a training."""

CLOCKS: Mapping[str, Callable[[], float]] = {"seconds": time.perf_counter, "processor_seconds": time.process_time}


def step(
    recipe: BoundRecipe,
    dims: Mapping[str, int],
    count: int,
    progress: Progress,
    phase: Phase = "train",
    clocks: Mapping[str, Callable[[], float]] = CLOCKS,
) -> dict[str, Any]:
    """Time of a step as the recipe trains and of the plain one: of the same batch, sizes and losses.

    `phase` is the generator's own loss, or the task loss. `dims` are `feature_dim` and `text_dim`; nobody loads an encoder,
    for weights, texts and features are random numbers. The zoo's tasks have as many classes as the recipe says. Both take
    turns, `count` steps after one that is not timed: where there is a discriminator, of the kind in which it learns, and of
    that in which it judges. A time is the mean over kinds of the medians. Raises UserError for a generator that has no such
    step.
    """
    contestants, kinds, about = PHASES[phase](_Setting.of(recipe, dims, progress))
    taken: dict[tuple[str, str, int], list[float]] = {}
    with progress.bar("steps", (count + 1) * len(kinds) * len(contestants)) as bar:
        for repeat in range(count + 1):
            for number in kinds:
                for who, take in contestants.items():
                    started = {clock: read() for clock, read in clocks.items()}
                    take(number)
                    for clock, read in clocks.items():
                        if repeat:
                            taken.setdefault((clock, who, number), []).append(read() - started[clock])
                    bar.advance()
    times = {
        clock: {who: mean(median(taken[clock, who, number]) for number in kinds) for who in contestants}
        for clock in clocks
    }
    return {
        "benchmark": "step",
        "recipe": recipe.name,
        "phase": phase,
        **about,
        "threads": torch.get_num_threads(),
        **times,
        "speedup": {clock: time["plain"] / time["ours"] for clock, time in times.items()},
    }


@dataclass(frozen=True)
class _Setting:
    """A recipe's system, fitted to a zoo of random numbers."""

    recipe: BoundRecipe
    bench: Workbench
    system: System
    pairs: TrainingPairs
    texts: Tensor  # (n, T), of all classes
    rng: torch.Generator

    @classmethod
    def of(cls, recipe: BoundRecipe, dims: Mapping[str, int], progress: Progress) -> _Setting:
        bench, rng = Workbench(recipe, progress, dims=lambda: dims), stream(recipe.seed, "bench")
        texts = functional.normalize(torch.randn(4 * CLASSES, dims["text_dim"], generator=rng), dim=1)
        weights = bench.target.init(NETWORKS, rng)
        system = build_system(recipe, bench.target, dims["text_dim"])
        pairs = TrainingPairs(system, weights, _prompts(_tasks(NETWORKS, rng, recipe.tasks.classes), texts))
        system.fit(weights, pairs.prompts, (weights, pairs.prompts))
        system.to(bench.device)
        return cls(recipe, bench, system, pairs, texts, rng)

    @property
    def device(self) -> torch.device:
        return self.bench.device

    def condition(self, prompts: Prompts) -> Condition:
        with torch.no_grad():
            return self.system.condition(prompts.to(self.device))


def _tasks(count: int, rng: torch.Generator, classes: tuple[int, int] = (CLASSES, CLASSES)) -> list[Task]:
    """Of as many classes as these say, or of all there are."""
    sizes = torch.randint(classes[0], classes[1] + 1, (count,), generator=rng).tolist()
    return [tuple(torch.randperm(4 * CLASSES, generator=rng)[:size].tolist()) for size in sizes]


def _prompts(tasks: Sequence[Task], texts: Tensor) -> Prompts:
    return prompts_of(tasks, texts, [str(number) for number in range(len(texts))])


Contestants = tuple[dict[str, Take], list[int], dict[str, Any]]
"""Who takes steps, the number of one of each kind, and the sizes."""


def _parameters(ours: Iterable[Tensor], plain: nn.Module) -> dict[str, int]:
    return {"ours": sum(p.numel() for p in ours), "plain": sum(p.numel() for p in plain.parameters())}


# ---------------------------------------------------------------- the generator's own loss


def _train(setting: _Setting) -> Contestants:
    recipe, system, device = setting.recipe, setting.system, setting.device
    denoiser, sizes = recipe.generator.arguments.get("denoiser"), ("width", "depth", "heads")
    if denoiser is None or not denoiser.arguments.keys() >= set(sizes):
        who = f"generator {recipe.generator.name!r}" if denoiser is None else f"denoiser {denoiser.name!r}"
        raise UserError(f"bench step: the plain step is a transformer's, and {who} has no width, depth and heads")
    symmetry = symmetry_of(recipe, setting.bench.target)
    adversary = adversary_of(Job(recipe, setting.bench, Path(), {}, setting.bench.progress), system)
    descend = generator_step(recipe, setting.bench, setting.pairs, adversary)
    loop = TrainingLoop(system, recipe.train, Path(), generator_parameters(system), adversary=adversary)

    layout, condition = system.tokenizer.layout, setting.condition(setting.pairs.prompts)
    with seeded(0):
        network = PlainNetwork(
            layout.count,
            layout.width,
            condition.tokens.shape[2],
            *(denoiser.arguments[size] for size in sizes),
            own=denoiser.arguments.get("projections") == "own",
        )
    judge = None
    if adversary is not None and recipe.discriminator is not None:
        judge = recipe.discriminator.build({"layout": layout}).to(device)

    def drawn_move() -> Callable[[Tensor], Tensor] | None:
        if symmetry is None or not recipe.losses.symmetry:
            return None
        return system.moves(symmetry, recipe.train.batch, setting.rng, augment=0, penalty=True).act

    tokens = system.tokenizer.tokenize(setting.pairs.weights.to(device))
    kinds = [recipe.train.steps]  # after its warm-up an adversary learns for a turn, and judges in the next
    if adversary is not None:
        kinds = [adversary.warm, adversary.warm + recipe.adversary.turn]
    learning = kinds[:-1]
    contestants: dict[str, Take] = {
        "ours": lambda number: loop.advance(descend(number, stream(recipe.seed, "bench", number))),
        "plain": PlainTraining(
            recipe, network.to(device), judge, tokens, condition, drawn_move, lambda number: number in learning
        ),
    }
    about = {
        "parameters": _parameters(loop.parameters.values(), network),
        "precision": {"ours": setting.bench.precision, "plain": "float32"},
        "batch": f"{counted(recipe.train.batch, 'network')} of {counted(layout.count, 'token')} of {layout.width} values",
        "device": str(device),
    }
    return contestants, kinds, about


class PlainNetwork(nn.Module):
    """The prediction network of Tian et al. (2025, sections 3.1 and 4.1): torch's encoder over [condition, time, tokens], and
    linear maps before and after it, of each token's `own` (eq. 5) or one for all."""

    def __init__(self, count: int, values: int, condition: int, width: int, depth: int, heads: int, own: bool):
        super().__init__()
        self.width, self.count = width, count
        copies = count if own else 1
        self.enter = nn.ModuleList(nn.Linear(values, width) for _ in range(copies))
        self.leave = nn.ModuleList(nn.Linear(width, values) for _ in range(copies))
        self.position = nn.Parameter(torch.zeros(count, width))
        self.of_condition = nn.Linear(condition, width)
        self.of_level = nn.Sequential(nn.Linear(2 * (width // 2), width), nn.SiLU(), nn.Linear(width, width))
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, x: Tensor, level: Tensor, condition: Tensor, mask: Tensor) -> Tensor:
        """(B, N, D), (B,) in [0, 1], (B, L, C), (B, L) bool -> (B, N, D)."""
        time = self.of_level(sinusoids(level, self.width))[:, None]
        sequence = torch.cat([self.of_condition(condition), time, _each(self.enter, x) + self.position], dim=1)
        hidden = None if mask.all() else functional.pad(~mask, (0, 1 + self.count))
        return _each(self.leave, self.encoder(sequence, src_key_padding_mask=hidden)[:, -self.count :])


def _each(maps: nn.ModuleList, tokens: Tensor) -> Tensor:
    """(B, N, .) -> (B, N, .): by a map of each token's own, or by one for all."""
    if len(maps) == 1:
        return maps[0](tokens)
    return torch.stack([own(tokens[:, n]) for n, own in enumerate(maps)], dim=1)


class PlainTraining:
    """Down eq. 9, 12 and 13 of Tian et al. (2025), each by a pass of its own, with AdamW as it comes."""

    def __init__(
        self,
        recipe: BoundRecipe,
        network: PlainNetwork,
        judge: Discriminator | None,
        tokens: Tensor,
        conditions: Condition,
        drawn_move: Callable[[], Callable[[Tensor], Tensor] | None],
        judge_learns_at: Callable[[int], bool],
    ):
        """`tokens` (n, N, D) and `conditions` are of n networks; `drawn_move` gives a random element of the symmetry."""
        self.settings, self.losses, self.noise = recipe.train, recipe.losses, recipe.adversary.noise
        self.network, self.judge, self.tokens, self.conditions = network, judge, tokens, conditions
        self.drawn_move, self.judge_learns_at = drawn_move, judge_learns_at
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.train.lr)
        self.judges_optimizer = None if judge is None else torch.optim.Adam(judge.parameters(), lr=recipe.adversary.lr)
        kept = 1 - torch.linspace(0.1 / LEVELS, 20 / LEVELS, LEVELS, device=tokens.device)
        self.alphas = kept.cumprod(0)  # (LEVELS,)

    def __call__(self, number: int) -> Tensor:
        """A step, in which the discriminator learns or judges. Returns the loss that the network descended, ()."""
        rows = torch.randint(len(self.tokens), (self.settings.batch,), device=self.tokens.device)
        clean, move = self.tokens[rows], self.drawn_move()
        condition = self.conditions.tokens[rows], self.conditions.mask[rows]
        noise, level, noisy, _ = self._noised(clean, 1.0)
        returned = self.network(noisy, level, *condition)
        loss = functional.mse_loss(returned, noise)
        if move is not None:
            moved = self.network(move(noisy), level, *condition)
            loss = loss + self.losses.symmetry * functional.mse_loss(moved, move(returned))
        if self.judge is not None and self.judges_optimizer is not None:
            learns = self.judge_learns_at(number)
            with torch.set_grad_enabled(not learns):
                _, level, noisy, alpha = self._noised(clean, self.noise)
                returned = self.network(noisy, level, *condition)
                estimate = (noisy - (1 - alpha).sqrt() * returned) / alpha.sqrt()
            if learns:
                wrong = functional.softplus(-self.judge(clean)) + functional.softplus(self.judge(estimate))
                self.judges_optimizer.zero_grad()
                wrong.mean().backward()
                self.judges_optimizer.step()
            else:
                loss = loss + self.losses.adversarial * functional.softplus(-self.judge(estimate)).mean()
        self.optimizer.zero_grad()
        loss.backward()
        if self.settings.clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self.optimizer.step()
        return loss.detach()

    def _noised(self, clean: Tensor, most: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Noise, levels (B,), noisy tokens, and alpha-bar (B, 1, 1)."""
        noise = torch.randn_like(clean)
        number = torch.randint(int(most * LEVELS), (len(clean),), device=clean.device)
        alpha = self.alphas[number][:, None, None]
        return noise, number / LEVELS, alpha.sqrt() * clean + (1 - alpha).sqrt() * noise, alpha


# ---------------------------------------------------------------- the task loss


def _task(setting: _Setting) -> Contestants:
    recipe, system, target = setting.recipe, setting.system, setting.bench.target
    settings, trained = recipe.task_loss, system.generator.task_parameters()
    if not trained:
        raise UserError(f"bench step: generator {recipe.generator.name!r} has nothing that a task loss trains")
    images = IMAGES * len(setting.texts)
    features = torch.randn(images, setting.bench.dims()["feature_dim"], generator=setting.rng)
    pool = Pool.of(features, torch.arange(images) % len(setting.texts), len(setting.texts)).to(setting.device)
    descend = TaskLossStep(
        setting.pairs,
        settings,
        target,
        pool,
        setting.texts.to(setting.device),
        _tasks,
        lambda tasks: _prompts(tasks, setting.texts),
        setting.device,
    )
    loop = TrainingLoop(system, settings, Path(), trained)
    axes = min(len(trained[0]), setting.system.conditioner.pooled_width)
    with seeded(0):
        network = nn.Linear(axes, target.spec.size)
    contestants: dict[str, Take] = {
        "ours": lambda number: loop.advance(descend(number, stream(recipe.seed, "bench", number))),
        "plain": PlainTaskTraining(setting, pool, network.to(setting.device)),
    }
    about = {
        "parameters": _parameters(trained, network),
        "precision": {"ours": "float32", "plain": "float32"},
        "batch": f"{counted(settings.batch, 'task')} of {counted(settings.images, 'image')}",
        "device": str(setting.device),
    }
    return contestants, [0], about


class PlainTaskTraining:
    """Cross-entropy on training images of networks that are linear in their task's condition, with torch's own dropout."""

    def __init__(self, setting: _Setting, pool: Pool, network: nn.Linear):
        """`network` sees the first values of the pooled condition, as many as it has inputs."""
        self.setting, self.pool, self.network = setting, pool, network
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=setting.recipe.task_loss.lr)

    def __call__(self, number: int) -> Tensor:
        """A step. Returns the loss that it descended, ()."""
        settings, setting, pool = self.setting.recipe.task_loss, self.setting, self.pool
        drawn = _tasks(settings.batch, setting.rng)
        tasks = torch.tensor(drawn, device=setting.device)  # (B, K)
        label = torch.randint(CLASSES, (settings.batch, settings.images), device=setting.device)
        rows = pool.table[tasks.gather(1, label), torch.randint(IMAGES, label.shape, device=setting.device)]
        features = functional.dropout(pool.features[rows], settings.dropout)  # (B, m, F)
        condition = setting.condition(_prompts(drawn, setting.texts)).pooled[:, : self.network.in_features]
        texts = setting.texts.to(setting.device)[tasks]  # (B, K, T)
        logits = setting.bench.target.training_logits(self.network(condition), features, texts)  # (B, m, K)
        loss = functional.cross_entropy(logits.flatten(0, 1), label.flatten())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


PHASES: Mapping[Phase, Callable[[_Setting], Contestants]] = {"train": _train, "task": _task}
