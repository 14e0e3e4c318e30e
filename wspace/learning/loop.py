"""The training loop of generators: steps down a loss, a running average, looks at held-out tasks, points to go on from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import cos, inf, pi
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from wspace.learning.adversary import Adversary
from wspace.learning.system import System
from wspace.support.errors import Diverged
from wspace.support.files import save_tensors
from wspace.support.processes import ALONE, Processes
from wspace.support.settings import Reconstruction, TaskLoss, Train


class Loop:
    """Parameters, their running average, the best average so far, the optimiser, and where all of it is kept."""

    def __init__(
        self,
        system: System,
        settings: Train | TaskLoss | Reconstruction,
        checkpoint: Path,
        parameters: Sequence[nn.Parameter],
        adversary: Adversary | None = None,  # saved along, and stepped by nobody here
        processes: Processes = ALONE,  # that take the same steps, each with losses of its own
    ):
        self.processes = processes
        self.adversary = adversary
        self.system, self.settings, self.checkpoint = system.train(), settings, checkpoint
        self.step, self.best_accuracy, self.log = 0, -inf, list[dict[str, Any]]()
        self.parameters = {
            name: p for name, p in system.named_parameters() if any(p is trained for trained in parameters)
        }
        learns_code = any(p is trained for p in system.tokenizer.parameters() for trained in parameters)
        # what a code learns beside its parameters: running means of a codebook, which are best with those they grew up with
        self.buffers = {
            f"tokenizer.{name}": b
            for name, b in system.tokenizer.named_buffers()
            if learns_code and "tokenizer." + name in system.state_dict()
        }
        self.best_buffers = {name: b.clone() for name, b in self.buffers.items()}
        self.averaged = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.best = {name: p.clone() for name, p in self.averaged.items()}
        self.optimizer = torch.optim.AdamW(
            list(self.parameters.values()), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )

    def advance(self, loss: Tensor, shown: Mapping[str, Tensor]) -> None:
        """One step down a loss, or its mean over the processes. Raises Diverged if it is not a number."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * self._rate()
        means = self.processes.averaged({"loss": loss, **shown})
        if not torch.isfinite(means["loss"]):
            sections = {Reconstruction: "reconstruction", TaskLoss: "task_loss", Train: "train"}
            section = sections[type(self.settings)]
            raise Diverged(
                f"the loss is {float(means['loss'])} at step {self.step}; lower {section}.lr, or {section}.clip"
            )
        self.optimizer.zero_grad()
        loss.backward()
        self.processes.average([p.grad for p in self.parameters.values() if p.grad is not None])
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
        figures = {"loss": float(means.pop("loss")), "gradient": float(norm)}
        self.log.append({"step": self.step, **figures, **{name: float(value) for name, value in means.items()}})

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
            self.best_buffers = {name: b.clone() for name, b in self.buffers.items()}

    # ------------------------------------------------------------ on disk

    def save(self) -> None:
        optimizer = self.optimizer.state_dict()["state"]
        tensors = {f"parameters.{name}": p for name, p in self.parameters.items()}
        tensors |= {f"averaged.{name}": p for name, p in self.averaged.items()}
        tensors |= {f"best.{name}": p for name, p in self.best.items()}
        tensors |= {f"buffers.{name}": b for name, b in self.buffers.items()}
        tensors |= {f"best_buffers.{name}": b for name, b in self.best_buffers.items()}
        tensors |= {f"optimizer.{i}.{key}": value for i, state in optimizer.items() for key, value in state.items()}
        if self.adversary is not None:
            tensors |= {f"adversary.{name}": value for name, value in self.adversary.state().items()}
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
        parts = ("parameters", "averaged", "best", "buffers", "best_buffers", "optimizer", "adversary")
        groups: dict[str, dict[str, Tensor]] = {part: {} for part in parts}
        for name, tensor in tensors.items():
            group, _, rest = name.partition(".")
            groups[group][rest] = tensor
        self._put(groups["parameters"])
        for name, averaged in self.averaged.items():
            averaged.copy_(groups["averaged"][name])
            self.best[name].copy_(groups["best"][name])
        for name, buffer in self.buffers.items():
            buffer.copy_(groups["buffers"][name])
            self.best_buffers[name].copy_(groups["best_buffers"][name])
        if self.adversary is not None:
            self.adversary.restore(groups["adversary"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in groups["optimizer"].items():
            number, _, key = name.partition(".")
            moments.setdefault(int(number), {})[key] = tensor
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
        self.step, self.best_accuracy, self.log = state["step"], state["best_accuracy"], state["log"]

    def finish(self) -> list[dict[str, Any]]:
        """Leave the best averages in the system. The checkpoint stays until the stage is done: a killed run goes on."""
        self._put(self.best)
        for name, buffer in self.buffers.items():
            buffer.copy_(self.best_buffers[name])
        self.system.eval()
        return self.log
