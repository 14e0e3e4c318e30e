"""Weights as files for programs other than wspace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wspace.cli.options import Json, PluginFiles, RunFolder, changes_by, open_run

if TYPE_CHECKING:
    from wspace.runs.exporting import Exported


def export(
    run: RunFolder,
    weights: Annotated[Path, typer.Argument(help="A file of `wspace generate`.")],
    to: Annotated[
        str,
        typer.Option(help="onnx, torch, huggingface, timm, transformers, or one of a plugin: `wspace list exporter`."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write, or folder to make; else beside the weights, as these and a --precision are called."
        ),
    ] = None,
    precision: Annotated[str, typer.Option(help="Of the numbers in the file: float32, float16 or int8.")] = "float32",
    as_json: Json = False,
    plugin: PluginFiles = None,
) -> None:
    """Weights with their backbone, for programs other than wspace.

    A file or a folder: pixels in, class probabilities out. What was written is tried on test pictures, and what it costs in
    accuracy is said.
    """
    from wspace.recipes.source import parse_recipe
    from wspace.support.errors import UserError
    from wspace.support.files import check_is_file

    check_is_file(weights)
    opened = open_run(run, plugin)
    block: dict[str, Any] = parse_recipe(to, "--to").values if to.startswith("{") else {"use": to}
    network = opened.load_network(weights)
    if out is None:
        exporter = opened.exporter(block)
        usual = precision == exporter.precisions[0]
        called = weights if usual else weights.with_stem(f"{weights.stem}-{precision}")
        out = exporter.beside(called, block["use"])
    if out.exists() and out.samefile(weights):
        raise UserError(f"--out {out}: this is the file of the weights; name another for what is made of them")
    replaced, note = out.is_file(), changes_by([out])
    exported = opened.export(network, block, out, precision=precision)
    if as_json:
        print(json.dumps(exported.as_json() | {"replaced": replaced}, ensure_ascii=False))
        return
    print(exported.out)
    for line in _told(exported):
        opened.bench.progress.say(line)
    if note:
        opened.bench.progress.say(note)


def _told(exported: Exported) -> list[str]:
    from wspace.support.quantities import counted

    lines = [
        f"{exported.bytes / 1e6:.1f} MB: {len(exported.classes)} classes, pictures of {exported.side} x {exported.side}, "
        f"{exported.precision}",
        f"tried on {counted(exported.pictures, 'test picture')}: the same class on {exported.same}, probabilities within "
        f"{exported.difference:.1g}",
    ]
    if exported.accuracy is not None and exported.network_accuracy is not None:
        lost = exported.network_accuracy - exported.accuracy
        cost = (
            "as the network itself"
            if not lost
            else f"{abs(lost):.1%} {'less' if lost > 0 else 'more'} than the network"
        )
        lines.append(
            f"accuracy {exported.accuracy:.1%} on {counted(exported.scored, 'test picture')} of its classes, {cost}"
        )
    else:
        lines.append("no accuracy: the data set has no test pictures of its classes")
    return lines
