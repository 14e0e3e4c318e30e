"""Commands that plugins add to `wspace`, the built-in ones among them: named by import strings, read without importing."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

from wspace.recipes.registry import imported
from wspace.recipes.signature import UnreadableSignature, source_file


@dataclass(frozen=True)
class Command:
    name: str
    target: str  # "package.module:function", or where a `typer.Typer` is
    plugin: str

    def load(self) -> Any:
        """The function, or the Typer of a group. Raises MissingPackage or UserError."""
        return imported(self.target, f"command {self.name!r} of plugin {self.plugin!r}", "function")

    def summary(self) -> str:
        """The first line of the function's docstring, or a Typer's `help`, from the source; why not, if there is none."""
        module, _, name = self.target.partition(":")
        try:
            tree = ast.parse(source_file(module).read_text(encoding="utf-8"))
        except (UnreadableSignature, OSError, SyntaxError, ValueError) as error:
            return f"broken: {error}"
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name == name:
                return (ast.get_docstring(node) or "").partition("\n")[0]
            if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]:
                return _help_of(node.value)
        return f"broken: module {module!r} has no function {name!r}"


def _help_of(value: ast.expr) -> str:
    """Of `typer.Typer(help="...")`."""
    keywords = value.keywords if isinstance(value, ast.Call) else []
    text = next((keyword.value for keyword in keywords if keyword.arg == "help"), None)
    return str(text.value) if isinstance(text, ast.Constant) else ""
