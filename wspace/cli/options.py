"""Arguments that many commands share, and what they name, opened."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from wspace.recipes.registry import Registry
    from wspace.recipes.schema import Bound
    from wspace.runs.report.section import Section
    from wspace.runs.run import Run


def _packaged(incomplete: str) -> list[str]:
    """What a shell may complete the name of a recipe to, beside files."""
    from wspace.recipes.source import packaged_recipes

    return [name for name in packaged_recipes() if name.startswith(incomplete)]


Recipe = Annotated[
    str, typer.Argument(help="A recipe file, or the name of a packaged recipe.", autocompletion=_packaged)
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")]
"""A command's argument RUN, for `open_run`: `run: RunFolder`. A `pathlib.Path`."""
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change a value of the recipe.")
]
PluginFiles = Annotated[list[Path] | None, typer.Option("--plugin", metavar="FILE.py", help="A one-file plugin.")]
"""A command's option `--plugin`, which may be given several times: `plugin: PluginFiles = None`, for `open_run`."""
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
"""A command's option `--json`, for `show_section(..., as_json)`: `as_json: Json = False`."""


def registry_of(plugins: list[Path] | None) -> Any:
    """What is registered. Plugins that cannot be used, or may not work, are told, and stop nobody."""
    from wspace.recipes.plugins import load_plugins

    loaded = load_plugins(plugins or ())
    for sentence in loaded.warnings:
        print(f"warning: {sentence}", file=sys.stderr)
    return loaded.registry


def engine_of(block: Mapping[str, Any], registry: Registry) -> Bound:
    """The engine that options name, `--engine` and those of its parameters. Raises RecipeError, of the option."""
    from dataclasses import replace

    from wspace.recipes.bind import bind_one
    from wspace.support.errors import RecipeError

    try:
        return bind_one("engine", block, registry, "--engine")
    except RecipeError as error:
        own = block.keys() - {"use"}
        of = [replace(p, line=f"--{p.where}" if p.where in own else "--engine") for p in error.problems]
        raise RecipeError("--engine", of) from error


@contextmanager
def importing() -> Iterator[None]:
    """Around the imports of a command that bring torch: what they make stays, and Python need not look for garbage in it.

    It would again and again while they go on, and in all of it once more at the end of the process: a fifth of the time of
    `wspace generate`. In a process that has torch already, nothing is different.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def open_run(run: Path, plugins: list[Path] | None) -> Run:
    """A `Run`, which says on the terminal what it does. Raises NotARun."""
    from wspace.runs.finished import stages_of

    stages_of(run)  # torch takes a second to import: what is no run is told before
    with importing():
        from wspace.runs.run import Run
    from wspace.support.progress import for_terminal

    return Run.open(run, plugins or (), for_terminal())


def changes_by(files: Sequence[Path]) -> str:
    """A note, where files that are about to be written need a folder made or replace what is there; else nothing."""
    there = [str(file) for file in files if file.is_file()]
    if there:
        return f"note: {', '.join(there)} {'was there, and is' if len(there) == 1 else 'were there, and are'} replaced"
    missing = next((file.parent for file in files if not file.parent.exists()), None)
    return "" if missing is None else f"note: there is no folder {missing}, so it is made"


def show_section(section: Section, run: Path, as_json: bool = False, *, keep: bool = True) -> None:
    """Print a `Section`, which a command made of a run; with `keep`, it becomes a section of the run's report as well.

    A section of the same `use` is replaced. Studies of the run's tasks are kept; what a user asked of classes or files
    of theirs is printed alone. With `as_json`, one JSON object and nothing else is printed.
    """
    from wspace.runs.finished import write_page
    from wspace.runs.report.table import print_section

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
