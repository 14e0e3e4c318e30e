"""The commands of `wspace.uses`: studies of what generated weights are good for, and the same for one task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer()

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")]
PluginFiles = Annotated[list[Path] | None, typer.Option("--plugin", metavar="FILE.py", help="A one-file plugin.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Classes = Annotated[str | None, typer.Option(help="One task instead of the study: class names, separated by commas.")]


def _open(run: Path, plugins: list[Path] | None) -> Any:
    from wspace.progress import for_terminal
    from wspace.run import Run

    return Run.open(run, plugins or (), for_terminal())


def _show(section: Any, run: Path, as_json: bool, *, keep: bool) -> None:
    """Print a study; one over the run's own tasks becomes a section of its report."""
    from wspace.run import write_page
    from wspace.table import print_section

    page = None
    if keep:
        section.save(run)
        page = write_page(run)
    if as_json:
        print(json.dumps(section.as_json()))
        return
    print_section(section)
    if page is not None:
        print(page)


@app.command("init")
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
    """Train from generated weights and from the usual initialisations: accuracy, loss, and steps to get there."""
    from wspace.errors import UserError

    counts = [_shots(text.strip()) for text in shots.split(",")]
    if out is not None and classes is None:
        raise UserError("--out: a study trains many heads; name the --classes of one")
    from wspace.network import Network, check_classes
    from wspace.uses.init import study

    names = None if classes is None else check_classes(classes.split(","))
    opened = _open(run, plugin)
    chosen = opened.unseen(tasks) if names is None else [opened.task_of(names)]
    section, trained = study(opened, chosen, shots=counts, epochs=epochs, lr=lr, seed=seed)
    if out is not None and names is not None:
        origin = f"{opened.recipe.name}, trained from generated weights for {epochs} epochs"
        Network(names, opened.target.spec.unflatten(trained[0]), origin).save(out)
    _show(section, run, as_json, keep=names is None)


def _shots(text: str) -> int:
    from wspace.errors import UserError

    if text == "all":
        return 0
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--shots: {text!r} is neither a number of images nor 'all'")
    return int(text)


@app.command()
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
    """Noise weights and denoise them under their task's text: what half-trained heads gain by it."""
    from wspace.errors import UserError

    if head is None and (out is not None or level is not None):
        raise UserError("--out and --level: a study makes many heads at many levels; name the one to enhance")
    opened = _open(run, plugin)
    from wspace.uses.enhance import one, study

    if head is None:
        _show(study(opened, opened.unseen(tasks), temperature=temperature, seed=seed), run, as_json, keep=True)
        return
    better, used = one(opened, opened.load_network(head), level, temperature, seed)
    file = out or head.with_stem(f"{head.stem}-enhanced")
    better.save(file)
    if as_json:
        print(json.dumps({"file": str(file), "level": used}))
    else:
        print(file)


@app.command()
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
    """Several draws for one task: the best of them, their averaged weights, their vote; beside as many trained heads."""
    from wspace.errors import UserError

    if out is not None and classes is None:
        raise UserError("--out: a study makes heads for many tasks; name the --classes of one")
    from wspace.network import check_classes
    from wspace.uses.ensemble import one, study

    names = None if classes is None else check_classes(classes.split(","))
    opened = _open(run, plugin)
    if names is None:
        section = study(opened, opened.unseen(tasks), count=count, temperature=temperature, seed=seed)
    else:
        network, section = one(opened, names, count=count, temperature=temperature, seed=seed)
        if out is not None:
            network.save(out)
    _show(section, run, as_json, keep=names is None)
