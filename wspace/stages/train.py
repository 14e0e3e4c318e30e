"""Stage train: the generator, on the zoo's pairs. The only training loop of generators there is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import cos, inf, pi
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wspace.errors import Diverged
from wspace.interfaces import Prompts, Symmetry
from wspace.seeding import stream
from wspace.settings import Train
from wspace.stages import Job
from wspace.store import save_tensors, write_json
from wspace.system import System
from wspace.tasks import prompts_of
from wspace.zoo import Zoo

CHECKPOINT = "checkpoint.safetensors"
COLLAPSED = 0.99  # relative error above which a generator has learned no more than the zoo's mean


def run(job: Job) -> None:
    recipe, settings, device = job.recipe, job.recipe.train, job.bench.device
    zoo = Zoo(job.inputs["zoo"])
    target = recipe.target.build(zoo.dims)
    system = System.build(recipe, target.spec, zoo.dims["text_dim"])
    symmetry: Symmetry | None = recipe.symmetry.build({"spec": target.spec}) if recipe.symmetry else None

    count = len(zoo.tasks.training)
    weights, held_out = zoo.weights[:count], zoo.weights[count:]
    prompts = prompts_of(zoo.tasks.training, zoo.class_texts)
    others = prompts_of(zoo.tasks.choosing, zoo.class_texts)
    system.fit(weights, prompts, (held_out, others))
    system.to(device)

    loop = _Loop(system, settings, job.folder)
    loop.resume()
    with job.progress.bar("train", settings.steps) as bar:
        bar.resume(loop.step)
        while loop.step < settings.steps:
            rng = stream(recipe.seed, "train", loop.step)
            rows = torch.randint(count, (settings.batch,), generator=rng)
            batch = _augmented(weights[rows], symmetry, settings.augment, rng)
            loop.advance(batch.to(device), prompts[rows].to(device), rng)
            bar.advance()
            if loop.step % settings.save_every == 0 or loop.step == settings.steps:
                with loop.averaged_parameters():
                    relative_error = _relative_error(system, held_out, others, weights, device)
                loop.keep_if_best(relative_error)
                loop.save()
    loop.finish()
    if loop.best_error > COLLAPSED:
        job.progress.say(
            f"warning: the generator collapsed to the zoo's mean: relative error {loop.best_error:.3f} on held-out tasks"
        )


def _augmented(weights: Tensor, symmetry: Symmetry | None, share: float, rng: torch.Generator) -> Tensor:
    """Random elements of the group on a share of the networks (T2W, eq. 10)."""
    if symmetry is None or share == 0:
        return weights
    moved = symmetry.act(symmetry.sample(len(weights), rng), weights)
    return torch.where((torch.rand(len(weights), generator=rng) < share)[:, None], moved, weights)


@torch.no_grad()
def _relative_error(system: System, held_out: Tensor, prompts: Prompts, weights: Tensor, device: torch.device) -> float:
    """Squared error of the most typical network of each held-out task over that of the zoo's mean: 1 is a collapse."""
    rng = stream(0, "relative error")
    drawn = system.sample(prompts.to(device), rng, steps=1, guidance=1.0, temperature=0.0).cpu()
    return float((drawn - held_out).square().sum() / (weights.mean(0) - held_out).square().sum())


class _Loop:
    """Parameters, their running average, the best average so far, the optimiser, and where all of it is kept."""

    def __init__(self, system: System, settings: Train, folder: Path):
        self.system, self.settings, self.folder = system, settings, folder
        self.step, self.best_error, self.log = 0, inf, list[dict[str, Any]]()
        self.parameters = dict(system.named_parameters())
        self.averaged = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.best = {name: p.clone() for name, p in self.averaged.items()}
        self.optimizer = torch.optim.AdamW(
            list(self.parameters.values()), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )

    def advance(self, weights: Tensor, prompts: Prompts, rng: torch.Generator) -> None:
        """One step. Raises Diverged at a loss that is not a number."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * self._rate()
        with torch.random.fork_rng([weights.device] if weights.is_cuda else []):
            torch.manual_seed(rng.initial_seed())  # for dropout layers, which take no generator
            loss, shown = self.system.loss(weights, prompts, rng)
        if not torch.isfinite(loss):
            raise Diverged(f"the loss is {float(loss)} at step {self.step}; lower train.lr, or train.clip")
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.clip)
        self.optimizer.step()
        self.step += 1
        decay = min(self.settings.ema, self.step / (self.step + 10))  # short at first, or the start would linger
        torch._foreach_lerp_(list(self.averaged.values()), [p.detach() for p in self.parameters.values()], 1 - decay)
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

    def keep_if_best(self, relative_error: float) -> None:
        """Early stopping on held-out tasks: the average that samples is the one that predicted them best."""
        self.log[-1]["relative_error"] = relative_error
        if relative_error < self.best_error:
            self.best_error = relative_error
            self.best = {name: p.clone() for name, p in self.averaged.items()}

    # ------------------------------------------------------------ on disk

    def save(self) -> None:
        optimizer = self.optimizer.state_dict()["state"]
        tensors = {f"parameters.{name}": p for name, p in self.parameters.items()}
        tensors |= {f"averaged.{name}": p for name, p in self.averaged.items()}
        tensors |= {f"best.{name}": p for name, p in self.best.items()}
        tensors |= {f"optimizer.{i}.{key}": value for i, state in optimizer.items() for key, value in state.items()}
        state = {"step": self.step, "best_error": self.best_error, "log": self.log}
        save_tensors(self.folder / CHECKPOINT, tensors, {"state": json.dumps(state)})

    def resume(self) -> None:
        """Go on from a checkpoint that an interrupted attempt left, if there is one that can be read."""
        file = self.folder / CHECKPOINT
        if not file.is_file():
            return
        try:
            with safe_open(file, "pt") as opened:
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
        self.step, self.best_error, self.log = state["step"], state["best_error"], state["log"]

    def finish(self) -> None:
        """Leave the best averaged parameters, the log, and no checkpoint."""
        self._put(self.best)
        save_tensors(self.folder / "generator.safetensors", self.system.state_dict())
        lines = "".join(json.dumps(entry) + "\n" for entry in self.log)
        (self.folder / "log.jsonl").write_text(lines, encoding="utf-8")
        trained = sum(p.numel() for p in self.parameters.values())
        summary = {"parameters": trained, "steps": self.step, "relative_error": self.best_error}
        write_json(self.folder / "summary.json", summary)
        (self.folder / CHECKPOINT).unlink(missing_ok=True)
