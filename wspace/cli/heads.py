"""Weights for a list of class names: generate, score, predict."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wspace.cli.options import Json, PluginFiles, RunFolder, changes_by, open_run
from wspace.support.classes import classes_of


def generate(
    run: RunFolder,
    classes: Annotated[str, typer.Option(help='Class names, separated by commas: "book, camera, umbrella".')],
    out: Annotated[
        Path | None,
        typer.Option(help="File to write, else head.safetensors; with --count, numbered; with --peft, a folder."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many to draw.")] = 1,
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps.")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, help="Strength of the condition; 1 is as trained.")] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Scale of the random draws; 0: the typical one.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="A folder with a sub-folder of pictures for some or all of the classes.")
    ] = None,
    unlabelled: Annotated[
        Path | None, typer.Option(help="A folder of pictures as those to be named; what they show need not be known.")
    ] = None,
    as_json: Json = False,
    peft: Annotated[bool, typer.Option("--peft", help="LoRA adapters, as folders that PEFT loads.")] = False,
    plugin: PluginFiles = None,
) -> None:
    """Weights for a list of class names.

    What they are worth for classes that the run was not trained on is said with them, as far as the report knows.
    """
    from wspace.support.errors import UserError
    from wspace.support.files import check_file, check_is_folder, check_new_folder

    out = out or Path("adapter" if peft else "head.safetensors")
    if not out.name:
        raise UserError(f"--out {out}: name a {'folder to make' if peft else 'file to write'}")
    files = [out] if count == 1 else [out.with_stem(f"{out.stem}-{number + 1}") for number in range(count)]
    for file in files:
        (check_new_folder if peft else check_file)(file)
    names, replaced, note = classes_of(classes), [str(file) for file in files if file.is_file()], changes_by(files)
    for folder in (pictures, unlabelled):
        if folder is not None:
            check_is_folder(folder)
    opened = open_run(run, plugin)
    shown, unnamed = {}, []
    if pictures or unlabelled:
        from wspace.data.examples import examples_of, pictures_in

        shown, left_out = examples_of(pictures, names) if pictures else ({}, [])
        unnamed = pictures_in(unlabelled) if unlabelled else []
        for sentence in left_out:
            opened.bench.progress.say(f"note: {sentence}")
    networks = opened.generate_many(
        names,
        count,
        pictures=shown,
        unlabelled=unnamed,
        seed=seed,
        steps=steps,
        guidance=guidance,
        temperature=temperature,
    )
    # before a file is written: it may be refused
    expected = opened.expected_accuracy(names) if networks[0].as_scored else None
    if note:
        opened.bench.progress.say(note)
    if not peft and out.suffix not in ("", ".safetensors"):
        opened.bench.progress.say(f"note: {out} holds safetensors, whatever its name says")
    for network, file in zip(networks, files, strict=True):
        if peft:
            opened.save_adapter(network, file)
        else:
            network.save(file)
        if not as_json:
            print(file)
    if as_json:
        standings = [asdict(standing) for standing in opened.standings(names)]
        about = {"files": [str(file) for file in files], "replaced": replaced, "classes": standings}
        print(json.dumps(about | {"expected_accuracy": None if expected is None else asdict(expected)}))
    elif expected is not None:
        opened.bench.progress.say(
            f"expected accuracy {expected.mean:.0%}; {expected.confidence:.0%} of such tasks are between {expected.low:.0%} "
            f"and {expected.high:.0%}"
            + (f"; this is a guess: the report scores no task of {len(names)} classes" if expected.guessed else "")
        )


def score(run: RunFolder, head: Path, as_json: Json = False, plugin: PluginFiles = None) -> None:
    """Accuracy of weights on the test images of their classes."""
    from wspace.support.files import check_is_file
    from wspace.support.quantities import counted

    check_is_file(head)
    opened = open_run(run, plugin)
    result = opened.score(opened.load_network(head))
    if as_json:
        print(json.dumps(result))
    else:
        images = counted(result["images"], "image")
        print(
            f"{result['accuracy']:.1%} of {images} of {len(result['classes'])} classes named right; by chance "
            f"{result['chance']:.0%}"
        )


def predict(run: RunFolder, head: Path, images: list[Path], as_json: Json = False, plugin: PluginFiles = None) -> None:
    """The class that weights see in each picture, and how sure.

    How sure they are is the network's own and not calibrated.
    """
    from wspace.support.files import check_is_file

    for file in (head, *images):
        check_is_file(file)
    opened = open_run(run, plugin)
    predictions = opened.predict(opened.load_network(head), images)
    if as_json:
        print(json.dumps({"predictions": [p.as_json() for p in predictions]}))
    else:
        for p in predictions:
            print(f"{p.picture}: {p.best} ({max(p.probabilities):.0%})")
        opened.bench.progress.say("note: percentages are the weights' own, and not calibrated")
