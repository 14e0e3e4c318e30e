"""Stage train: the generator, on the zoo's pairs. The only training loop of generators there is.

Three phases: closed forms; the task loss, where the recipe has one and the generator takes it; the generator's own loss.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import cos, inf, pi
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from wspace.errors import Diverged
from wspace.fitting import TaskBatches, accuracies
from wspace.interfaces import Prompts, Symmetry
from wspace.seeding import stream
from wspace.settings import TaskLoss, Train
from wspace.stages import Job
from wspace.store import save_tensors, write_json
from wspace.system import System
from wspace.tasks import prompts_of
from wspace.zoo import Zoo

CHECKPOINT = "{}.checkpoint.safetensors"
LOOK = {"steps": 10, "guidance": 1.0, "temperature": 0.0}
"""How networks are drawn at a check: always so, for what a recipe says under `generate` must not change what was trained."""

LOOKED_AT = 64  # held-out tasks whose networks are scored on validation images at every check
COLLAPSED = 0.005  # accuracy above the zoo's mean below which a condition is worth nothing


def run(job: Job) -> None:
    recipe, bench = job.recipe, job.bench
    zoo = Zoo(job.inputs["zoo"])
    zoo.check(bench)
    system = System.build(recipe, bench.target.spec, bench.text.dim)
    count = len(zoo.tasks.training)
    weights, held_out = zoo.weights[:count], zoo.weights[count:]
    prompts = prompts_of(zoo.tasks.training, zoo.class_texts)
    system.fit(weights, prompts, (held_out, prompts_of(zoo.tasks.choosing, zoo.class_texts)))
    system.to(bench.device)

    looked_at = zoo.tasks.choosing[:LOOKED_AT]
    asked = prompts_of(looked_at, zoo.class_texts).to(bench.device)

    def on_validation(networks: Tensor) -> float:
        return float(accuracies(bench.target, networks.cpu(), looked_at, bench.val, bench.class_texts).mean())

    def look() -> float:
        return on_validation(system.sample(asked, stream(recipe.seed, "look"), **LOOK))

    def look_at_typical() -> float:
        with torch.no_grad():
            return on_validation(system.typical(asked))

    logs: dict[str, list[dict[str, Any]]] = {}
    task_parameters = system.generator.task_parameters()
    if recipe.task_loss.steps and task_parameters:
        step = _task_step(job, zoo, system, prompts)
        logs["task"] = _phase(job, "task", system, task_parameters, recipe.task_loss, step, look_at_typical)
    others = [p for p in system.parameters() if not any(p is t for t in task_parameters)]
    if recipe.train.steps and others:
        step = _weight_step(job, system, weights, prompts)
        logs["train"] = _phase(job, "train", system, others, recipe.train, step, look)

    found = look()
    mean = on_validation(weights.mean(0).expand(len(looked_at), -1))
    save_tensors(job.folder / "generator.safetensors", system.state_dict())
    lines = [json.dumps({"phase": name, **entry}) for name, log in logs.items() for entry in log]
    (job.folder / "log.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    summary = {
        "parameters": sum(p.numel() for p in system.parameters()),
        "steps": {name: len(log) for name, log in logs.items()},
        "validation_accuracy": found,
        "validation_accuracy_of_zoo_mean": mean,
        "collapsed": found < mean + COLLAPSED,
    }
    write_json(job.folder / "summary.json", summary)
    for checkpoint in job.folder.glob(CHECKPOINT.format("*")):
        checkpoint.unlink()
    if summary["collapsed"]:
        job.progress.say(
            f"warning: the generator ignores its condition: its networks for held-out tasks reach {found:.1%} on "
            f"validation images, the zoo's mean {mean:.1%}"
        )


Step = Callable[[torch.Generator], tuple[Tensor, Mapping[str, Tensor]]]
"""One batch's loss, and figures for the log."""


def _weight_step(job: Job, system: System, weights: Tensor, prompts: Prompts) -> Step:
    """The generator's own loss on networks of the zoo."""
    settings, device = job.recipe.train, job.bench.device
    symmetry: Symmetry | None = (
        job.recipe.symmetry.build({"spec": job.bench.target.spec}) if job.recipe.symmetry else None
    )

    def step(rng: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        rows = torch.randint(len(weights), (settings.batch,), generator=rng)
        batch = _augmented(weights[rows], symmetry, settings.augment, rng)
        return system.loss(batch.to(device), prompts[rows].to(device), rng)

    return step


def _augmented(weights: Tensor, symmetry: Symmetry | None, share: float, rng: torch.Generator) -> Tensor:
    """Random elements of the group on a share of the networks (T2W, eq. 10)."""
    if symmetry is None or share == 0:
        return weights
    moved = symmetry.act(symmetry.sample(len(weights), rng), weights)
    return torch.where((torch.rand(len(weights), generator=rng) < share)[:, None], moved, weights)


def _task_step(job: Job, zoo: Zoo, system: System, prompts: Prompts) -> Step:
    """Cross-entropy of typical networks of seen tasks, on training images."""
    settings, bench, tasks = job.recipe.task_loss, job.bench, zoo.tasks.training

    def step(rng: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        rows = torch.randint(len(tasks), (settings.batch,), generator=rng)
        batches = TaskBatches([tasks[row] for row in rows.tolist()], bench.train, bench.class_texts)
        features, label = batches.draw(settings.images, rng)
        kept = torch.rand(features.shape, generator=rng) >= settings.dropout
        networks = system.typical(prompts[rows].to(bench.device)).cpu()
        features = features * kept / (1 - settings.dropout)
        return batches.losses(bench.target, networks, features, label).mean(), {}

    return step


def _phase(
    job: Job,
    name: str,
    system: System,
    parameters: Sequence[nn.Parameter],
    settings: Train | TaskLoss,
    step: Step,
    look: Callable[[], float],
) -> list[dict[str, Any]]:
    """Train these parameters, and leave in `system` those averages that did best at a look. Returns the log."""
    loop = _Loop(system, settings, job.folder / CHECKPOINT.format(name), parameters)
    loop.resume()
    with job.progress.bar(name, settings.steps) as bar:
        bar.resume(loop.step)
        while loop.step < settings.steps:
            rng = stream(job.recipe.seed, name, loop.step)
            with torch.random.fork_rng([job.bench.device] if job.bench.device.type == "cuda" else []):
                torch.manual_seed(rng.initial_seed())  # for dropout layers, which take no generator
                loop.advance(*step(rng))
            bar.advance()
            if loop.step % settings.check_every == 0 or loop.step == settings.steps:
                with loop.averaged_parameters():
                    accuracy = look()
                loop.keep_if_best(accuracy)
                loop.save()
    return loop.finish()


class _Loop:
    """Parameters, their running average, the best average so far, the optimiser, and where all of it is kept."""

    def __init__(
        self, system: System, settings: Train | TaskLoss, checkpoint: Path, parameters: Sequence[nn.Parameter]
    ):
        self.system, self.settings, self.checkpoint = system.train(), settings, checkpoint
        self.step, self.best_accuracy, self.log = 0, -inf, list[dict[str, Any]]()
        self.parameters = {
            name: p for name, p in system.named_parameters() if any(p is trained for trained in parameters)
        }
        self.averaged = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.best = {name: p.clone() for name, p in self.averaged.items()}
        self.optimizer = torch.optim.AdamW(
            list(self.parameters.values()), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )

    def advance(self, loss: Tensor, shown: Mapping[str, Tensor]) -> None:
        """One step down a loss. Raises Diverged if it is not a number."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * self._rate()
        if not torch.isfinite(loss):
            section = "task_loss" if isinstance(self.settings, TaskLoss) else "train"
            raise Diverged(
                f"the loss is {float(loss.detach())} at step {self.step}; lower {section}.lr, or {section}.clip"
            )
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters.values() if p.grad is not None])
        if self.settings.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters.values(), self.settings.clip, norm)
        self.optimizer.step()
        self.step += 1
        decay = min(self.settings.ema, self.step / (self.step + 10))  # short at first, or the start would linger
        if self.settings.ema:
            torch._foreach_lerp_(
                list(self.averaged.values()), [p.detach() for p in self.parameters.values()], 1 - decay
            )
        figures = {name: float(value) for name, value in shown.items()}
        self.log.append({"step": self.step, "loss": float(loss.detach()), "gradient": float(norm), **figures})

    def _rate(self) -> float:
        """Linear warm-up, then a cosine to zero."""
        warmup = max(1, round(self.settings.warmup * self.settings.steps))
        if self.step < warmup:
            return (self.step + 1) / warmup
        return 0.5 * (1 + cos(pi * (self.step - warmup) / max(1, self.settings.steps - warmup)))

    @contextmanager
    def averaged_parameters(self) -> Iterator[None]:
        """The system with averaged parameters, for looking; training goes on from its own."""
        if not self.settings.ema:
            torch._foreach_copy_(list(self.averaged.values()), [p.detach() for p in self.parameters.values()])
        training = {name: p.detach().clone() for name, p in self.parameters.items()}
        self._put(self.averaged)
        self.system.eval()
        try:
            yield
        finally:
            self._put(training)
            self.system.train()

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    def keep_if_best(self, accuracy: float) -> None:
        """Early stopping: the averages that sample are those whose networks did best on validation images."""
        self.log[-1]["validation_accuracy"] = accuracy
        if accuracy > self.best_accuracy:
            self.best_accuracy = accuracy
            self.best = {name: p.clone() for name, p in self.averaged.items()}

    # ------------------------------------------------------------ on disk

    def save(self) -> None:
        optimizer = self.optimizer.state_dict()["state"]
        tensors = {f"parameters.{name}": p for name, p in self.parameters.items()}
        tensors |= {f"averaged.{name}": p for name, p in self.averaged.items()}
        tensors |= {f"best.{name}": p for name, p in self.best.items()}
        tensors |= {f"optimizer.{i}.{key}": value for i, state in optimizer.items() for key, value in state.items()}
        state = {"step": self.step, "best_accuracy": self.best_accuracy, "log": self.log}
        save_tensors(self.checkpoint, tensors, {"state": json.dumps(state)})

    def resume(self) -> None:
        """Go on from a checkpoint that an interrupted attempt left, if there is one that can be read."""
        if not self.checkpoint.is_file():
            return
        try:
            with safe_open(self.checkpoint, "pt") as opened:
                state = json.loads(opened.metadata()["state"])
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
        except SafetensorError:
            return
        groups: dict[str, dict[str, Tensor]] = {"parameters": {}, "averaged": {}, "best": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            group, _, rest = name.partition(".")
            groups[group][rest] = tensor
        self._put(groups["parameters"])
        for name, averaged in self.averaged.items():
            averaged.copy_(groups["averaged"][name])
            self.best[name].copy_(groups["best"][name])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in groups["optimizer"].items():
            number, _, key = name.partition(".")
            moments.setdefault(int(number), {})[key] = tensor
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
        self.step, self.best_accuracy, self.log = state["step"], state["best_accuracy"], state["log"]

    def finish(self) -> list[dict[str, Any]]:
        """Leave the best averages in the system. The checkpoint stays until the stage is done: a killed run goes on."""
        self._put(self.best)
        self.system.eval()
        return self.log
