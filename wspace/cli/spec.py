"""The command that prints what a module's hidden units are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def spec(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="A model of timm, or several.")],
    shape: Annotated[
        str | None, typer.Option("--input", metavar="CxHxW", help="Of one picture, such as 3x64x64; else the model's.")
    ] = None,
    arguments: Annotated[
        list[str] | None, typer.Option("--arg", metavar="NAME=VALUE", help="For timm.create_model: depth=2.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """The axes of a model's tensors, inferred by tracing it.

    With the proof. Of several models, it is a table of Markdown.
    """
    from wspace.support.errors import UserError
    from wspace.support.files import check_file
    from wspace.weights.tracing.spec_file import spec_text, write_spec

    if len(models) > 1 and (out is not None or as_json):
        raise UserError("--out and --json: name one model")
    if out is not None:
        check_file(out)
    if len(models) > 1:
        print(
            "| model | tensors | free axes | their units | error | CPU to infer | CPU to prove |\n|---|---|---|---|---|---|---|"
        )
        notes = list[str]()
        for model in models:
            proven, units, error, (inferring, proving) = _proven(model, shape, arguments or [])
            seconds = f"{inferring:.1f} s | {proving:.1f} s"
            counts = f"{len(proven.axes)} | {len(proven.free)} | {units} | {error:.1e} | {seconds}"
            print(f"| {model} | {counts} |", flush=True)
            notes += [f"{model}: {note}" for note in proven.notes]
        if notes:
            print("", *notes, sep="\n")
        return
    proven, _, error, _ = _proven(models[0], shape, arguments or [])
    if out is not None:
        write_spec(out, proven)
    if as_json:
        print(json.dumps({"tensors": proven.axes, "free": proven.free, "notes": proven.notes, "error": error}))
        return
    print(out if out is not None else spec_text(proven), end="\n" if out is not None else "")
    if not proven.free:
        print("# no axis is free, so there is nothing to prove")
    else:
        axes = "the only free axis" if len(proven.free) == 1 else f"all {len(proven.free)} free axes"
        print(f"# proven: permuting {axes} changes the outputs by {error:.1e} of the largest")


def _proven(model: str, shape: str | None, arguments: list[str]) -> tuple[Any, int, float, tuple[float, float]]:
    """What was inferred, how many units are free, the error of the proof, and processor seconds to infer and to prove."""
    import time

    import torch

    from wspace.support.progress import for_terminal
    from wspace.weights.tracing.infer import infer
    from wspace.weights.tracing.module_proof import prove_module

    progress = for_terminal()
    sizes = None if shape is None else _sizes(shape)
    network = _timm(model, arguments)
    pictures = torch.zeros(2, *(sizes or network.pretrained_cfg.get("input_size") or (3, 224, 224)))
    start = time.process_time()
    with progress.bar("tracing", 1) as bar:
        inferred = infer(network, pictures)
        bar.advance()
    inferring, start = time.process_time() - start, time.process_time()
    error = prove_module(network, inferred, [pictures[:1]], torch.Generator().manual_seed(0), progress)
    proving, whole = time.process_time() - start, inferred.spec(network)
    return inferred, sum(whole.axis_size(axis) for axis in inferred.free), error, (inferring, proving)


def _sizes(shape: str) -> list[int]:
    from wspace.support.errors import UserError

    sizes = shape.split("x")
    if len(sizes) != 3 or not all(size.isdecimal() and int(size) for size in sizes):
        raise UserError(f"--input: {shape!r} is no size of a picture, such as 3x64x64")
    return [int(size) for size in sizes]


def _timm(name: str, arguments: list[str]) -> Any:
    import timm

    from wspace.recipes.source import read_value
    from wspace.support.errors import UnknownComponent, UserError, nearest, reason

    if not timm.is_model(name):
        raise UnknownComponent(f"timm has no model {name!r}{nearest(name, timm.list_models())}")
    options = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise UserError(f"--arg: {argument!r} is not NAME=VALUE")
        options[key] = read_value(value, "--arg", key)
    try:
        return timm.create_model(name, **options)
    except Exception as error:  # of a model's own code, of any kind
        raise UserError(f"timm cannot make {name}: {reason(error)}") from error
