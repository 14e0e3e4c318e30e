"""A page and a JSON API for a finished run. The command is named as a string, so that adding it imports no gradio."""

from __future__ import annotations

from wspace import AddCommand, hookimpl

PLUGIN_API = 1


@hookimpl
def wspace_commands(add: AddCommand) -> None:
    add("serve", "wspace_serve.command:serve")
