"""The loss around a generated head, and around a trained one (T2W, appendix C, algorithm 3; Li et al., 2018).

The paper's first direction is that of training; ours are both random, as Li et al. have them, so that a head that was never
trained has a landscape too, and two heads' landscapes can be set side by side.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from wspace.interfaces import Target
from wspace.runs.report.drawing import INK, ORANGE, SCALE, TEXT, dress, encoded, new_figure
from wspace.runs.report.section import Figure, Section
from wspace.runs.run import Run
from wspace.support.checkpoints import fingerprint_of
from wspace.support.errors import UserError
from wspace.support.files import disk_errors, save_tensors
from wspace.support.methods import OURS
from wspace.support.names import USES
from wspace.support.progress import Bar
from wspace.support.quantities import counted
from wspace.support.seeding import stream
from wspace.uses.shown import generated, names, task_shown, trained

LONG = 3600.0  # seconds that a grid may take unasked
AT_ONCE = 2**25  # features that networks of one batch see together: bounds memory


@dataclass(frozen=True)
class Plane:
    """The networks centre + a · first + b · second, and the square grid of a and b on which their loss is taken."""

    centre: Tensor  # (P,)
    directions: Tensor  # (2, P)
    axis: Tensor  # (n,), from -span to span; its middle is 0

    @classmethod
    def around(cls, target: Target, centre: Tensor, grid: int, span: float, rng: torch.Generator) -> Plane:
        """In two random directions, normalised by the filters of the centre."""
        drawn = torch.randn(2, len(centre), generator=rng)
        middle = grid // 2
        axis = (torch.arange(grid) - middle) * (span / middle)
        return cls(centre, filter_normalised(target, drawn, centre), axis)

    @property
    def points(self) -> int:
        return len(self.axis) ** 2

    def networks(self, start: int, stop: int) -> Tensor:
        """Of these points, b running faster: (stop - start, P). A copy: the centre stays as it is."""
        number = torch.arange(start, min(stop, self.points))
        steps = torch.stack([self.axis[number // len(self.axis)], self.axis[number % len(self.axis)]], dim=1)
        return torch.addmm(self.centre, steps, self.directions)


def filter_normalised(target: Target, directions: Tensor, centre: Tensor) -> Tensor:
    """Directions (n, P) whose every filter is as long as the same one of a network (P,) (Li et al., 2018, section 4).

    A filter is what makes one output of a matrix or a convolution; a vector of biases counts as one, for a single number
    scaled to a single number would leave nothing random but its sign. Statistics, which nobody trains, stay.
    """
    tensors, drawn = target.spec.unflatten(centre), target.spec.unflatten(directions)
    scaled = {}
    for entry in target.spec.entries:
        axes = [1 + d for d in range(len(entry.shape)) if len(entry.shape) < 2 or d != target.outputs]
        length = drawn[entry.name].square().sum(axes, keepdim=True).sqrt().clamp_min(1e-12)  # (n, ...)
        wanted = tensors[entry.name][None].square().sum(axes, keepdim=True).sqrt()  # (1, ...)
        moved = entry.name not in target.statistics
        scaled[entry.name] = drawn[entry.name] * (wanted / length) * moved
    return target.spec.flatten(scaled)


@dataclass(frozen=True)
class Images:
    """What the loss is taken on."""

    features: Tensor  # (m, F)
    labels: Tensor  # (m,), within the task
    texts: Tensor  # (K, T)

    @torch.no_grad()
    def losses(self, target: Target, weights: Tensor) -> Tensor:
        """Cross-entropy of each network (B, P) on all images: (B,)."""
        count = len(weights)
        logits = target.logits(weights, self.features.expand(count, -1, -1), self.texts.expand(count, -1, -1))
        labels = self.labels.expand(count, -1)  # (B, m)
        return functional.cross_entropy(logits.mT, labels, reduction="none").mean(1)


class Landscape:
    """The losses of a plane's networks, kept on disk as they are found: a killed one goes on where it was.

    The networks of one batch see at most `at_once` features together.
    """

    def __init__(self, target: Target, plane: Plane, images: Images, folder: Path, at_once: int = AT_ONCE):
        self.target, self.plane, self.images = target, plane, images
        self.together = max(1, at_once // max(1, images.features.numel()))  # networks of one batch
        key = fingerprint_of({**vars(plane), **vars(images)}, "landscape", target.version)
        self.file = folder / f"{key[:32]}.safetensors"

    def stored(self) -> Tensor:
        """Losses of the first so many points."""
        if self.file.is_file():
            try:
                return load_file(self.file)["losses"]
            except (SafetensorError, KeyError):
                self.file.unlink()  # truncated by a full disk: made anew
        return torch.empty(0)

    def seconds(self) -> float:
        """That the points still to be found would take, by a batch of them."""
        batch = self.plane.networks(0, self.together)
        self.images.losses(self.target, batch)  # the first one also allocates
        started = time.perf_counter()
        self.images.losses(self.target, batch)
        return (time.perf_counter() - started) / len(batch) * (self.plane.points - len(self.stored()))

    def compute(self, bar: Bar, on_batch: Callable[[], None] = lambda: None) -> Tensor:
        """(n, n), of a along the first dimension. `on_batch` is called when a batch is on disk."""
        losses = self.stored()
        bar.resume(len(losses))
        while len(losses) < self.plane.points:
            networks = self.plane.networks(len(losses), len(losses) + self.together)
            losses = torch.cat([losses, self.images.losses(self.target, networks)])
            with disk_errors(self.file):
                self.file.parent.mkdir(parents=True, exist_ok=True)
                save_tensors(self.file, {"losses": losses})
            bar.advance(len(networks))
            on_batch()
        return losses.view(len(self.plane.axis), -1)


def landscapes(
    run: Run, classes: Sequence[str] | None = None, *, grid: int = 21, span: float = 1.0, seed: int = 0
) -> dict[str, Landscape]:
    """Around the generated head and the trained one of a task, on its test images; nothing is computed yet.

    Both planes come from the same random numbers. Raises UserError for a grid that has no middle.
    """
    if grid % 2 == 0:
        raise UserError(f"--grid {grid}: the middle point is the head itself, so take an odd number: {grid + 1}")
    run.zoo.check(run.bench.accepted)
    task = task_shown(run, classes)
    images = Images(*run.bench.test.of_task(task), run.bench.class_texts[list(task)])
    folder = run.folder / USES / "landscape"
    heads = {OURS: generated(run, task, seed), "trained": trained(run, task, seed)}
    return {
        name: Landscape(
            run.target, Plane.around(run.target, head, grid, span, stream(seed, "landscape")), images, folder
        )
        for name, head in heads.items()
    }


@dataclass(frozen=True)
class Cost:
    points: int
    known: int  # of these, from an earlier attempt
    seconds: float  # for the others

    @classmethod
    def of(cls, heads: Mapping[str, Landscape], *, long: bool) -> Cost:
        """By a short measurement. Raises UserError if it is more than `LONG`, unless that is wanted."""
        points, done = (
            sum(map(count, heads.values())) for count in (lambda h: h.plane.points, lambda h: len(h.stored()))
        )
        cost = cls(points, done, sum(head.seconds() for head in heads.values()))
        if cost.seconds > LONG and not long:
            raise UserError(f"{cost}: take a smaller --grid, or add --long; a killed one goes on where it was")
        return cost

    def __str__(self) -> str:
        part = f", {self.known:,} of them known already," if self.known else ""
        return f"{counted(self.points, 'point', form=',')}{part} would take about {duration(self.seconds)} here"


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:,.0f} h"


def study(
    run: Run,
    classes: Sequence[str] | None = None,
    *,
    grid: int = 21,
    span: float = 1.0,
    seed: int = 0,
    long: bool = False,
) -> Section:
    """The loss around a generated and a trained network of one task, as surfaces and as contours.

    `grid` is the points on a side, an odd number: losses are (grid, grid), cross-entropy on test images in nats. `span` is
    how far the plane reaches to each side, in lengths of the network's own filters. The task is that of `classes`, else
    the one whose pictures are in the report.

    Raises UserError for an even grid, for one that takes hours unless `long`, and for classes the data set has no images
    of; WspaceError if the run's data are no longer those of its zoo.
    """
    heads = landscapes(run, classes, grid=grid, span=span, seed=seed)
    Cost.of(heads, long=long)
    with run.bench.progress.bar("landscape", sum(head.plane.points for head in heads.values())) as bar:
        losses = {name: head.compute(bar) for name, head in heads.items()}
    axis = next(iter(heads.values())).plane.axis
    task = task_shown(run, classes)
    images = len(next(iter(heads.values())).images.labels)
    about = (
        f"Cross-entropy on {counted(images, 'test image')} of a task of {len(task)} classes ({names(run, task)}), around its "
        "generated head and around one trained on its images. In the middle is the head itself; along each axis it "
        "moves in a random direction, whose every filter is as long as the head's own: at 1 it is moved by its own length."
    )
    shown = {name: values.numpy() for name, values in losses.items()}
    figures = (
        Figure("surface", f"{about} Losses are capped where the colours end.", surfaces(shown, axis.numpy())),
        Figure("contour", "The same from above; on a line the loss is the same.", contours(shown, axis.numpy())),
    )
    settings = {"classes": names(run, task), "grid": f"{grid} x {grid}", "span": span, "seed": seed}
    says = [_sentence(name, values, axis) for name, values in losses.items()]
    return Section("plot-landscape", "Loss around a head", says, settings, (), figures)


def _sentence(name: str, losses: Tensor, axis: Tensor) -> str:
    middle = len(axis) // 2
    centre, low = float(losses[middle, middle]), int(losses.argmin())
    rim = torch.cat([losses[0], losses[-1], losses[1:-1, 0], losses[1:-1, -1]])
    a, b = axis[low // len(axis)].item(), axis[low % len(axis)].item()
    at = "in the middle" if low == losses.numel() // 2 else f"at ({a:g}, {b:g})"
    return (
        f"{name}: loss {centre:.3f} in the middle, {float(rim.mean()):.3f} on the mean of the rim; the lowest of the grid, "
        f"{float(losses.min()):.3f}, is {at}."
    )


# ---------------------------------------------------------------- drawing


LEVELS = 12  # of contours


CAP = 0.98  # share of all points whose losses the colours tell apart; those above are alike


def surfaces(losses: Mapping[str, np.ndarray], axis: np.ndarray) -> str:
    """A surface for each head: loss (n, n) over a, along the first dimension, and b."""
    low, high = _limits(losses)
    figure = new_figure(3.9, width=7.0)
    a, b = np.meshgrid(axis, axis, indexing="ij")
    panels = []
    for number, (name, values) in enumerate(losses.items(), start=1):
        panel: Any = figure.add_subplot(1, len(losses), number, projection="3d")
        shown = np.minimum(values, high)
        panel.plot_surface(a, b, shown, cmap=SCALE, vmin=low, vmax=high, rcount=80, ccount=80, linewidth=0)
        panel.text2D(0.5, 0.95, _titled(name, values), transform=panel.transAxes, ha="center", fontsize=TEXT, color=INK)
        panel.set_zlim(low, high)
        panel.view_init(elev=28, azim=-58)
        panel.set_box_aspect((1, 1, 0.8), zoom=0.95)
        panel.set_xlabel("a", fontsize=TEXT, color=INK, labelpad=-4)
        panel.set_ylabel("b", fontsize=TEXT, color=INK, labelpad=-4)
        panel.tick_params(labelsize=TEXT - 1, labelcolor=INK, pad=-1)
        panel.set(xticks=_ticks(axis), yticks=_ticks(axis))
        panels.append(panel)
    _loss_scale(figure, panels, low, high, 0.6)
    return encoded(figure)


def contours(losses: Mapping[str, np.ndarray], axis: np.ndarray) -> str:
    """From above, the same colours in all panels."""
    low, high = _limits(losses)
    levels = np.linspace(low, high, LEVELS)
    figure = new_figure(3.6, width=7.0)
    panels = figure.subplots(1, len(losses), sharey=True, squeeze=False)[0]
    for panel, (name, values) in zip(panels, losses.items(), strict=True):
        panel.contourf(axis, axis, values.T, levels, cmap=SCALE, extend="max")
        lines = panel.contour(axis, axis, values.T, levels[::2], colors="white", linewidths=0.7)
        panel.clabel(lines, fontsize=TEXT - 2, fmt="%.2g")
        panel.plot(0, 0, "D", color="white", markeredgecolor=INK, markersize=12, label="the head itself")
        place = np.unravel_index(values.argmin(), values.shape)
        lowest = axis[place[0]], axis[place[1]]
        panel.plot(*lowest, "*", color=ORANGE, markeredgecolor=INK, markersize=9, label="lowest of the grid")
        dress(panel, _titled(name, values), "a", "")
        panel.grid(visible=False)
        panel.set(aspect="equal", xticks=_ticks(axis), yticks=_ticks(axis))
    panels[0].set_ylabel("b", fontsize=TEXT, color=INK)
    _loss_scale(figure, list(panels), low, high, 0.85)
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2, frameon=False, fontsize=TEXT)
    return encoded(figure)


def _loss_scale(figure: Any, panels: Sequence[Any], low: float, high: float, height: float) -> None:
    """The colours of all panels."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(ScalarMappable(Normalize(low, high), SCALE), ax=panels, extend="max", shrink=height)
    bar.set_label("loss (cross-entropy, nats)", fontsize=TEXT, color=INK)
    bar.ax.tick_params(labelsize=TEXT - 1, labelcolor=INK)


def _limits(losses: Mapping[str, np.ndarray]) -> tuple[float, float]:
    every = np.concatenate([values.ravel() for values in losses.values()])
    low, high = float(np.nanmin(every)), float(np.nanquantile(every[np.isfinite(every)], CAP))
    return low, max(high, low + 1e-6)


def _titled(name: str, losses: np.ndarray) -> str:
    middle = len(losses) // 2
    return f"{name}: loss {losses[middle, middle]:.2f} in the middle"


def _ticks(axis: np.ndarray) -> list[float]:
    return [float(axis[0]), 0.0, float(axis[-1])]
