"""The report's figures, each as a PNG data URI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from wspace.data.splits import SEEN, UNSEEN_CLASSES, UNSEEN_ORDERS, UNSEEN_TASKS
from wspace.runs.report.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PINK,
    SKY,
    TEXT,
    VERMILLION,
    WIDTH,
    dress,
    encoded,
    in_two_lines,
    new_figure,
    short,
)
from wspace.support.methods import ORACLE, OURS, RIDGE, UNIVERSAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPAN, REACH = (
    40.0,
    20.0,
)  # points of accuracy shown, and of difference: what lies beyond is an arrow, or no interval would show

TITLES = {
    SEEN: "seen tasks",
    UNSEEN_TASKS: "unseen tasks",
    UNSEEN_ORDERS: "unseen orders",
    UNSEEN_CLASSES: "unseen classes",
}
PHASES = {"task": "task loss: cross-entropy", "train": "the generator's own loss"}


def splits_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The splits of a report, first the one that it is about: unseen tasks."""
    return sorted(dict.fromkeys(row["split"] for row in rows), key=lambda split: split != UNSEEN_TASKS)


def _drawn_splits(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Those that figures have a panel for; further splits of unseen classes are in the tables alone."""
    return [split for split in splits_of(rows) if not split.rpartition("-")[2].isdigit()]


def accuracy_by_method(scores: Sequence[Mapping[str, Any]]) -> str:
    """A dot and an interval for each method, a panel for each split: on one scale, each up to the best of its own."""
    rows = [row for row in scores if row["metric"] == "accuracy"]
    splits, methods = _drawn_splits(rows), _by_mean(rows)
    figure = new_figure(1.2 + 0.27 * len(methods))
    panels = figure.subplots(1, len(splits), sharey=True, squeeze=False)[0]
    reference = {ORACLE: (ORANGE, "--"), UNIVERSAL: (INK, ":")}
    tops = {split: 100 * max(row["ci_high"] for row in rows if row["split"] == split) for split in splits}
    span = min(SPAN, max(1.0, *tops.values()))
    for panel, split in zip(panels, splits, strict=True):
        best = max(span, tops[split])
        floor = best - span
        panel.set_xlim(floor - 0.06 * span, best + 0.3 * span)
        for row in (row for row in rows if row["split"] == split):
            method, mean, low, high = row["method"], 100 * row["mean"], 100 * row["ci_low"], 100 * row["ci_high"]
            ours, y = method == OURS, methods.index(method)
            colour = BLUE if ours else reference.get(method, (GREY, ""))[0]
            if method in reference:
                label = method if split == splits[0] else None
                panel.axvline(mean, color=colour, linestyle=reference[method][1], linewidth=1.3, zorder=1, label=label)
            panel.plot(np.maximum([low, high], floor), [y, y], "|-", color=colour, linewidth=2, markersize=7, zorder=2)
            marker = "<" if mean < floor else "D" if ours else "o"
            panel.plot(max(mean, floor), y, marker, color=colour, markersize=5.5 if ours else 4, zorder=3)
            panel.annotate(
                f"{mean:.1f}",
                (max(high, floor), y),
                (8, 0),
                textcoords="offset points",
                va="center",
                color=colour if ours else INK,
                fontsize=TEXT - 1,
                fontweight="bold" if ours else "normal",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
                zorder=4,
            )
        dress(panel, TITLES.get(split, split), "accuracy (%)", "")
        panel.tick_params(axis="y", length=0)
    _methods_on(panels[0], methods)
    panels[0].plot([], [], "D", color=BLUE, markersize=5.5, label=OURS)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=TEXT)
    return encoded(figure)


def paired_differences(differences: Sequence[Mapping[str, Any]]) -> str:
    """Generated minus each method, task by task: a panel for each split, the numbers beside it."""
    rows = [row for row in differences if row["metric"] == "accuracy"]
    splits, methods = _drawn_splits(rows), _by_mean(rows)[::-1]
    reach = min(REACH, 1.1 * max(100 * max(-row["ci_low"], row["ci_high"], 0.005) for row in rows))
    figure = new_figure((0.6 + 0.26 * len(methods)) * len(splits) + 0.5)
    panels = figure.subplots(len(splits), 1, sharex=True, squeeze=False)[:, 0]
    verdicts = {BLUE: "generated is better", GREY: "interval holds 0", VERMILLION: "generated is worse"}
    for panel, split in zip(panels, splits, strict=True):
        panel.axvline(0, color=INK, linewidth=1.2, zorder=1)
        for row in (row for row in rows if row["split"] == split):
            mean, low, high = 100 * row["mean"], 100 * row["ci_low"], 100 * row["ci_high"]
            colour, y = BLUE if low > 0 else VERMILLION if high < 0 else GREY, methods.index(row["method"])
            inside = np.clip([low, high], -reach, reach)
            panel.plot(inside, [y, y], color=colour, linewidth=3, solid_capstyle="butt", zorder=2)
            marker = ">" if mean > reach else "<" if mean < -reach else "o"
            panel.plot(np.clip(mean, -reach, reach), y, marker, color=colour, markersize=6, zorder=3, clip_on=False)
            panel.text(
                1.03,
                y,
                "{:+.1f}  [{:.1f}, {:.1f}]".format(*(round(v, 1) + 0.0 for v in (mean, low, high))).replace("-", "−"),
                transform=panel.get_yaxis_transform(),
                va="center",
                color=colour if colour != GREY else INK,
                fontsize=TEXT,
            )
        title = TITLES.get(split, split)
        dress(panel, f"{title}: generated − method", "", "")
        panel.set_xlim(-1.03 * reach, 1.03 * reach)
        _methods_on(panel, methods)
    panels[-1].set_xlabel("difference in accuracy (percentage points)", fontsize=TEXT)
    for colour, verdict in verdicts.items():
        panels[0].plot([], [], "o-", color=colour, linewidth=3, markersize=6, label=verdict)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=TEXT)
    return encoded(figure)


def task_by_task(accuracies: Mapping[str, Sequence[float]]) -> str:
    """A dot for each task: generated against oracle and ridge. Method -> accuracy of each task."""
    ours = 100 * np.asarray(accuracies[OURS], dtype=float)
    others = [name for name in (ORACLE, RIDGE) if name in accuracies]
    figure = new_figure(3.4)
    panels = figure.subplots(1, len(others), sharex=True, sharey=True, squeeze=False)[0]
    every = np.concatenate([ours, *(100 * np.asarray(accuracies[name], dtype=float) for name in others)])
    margin = max(2.0, 0.06 * float(np.ptp(every)))
    limits = max(0.0, float(every.min()) - margin), min(100.0, float(every.max()) + margin)
    for panel, name in zip(panels, others, strict=True):
        other = 100 * np.asarray(accuracies[name], dtype=float)
        panel.plot(limits, limits, color=INK, linewidth=1.2, zorder=1, label="equal")
        panel.plot(other, ours, "o", color=BLUE, alpha=0.45, markersize=4.5, markeredgewidth=0, label="a task")
        above, below = int((ours > other).sum()), int((ours < other).sum())
        title = f"against {name}: better on {above},\nequal on {len(ours) - above - below}, worse on {below}"
        dress(panel, title, f"{name}: accuracy (%)", "")
        panel.set(xlim=limits, ylim=limits, aspect="equal")
        panel.grid(axis="y", color="#e4e4e4")
    panels[0].set_ylabel("generated: accuracy (%)", fontsize=TEXT)
    panels[0].legend(loc="upper left", frameon=False, fontsize=TEXT - 1, handletextpad=0.4)
    return encoded(figure)


def training_curves(log: Sequence[Mapping[str, Any]], zoo_mean: float) -> str:
    """Loss, and accuracy on held-out tasks, over the steps of each phase. `zoo_mean`: what ignoring the texts gives."""
    phases: list[str] = list(dict.fromkeys(entry["phase"] for entry in log))
    figure = new_figure(4.6)
    panels = figure.subplots(2, len(phases), sharex="col", squeeze=False)
    for (upper, lower), phase in zip(panels.T, phases, strict=True):
        entries = [entry for entry in log if entry["phase"] == phase]
        steps, losses = np.array([e["step"] for e in entries]), np.array([e["loss"] for e in entries], dtype=float)
        smooth = _smoothed(losses)
        upper.plot(steps, losses, color=BLUE, alpha=0.28, linewidth=0.8, label="each step")
        upper.plot(steps, smooth, color=BLUE, linewidth=2, label="smoothed")
        low, high = (
            min(float(np.quantile(losses, 0.005)), smooth.min()),
            max(float(np.quantile(losses, 0.99)), smooth.max()),
        )
        upper.set_ylim(low - 0.06 * (high - low + 1e-9), high + 0.06 * (high - low + 1e-9))
        dress(upper, PHASES.get(phase, phase), "", "y")
        looks = [(e["step"], 100 * e["validation_accuracy"]) for e in entries if "validation_accuracy" in e]
        lower.axhline(100 * zoo_mean, color=VERMILLION, linestyle="--", linewidth=1.6, label="the zoo mean")
        if looks:
            at, values = zip(*looks, strict=True)
            best = int(np.argmax(values))
            lower.plot(at, values, "o-", color=BLUE, linewidth=2, markersize=5, label="held-out tasks")
            lower.plot(
                at[best], values[best], "*", color=ORANGE, markersize=12, markeredgecolor=INK, zorder=4, label="kept"
            )
        dress(lower, "", "step", "y")
        lower.set_xlim(0, steps[-1] * 1.05)
    bottom = min(panel.get_ylim()[0] for panel in panels[1])
    top = max(panel.get_ylim()[1] for panel in panels[1])
    for panel in panels[1]:
        panel.set_ylim(bottom, top)
    panels[0, 0].set_ylabel("loss", fontsize=TEXT)
    panels[1, 0].set_ylabel("validation\naccuracy (%)", fontsize=TEXT)
    panels[0, 0].legend(frameon=False, fontsize=TEXT - 1)
    handles, labels = panels[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=TEXT)
    return encoded(figure)


def accuracy_along_steps(rows: Sequence[Mapping[str, Any]], oracle: Mapping[str, Any]) -> str:
    """Mean accuracy of the networks as they would end after each step, and its interval: a line for each temperature."""
    figure = new_figure(3.3)
    panel = figure.subplots()
    draw_along_steps(panel, rows, oracle)
    panel.set_ylabel("accuracy (%)", fontsize=TEXT)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=TEXT)
    return encoded(figure)


def draw_along_steps(panel: Axes, rows: Sequence[Mapping[str, Any]], oracle: Mapping[str, Any]) -> None:
    from matplotlib.ticker import MaxNLocator

    panel.axhline(100 * oracle["mean"], color=ORANGE, linestyle="--", linewidth=1.6, zorder=4, label=ORACLE)
    styles = ((BLUE, "o-"), (GREEN, "s:"))
    for temperature, (colour, style) in zip(dict.fromkeys(row["temperature"] for row in rows), styles, strict=False):
        of_temperature = [row for row in rows if row["temperature"] == temperature]
        steps = [row["step"] for row in of_temperature]
        means, low, high = (
            100 * np.array([row[name] for row in of_temperature]) for name in ("mean", "ci_low", "ci_high")
        )
        panel.fill_between(steps, low, high, color=colour, alpha=0.13, linewidth=0, zorder=2)
        outline = {"color": colour, "alpha": 0.5, "linewidth": 0.8, "zorder": 2}
        panel.plot(steps, low, steps, high, **outline)
        panel.vlines([steps[0], steps[-1]], [low[0], low[-1]], [high[0], high[-1]], **outline)
        label = f"temperature {temperature:g}"
        panel.plot(steps, means, style, color=colour, linewidth=2, markersize=5.5, zorder=3, label=label)
    dress(panel, "", "denoising step", "y")
    panel.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    panel.margins(y=0.12)


def accuracy_by_pictures(scores: Sequence[Mapping[str, Any]], shown: Mapping[str, Mapping[int, str]]) -> str:
    """Accuracy over the number of pictures of each class, and its interval: a panel for each split, a line for each method.

    `shown`: split -> number of pictures -> the split of the same tasks with so many. Lines are of what is generated, and of
    methods that look at pictures; what is generated from words alone is level.
    """
    rows = {(row["split"], row["method"]): row for row in scores if row["metric"] == "accuracy"}
    methods = _by_mean([row for (split, _), row in rows.items() if any(split in of.values() for of in shown.values())])
    styles = ((ORANGE, "o--"), (GREEN, "s-."), (VERMILLION, "^:"), (GREY, "v--"))
    figure = new_figure(0.6 + 2.3 * len(shown))
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for panel, (split, with_pictures) in zip(panels, shown.items(), strict=True):
        words = rows[split, OURS]
        looking = [name for name in methods if name != OURS and (split, name) not in rows]
        lines = {name: style for name, style in zip(looking, cycle(styles), strict=False)} | {OURS: (BLUE, "D-")}
        for name, (colour, style) in lines.items():
            points = {0: words} if name == OURS else {}
            points |= {pictures: rows[of, name] for pictures, of in with_pictures.items() if (of, name) in rows}
            low, means, high = (
                100 * np.array([row[key] for row in points.values()]) for key in ("ci_low", "mean", "ci_high")
            )
            panel.fill_between([*points], low, high, color=colour, alpha=0.13, linewidth=0, zorder=2)
            panel.plot([*points], means, style, color=colour, linewidth=2, markersize=5, zorder=3, label=name)
        panel.axhspan(100 * words["ci_low"], 100 * words["ci_high"], color=INK, alpha=0.07, linewidth=0, zorder=1)
        panel.axhline(100 * words["mean"], color=INK, linestyle=":", linewidth=1.4, zorder=1, label="words alone")
        dress(panel, TITLES.get(split, split), "", "y")
        panel.set_ylabel("accuracy (%)", fontsize=TEXT)
        panel.set_xticks([0, *sorted({pictures for of in shown.values() for pictures in of})])
    panels[-1].set_xlabel("pictures of each class", fontsize=TEXT)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=TEXT)
    return encoded(figure)


def accuracy_along_numbers(
    rows: Sequence[Mapping[str, Any]],
    path: str,
    values: Mapping[str, float | None],
    lines: Mapping[str, str] | None = None,
) -> str:
    """Mean accuracy and its interval against a number of each variant: a panel for each split, a line for each method.

    The axis is logarithmic. A variant without a number stands apart at the right end, under its name. With `lines`, variant ->
    the line that it is a point of, there is one for each of those and each method.
    """
    splits: list[str] = list(dict.fromkeys(row["split"] for row in rows))
    apart = 2 * max(value or 0.5 for value in values.values())
    ticks = {value or apart: short(variant) if value is None else f"{value:g}" for variant, value in values.items()}
    drawn: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        name = row["method"]
        if lines is not None:
            line = lines[row["variant"]]
            name = line if name == OURS else f"{name}, {line}"
        drawn.setdefault(name, []).append(row)
    columns = min(2, len(splits))
    high = -(-len(splits) // columns)
    figure = new_figure(2.4 * high + 0.8 + 0.25 * (len(drawn) // 4), width=WIDTH if columns == 1 else 7.0)
    panels = figure.subplots(high, columns, squeeze=False)
    for panel in panels.flat[len(splits) :]:
        panel.axis("off")
    for number, (panel, split) in enumerate(zip(panels.flat[: len(splits)], splits, strict=True)):
        of_split = {name: [row for row in of_line if row["split"] == split] for name, of_line in drawn.items()}
        _draw_along(panel, of_split, values, apart)
        dress(panel, TITLES.get(split, split), path if number >= len(splits) - columns else "", "y")
        panel.set_xscale("log")
        if lines is None:
            panel.set_xticks(list(ticks), list(ticks.values()))
            panel.minorticks_off()
    for panel in panels[:, 0]:
        panel.set_ylabel("accuracy (%)", fontsize=TEXT)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=4 if lines is None else 3, frameon=False, fontsize=TEXT
    )
    return encoded(figure)


def _draw_along(
    panel: Axes, lines: Mapping[str, Sequence[Mapping[str, Any]]], values: Mapping[str, float | None], apart: float
) -> None:
    """A line through the points of each name, and what is `apart` of them at the end of a dotted one.

    Where there are more names than colours, these come again with broken lines.
    """
    marks = ((VERMILLION, "s"), (GREEN, "^"), (ORANGE, "v"), (INK, "x"), (GREY, "P"))
    styles = ((*mark, stroke) for stroke in ("-", "--", "-.") for mark in marks)
    others = (name for name in lines if name != OURS)
    styled = dict(zip(others, cycle(styles), strict=False)) | {OURS: (BLUE, "D", "-")}
    for name, rows in lines.items():
        colour, marker, stroke = styled[name]
        points = sorted(((values[row["variant"]] or apart, row) for row in rows), key=lambda point: point[0])
        places = [place for place, _ in points]
        means, low, high = (
            100 * np.array([row[key] for _, row in points], dtype=float) for key in ("mean", "ci_low", "ci_high")
        )
        on_axis = len(places) - (places[-1] == apart)
        panel.fill_between(places[:on_axis], low[:on_axis], high[:on_axis], color=colour, alpha=0.15, linewidth=0)
        width, size = (1.5, 5.5) if name == OURS else (2.5, 4)
        style = {"color": colour, "linewidth": width, "markersize": size}
        panel.plot(places[:on_axis], means[:on_axis], f"{marker}{stroke}", **style, zorder=4, label=name)
        panel.plot(places[on_axis - 1 :], means[on_axis - 1 :], ":", color=colour, linewidth=width, zorder=3)
        panel.vlines(places, low, high, color=colour, linewidth=1.2, zorder=2)
        panel.plot(places[on_axis:], means[on_axis:], marker, **style, zorder=4)


def frontier(
    draws: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    accurate: Mapping[str, float],
    beyond: Sequence[float],
) -> str:
    """Accuracy against novelty, a panel for each split: a dot for each network, a step line for each method's frontier.

    `draws`: split -> method -> novelty and accuracy of each network; `accurate`: split -> the least that counts as such. As
    far as the farthest network is shown of `beyond`, and at most to twice its end, where farther networks stand.
    """
    splits = _drawn_splits([{"split": split} for split in draws])
    figure = new_figure(0.9 + 2.6 * len(splits))
    panels = figure.subplots(len(splits), 1, sharex=True, squeeze=False)[:, 0]
    styles = ((ORANGE, "s"), (GREEN, "^"), (VERMILLION, "v"), (INK, "x"), (GREY, "P"), (PINK, "*"), (SKY, "o"))
    others = dict.fromkeys(method for split in splits for method in draws[split] if method != OURS)
    marks = dict(zip(others, cycle(styles), strict=False)) | {OURS: (BLUE, "D")}
    farthest = max(max(novelty, default=0.0) for split in splits for novelty, _ in draws[split].values())
    reach = min(max(farthest, beyond[0]), 2 * beyond[-1])
    for panel, split in zip(panels, splits, strict=True):
        for times in (times for times in beyond if times <= 1.1 * reach):
            panel.axvline(times, color=INK, linestyle=":", linewidth=1, zorder=1)
        panel.axhline(100 * accurate[split], color=INK, linestyle="--", linewidth=1.2, zorder=1)
        for method, (colour, marker) in marks.items():
            if method not in draws[split]:
                continue
            novelty, accuracy = (np.asarray(values, dtype=float) for values in draws[split][method])
            novelty = np.minimum(novelty, reach)
            dots = {"color": colour, "alpha": 0.4, "markersize": 4, "markeredgewidth": 0.8, "zorder": 2}
            panel.plot(novelty, 100 * accuracy, marker, **dots)
            order = np.argsort(novelty)
            best = np.maximum.accumulate(accuracy[order][::-1])[::-1]
            steps = np.concatenate([[0.0], novelty[order]]), 100 * np.concatenate([best[:1], best])
            panel.plot(*steps, color=colour, linewidth=2.2 if method == OURS else 1.4, drawstyle="steps-pre", zorder=3)
            panel.plot([], [], marker, color=colour, label=method)
        dress(panel, TITLES.get(split, split), "", "y")
        panel.set_ylabel("accuracy (%)", fontsize=TEXT)
        panel.set_xlim(0, 1.1 * reach)
    panels[-1].set_xlabel("novelty: distance to the zoo, over its own", fontsize=TEXT)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=TEXT)
    return encoded(figure)


def picture_sheet(pixels: np.ndarray, predicted: Sequence[str], true: Sequence[str]) -> str:
    """Pictures (n, S, S, 3) uint8, six a row: above each the class seen in it, below it the true one if it differs."""
    rows = -(-len(pixels) // 6)
    figure = new_figure(1.62 * rows + 0.4, width=7.0)
    panels = figure.subplots(rows, 6, squeeze=False)
    for panel in panels.flat[len(pixels) :]:
        panel.axis("off")
    for panel, picture, seen, truth in zip(panels.flat[: len(pixels)], pixels, predicted, true, strict=True):
        right = seen == truth
        colour = BLUE if right else VERMILLION
        panel.imshow(picture)
        panel.set(xticks=[], yticks=[])
        for side in panel.spines.values():
            side.set(color=colour, linewidth=3)
        title = f"{'✓' if right else '✗'} {in_two_lines(seen)}"
        panel.set_title(title, fontsize=TEXT - 1, color=colour, pad=4, parse_math=False)
        below = "" if right else f"is {in_two_lines(truth)}"
        panel.set_xlabel(below, fontsize=TEXT - 1, color=INK, labelpad=3, parse_math=False)
    for mark, colour, label in (("✓", BLUE, "right"), ("✗", VERMILLION, "wrong; below: what it is")):
        panels[0, 0].plot([], [], "s", color=colour, markersize=9, label=f"{mark} {label}")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=TEXT)
    return encoded(figure, colours=None)


# ---------------------------------------------------------------- drawing


def _by_mean(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Methods, the highest last, as the first split has them."""
    main = splits_of(rows)[0]
    ordered = sorted(rows, key=lambda row: (row["split"] != main, row["mean"]))
    return list(dict.fromkeys(row["method"] for row in ordered))


def _methods_on(panel: Axes, methods: Sequence[str]) -> None:
    panel.set_yticks(range(len(methods)), [short(name, 22) for name in methods], fontsize=TEXT, parse_math=False)
    panel.set_ylim(-0.7, len(methods) - 0.3)
    panel.tick_params(axis="y", length=0)
    for label, name in zip(panel.get_yticklabels(), methods, strict=True):
        if name == OURS:
            label.set(color=BLUE, fontweight="bold")


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Mean over a window of a twentieth of the steps around each, shorter at the ends."""
    half = max(1, len(values) // 40)
    total = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    first, last = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    return (total[last] - total[first]) / (last - first)
