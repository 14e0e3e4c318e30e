"""A map of weights: the zoo's, generated ones, and those they are compared with, in two dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from wspace.data.splits import UNSEEN_TASKS
from wspace.runs.report.drawing import BLUE, GREEN, INK, ORANGE, TEXT, VERMILLION, dress, encoded, new_figure
from wspace.runs.report.intervals import summary
from wspace.runs.report.section import Figure, Row, Section, Table
from wspace.runs.run import Run
from wspace.runs.store import intact
from wspace.support.methods import BASE, ORACLE, OURS, UNIVERSAL
from wspace.support.names import GENERATED
from wspace.support.quantities import counted
from wspace.support.seeding import stream
from wspace.uses.enhance import aligned

FITTED = ("zoo", ORACLE, OURS)
"""Kinds of networks whose variance the map is to show, as many of each."""


def components(weights: Tensor, count: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Principal components of networks (n, P): their mean (P,), axes (count, P) of unit length, shares of variance (count,).

    By the n x n matrix of inner products: n is less than P by far.
    """
    mean = weights.mean(0)
    centred = (weights - mean).double()
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    values, vectors = values.flip(0)[:count].clamp_min(0), vectors.flip(1)[:, :count]
    axes = vectors.T @ centred / values.sqrt().clamp_min(1e-12)[:, None]  # (count, P)
    axes *= torch.where(axes.sum(1, keepdim=True) < 0, -1.0, 1.0)  # an eigenvector's sign is no one's choice
    return mean, axes.to(weights.dtype), (values / centred.square().sum().clamp_min(1e-12)).float()


def study(run: Run, *, networks: int = 1000, seed: int = 0) -> Section:
    """The two principal components of networks (n, P): of so many of the zoo at most, and all of the unseen tasks.

    All are first aligned by the recipe's symmetry to the zoo's base, or to its first network where there is none. Lengths are
    Euclidean, in units of the weights.
    """
    zoo = run.zoo
    chosen = torch.randperm(len(zoo.weights), generator=stream(seed, "space"))[:networks]
    kinds = {
        "zoo": zoo.weights[chosen],
        ORACLE: run.opponents.oracle(UNSEEN_TASKS),
        OURS: load_file(intact(run.artifact("generate"), GENERATED.format(UNSEEN_TASKS)))["weights"],
        **({UNIVERSAL: run.opponents.universal[None]} if run.opponents.has(UNIVERSAL) else {}),
        **({BASE: zoo.base[None]} if zoo.shares_base else {}),
    }
    kinds = {name: aligned(run, weights, zoo.reference) for name, weights in kinds.items()}
    even = min(len(kinds[name]) for name in FITTED)
    mean, axes, shares = components(torch.cat([kinds[name][:even] for name in FITTED]))
    points = {name: (weights - mean) @ axes.T for name, weights in kinds.items()}
    rows = []
    for name in kinds:
        weights = kinds[name]
        cells = {
            "distance from the zoo's mean": summary((weights - kinds["zoo"].mean(0)).norm(dim=1), run.recipe),
            "distance from the map's centre": summary((weights - mean).norm(dim=1), run.recipe),
            "of it on the map": summary(points[name].norm(dim=1), run.recipe),
        }
        rows.append(Row(name, cells, own=name == OURS))
    table = Table("Lengths, mean over networks", dict.fromkeys(rows[0].cells, "number"), rows)
    apart = (kinds[OURS] - kinds[ORACLE]).norm(dim=1)
    others = (kinds[OURS] - kinds[ORACLE].roll(1, 0)).norm(dim=1)
    says = [
        f"The map shows the first two principal components of {counted(even, 'network')} each of {', '.join(FITTED)}: "
        f"{shares[0]:.1%} and {shares[1]:.1%} of their variance. The other {1 - float(shares.sum()):.1%} are not on it.",
        f"In all {len(mean):,} dimensions a generated head is {float(apart.mean()):.3g} from the oracle of its own "
        f"task, on the mean, and {float(others.mean()):.3g} from that of another; nearer to its own on "
        f"{int((apart < others).sum())} of {counted(len(apart), 'task')}.",
    ]
    symmetry = run.recipe.symmetry.name if run.recipe.symmetry is not None else None
    reference = "the zoo's base" if zoo.shares_base else "the zoo's first network"
    caption = (
        "Weights on their first two principal components, a point for each network; generated and oracle ones are of the "
        "same unseen tasks"
        + (f", and all are aligned to {reference} by {symmetry}." if symmetry else "; nothing is aligned.")
    )
    settings = {"networks": len(chosen), "symmetry": symmetry or "none", "seed": seed}
    drawn = space({name: where.numpy() for name, where in points.items()}, shares.tolist())
    return Section("plot-space", "A map of weights", says, settings, [table], (Figure("map", caption, drawn),))


# ---------------------------------------------------------------- drawing


MARKS = {
    "zoo": {"marker": ".", "color": INK, "alpha": 0.5, "markersize": 5, "zorder": 5},
    ORACLE: {"marker": "o", "color": ORANGE, "alpha": 0.8, "markersize": 5},
    OURS: {"marker": "D", "color": BLUE, "alpha": 0.8, "markersize": 4.5},
    UNIVERSAL: {"marker": "*", "color": VERMILLION, "markersize": 15, "markeredgecolor": INK, "markeredgewidth": 1},
    BASE: {"marker": "s", "color": "none", "markersize": 10, "markeredgecolor": GREEN, "markeredgewidth": 2.5},
}


def space(points: Mapping[str, np.ndarray], shares: Sequence[float]) -> str:
    """Networks (n, 2) of each kind, and the share of variance that each axis has."""
    figure = new_figure(4.6)
    panel = figure.subplots()
    for name, where in points.items():
        label = f"{name} ({len(where)})" if len(where) > 1 else name
        style: dict[str, Any] = {"markeredgewidth": 0, "zorder": 4} | MARKS[name]
        panel.plot(*where.T, linestyle="", label=label, **style)
    dress(panel, "a point for each network", f"first principal component ({shares[0]:.1%} of variance)", "")
    panel.set_ylabel(f"second ({shares[1]:.1%})", fontsize=TEXT, color=INK)
    panel.grid(axis="both", color="#e4e4e4")
    panel.set_aspect("equal", adjustable="datalim")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=TEXT, markerscale=1.2)
    return encoded(figure)
