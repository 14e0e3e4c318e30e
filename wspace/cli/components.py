"""What there is to build recipes of: list, show, plugins, new-plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wspace.cli.options import PluginFiles, registry_of


def list_components(
    kind: Annotated[str | None, typer.Argument(help="A kind; all of them if none.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="All about all of them: docs/components.md.")] = False,
    plugin: PluginFiles = None,
) -> None:
    """The components there are."""
    from wspace.recipes.registry import KINDS
    from wspace.recipes.signature import UnreadableSignature, signature_of
    from wspace.support.errors import UnknownComponent, UserError, did_you_mean
    from wspace.support.terminal import beside

    if kind is not None and kind not in KINDS:
        raise UnknownComponent(f"no kind {kind!r}.{did_you_mean(kind, list(KINDS))}")
    registry = registry_of(plugin)
    if markdown:
        from wspace.recipes.catalogue import page

        if kind is not None:
            raise UserError("list --markdown: the page is about every kind; leave the kind out")
        print(page(registry), end="")
        return
    for component in registry.all(kind):
        try:
            summary = signature_of(component).doc.partition("\n")[0]
        except UnreadableSignature as error:
            summary = f"broken: {error}"
        print(beside(f"{component.kind:12} {component.name:16} {component.plugin:8} ", summary))


def show(kind: str, name: str, plugin: PluginFiles = None) -> None:
    """A component: its parameters, its papers, and an example.

    Parameters with their bounds and defaults, the papers it follows, and where it is.
    """
    from wspace.recipes.catalogue import described
    from wspace.recipes.signature import UnreadableSignature
    from wspace.support.errors import UserError

    component = registry_of(plugin).get(kind, name)
    try:
        print(described(component), end="")
    except UnreadableSignature as error:
        raise UserError(f"{kind} {name!r} is broken: {error}") from error


def plugins(plugin: PluginFiles = None) -> None:
    """The plugins that were found, and what became of them."""
    from wspace.recipes.plugins import load_plugins
    from wspace.support.terminal import beside

    for fact in load_plugins(plugin or ()).facts:
        print(beside(f"{fact.name:12} {fact.source:20} ", fact.state))


def new_plugin(
    name: Annotated[str, typer.Argument(help="Small letters, digits and hyphens: my-plugin.")],
    dest: Annotated[Path, typer.Option(metavar="DIR", help="Where its folder goes.")] = Path("."),
) -> None:
    """Write a plugin to begin with: components and their tests.

    It is a package with a denoiser, a target and their tests.
    """
    from wspace.recipes.new_plugin import new_plugin as write
    from wspace.recipes.new_plugin import next_commands

    folder = write(name, dest)
    print(folder, "", *(f"  {command}" for command in next_commands(folder)), sep="\n")
