"""Where generated heads look: Grad-CAM on test images along the last denoising steps (T2W, appendix D, algorithm 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from wspace.data.tasks import Task
from wspace.interfaces import TEST
from wspace.runs.report.drawing import BLUE, GREY, INK, SCALE, TEXT, VERMILLION, encoded, in_two_lines, new_figure
from wspace.runs.report.intervals import summary
from wspace.runs.report.section import Figure, Form, Row, Section, Table, percent
from wspace.runs.run import Run
from wspace.runs.stages.report import evenly
from wspace.support.seeding import stream
from wspace.uses.attention import Headed, find_layer, maps_of
from wspace.uses.shown import names, task_shown, trained

MEASURED = 64  # test images on which maps are compared
AT_END, AS_TRAINED, EMPTY = "as at the last step", "as the trained head", "empty maps"


def along(run: Run, task: Task, count: int, temperature: float | None, seed: int) -> dict[int, Tensor]:
    """Step -> network (P,) as it would then end, of at most `count` steps, evenly over the last half."""
    how = run.recipe.generate if temperature is None else replace(run.recipe.generate, temperature=temperature)
    ends: dict[int, Tensor] = {}
    ended = run.system.sample(run.prompts([task]), how, stream(seed, "plot"), ends.__setitem__)
    ends[max(ends, default=0)] = ended
    steps = list(ends)
    late = torch.linspace(len(steps) // 2, len(steps) - 1, count).round().int().tolist() if count > 1 else [-1]
    return {steps[i]: run.bench.calibrated(ends[steps[i]].cpu(), [task])[0] for i in late}


def study(
    run: Run,
    classes: Sequence[str] | None = None,
    *,
    layer: str | None = None,
    images: int = 6,
    steps: int = 4,
    temperature: float | None = None,
    seed: int = 0,
) -> Section:
    """Maps of test images, of the head as it would end after each of the last `steps` steps, and of a trained one.

    Maps are (M, S, S) in [0, 1]; the table has their correlations, the figure those of `images` pictures. `layer` is a name
    of the backbone's `named_modules`; without it, the last of its stages that is fine enough. The task is that of
    `classes`, else the one whose pictures are in the report.

    Raises UserError for a layer that gives no maps and for classes the data set has no images of, MissingPackage without
    the package grad-cam, WspaceError if the run's data are no longer those of its zoo.
    """
    run.zoo.check(run.bench.accepted)
    task = task_shown(run, classes)
    layers = run.bench.backbone.layers()
    features, labels = run.bench.test.of_task(task)
    rows = np.flatnonzero(run.bench.images.split == TEST)[run.bench.test.rows_of(task).numpy()]
    measured = evenly(labels, MEASURED)
    pixels = run.bench.images.read(rows[measured.numpy()])
    layer = find_layer(layers, pixels[:1], layer)

    heads = {f"step {step}": weights for step, weights in along(run, task, steps, temperature, seed).items()}
    final = next(reversed(heads))
    heads["trained"] = trained(run, task, seed)
    device = run.bench.device
    texts, rms = run.bench.class_texts[list(task)].to(device), run.zoo.scale.rms.to(device)
    x, own_labels = layers.prepare(pixels), labels[measured]
    maps, right = dict[str, np.ndarray](), dict[str, Tensor]()
    with run.bench.progress.bar("cam", len(heads)) as bar:
        for name, weights in heads.items():
            model = Headed(layers, run.target, weights.to(device), rms, texts)
            maps[name] = np.concatenate(
                [maps_of(model, layer, part, of) for part, of in zip(x.split(16), own_labels.split(16), strict=True)]
            )
            scores = run.target.logits(weights[None], features[measured][None], run.bench.class_texts[list(task)][None])
            right[name] = scores[0].argmax(1) == own_labels
            bar.advance()

    forms: dict[str, Form] = {AT_END: "number", AS_TRAINED: "number", EMPTY: "percent", "named right": "percent"}
    cells = dict[str, dict[str, dict[str, float]]]()
    for name, of_head in maps.items():
        columns = {AT_END: correlations(of_head, maps[final]), AS_TRAINED: correlations(of_head, maps["trained"])}
        columns = {column: values for column, values in columns.items() if len(values)}
        columns |= {EMPTY: torch.from_numpy(of_head.max((1, 2)) == 0).float(), "named right": right[name].float()}
        cells[name] = {column: summary(values, run.recipe) for column, values in columns.items()}
    table = Table(
        f"{len(own_labels)} test images: correlation of maps, place by place; shares (%)",
        forms,
        [Row(name, row, own=name == final) for name, row in cells.items()],
    )
    shown = evenly(own_labels, images)
    seen = [Seen(name, maps[name][shown.numpy()], right[name][shown].tolist()) for name in heads]
    class_names = [run.zoo.classes[task[k]] for k in own_labels[shown].tolist()]
    says = []
    if AS_TRAINED in cells[final]:
        alike = percent(cells[final][AS_TRAINED], "number")
        says.append(f"Maps of the generated head correlate {alike} with those of the trained one.")
    first = next(iter(heads))
    if first != final and AT_END in cells[first]:
        says.append(
            f"Those after {first} correlate {percent(cells[first][AT_END], 'number')} with those after {final}."
        )
    empty = cells[final][EMPTY]["mean"]
    says.append(f"On {empty:.0%} of the images no place of layer {layer} speaks for the class in the generated head.")
    caption = (
        f"Grad-CAM of layer {layer} on test images of an unseen task: which places speak for the picture's class, in the "
        "head as it would end after steps of the last half of denoising, and in one trained on the task's images. Each map "
        "is scaled to its own most; brightness in a map says nothing of how sure a head is."
    )
    if classes is not None:
        caption = caption.replace("an unseen task", "this task")
    settings = {"classes": names(run, task), "layer": layer, "seed": seed}
    figure = Figure("maps", caption, attention(pixels[shown.numpy()], class_names, seen))
    return Section("plot-cam", "Where heads look", says, settings, [table], (figure,))


def correlations(maps: np.ndarray, others: np.ndarray) -> Tensor:
    """Of each pair of maps (M, S, S), Pearson's, but of those pairs of which one is flat: (at most M,)."""
    a, b = (torch.from_numpy(m).flatten(1).double() for m in (maps, others))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    lengths = a.norm(dim=1) * b.norm(dim=1)
    return ((a * b).sum(1) / lengths)[lengths > 1e-9].float()


# ---------------------------------------------------------------- drawing


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
        label = in_two_lines(name)
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
