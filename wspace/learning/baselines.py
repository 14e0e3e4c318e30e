"""What generated weights are set beside, apart from networks trained on images: closed forms over the zoo."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from wspace.data.tasks import first_of_task
from wspace.interfaces import Contest, Evidence, Prompts, Symmetry, Task
from wspace.learning.ridge_regression import PENALTIES, Ridge
from wspace.weights.permutations import AxisPermutations
from wspace.weights.scaling import spread_of


def descriptions(of_zoo: Prompts, *asked: Prompts, places: int) -> list[Tensor]:
    """What the opponents know of a task with k classes of mean text m: m, 1/k and m/k, each at unit variance over `of_zoo`.

    The same for every recipe, so that no choice of a conditioner can weaken them. (B, 2T + 1) for each of the arguments. Of a
    target with `places` they know the order too: the text at each place, and 1/k. These are turned to the axes that the n tasks
    of `of_zoo` span, which no line and no cosine with them can tell from the whole: (B, min(n, places * T + 1)) then.
    """
    raw = []
    for prompts in (of_zoo, *asked):
        count, mean = prompts.count(), prompts.mean_text()  # (B, 1), (B, T)
        parts = [prompts.in_places(places), 1 / count] if places else [mean, 1 / count, mean / count]
        raw.append(torch.cat(parts, dim=1))
    center, spread = raw[0].mean(0), spread_of(raw[0])
    scaled = [(description - center) / spread for description in raw]
    if not places:
        return scaled
    axes = torch.linalg.svd(scaled[0], full_matrices=False).Vh  # (min(n, ...), places * T + 1)
    return [description @ axes.T for description in scaled]


def retrieval(weights: Tensor, described: Tensor, asked: Tensor) -> Tensor:
    """Of each task asked for, the training weights whose description is nearest by cosine.

    (n, P), (n, C), (B, C) -> (B, P).
    """
    return weights[_cosines(asked, described).argmax(1)]


def _cosines(asked: Tensor, described: Tensor) -> Tensor:
    """(B, C), (n, C) -> (B, n)."""
    return functional.normalize(asked, dim=1) @ functional.normalize(described, dim=1).T


def noise(nearest: Tensor, weights: Tensor, rng: torch.Generator) -> Tensor:
    """Training weights (B, P) plus noise of the zoo's own spread, weight by weight.

    The baseline that most weight generators lose to (Zeng et al., 2025, arXiv 2506.07998).
    """
    return nearest + torch.randn(nearest.shape, generator=rng) * weights.std(0)


def gaussian(networks: Tensor, noise: Tensor) -> Tensor:
    """Draws from an independent Gaussian for each weight, fitted to networks (m, P): standard noise (B, P) -> (B, P)."""
    return networks.mean(0) + networks.std(0) * noise


def principal_gaussian(networks: Tensor, noise: Tensor) -> Tensor:
    """Draws from a Gaussian in the first k principal axes of networks (m, P), k < m: standard noise (B, k) -> (B, P).

    Axes are combinations of the centred networks, and come from these' inner products: the cost is linear in P.
    """
    mean = networks.mean(0)
    centred = networks - mean
    _, combinations = torch.linalg.eigh((centred @ centred.T).double())  # (m, m): columns by ascending eigenvalue
    principal = combinations.flip(1)[:, : noise.shape[1]] / (len(networks) - 1) ** 0.5  # (m, k)
    return mean + (noise.double() @ principal.T).to(networks.dtype) @ centred


def likeness(described: Tensor, asked: Tensor, tasks: Sequence[Task]) -> Tensor:
    """Cosine of each description asked for (B, C) with those of the zoo's `tasks` (n, C): (B, n).

    Networks of one task are alike to the last bit.
    """
    return _cosines(asked, described)[:, first_of_task(tasks)]


def matching(evidence: Evidence, who: str) -> Symmetry | None:
    """What opponent `who` matches networks by: the recipe's symmetry, or the order of units along the target's free axes.

    None, and a note, which is said once, where there is neither.
    """
    if evidence.symmetry is not None:
        return evidence.symmetry
    spec = evidence.target.spec
    if spec.free:
        return AxisPermutations(spec)
    note = (
        f"note: the opponent {who!r} takes networks as they are: the target has no free axis, and the recipe no symmetry, to "
        "match them by"
    )
    evidence.once(("matched by nothing", who), partial(evidence.progress.say, note))
    return None


def to_fit(evidence: Evidence, contest: Contest, symmetry: Symmetry | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows (b,) of the tasks asked for, and the networks (m, P), m > 1, that a distribution for these is fitted to.

    Where the zoo has several networks of the task described most like the one asked for (`zoo.copies`), those; else all.
    With a symmetry they are matched to the zoo's base, or to the first of them where there is none.
    """
    alike = likeness(evidence.descriptions, contest.descriptions, evidence.tasks)
    nearest = alike == alike.max(1, keepdim=True).values  # (B, n)
    nearest |= nearest.sum(1, keepdim=True) < 2
    pools, of_task = nearest.unique(dim=0, return_inverse=True)
    for number, pool in enumerate(pools):
        networks = evidence.weights[pool]
        if symmetry is not None:
            reference = networks[0] if evidence.shared_base is None else evidence.shared_base
            made = ("matched networks", tuple(pool.nonzero().flatten().tolist()))
            networks = evidence.once(made, partial(symmetry.canonicalize, networks, reference))
        yield (of_task == number).nonzero().flatten(), networks


def soup(evidence: Evidence, alike: Tensor, count: int, symmetry: Symmetry | None, rng: torch.Generator) -> Tensor:
    """The mean (P,) of the `count` networks whose tasks are most alike (n,), matched to one of them; ties are drawn."""
    shuffled = torch.randperm(len(alike), generator=rng)
    rows = shuffled[alike[shuffled].sort(descending=True, stable=True).indices[:count]]
    networks = evidence.weights[rows]
    return (networks if symmetry is None else symmetry.canonicalize(networks, networks[0])).mean(0)


def chosen_penalty(
    weights: Tensor, described: Tensor, left_out: slice, count: int, accuracy: Callable[[Tensor], float]
) -> float:
    """The penalty of ridge regression from descriptions (n, C) to weights (n, P), fitted without the tasks `left_out`.

    Of all penalties, the one whose weights for the first `count` of those have the highest `accuracy` (on validation images).
    """
    kept = torch.ones(len(weights), dtype=torch.bool)
    kept[left_out] = False
    trial, asked = Ridge.fit(described[kept], weights[kept]), described[left_out][:count]
    return max(PENALTIES, key=lambda penalty: accuracy(trial.predict(asked, penalty)))
