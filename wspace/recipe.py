"""Recipe files: YAML 1.2 to a mapping that knows its line numbers, `--set` applied; and back to YAML."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from wspace.errors import FileError, Problem, RecipeError, UserError, did_you_mean

RECIPES = Path(__file__).parent / "_recipes"  # where an installed wspace keeps the recipes that come with it
SOURCE_RECIPES = Path(__file__).parent.parent / "recipes"  # in a checkout


@dataclass
class Source:
    """A recipe as read: plain values, and the line each key was written on."""

    file: str
    values: dict[str, Any]
    lines: dict[tuple[str | int, ...], int | None] = field(default_factory=dict)

    def line(self, path: Sequence[str | int]) -> int | None:
        """The line of a key, or of the nearest enclosing one."""
        for end in range(len(path), 0, -1):
            if tuple(path[:end]) in self.lines:
                return self.lines[tuple(path[:end])]
        return None


def packaged_recipes() -> dict[str, Path]:
    """Name -> file of the recipes that come with wspace: 't2w', 'paper/t2w-cifar100'."""
    folder = RECIPES if RECIPES.is_dir() else SOURCE_RECIPES
    return {str(f.relative_to(folder).with_suffix("")): f for f in sorted(folder.rglob("*.yaml"))}


def find_recipe(recipe: str) -> Path:
    """A path, or the name of a packaged recipe. Raises FileError."""
    if Path(recipe).is_file():
        return Path(recipe)
    known = packaged_recipes()
    name = recipe.removesuffix(".yaml").removeprefix("recipes/")
    if name in known:
        return known[name]
    raise FileError(f"{recipe}: no such file, and no packaged recipe of that name.{did_you_mean(name, list(known))}")


def read_recipe(file: Path, settings: Sequence[str] = ()) -> Source:
    """Read a recipe and apply `--set PATH=VALUE`s.

    Raises RecipeError for YAML that cannot be read, FileError for a file that cannot.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{file}: cannot be read: {error}") from error
    source = parse_recipe(text, str(file))
    for setting in sorted(settings, key=lambda setting: ".use=" not in setting):  # a new `use` drops the old arguments
        _set(source, setting)
    return source


def parse_recipe(text: str, file: str) -> Source:
    yaml = YAML(typ="rt", pure=True)
    try:
        loaded = yaml.load(text)
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        key = str(error.problem).split('"')[1] if '"' in str(error.problem) else "?"
        raise RecipeError(file, [Problem(line, key, "this key is written twice")]) from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise RecipeError(file, [Problem(line, "", f"not YAML: {error.problem}")]) from error
    except YAMLError as error:
        raise RecipeError(file, [Problem(None, "", f"not YAML: {error}")]) from error
    if loaded is None:
        raise RecipeError(file, [Problem(None, "", "the recipe is empty")])
    if not isinstance(loaded, Mapping):
        raise RecipeError(file, [Problem(1, "", "a recipe is a mapping of keys to values")])
    source = Source(file, {})
    source.values = _plain(loaded, (), source.lines)
    return source


def _plain(node: Any, path: tuple[str | int, ...], lines: dict[tuple[str | int, ...], int | None]) -> Any:
    if isinstance(node, Mapping):
        for key in node:
            lines[*path, str(key)] = node.lc.key(key)[0] + 1
        return {str(key): _plain(value, (*path, str(key)), lines) for key, value in node.items()}
    if isinstance(node, list):
        for index in range(len(node)):
            lines[*path, index] = node.lc.item(index)[0] + 1
        return [_plain(value, (*path, index), lines) for index, value in enumerate(node)]
    for plain in (bool, int, float, str):  # ruamel's scalars remember their spelling; we do not need it
        if isinstance(node, plain):
            return plain(node)
    return node


def _set(source: Source, setting: str) -> None:
    path, equals, text = setting.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UserError(f"--set {setting}: expected PATH=VALUE, as in --set train.steps=500")
    try:
        value = _plain(YAML(typ="rt", pure=True).load(text), (), {})
    except YAMLError as error:
        raise UserError(f"--set {setting}: the value is not YAML") from error
    node = source.values
    for key in keys[:-1]:
        inner = node.get(key)
        node[key] = {"use": inner} if isinstance(inner, str) else inner if isinstance(inner, dict) else {}
        node = node[key]
    if keys[-1] == "use":
        node.clear()
    node[keys[-1]] = value
    prefix = tuple(keys)
    source.lines = {k: line for k, line in source.lines.items() if k[: len(prefix)] != prefix}
    source.lines[prefix] = None


def dump(values: Mapping[str, Any]) -> str:
    """YAML that `read_recipe` reads back to the same values."""
    yaml = YAML(typ="rt", pure=True)
    yaml.default_flow_style = None
    yaml.width = 110
    stream = io.StringIO()
    yaml.dump(dict(values), stream)
    return stream.getvalue()
