"""Half-trained networks noised and denoised under their task's text (T2W, section 4.4 and figure 6; Meng et al., 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from torch import Tensor

from wspace.data.features import Pool
from wspace.data.tasks import Task
from wspace.interfaces import Prompts, Symmetry
from wspace.learning.fitting import Schedule, fit
from wspace.runs.report.drawing import BLUE, GREY, INK, TEXT, VERMILLION, dress, encoded, new_figure
from wspace.runs.report.intervals import summary
from wspace.runs.report.section import Figure, Row, Section, Table, percent
from wspace.runs.run import Run
from wspace.support.errors import UserError
from wspace.support.methods import OURS
from wspace.support.quantities import counted
from wspace.support.seeding import stream
from wspace.weights.files.network import Network

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
CHOOSING = 32  # held-out seen tasks on which the level is chosen, by validation images

Start = Literal["fresh", "base"]
"""What the half-trained networks began as: the target's own initialisation, or the zoo's base."""

BEFORE, ENHANCED = "half-trained", "enhanced"


def enhance(run: Run, networks: Tensor, prompts: Prompts, level: float, temperature: float, seed: int) -> Tensor:
    """Networks (B, P) for tasks of which this is said, noised to `level` and denoised: (B, P).

    They are first moved near to the zoo's reference by the recipe's symmetry, which leaves what they compute as it is.
    """
    how = replace(run.recipe.generate, temperature=temperature)
    moved = aligned(run, networks, run.zoo.reference).to(run.bench.device)
    return run.system.refine(moved, prompts, how, level, stream(seed, "enhance", level)).cpu()


def aligned(run: Run, networks: Tensor, reference: Tensor) -> Tensor:
    """The same functions (B, P), as near to the reference (P,) or (B, P) as the recipe's symmetry can bring them."""
    if run.recipe.symmetry is None:
        return networks
    symmetry: Symmetry = run.recipe.symmetry.build({"spec": run.target.spec})
    return symmetry.canonicalize(networks, reference)


def half_trained(run: Run, tasks: Sequence[Task], start: Start, seed: int) -> Tensor:
    """(B, P): trained as the zoo's networks are, for half of the steps."""
    zoo, bench = run.recipe.zoo, run.bench
    begun = run.target.init(len(tasks), stream(seed, "half-trained"))
    if start == "base":
        begun = run.zoo.base.expand(len(tasks), -1)
    schedule = Schedule(max(1, zoo.steps // 2), zoo.batch, zoo.lr)
    return fit(run.target, begun, tasks, bench.train, bench.class_texts, schedule, stream(seed, "half-trained images"))


def chosen_level(run: Run, start: Start, temperature: float, seed: int) -> float:
    """The one that does best on held-out tasks' validation images."""
    tasks = run.zoo.tasks.choosing[:CHOOSING]
    networks = half_trained(run, tasks, start, seed)
    swept = {level: _accuracy(run, tasks, networks, level, temperature, seed, run.bench.val) for level in LEVELS}
    return max(LEVELS, key=lambda level: float(swept[level].mean()))


def _accuracy(
    run: Run, tasks: Sequence[Task], networks: Tensor, level: float, temperature: float, seed: int, pool: Pool
) -> Tensor:
    """(B,), of networks enhanced at this level."""
    made = enhance(run, networks, run.prompts(tasks), level, temperature, seed)
    return run.bench.accuracies(made, tasks, pool)


def study(
    run: Run, tasks: Sequence[Task], *, starts: Sequence[Start] | None = None, temperature: float, seed: int
) -> Section:
    """Accuracy of half-trained networks before and after they are enhanced, for each kind of start (all that there are).

    Half-trained networks (B, P) of the B tasks are noised to a level in (0, 1] and denoised. The level of the table is
    chosen on held-out tasks; the figure has all of `LEVELS`. Beside them: generated networks, and the average of both.
    Accuracies are on test images, in percent; gains are in points.

    Raises UserError if the generator cannot be told of a task, WspaceError if the run's data are no longer those of its
    zoo.
    """
    run.zoo.check(run.bench.accepted)
    starts = starts or (("fresh", "base") if run.zoo.shares_base else ("fresh",))
    generated = run.sample(tasks, stream(seed, "enhance"))
    tables, says, curves, levels = list[Table](), list[str](), dict[str, dict[str, list[float]]](), dict[str, float]()
    with run.bench.progress.bar("enhance", len(starts) * (len(LEVELS) + 1)) as bar:
        for start in starts:
            before = half_trained(run, tasks, start, seed)
            levels[start] = chosen_level(run, start, temperature, seed)
            bar.advance()
            swept = dict[float, Tensor]()
            for level in LEVELS:
                swept[level] = _accuracy(run, tasks, before, level, temperature, seed, run.bench.test)
                bar.advance()
            scores = {
                BEFORE: _scored(run, before, tasks),
                ENHANCED: swept[levels[start]],
                OURS: _scored(run, generated, tasks),
                "average of both": _scored(run, (aligned(run, before, generated) + generated) / 2, tasks),
            }
            tables.append(_table(run, scores, f"from {start} weights, enhanced at level {levels[start]:g}"))
            says.append(_sentence(scores, run, start))
            curves[f"from {start} weights"] = {
                ENHANCED: [100 * float(swept[level].mean()) for level in LEVELS],
                **{name: [100 * float(scores[name].mean())] for name in (BEFORE, OURS)},
            }
    caption = (
        f"Accuracy on test images of {len(tasks)} unseen tasks, by the level of noise that half-trained heads are taken "
        "back to; 1 would be generating from pure noise. The level of the table was chosen on other tasks."
    )
    settings = {"tasks": len(tasks), "temperature": temperature, "levels": list(LEVELS), "seed": seed}
    figures = (Figure("levels", caption, level_sweep(LEVELS, curves, ENHANCED)),)
    return Section("enhance", "Enhancing half-trained heads", says, settings, tables, figures)


def _scored(run: Run, networks: Tensor, tasks: Sequence[Task]) -> Tensor:
    return run.bench.accuracies(networks, tasks, run.bench.test)


def _table(run: Run, scores: dict[str, Tensor], title: str) -> Table:
    rows = []
    for name, accuracy in scores.items():
        gain = accuracy - scores[BEFORE]
        cells = {"accuracy": summary(accuracy, run.recipe), "gain": summary(gain, run.recipe)}
        if name != BEFORE:
            cells["worse on"] = summary((gain < 0).float(), run.recipe)
        rows.append(Row(name, cells, own=name == ENHANCED))
    return Table(f"{title}: accuracy (%)", {"accuracy": "percent", "gain": "points", "worse on": "percent"}, rows)


def _sentence(scores: dict[str, Tensor], run: Run, start: Start) -> str:
    gain = scores[ENHANCED] - scores[BEFORE]
    wins = max(scores, key=lambda name: float(scores[name].mean()))
    return (
        f"Heads half-trained from {start} weights gain {percent(summary(gain, run.recipe), 'points')} points by enhancing, and "
        f"lose on {int((gain < 0).sum())} of {counted(len(gain), 'task')}. Best of all: {wins}."
    )


def one(run: Run, network: Network, level: float | None, temperature: float, seed: int) -> tuple[Network, float]:
    """A user's network enhanced for the classes it names; and the level, chosen on held-out tasks where none is given.

    Raises UserError for a level that is not in (0, 1].
    """
    if level is not None and not 0 < level <= 1:
        raise UserError(f"--level {level:g}: a level of noise is above 0 and at most 1")
    if level is None:
        level = chosen_level(run, "fresh", temperature, seed)
    made = enhance(run, run.flat(network), run.prompts_for(run.told_apart(network.classes)), level, temperature, seed)
    ready = run.calibrated_for(made, network.classes)
    origin = f"{network.origin}, enhanced by {run.recipe.name} at level {level:g}"
    return run.network(network.classes, ready[0], origin), level


# ---------------------------------------------------------------- drawing


def level_sweep(levels: Sequence[float], panels: Mapping[str, Mapping[str, Sequence[float]]], main: str) -> str:
    """Accuracy (%) over noise levels, a panel for each kind of start; lists of one value are level lines."""
    figure = new_figure(3.2, width=7.0)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    styles = [(GREY, "--"), (VERMILLION, ":")]
    for panel, (title, lines) in zip(axes, panels.items(), strict=True):
        panel.plot(levels, lines[main], "o-", color=BLUE, linewidth=2.4, markersize=5, label=main)
        flat = [name for name in lines if name != main]
        for name, (colour, style) in zip(flat, styles, strict=False):
            panel.axhline(lines[name][0], color=colour, linestyle=style, linewidth=2, label=name)
        dress(panel, title, "level of noise", "y")
    axes[0].set_ylabel("accuracy (%)", fontsize=TEXT, color=INK)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=TEXT
    )
    return encoded(figure)
