"""What goes wrong in a training that does not end of it, seen in its log: losses that leap, codebooks that die."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

LEAP = 5.0
"""Times the median of the steps before it that a loss is noted at. In healthy trainings it is 2.2 at most."""
BEFORE, FEWEST = 50, 20  # steps that a loss is set beside, at most and at least
DYING = 0.5  # of the largest share of codes that was in use
USED = "codes_used"
"""The value in a tokenizer's `log_values` that says which share of a codebook's codes a batch uses."""


class Health:
    """Of one phase of training; each thing is said once."""

    def __init__(self, phase: str, section: str):
        self.phase, self.section, self.said = phase, section, set[str]()

    def complaints(self, log: Sequence[Mapping[str, Any]], begin: int) -> list[str]:
        """A sentence on each thing that went wrong in the entries from `begin` on, and of which nothing was said yet."""
        seen = {"loss": self._leap(log, begin), "codes": self._dying(log)}
        new = {what: sentence for what, sentence in seen.items() if sentence and what not in self.said}
        self.said |= new.keys()
        return list(new.values())

    def _leap(self, log: Sequence[Mapping[str, Any]], begin: int) -> str | None:
        losses = [entry["loss"] for entry in log]
        for place in range(max(begin, FEWEST), len(losses)):
            usual = median(losses[max(0, place - BEFORE) : place])
            if usual > 0 and losses[place] > LEAP * usual:  # a loss with a discriminator's in it may be below 0
                return (
                    f"{self.phase}: the loss leaps to {losses[place]:.3g} at step {log[place]['step']}, "
                    f"{losses[place] / usual:.0f} times what it was in the steps before; if it stays there, lower "
                    f"{self.section}.lr, or {self.section}.clip"
                )
        return None

    def _dying(self, log: Sequence[Mapping[str, Any]]) -> str | None:
        shares = [entry["tokenizer"][USED] for entry in log if USED in entry.get("tokenizer", {})]
        if not shares or (now := median(shares[-FEWEST:])) >= DYING * (most := max(shares)):
            return None
        return (
            f"{self.phase}: the tokenizer's codebook dies: at step {log[-1]['step']} {now:.1%} of its codes are in use, where "
            f"it was {most:.1%}; lower {self.section}.lr"
        )
