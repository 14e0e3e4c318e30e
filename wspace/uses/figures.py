"""Figures of the studies, each as a PNG data URI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wspace.drawing import BLUE, GREEN, GREY, INK, ORANGE, TEXT, VERMILLION, dress, encoded, new_figure

Curve = tuple[Sequence[float], Sequence[float]]
"""Where along, and how high."""


def learning_curves(panels: Mapping[str, Mapping[str, Curve]], own: str, crowd: Sequence[str]) -> str:
    """Accuracy (%) over steps, a panel for each amount of data; `crowd`: lines that share a colour and a name."""
    figure = new_figure(0.8 + 2.5 * -(-len(panels) // 2), width=7.0)
    axes = figure.subplots(-(-len(panels) // 2), min(2, len(panels)), sharey=True, squeeze=False)
    styles = {"base": (ORANGE, "--"), "universal": (VERMILLION, ":"), "ridge": (GREEN, "-."), own: (BLUE, "-")}
    for panel in axes.flat[len(panels) :]:
        panel.axis("off")
    for panel, (title, curves) in zip(axes.flat, panels.items(), strict=False):
        for name, (steps, heights) in curves.items():
            colour, style = styles.get(name, (GREY, "-"))
            along = [max(step, 0.7) for step in steps]  # a logarithmic axis has no 0
            label = "standard initialisations" if name == crowd[0] else None if name in crowd else name
            width = 2.6 if name == own else 1.0 if name in crowd else 1.8
            panel.plot(
                along, heights, style, color=colour, linewidth=width, label=label, zorder=4 if name == own else 2
            )
        panel.set_xscale("log")
        dress(panel, title, "step", "y")
    for panel in axes[:, 0]:
        panel.set_ylabel("accuracy (%)", fontsize=TEXT, color=INK)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=TEXT
    )
    return encoded(figure)


def level_sweep(levels: Sequence[float], panels: Mapping[str, Mapping[str, Sequence[float]]], own: str) -> str:
    """Accuracy (%) over noise levels, a panel for each kind of start; lists of one value are level lines."""
    figure = new_figure(3.2, width=7.0)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    styles = [(GREY, "--"), (VERMILLION, ":")]
    for panel, (title, lines) in zip(axes, panels.items(), strict=True):
        panel.plot(levels, lines[own], "o-", color=BLUE, linewidth=2.4, markersize=5, label=own)
        flat = [name for name in lines if name != own]
        for name, (colour, style) in zip(flat, styles, strict=False):
            panel.axhline(lines[name][0], color=colour, linestyle=style, linewidth=2, label=name)
        dress(panel, title, "level of noise", "y")
    axes[0].set_ylabel("accuracy (%)", fontsize=TEXT, color=INK)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=TEXT
    )
    return encoded(figure)


def ways_between(at: Sequence[float], panels: Mapping[str, Mapping[str, Sequence[float]]], ways: Sequence[str]) -> str:
    """Accuracy (%) on the way from task to task, a panel for each task and one for all; lines differ in their marks too."""
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    figure = new_figure(0.7 + 2.6 * down, width=7.4)
    axes = figure.subplots(down, across, sharey=True, squeeze=False)
    styles = [(BLUE, "-", "o", 2.4), (ORANGE, "--", "s", 1.8), (GREEN, "-.", "^", 1.8), (INK, ":", "D", 1.8)]
    for panel in axes.flat[len(panels) :]:
        panel.axis("off")
    for panel, (title, lines) in zip(axes.flat, panels.items(), strict=False):
        for way, (colour, style, mark, width) in zip(ways, styles, strict=True):
            panel.plot(at, lines[way], style, marker=mark, color=colour, linewidth=width, markersize=4.5, label=way)
        dress(panel, title, "share of the way", "y")
    for panel in axes[:, 0]:
        panel.set_ylabel("accuracy (%)", fontsize=TEXT, color=INK)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=TEXT
    )
    return encoded(figure)
