"""A first recipe of one's own pictures: new-recipe."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from wspace.cli.options import PluginFiles, registry_of

USUAL_TIME = "10m"


def new_recipe(
    folder: Annotated[Path, typer.Argument(help="A folder with a sub-folder of pictures for each class.")],
    time: Annotated[
        str | None, typer.Option(help=f"How long a run may take on two cores: 90s, 10m, 1h; {USUAL_TIME} if not asked.")
    ] = None,
    icons: Annotated[
        bool | None,
        typer.Option("--icons/--no-icons", help="Whether to learn from icons, too; else if the classes are few."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="inner or outer: which folders are the classes, where folders repeat.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; else called as the folder.")] = None,
    plugin: PluginFiles = None,
) -> None:
    """Write a recipe for a folder of your pictures, to begin with.

    On a terminal, it asks what no option says.
    """
    from wspace.runs import new_recipe as made
    from wspace.support.errors import UserError
    from wspace.support.quantities import duration, in_words

    which = _which(classes)
    name = f"{folder.absolute().name or 'pictures'}.yaml"
    file = out or Path(name)
    if file.exists():
        raise UserError(f"{file}: is there already; name another with --out")
    seconds = None if time is None else duration(time, "--time")
    look = made.look_at(folder, which)
    print(f"{folder}: {look}", file=sys.stderr)
    if seconds is None:
        seconds = duration(_asked_time() if _asking() else USUAL_TIME, "--time")
    if icons is None:
        few = len(look.pictures) < made.FEW
        icons = _asked_icons(few) if _asking() else few
    effort = made.effort_for(seconds, icons)
    if (least := made.takes(effort, icons)) > seconds:
        spare = "; --no-icons spares some" if icons else ""
        print(f"note: a run takes about {in_words(least)} at least{spare}", file=sys.stderr)
    text = made.recipe_for(look, effort, file, with_icons=icons)
    print(made.write_recipe(file, text, registry_of(plugin)))
    print(f"\n  wspace run {shlex.quote(str(file))}", file=sys.stderr)


def _which(classes: str | None) -> Literal["outer", "inner"] | None:
    from wspace.support.errors import UserError

    if classes is None or classes == "outer" or classes == "inner":
        return classes
    raise UserError(f"--classes: {classes!r} is neither inner nor outer")


def _asking() -> bool:
    """Whether somebody sits there to answer."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _asked_time() -> str:
    return typer.prompt("How long may a run take on two cores?", USUAL_TIME, err=True)


def _asked_icons(usual: bool) -> bool:
    return typer.confirm("Learn from 5,093 icons as well, and not from your classes alone?", usual, err=True)
