"""Zoos as data: wspace zoo."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from wspace.cli.options import Json, PluginFiles, RunFolder, Settings, registry_of
from wspace.cli.run import bind_recipe

app = typer.Typer(help="Zoos as data: networks with what each was trained for.", no_args_is_help=True)


ZooPlace = Annotated[str, typer.Argument(metavar="ZOO", help="The folder of a zoo, or its address, as https://...")]


OutFolder = Annotated[Path, typer.Option(metavar="DIR", help="Folder to make.")]


Licence = Annotated[str | None, typer.Option(help="As the hub writes it: cc-by-4.0, mit, ...")]


@app.command("import")
def import_zoo(
    source: Annotated[
        Path, typer.Argument(help="A folder of checkpoints, of PEFT adapters, or of what a plugin takes.")
    ],
    out: OutFolder,
    importer: Annotated[
        str | None, typer.Option(help="One of `wspace list importer`; else the one that recognises the folder.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Whose target these are weights of.")] = None,
    name: Annotated[str | None, typer.Option(help="What the zoo is called; else as its folder.")] = None,
    licence: Licence = None,
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", help="Leave out, and name, what is not understood, and import the rest.")
    ] = False,
    settings: Settings = None,
    plugin: PluginFiles = None,
) -> None:
    """Networks that others trained, made into a zoo.

    docs/zoo-format.md says what must lie beside them.
    """
    from wspace.support.files import check_new_folder

    check_new_folder(out)
    target, base_model = None, ""
    if recipe is not None:
        from wspace.runs.workbench import Workbench
        from wspace.support.progress import Progress

        bound = bind_recipe(recipe, settings, plugin)
        built = Workbench(bound, Progress()).target
        target, base_model = (bound.target.told(), built.spec), built.base_model
    from wspace.support.progress import for_terminal
    from wspace.weights.zoo.card import summary
    from wspace.weights.zoo.importing import import_zoo

    chosen = _importer_of(source, importer, registry_of(plugin))
    zoo = import_zoo(
        source,
        out,
        chosen,
        name=name,
        licence=licence or "unknown",
        target=target,
        base_model=base_model,
        skip_unknown=skip_unknown,
        progress=for_terminal(),
    )
    print(summary(zoo))


def _importer_of(source: Path, name: str | None, registry: Any) -> Any:
    """The one that is asked for, or else that recognises the folder; those that cannot be asked are told. Raises UserError."""
    from wspace.recipes.bind import bind_one
    from wspace.recipes.source import parse_recipe
    from wspace.support.errors import DataError, RecipeError, UserError
    from wspace.support.files import check_is_folder
    from wspace.support.names import RUN

    if name is not None:
        block = parse_recipe(name, "--importer").values if name.startswith("{") else {"use": name}
        return bind_one("importer", block, registry, "--importer").build({})
    check_is_folder(source)
    if (source / RUN).is_file():
        raise DataError(f"{source}: is a run; `wspace zoo export` writes its zoo")
    every = {}
    for component in registry.all("importer"):
        try:
            every[component.name] = bind_one("importer", component.name, registry, component.name).build({})
        except UserError as error:  # it needs arguments, or a package
            problems = [problem.message for problem in error.problems] if isinstance(error, RecipeError) else [error]
            why = "; ".join(map(str, problems))
            print(f"note: importer {component.name!r} is not tried ({why}); --importer names it", file=sys.stderr)
    recognising = [name for name, importer in every.items() if importer.recognises(source)]
    if len(recognising) > 1:
        raise UserError(f"{source}: importers {' and '.join(recognising)} recognise it: name one with --importer")
    if not recognising:
        raise DataError(f"{source}: holds no {', and no '.join(importer.takes for importer in every.values())}")
    return every[recognising[0]]


@app.command("info")
def zoo_info(zoo: ZooPlace, as_json: Json = False) -> None:
    """What a zoo holds."""
    from wspace.weights.zoo.card import facts, summary
    from wspace.weights.zoo.format import StoredZoo

    opened = StoredZoo.open(zoo)
    print(json.dumps(facts(opened)) if as_json else summary(opened))


@app.command("verify")
def verify_zoo(zoo: ZooPlace, as_json: Json = False) -> None:
    """Whether every byte of a zoo is as it was written.

    And whether every weight is a finite number.
    """
    from wspace.support.errors import FileError
    from wspace.support.quantities import counted
    from wspace.weights.zoo.format import MOST_PROBLEMS, StoredZoo

    opened = StoredZoo.open(zoo)
    problems = opened.problems()
    if as_json:
        print(json.dumps({"networks": len(opened.entries), "problems": problems}))
    if problems:
        more = len(problems) - MOST_PROBLEMS
        raise FileError("\n".join([*problems[:MOST_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]))
    if not as_json:
        networks, files = counted(len(opened.entries), "network"), counted(len(opened.header.shards), "file")
        print(f"{networks} in {files}: all as they were written")


@app.command("export")
def export_zoo(run: RunFolder, out: OutFolder, licence: Licence = None) -> None:
    """The zoo of a finished run, as a folder of its own with a card."""
    from wspace.runs.artifacts import Zoo
    from wspace.runs.finished import stages_of
    from wspace.weights.zoo.card import summary
    from wspace.weights.zoo.export import export

    zoo = Zoo(run / stages_of(run)["zoo"]).stored
    print(summary(export(zoo.folder, out, licence)))


@app.command("take")
def take_network(
    zoo: ZooPlace,
    network: Annotated[str, typer.Argument(metavar="NAME", help="As the index has it.")],
    out: Annotated[Path, typer.Option(help="File to write; with --peft, folder to make.")],
    peft: Annotated[bool, typer.Option("--peft", help="LoRA adapters, as a folder that PEFT loads.")] = False,
) -> None:
    """One network out of a zoo."""
    from wspace.support.files import check_file, check_new_folder
    from wspace.weights.zoo.export import take

    (check_new_folder if peft else check_file)(out)
    take(zoo, network, out, peft)
    print(out)
