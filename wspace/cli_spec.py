"""The command that prints what a module's hidden units are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer()


@app.command()
def spec(
    model: Annotated[str, typer.Argument(help="A model of timm.")],
    shape: Annotated[str, typer.Option("--input", help="Of one picture, channels first.")] = "3x64x64",
    arguments: Annotated[
        list[str] | None, typer.Option("--arg", metavar="NAME=VALUE", help="For timm.create_model: depth=2.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """The axes of a model's tensors, inferred by tracing it, and the proof that permuting them changes nothing."""
    from wspace.errors import UserError

    sizes = shape.split("x")
    if len(sizes) != 3 or not all(size.isdecimal() and int(size) for size in sizes):
        raise UserError(f"--input: {shape!r} is no size of a picture, such as 3x64x64")

    import torch

    from wspace.module_proof import module_error, prove_module
    from wspace.proof import TOLERANCE
    from wspace.spec_file import spec_text, write_spec
    from wspace.tracing import infer

    network = _timm(model, arguments or [])
    pictures = torch.zeros(2, *map(int, sizes))
    said = infer(network, pictures)
    error = module_error(network, said, (pictures,), torch.Generator().manual_seed(0))
    if not error < TOLERANCE:
        prove_module(network, said, (pictures,), torch.Generator().manual_seed(0))  # which says what is wrong
    if out is not None:
        write_spec(out, said)
    if as_json:
        print(json.dumps({"tensors": said.axes, "free": said.free, "notes": said.notes, "error": error}))
        return
    print(out if out is not None else spec_text(said), end="\n" if out is not None else "")
    print(f"# proven: permuting all {len(said.free)} free axes changes the outputs by {error:.1e} of the largest")


def _timm(name: str, arguments: list[str]) -> Any:
    import timm
    from ruamel.yaml import YAML

    from wspace.errors import UnknownComponent, UserError, nearest, reason

    if not timm.is_model(name):
        raise UnknownComponent(f"timm has no model {name!r}{nearest(name, timm.list_models())}")
    options = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise UserError(f"--arg: {argument!r} is not NAME=VALUE")
        options[key] = YAML(typ="safe").load(value)
    try:
        return timm.create_model(name, **options)
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        raise UserError(f"timm cannot make {name}: {reason(error)}") from error
