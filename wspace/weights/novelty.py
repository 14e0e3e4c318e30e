"""How new generated networks are: how far from the zoo's in weights, and how unlike its nearest in what they get wrong.

A network is its orbit: distances are between the nearest members that the symmetry finds, so that a copy of a zoo's network
with its hidden units in another order is no new network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wspace.interfaces import Symmetry

CANDIDATES = 8  # nearest ones of the zoo, seen from the base, to which a network is then aligned one by one
SAMPLED = 64  # networks of the zoo behind the unit of distance
ROWS = 256  # networks handled at once: bounds memory


@dataclass(frozen=True)
class Nearest:
    """The networks of the zoo that some networks are nearest to."""

    index: Tensor  # (B,)
    novelty: Tensor  # (B,), distance in units of the zoo's own

    def split(self, count: int) -> list[Nearest]:
        """Of so many networks each."""
        return [Nearest(*parts) for parts in zip(self.index.split(count), self.novelty.split(count), strict=True)]


class Neighbourhood:
    """The zoo's networks (n, P), n > 1, as what others may be near to, modulo a symmetry if there is one.

    The unit of distance is the zoo's own: the median distance of a network of it to the nearest other one, of at most
    `SAMPLED`. So novelty is 0 for a copy and about 1 for what is as far from the zoo as its members from each other.
    At most so many `rows` of networks are handled at once, where the zoo's lie.
    """

    def __init__(
        self, weights: Tensor, base: Tensor, symmetry: Symmetry | None, rng: torch.Generator, rows: int = ROWS
    ):
        self.weights, self.base, self.symmetry, self.rows = weights, base.to(weights.device), symmetry, rows
        # that bring the zoo near the base
        self.elements = None if symmetry is None else symmetry.align(weights, self.base)
        sampled = torch.randperm(len(weights), generator=rng)[:SAMPLED].to(weights.device)
        _, distances = self._nearest(weights[sampled], but=sampled)
        self.unit = distances.median().clamp_min(1e-12)

    def nearest(self, networks: Tensor) -> Nearest:
        """Of each network (B, P)."""
        index, distance = self._nearest(networks.to(self.weights.device))
        return Nearest(index.to(networks.device), (distance / self.unit).to(networks.device))

    def _nearest(self, networks: Tensor, but: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Index and distance of each network's nearest in the zoo, leaving out those with the indices `but` (B,)."""
        if self.symmetry is not None:  # all seen from the base: there, networks of one orbit lie together
            networks = torch.cat([self.symmetry.canonicalize(part, self.base) for part in networks.split(self.rows)])
        apart = self._distances(networks)
        if but is not None:
            apart.scatter_(1, but[:, None], torch.inf)
        count = min(CANDIDATES, len(self.weights) - (but is not None))
        candidates = apart.topk(count, dim=1, largest=False).indices  # (B, count)
        exact = torch.cat(
            [self._aligned(*rows) for rows in zip(networks.split(self.rows), candidates.split(self.rows), strict=True)]
        )
        best = exact.argmin(1, keepdim=True)
        return candidates.gather(1, best)[:, 0], exact.gather(1, best)[:, 0]

    def _distances(self, networks: Tensor) -> Tensor:
        """Plain squared ones to all of the zoo, as seen from the base: (B, P) -> (B, n)."""
        offsets = networks - self.base
        squared_norms = offsets.norm(dim=1, keepdim=True).square()
        columns = []
        for start in range(0, len(self.weights), self.rows):
            rows = slice(start, start + self.rows)
            others = self.weights[rows]
            if self.symmetry is not None and self.elements is not None:
                others = self.symmetry.act(self.elements[rows], others)
            others = others - self.base
            columns.append(squared_norms + others.norm(dim=1).square() - 2 * (offsets @ others.T))
        return torch.cat(columns, dim=1)

    def _aligned(self, networks: Tensor, candidates: Tensor) -> Tensor:
        """Distances (B, k) of networks (B, P) to those of the zoo with these indices (B, k), aligned to each."""
        columns = []
        for index in candidates.T:
            others = self.weights[index]
            near = networks if self.symmetry is None else self.symmetry.canonicalize(networks, others)
            columns.append((near - others).norm(dim=1))
        return torch.stack(columns, dim=1)


def error_overlap(predictions: Sequence[Tensor], others: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
    """Of each task, the images that two networks both get wrong, over those that either does: (B,).

    The intersection over union of p-diff (Wang et al., 2024, "Neural Network Diffusion"). 1 where neither errs: nothing
    tells them apart.
    """
    overlaps = []
    for first, second, true in zip(predictions, others, labels, strict=True):
        wrong, wrong_too = first != true, second != true
        either = (wrong | wrong_too).sum()
        overlaps.append((wrong & wrong_too).sum() / either if either else torch.ones(()))
    return torch.stack(overlaps)
