"""Figures of `wspace plot`, each as a PNG data URI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from wspace.drawing import BLUE, GREEN, GREY, INK, ORANGE, TEXT, VERMILLION, dress, encoded, new_figure, short
from wspace.figures import TITLES, along_steps

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCALE = "viridis"  # even in lightness, and for colour-blind readers too
LEVELS = 12  # of contours
CAP = 0.98  # share of all points whose losses the colours tell apart; those above are alike


def trajectories(panels: Mapping[str, tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]]) -> str:
    """Accuracy along the denoising steps, a panel for each split: rows and the oracle, as `along_steps` has them."""
    figure = new_figure(3.3, width=7.0)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for panel, (split, (rows, oracle)) in zip(axes, panels.items(), strict=True):
        along_steps(panel, rows, oracle)
        panel.set_title(TITLES.get(split, split), fontsize=TEXT, color=INK, parse_math=False)
    axes[0].set_ylabel("accuracy (%)", fontsize=TEXT, color=INK)
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, frameon=False, fontsize=TEXT)
    return encoded(figure)


# ---------------------------------------------------------------- landscapes


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


# ---------------------------------------------------------------- attention


@dataclass(frozen=True)
class Seen:
    """Where one head looks in each picture."""

    name: str
    maps: np.ndarray  # (M, S, S) in [0, 1]
    right: Sequence[bool]


def attention(pixels: np.ndarray, classes: Sequence[str], heads: Sequence[Seen]) -> str:
    """Pictures (M, S, S, 3), a row each; beside them, in grey, what counted for their class in each head."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    columns = 1 + len(heads)
    figure = new_figure(1.06 * len(pixels) + 0.9, width=7.0)
    panels = figure.subplots(len(pixels), columns, squeeze=False)
    for row, picture, name, number in zip(panels, pixels, classes, range(len(pixels)), strict=True):
        grey = picture.mean(2, keepdims=True).repeat(3, axis=2) / 255
        _frame(row[0], picture, GREY)
        label = "\n".join(wrap(short(name, 26), 13)[:2])
        row[0].set_ylabel(label, fontsize=TEXT - 1, color=INK, parse_math=False)
        for panel, head in zip(row[1:], heads, strict=True):
            _frame(panel, _coloured(grey, head.maps[number]), BLUE if head.right[number] else VERMILLION)
    for panel, title in zip(panels[0], ("picture", *(head.name for head in heads)), strict=True):
        panel.set_title(title, fontsize=TEXT - 1, color=INK, parse_math=False)
    for colour, label in ((BLUE, "named right"), (VERMILLION, "named wrong")):
        panels[0, 0].plot([], [], "s", color="white", markeredgecolor=colour, markeredgewidth=3, label=label)
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), SCALE), ax=panels, location="bottom", shrink=0.5, aspect=40, pad=0.02
    )
    bar.set_ticks([0, 1], labels=["nothing", "most"])
    bar.set_label("what speaks for the picture's class", fontsize=TEXT, color=INK)
    bar.ax.tick_params(labelsize=TEXT - 1, labelcolor=INK)
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2, frameon=False, fontsize=TEXT)
    return encoded(figure, colours=None)


def _coloured(grey: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A map laid over a picture (S, S, 3) in [0, 1]: opaque where it is high."""
    from matplotlib import colormaps

    share = 0.1 + 0.65 * heat[..., None]
    return (1 - share) * grey + share * colormaps[SCALE](heat)[..., :3]


def _frame(panel: Axes, picture: np.ndarray, colour: str) -> None:
    panel.imshow(picture)
    panel.set(xticks=[], yticks=[])
    for side in panel.spines.values():
        side.set(color=colour, linewidth=2.5)


# ---------------------------------------------------------------- space

MARKS = {
    "zoo": {"marker": ".", "color": INK, "alpha": 0.5, "markersize": 5, "zorder": 5},
    "oracle": {"marker": "o", "color": ORANGE, "alpha": 0.8, "markersize": 5},
    "generated": {"marker": "D", "color": BLUE, "alpha": 0.8, "markersize": 4.5},
    "universal": {"marker": "*", "color": VERMILLION, "markersize": 15, "markeredgecolor": INK, "markeredgewidth": 1},
    "base": {"marker": "s", "color": "none", "markersize": 10, "markeredgecolor": GREEN, "markeredgewidth": 2.5},
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
