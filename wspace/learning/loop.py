"""The training loop: optimiser, warm-up and cosine, gradient clipping, EMA, early stopping on validation, checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import cos, inf, isfinite, pi
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from wspace.learning.adversary import Adversary
from wspace.learning.health import Health
from wspace.learning.slabs import Slabs
from wspace.support.checkpoints import fingerprint_of
from wspace.support.devices import steps_unread
from wspace.support.errors import Diverged
from wspace.support.files import save_tensors
from wspace.support.processes import ALONE, Processes
from wspace.support.progress import Progress
from wspace.support.seeding import stream
from wspace.support.settings import Reconstruction, TaskLoss, Train

LogValues = Mapping[str, Mapping[str, Tensor]]
"""Scalars for the log in groups: `terms` of the loss, values of the `discriminator`, values of the `tokenizer`."""

Step = Callable[[int, torch.Generator], Iterable[tuple[Tensor, LogValues]]]
"""(number of the step, random stream) -> the parts of one batch, each made when it is asked for: what it adds to the loss (),
with a gradient, and to the scalars for the log. Most have one part."""

Log = list[dict[str, Any]]
"""A line for each step: `step` (from 1), `loss`, `gradient` (its norm, before clipping), groups of `LogValues` by name, and
`validation_accuracy` at a check."""

Watch = Callable[[str, Log], None]
"""Is given a phase of training and its log so far: whenever a checkpoint is written, and once where one is gone on from."""

SECTIONS = {Reconstruction: "reconstruction", TaskLoss: "task_loss", Train: "train"}
"""Where a recipe says the settings of a phase."""

MOMENTS = ("exp_avg", "exp_avg_sq")  # that AdamW keeps of each parameter, beside the number of the step

CHECKPOINT_GROUPS = ("parameters", "ema", "best", "buffers", "best_buffers", "optimizer", "adversary")
EMA_BEFORE = "averaged"  # what older versions called the group `ema`


def unwatched(phase: str, log: Log) -> None:
    """A `Watch` that looks away."""


def _hash_of(tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> str:
    return fingerprint_of(dict(sorted(tensors.items())), json.dumps(state))


def warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """Factor of the learning rate at a step (from 0) of `steps`: linear over a share `warmup` of them, a cosine to 0 after."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + cos(pi * (step - rising) / max(1, steps - rising)))


class TrainingLoop:
    """Parameters of a module, their EMA, the best EMA so far, the optimiser, and the checkpoint of all of it. Where
    `settings.ema` is 0 the parameters themselves are what is looked at and kept.

    `parameters` are those of `module` that are trained. `buffers` are what it learns beside them, by name, as a codebook's
    running means: the best are kept with the best EMA. An `adversary` is saved along, and stepped by nobody here.
    All `processes` take the same steps, each on a share of the batch. The EMA is the first one's alone, and so is the best.
    With `settings.shard_optimizer` each keeps the optimiser's state of some of the parameters, which it steps for all.
    """

    def __init__(
        self,
        module: nn.Module,
        settings: Train | TaskLoss | Reconstruction,
        checkpoint: Path,
        parameters: Sequence[nn.Parameter],
        *,
        buffers: Mapping[str, Tensor] | None = None,
        adversary: Adversary | None = None,
        processes: Processes = ALONE,
    ):
        self.processes = processes
        self.adversary = adversary
        self.module, self.settings, self.checkpoint = module.train(), settings, checkpoint
        self.step, self.best_accuracy, self.log = 0, -inf, Log()
        self.unread: list[tuple[int, dict[tuple[str, str], Tensor]]] = []  # steps, and what the log is to have of each
        self.parameters = {
            name: p for name, p in module.named_parameters() if any(p is trained for trained in parameters)
        }
        self.buffers = dict(buffers or {})
        self.best_buffers = {name: b.clone() for name, b in self.buffers.items()}
        kept = self.parameters if processes.rank == 0 else {}
        self.ema_parameters = {name: p.detach().clone() for name, p in kept.items() if settings.ema}
        self.best_parameters = {name: p.detach().clone() for name, p in kept.items()}
        self.sharded = isinstance(settings, Train) and settings.shard_optimizer and processes.count > 1
        self.optimizer, self.stepped = self._optimizers()
        self.schedule = LambdaLR(self.optimizer, self._learning_rate_factor)
        alone = processes.count == 1 and settings.clip is None  # nothing comes between a gradient and the step down it
        self.slabs = Slabs(self.stepped if alone else None)

    def _optimizers(self) -> tuple[Optimizer, AdamW]:
        """What steps all parameters; and AdamW, of those that this process steps.

        Not by FSDP, of whose modules no process has all parameters: the first alone samples from the module, for `validate`.
        """
        every, settings = list(self.parameters.values()), self.settings
        chosen: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay, "fused": True}
        if not self.sharded:
            optimizer = AdamW(every, **chosen)
            return optimizer, optimizer
        from torch.distributed.optim import ZeroRedundancyOptimizer

        shared = ZeroRedundancyOptimizer(every, AdamW, **chosen)
        return shared, shared.optim

    def run(
        self,
        name: str,
        step: Step,
        validate: Callable[[], float],
        *,
        seed: int,
        device: torch.device,
        progress: Progress,
        start_counts: bool = False,
        watch: Watch = unwatched,
    ) -> Log:
        """From the checkpoint, or the start, to the last step; leaves the best EMA in the module. Returns the log.

        `validate` is called under the EMA parameters, every `check_every` steps and at the end, by the first process
        alone, and the checkpoint is written then: it gives the accuracy that the best is chosen by. Where the `start_counts`,
        it is called before the first step, too: what a training only made worse ends as it began. Step n of the phase
        `name` draws from a random stream of its own, which is the same in each process. Raises Diverged.
        """
        if not self.resume() and self.processes.rank == 0:
            progress.say(f"warning: {self.checkpoint.name} is damaged: {name} begins again")
        if self.log:
            watch(name, self.log)
        health, looked = Health(name, self.section), self.step
        if start_counts and self.step == 0:
            with self.under_ema():
                self.best_accuracy = validate()
        with self._gradients_of_trained_parameters_only(), progress.bar(name, self.settings.steps) as bar:
            bar.resume(self.step)
            while self.step < self.settings.steps:
                rng = stream(seed, name, self.step)
                with torch.random.fork_rng([device] if device.type == "cuda" else []):
                    torch.manual_seed(rng.initial_seed())  # for dropout layers, which take no generator
                    self.advance(step(self.step, rng))
                bar.advance()
                if self.step % self.settings.check_every and self.step != self.settings.steps:
                    continue
                self.read()
                if self.processes.rank == 0:
                    self._check_parameters()
                    for sentence in health.complaints(self.log, looked):
                        progress.say(f"warning: {sentence}")
                    looked = self.step
                    with self.under_ema():
                        accuracy = validate()
                    self.keep_if_best(accuracy)
                self.save()
                if self.processes.rank == 0:
                    watch(name, self.log)
        return self.finish()

    def advance(self, parts: Iterable[tuple[Tensor, LogValues]]) -> None:
        """One step down the sum of the losses of `parts`, as a `Step` gives them, or its mean over the processes.

        Raises Diverged if it is not a number.
        """
        self.optimizer.zero_grad()
        totals: dict[tuple[str, str], Tensor] = {}
        with self.slabs.collecting():
            for loss, log_values in parts:
                loss.backward()  # before the next part is made: only one at a time takes memory
                groups: LogValues = {"": {"loss": loss.detach()}, **log_values}
                for group, values in groups.items():
                    for name, value in values.items():
                        totals[group, name] = totals[group, name] + value if (group, name) in totals else value
        means = self.processes.averaged(totals)
        norms = self.slabs.step(means["", "loss"])
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        self.processes.average(gradients)
        norm = torch.nn.utils.get_total_norm([*gradients, *norms])
        self.unread.append((self.step, means | {("", "gradient"): norm}))
        if len(self.unread) >= steps_unread(norm.device):
            self.read()
        if self.settings.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters.values(), self.settings.clip, norm)
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        self._update_ema()

    def read(self) -> None:
        """Into the log, what the steps since the last time came to: by one look at the device. Raises Diverged."""
        if self.adversary is not None:
            self.adversary.read()
        if not self.unread:
            return
        device = self.unread[-1][1]["", "gradient"].device
        tensors = [value.to(device, torch.double) for _, values in self.unread for value in values.values()]
        numbers = iter(torch.stack(tensors).tolist())
        for step, names in self.unread:
            values = {name: next(numbers) for name in names}
            self._check_finite(step, values)
            entry: dict[str, Any] = {"step": step + 1}
            entry |= {"loss": values.pop(("", "loss")), "gradient": values.pop(("", "gradient"))}
            for (group, name), value in values.items():
                entry.setdefault(group, {})[name] = value
            self.log.append(entry)
        self.unread.clear()

    def _check_finite(self, step: int, values: Mapping[tuple[str, str], float]) -> None:
        """What a step came to. If others came after it, parameters and gradients are theirs, and say nothing of it."""
        is_last = step == self.step
        if not isfinite(loss := values["", "loss"]):
            if is_last:
                self._check_parameters()
            terms = [name for (group, name), value in values.items() if group == "terms" and not isfinite(value)]
            self._diverged(f"the loss{f' ({terms[0]})' if terms else ''} is {loss}", step)
        if not isfinite(values["", "gradient"]):
            there = self.parameters.items() if is_last else ()
            of = (name for name, p in there if p.grad is not None and not p.grad.isfinite().all())
            self._diverged(f"the gradient of {next(of, 'all parameters together')} is not a finite number", step)

    @property
    def section(self) -> str:
        """Of the recipe, where the settings are said."""
        return SECTIONS[type(self.settings)]

    def _check_parameters(self) -> None:
        for name, parameter in self.parameters.items():
            if not torch.isfinite(parameter).all():
                self._diverged(f"parameter {name} is not a finite number", self.step)

    def _diverged(self, what: str, step: int) -> NoReturn:
        raise Diverged(f"{what} at step {step}; lower {self.section}.lr, or {self.section}.clip")

    def _learning_rate_factor(self, step: int) -> float:
        return warmup_cosine(step, self.settings.steps, self.settings.warmup)

    def _update_ema(self) -> None:
        """ema <- decay * ema + (1 - decay) * parameters, from the initial parameters on.

        Not by `torch.optim.swa_utils.AveragedModel`: its first update overwrites the average in place of mixing it, and
        its decay does not grow.
        """
        decay = min(self.settings.ema, self.step / (self.step + 10))  # short at first, or the start would linger
        if self.ema_parameters:
            torch._foreach_lerp_(
                list(self.ema_parameters.values()), [p.detach() for p in self.parameters.values()], 1 - decay
            )

    @contextmanager
    def under_ema(self) -> Iterator[None]:
        """The module with its EMA parameters, if there are any, and in evaluation mode; training goes on from its own."""
        raw = {name: self.parameters[name].detach().clone() for name in self.ema_parameters}
        self._put(self.ema_parameters)
        self.module.eval()
        try:
            yield
        finally:
            self._put(raw)
            self.module.train()

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self.parameters[name].copy_(value)

    def keep_if_best(self, accuracy: float) -> None:
        """Early stopping: the EMA parameters that sample are those whose networks did best on validation images."""
        self.log[-1]["validation_accuracy"] = accuracy
        if accuracy > self.best_accuracy:
            self.best_accuracy = accuracy
            self.best_parameters = {
                name: p.detach().clone() for name, p in (self.ema_parameters or self.parameters).items()
            }
            self.best_buffers = {name: b.clone() for name, b in self.buffers.items()}

    @contextmanager
    def _gradients_of_trained_parameters_only(self) -> Iterator[None]:
        """No gradient is computed for any others, which nothing would descend."""
        trained = list(self.parameters.values())
        others = [p for p in self.module.parameters() if p.requires_grad and not any(p is one for one in trained)]
        for parameter in others:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in others:
                parameter.requires_grad_(True)

    # ------------------------------------------------------------ checkpoints

    def save(self) -> None:
        """Write the checkpoint, in place of the one before; the first process does, and all call this where the optimiser is
        shared out. The file does not tell. Raises DiskError."""
        moments = self._moments()
        if self.processes.rank:
            return
        groups: dict[str, Mapping[str, Tensor]] = {
            "parameters": self.parameters,
            "ema": self.ema_parameters,
            "best": self.best_parameters,
            "buffers": self.buffers,
            "best_buffers": self.best_buffers,
            "optimizer": {f"{i}.{key}": value for i, state in moments.items() for key, value in state.items()},
            "adversary": {} if self.adversary is None else self.adversary.state(),
        }
        tensors = {f"{group}.{name}": tensor for group, values in groups.items() for name, tensor in values.items()}
        state = {"step": self.step, "best_accuracy": self.best_accuracy, "log": self.log}
        # in one entry: safetensors writes several in any order
        save_tensors(self.checkpoint, tensors, {"state": json.dumps(state | {"sha256": _hash_of(tensors, state)})})

    def _numbers_stepped(self) -> list[int]:
        """Of the parameters that this process steps: their places among all."""
        numbers = {id(p): i for i, p in enumerate(self.parameters.values())}
        return [numbers[id(p)] for group in self.stepped.param_groups for p in group["params"]]

    def _moments(self) -> dict[int, dict[str, Tensor]]:
        """Number of each parameter that was stepped -> the state that the optimiser keeps of it: of all, in the first process.

        Not by `ZeroRedundancyOptimizer.consolidate_state_dict`, which unpickles what the others send.
        """
        numbers, states = self._numbers_stepped(), self.stepped.state_dict()["state"]
        ours = {numbers[place]: state for place, state in states.items()}
        if not self.sharded:
            return ours
        some = {(i, key): value for i, state in ours.items() for key, value in state.items()}
        like: dict[tuple[int, str], Tensor] = {}
        for i, parameter in enumerate(self.parameters.values()):
            like |= {(i, "step"): parameter.new_zeros(()), **{(i, key): parameter for key in MOMENTS}}
        moments: dict[int, dict[str, Tensor]] = {}
        for (i, key), value in self.processes.collect(some, like).items():
            moments.setdefault(i, {})[key] = value
        return {i: state for i, state in moments.items() if state["step"] > 0}

    def resume(self) -> bool:
        """Go on from a checkpoint that an interrupted attempt left, if there is one. Returns whether it can be read, and is
        as it was written: otherwise nothing is taken of it."""
        if not self.checkpoint.is_file():
            return True
        try:
            with safe_open(self.checkpoint, "pt") as opened:
                state = json.loads(opened.metadata()["state"])
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
            expected = state.pop("sha256", None)  # older versions wrote none
        except (SafetensorError, AttributeError, KeyError, TypeError, ValueError):
            return False
        if expected not in (None, _hash_of(tensors, state)):
            return False
        groups: dict[str, dict[str, Tensor]] = {group: {} for group in CHECKPOINT_GROUPS}
        for name, tensor in tensors.items():
            group, _, rest = name.partition(".")
            groups["ema" if group == EMA_BEFORE else group][rest] = tensor
        self._put({name: groups["parameters"][name] for name in self.parameters})
        for kept, group in ((self.ema_parameters, "ema"), (self.best_parameters, "best")):
            for name, tensor in kept.items():
                tensor.copy_(groups[group][name])
        for name, buffer in self.buffers.items():
            buffer.copy_(groups["buffers"][name])
            self.best_buffers[name].copy_(groups["best_buffers"][name])
        if self.adversary is not None:
            self.adversary.restore(groups["adversary"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in groups["optimizer"].items():
            number, _, key = name.partition(".")
            moments.setdefault(int(number), {})[key] = tensor
        ours = {place: moments[i] for place, i in enumerate(self._numbers_stepped()) if i in moments}
        self.stepped.load_state_dict(self.stepped.state_dict() | {"state": ours})
        self.step, self.best_accuracy, self.log = state["step"], state["best_accuracy"], state["log"]
        self.schedule = LambdaLR(self.optimizer, self._learning_rate_factor, last_epoch=self.step - 1)
        return True

    def finish(self) -> Log:
        """Leave the best EMA in the module. The checkpoint stays until the stage is done: a killed run goes on."""
        self._put(self.best_parameters)
        for name, buffer in self.buffers.items():
            buffer.copy_(self.best_buffers[name])
        self.module.eval()
        return self.log
