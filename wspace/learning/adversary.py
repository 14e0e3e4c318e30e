"""The adversarial loss (T2W, eq. 13): a discriminator that learns to tell generated networks from the zoo's."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, log

import torch
from torch import Tensor, nn
from torch.nn import functional

from wspace.interfaces import Discriminator
from wspace.support.devices import steps_unread
from wspace.support.errors import Diverged
from wspace.support.processes import ALONE, Processes
from wspace.support.settings import Adversary as Settings

OUTRIGHT = 0.99
"""Accuracy of the discriminator, averaged over its last turns, above which the generator learns nothing from it."""


class Adversary(nn.Module):
    """The discriminator, its optimiser, and whose turn it is: `settings.turn` steps its own, as many the generator's.

    In the warm-up every turn is the discriminator's. It is part of no saved generator, only of a checkpoint.
    """

    def __init__(self, discriminator: Discriminator, settings: Settings, steps: int, processes: Processes = ALONE):
        super().__init__()
        self.processes = processes  # that take the same steps, each on networks of its own
        self.discriminator, self.settings = discriminator, settings
        self.warm = round(settings.warmup * steps)
        self.optimizer = torch.optim.Adam(discriminator.parameters(), lr=settings.lr, fused=True)
        self.accuracy: Tensor
        self.register_buffer("accuracy", torch.full((), 0.5))  # running, of its answers before each step
        self.unread: list[Tensor] = []  # losses of its last steps, that the host has not looked at
        self.compared: list[dict[str, Tensor]] = []  # scalars of the parts of a batch since its last step

    def learns_at(self, step: int) -> bool:
        """Whether step number `step`, from 0, is the discriminator's; else it is the generator's."""
        return step < self.warm or (step - self.warm) // self.settings.turn % 2 == 0

    def compare(self, real: Tensor, generated: Tensor, weight: float = 1.0) -> None:
        """Part of a batch for its next step: tokens (B, N, D) of the zoo's networks and of generated ones.

        `weight` is the part's in the batch; of all parts, in the mean over processes, the weights sum to 1.
        """
        both = torch.cat([real, generated.detach()])  # at once: its gradients are as large as it is
        real_logits, generated_logits = self.discriminator(both).split([len(real), len(generated)])
        # -log D, -log(1 - D)
        loss = functional.softplus(-real_logits).mean() + functional.softplus(generated_logits).mean()
        accuracy = ((real_logits > 0).float().mean() + (generated_logits < 0).float().mean()) / 2
        (weight * loss).backward()
        self.compared.append({"loss": weight * loss.detach(), "accuracy": weight * accuracy})

    def learn(self) -> dict[str, Tensor]:
        """One step of the discriminator up eq. 13, on all that was compared since the last.

        Returns scalars for the log: its `loss` (1: it knows nothing), `accuracy` in [0, 1] and `gradient`, the norm.
        Raises Diverged when its loss is not a number.
        """
        totals = {name: torch.stack([part[name] for part in self.compared]).sum() for name in ("loss", "accuracy")}
        self.compared.clear()
        means = self.processes.averaged(totals)
        self.unread.append(means["loss"])
        if len(self.unread) >= steps_unread(means["loss"].device):
            self.read()
        gradients = [p.grad for p in self.discriminator.parameters() if p.grad is not None]
        self.processes.average(gradients)
        norm = torch.nn.utils.get_total_norm(gradients)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.accuracy.lerp_(means["accuracy"], 0.05)
        return means | {"loss": means["loss"] / (2 * log(2)), "gradient": norm}

    def read(self) -> None:
        """Losses of the steps since the last time. Raises Diverged when one is not a number."""
        losses = torch.stack(self.unread).tolist() if self.unread else []
        self.unread.clear()
        if failed := [loss for loss in losses if not isfinite(loss)]:
            raise Diverged(f"the discriminator's loss is {failed[0]}; lower adversary.lr")

    def judge(self, generated: Tensor) -> Tensor:
        """What the generator descends, its parameters alone: -log D of its networks (B, N, D), as Goodfellow et al. (2014)
        advise in section 3 for eq. 13's log(1 - D), whose slope vanishes where the discriminator is sure."""
        trained = [p for p in self.discriminator.parameters() if p.requires_grad]
        for parameter in trained:
            parameter.requires_grad_(False)
        try:
            return functional.softplus(-self.discriminator(generated)).mean()
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)

    @property
    def wins_outright(self) -> bool:
        """Whether its running accuracy is above `OUTRIGHT`."""
        return float(self.accuracy) > OUTRIGHT

    # ------------------------------------------------------------ on disk

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed training needs, flat."""
        tensors = {f"module.{name}": value for name, value in self.state_dict().items()}
        moments = self.optimizer.state_dict()["state"]
        return tensors | {f"optimizer.{i}.{key}": v for i, state in moments.items() for key, v in state.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        prefix = "module."
        self.load_state_dict({n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)})
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            group, _, rest = name.partition(".")
            if group == "optimizer":
                number, _, key = rest.partition(".")
                moments.setdefault(int(number), {})[key] = value
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
