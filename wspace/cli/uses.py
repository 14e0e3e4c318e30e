"""The commands of `wspace.uses`: studies of what generated weights are good for, and the same for one task."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from wspace.cli.options import Json, PluginFiles, RunFolder, changes_by, open_run, show_section
from wspace.support.classes import classes_of

Classes = Annotated[str | None, typer.Option(help="One task instead of the study: class names, separated by commas.")]


def initialise(
    run: RunFolder,
    classes: Classes = None,
    tasks: Annotated[int, typer.Option(min=2, help="Unseen tasks of the study.")] = 20,
    shots: Annotated[str, typer.Option(help="Images a class, separated by commas; all: no limit.")] = "all,16,4,1",
    epochs: Annotated[int, typer.Option(min=1)] = 50,
    lr: Annotated[float, typer.Option(min=1e-8)] = 3e-4,
    out: Annotated[Path | None, typer.Option(help="With --classes: where the trained head goes.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Json = False,
    plugin: PluginFiles = None,
) -> None:
    """Train from generated weights, and from usual initialisations.

    Accuracy and loss on the way, and the steps to get there.
    """
    from wspace.support.errors import UserError
    from wspace.support.files import check_file

    counts = [_shots(text.strip()) for text in shots.split(",")]
    if out is not None and classes is None:
        raise UserError("--out: a study trains many heads; name the --classes of one")
    if out is not None:
        check_file(out)
    names, note = None if classes is None else classes_of(classes), changes_by([out] if out else [])
    opened = open_run(run, plugin)
    from wspace.support.quantities import counted
    from wspace.uses.init import study

    chosen = opened.unseen(tasks) if names is None else [opened.task_of(names)]
    section, trained = study(opened, chosen, shots=counts, epochs=epochs, lr=lr, seed=seed)
    if out is not None:
        origin = f"{opened.recipe.name}, trained from generated weights for {counted(epochs, 'epoch')}"
        opened.network(opened.names_of(chosen[0]), trained[0], origin).save(out)
    if note:
        opened.bench.progress.say(note)
    show_section(section, run, as_json, keep=classes is None)


def _shots(text: str) -> int:
    from wspace.support.errors import UserError

    if text == "all":
        return 0
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--shots: {text!r} is neither a number of images nor 'all'")
    return int(text)


def enhance(
    run: RunFolder,
    head: Annotated[Path | None, typer.Argument(help="Weights to better; the study over unseen tasks if none.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the better weights go.")] = None,
    level: Annotated[
        float | None, typer.Option(help="Noise to go back to, up to 1; else chosen on held-out tasks.")
    ] = None,
    tasks: Annotated[int, typer.Option(min=2, help="Unseen tasks of the study.")] = 50,
    temperature: Annotated[float, typer.Option(min=0, help="Scale of the random draws.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Json = False,
    plugin: PluginFiles = None,
) -> None:
    """Noise weights, and denoise them under their task's text.

    What half-trained heads gain by it.
    """
    from wspace.support.errors import UserError
    from wspace.support.files import check_file, check_is_file

    if head is None and (out is not None or level is not None):
        raise UserError("--out and --level: a study makes many heads at many levels; name the one to enhance")
    if head is not None:
        out = out or head.with_stem(f"{head.stem}-enhanced")
        check_file(out)
        check_is_file(head)
    note = changes_by([out] if out else [])
    opened = open_run(run, plugin)
    from wspace.uses.enhance import one, study

    if head is None or out is None:
        show_section(study(opened, opened.unseen(tasks), temperature=temperature, seed=seed), run, as_json, keep=True)
        return
    better, used = one(opened, opened.load_network(head), level, temperature, seed)
    better.save(out)
    if note:
        opened.bench.progress.say(note)
    print(json.dumps({"file": str(out), "level": used}) if as_json else out)


def ensemble(
    run: RunFolder,
    classes: Classes = None,
    count: Annotated[int, typer.Option(min=2, help="Draws for each task.")] = 8,
    tasks: Annotated[int, typer.Option(min=2, help="Unseen tasks of the study.")] = 20,
    temperature: Annotated[float, typer.Option(min=0, help="Scale of the random draws.")] = 1.0,
    out: Annotated[Path | None, typer.Option(help="With --classes: where their averaged weights go.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Json = False,
    plugin: PluginFiles = None,
) -> None:
    """Several draws for one task: the best, their mean, their vote.

    The mean is that of their weights. Beside them stand as many trained heads.
    """
    from wspace.support.errors import UserError
    from wspace.support.files import check_file

    if out is not None and classes is None:
        raise UserError("--out: a study makes heads for many tasks; name the --classes of one")
    if out is not None:
        check_file(out)
    names, note = None if classes is None else classes_of(classes), changes_by([out] if out else [])
    opened = open_run(run, plugin)
    from wspace.uses.ensemble import one, study

    if names is None:
        section = study(opened, opened.unseen(tasks), count=count, temperature=temperature, seed=seed)
    else:
        network, section = one(opened, names, count=count, temperature=temperature, seed=seed)
        if out is not None:
            network.save(out)
    if note:
        opened.bench.progress.say(note)
    show_section(section, run, as_json, keep=classes is None)


PICTURES = {
    "trajectory": ("tasks",),
    "landscape": ("classes", "grid", "span", "dry", "long"),
    "cam": ("classes", "layer", "images", "steps", "temperature"),
    "space": ("networks",),
}
"""What `plot` draws, and the options each has besides those of all."""


def plot(
    run: RunFolder,
    picture: Annotated[str, typer.Argument(metavar="PICTURE", help=", ".join(PICTURES))],
    tasks: Annotated[int | None, typer.Option(min=2, help="trajectory: tasks of each split; 32 if not given.")] = None,
    classes: Annotated[
        str | None, typer.Option(help="landscape, cam: a task of these instead of the report's.")
    ] = None,
    grid: Annotated[int | None, typer.Option(min=3, help="landscape: points on a side; 21 if not given.")] = None,
    span: Annotated[
        float | None, typer.Option(min=1e-6, help="landscape: how far it reaches, in lengths of the head; 1.")
    ] = None,
    dry: Annotated[
        bool, typer.Option("--dry", help="landscape: say how many points, and how long they would take.")
    ] = False,
    long: Annotated[bool, typer.Option("--long", help="landscape: even if it takes hours.")] = False,
    layer: Annotated[str | None, typer.Option(help="cam: name of the backbone's layer to look into.")] = None,
    images: Annotated[int | None, typer.Option(min=1, max=12, help="cam: test images shown; 6 if not given.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, max=6, help="cam: denoising steps, the last ones; 4 if not given.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="cam: scale of the random draws; the recipe's.")
    ] = None,
    networks: Annotated[
        int | None, typer.Option(min=3, max=4000, help="space: of the zoo, at most; 1000 if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Json = False,
    plugin: PluginFiles = None,
) -> None:
    """Pictures of a run: accuracy, loss, attention and weights.

    Accuracy along denoising, the loss around a head, where heads look, a map of weights.
    """
    from wspace.support.errors import UserError, did_you_mean

    if picture not in PICTURES:
        raise UserError(f"plot: no picture {picture!r}.{did_you_mean(picture, list(PICTURES))}")
    asked: dict[str, Any] = {
        "tasks": tasks, "classes": classes, "grid": grid, "span": span, "dry": dry or None, "long": long or None,
        "layer": layer, "images": images, "steps": steps, "temperature": temperature, "networks": networks,
    }  # fmt: skip
    given = {name: value for name, value in asked.items() if value is not None}
    for name in given:
        if name not in PICTURES[picture]:
            others = " and ".join(other for other, options in PICTURES.items() if name in options)
            raise UserError(f"plot {picture}: --{name} is for {others} alone")
    if classes is not None:
        given["classes"] = classes_of(classes)
    if picture != "trajectory":
        given["seed"] = seed
    opened = open_run(run, plugin)
    module = importlib.import_module(f"wspace.uses.{picture}")
    if given.pop("dry", False):
        allowed = given.pop("long", False)
        cost = module.Cost.of(module.landscapes(opened, **given), long=allowed)
        print(json.dumps(vars(cost)) if as_json else cost)
        return
    show_section(module.study(opened, **given), run, as_json, keep=classes is None)


def fuse(
    run: RunFolder,
    first: Annotated[Path | None, typer.Argument(metavar="A", help="A head; the study over pairs if none.")] = None,
    second: Annotated[Path | None, typer.Argument(metavar="B", help="A head for other classes.")] = None,
    method: Annotated[
        str | None, typer.Option(help="One way to fuse, not all: a name, or {use: NAME, ...} as in a recipe.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="With --method: where the fused head goes.")] = None,
    pairs: Annotated[int, typer.Option(min=2, help="Pairs of tasks of the study.")] = 20,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Json = False,
    plugin: PluginFiles = None,
) -> None:
    """One head for two tasks, of their texts or of two heads.

    It is generated from their joined texts, or two heads are fused by their weights.
    """
    from wspace.support.errors import UserError
    from wspace.support.files import check_file, check_is_file

    if first is None and out is not None:
        raise UserError("--out: a study fuses many heads; name the two to fuse")
    if first is not None and second is None:
        raise UserError(f"{first} alone: name two heads to fuse, or none for the study")
    if out is not None and method is None:
        raise UserError("--out: there are many ways to fuse two heads; name one by --method")
    if out is not None:
        check_file(out)
    for file in (first, second):
        if file is not None:
            check_is_file(file)
    note = changes_by([out] if out else [])
    opened = open_run(run, plugin)
    from wspace.uses.fuse import compared, load_pair, one, study

    if first is None or second is None:
        show_section(study(opened, pairs=pairs, method=method, seed=seed), run, as_json, keep=method is None)
        return
    heads = load_pair(opened, first, second)
    if out is None or method is None:
        show_section(compared(opened, *heads, method, seed), run, as_json, keep=False)
        return
    one(opened, *heads, method, seed).save(out)
    if note:
        opened.bench.progress.say(note)
    print(json.dumps({"file": str(out)}) if as_json else out)


def interpolate(
    run: RunFolder,
    start: Annotated[
        str | None, typer.Option("--from", help="Class names, separated by commas; the study over pairs if none.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Class names of another task.")] = None,
    through: Annotated[list[str] | None, typer.Option(help="A task on the way; may be given several times.")] = None,
    steps: Annotated[int, typer.Option(min=3, help="Points along the way, both ends among them.")] = 9,
    pairs: Annotated[int, typer.Option(min=2, help="Pairs of tasks of the study.")] = 20,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Json = False,
    plugin: PluginFiles = None,
) -> None:
    """From one task to another: accuracy on both on the way.

    Along the condition, and along weights.
    """
    from wspace.support.errors import UserError

    if (start is None) != (end is None):
        raise UserError("--from and --to: name the classes of both tasks, or of neither for the study")
    if start is None and through:
        raise UserError("--through: the study goes from one task to another; name them by --from and --to")
    corners = []
    if start is not None and end is not None:
        on_the_way = [("--through", names) for names in through or ()]
        corners = [classes_of(names, option) for option, names in (("--from", start), *on_the_way, ("--to", end))]
    opened = open_run(run, plugin)
    from wspace.uses.interpolate import one, study

    if corners:
        show_section(one(opened, corners, steps=steps, seed=seed), run, as_json, keep=False)
        return
    show_section(study(opened, pairs=pairs, steps=steps, seed=seed), run, as_json, keep=True)


def coherence(
    run: RunFolder,
    tasks: Annotated[int, typer.Option(min=2, help="Unseen tasks of the study.")] = 20,
    draws: Annotated[int, typer.Option(min=2, help="Networks for each task.")] = 4,
    temperature: Annotated[float, typer.Option(min=0, help="Scale of the random draws.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Json = False,
    plugin: PluginFiles = None,
) -> None:
    """Layers of several generated networks, put into one.

    What it costs, if layers belong together.
    """
    opened = open_run(run, plugin)
    from wspace.uses.coherence import study

    section = study(opened, opened.unseen(tasks), draws=draws, temperature=temperature, seed=seed)
    show_section(section, run, as_json, keep=True)


def transfer(
    run: RunFolder,
    dataset: Annotated[str, typer.Option(help='As in a recipe: "{use: folder, path: my-pictures}".')],
    ways: Annotated[str, typer.Option(help="Classes of a task, separated by commas.")] = "5,10,20",
    tasks: Annotated[int, typer.Option(min=2, help="Tasks of each.")] = 50,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Json = False,
    plugin: PluginFiles = None,
) -> None:
    """Weights for the classes of another data set.

    Scored on its pictures, without any training there.
    """
    from wspace.support.errors import UserError

    counts = [text.strip() for text in ways.split(",")]
    for text in counts:
        if not text.isdecimal() or int(text) < 2:
            raise UserError(f"--ways: {text!r} is no number of classes from 2")
    opened = open_run(run, plugin)
    from wspace.uses.transfer import study

    section = study(opened, opened.world(dataset), ways=[int(text) for text in counts], tasks=tasks, seed=seed)
    show_section(section, run, as_json, keep=True)


def expectation(
    run: RunFolder,
    tasks: Annotated[int, typer.Option(min=2, help="Fresh tasks, that the report did not score.")] = 200,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Json = False,
    plugin: PluginFiles = None,
) -> None:
    """How often accuracies lie where `generate` expects them.

    On fresh tasks, of every kind of classes.
    """
    opened = open_run(run, plugin)
    from wspace.uses.expectation import study

    show_section(study(opened, tasks=tasks, seed=seed), run, as_json, keep=True)
