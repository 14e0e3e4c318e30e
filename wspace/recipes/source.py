"""Recipe files: YAML 1.2 to a mapping that knows its line numbers, `--set` applied; and back to YAML."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean

from wspace.support.errors import FileError, Problem, RecipeError, Renamed, UserError, nearest
from wspace.support.names import RECIPE
from wspace.support.yaml import load

PACKAGE = Path(__file__).parent.parent
RECIPES = PACKAGE / "_recipes"  # where an installed wspace keeps the recipes that come with it
SOURCE_RECIPES = PACKAGE.parent / "recipes"  # in a checkout
RENAMED = {"texts": "wording"}
"""Keys of a recipe that have another name now: the old one is taken until wspace 0.3, with a note."""

MOST_TEXT = 50_000
"""Characters of a recipe. Those that come with wspace have under 3,000."""

NOT_BARE = ("'", '"', "|", ">", "!", "*")
"""What a YAML scalar begins with that is not written as it is."""

Lines = dict[tuple[str | int, ...], int | str | None]
"""Path of a key -> its line; "--set" if that is where it is from."""


@dataclass
class Source:
    """A recipe as read: plain values, and the line each key was written on."""

    file: str
    values: dict[str, Any]
    lines: Lines = field(default_factory=dict)

    def line(self, path: Sequence[str | int]) -> int | str | None:
        """The line of a key, or of the nearest enclosing one; "--set" of one that was set there."""
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
    with suppress(OSError):  # too long for a file name, or in a folder that is not ours to look into
        if Path(recipe).is_file():
            return Path(recipe)
    packaged = packaged_recipes()
    name = recipe.removesuffix(".yaml").removeprefix("recipes/")
    if name in packaged:
        return packaged[name]
    if os.path.isdir(recipe):  # which a name too long for a file is not
        inside = Path(recipe) / RECIPE
        way_out = f"its recipe is {inside}" if inside.is_file() else "`wspace new-recipe` writes one for pictures in it"
        raise FileError(f"{recipe}: is a folder, not a recipe; {way_out}")
    hint = f"{nearest(name, list(packaged)) or ';'} `wspace ls` has all there are"
    raise FileError(f"{recipe}: no such file, and no packaged recipe of that name{hint}")


def read_recipe(file: Path, settings: Sequence[str] = ()) -> Source:
    """Read a recipe and apply `--set PATH=VALUE`s.

    Raises RecipeError for YAML that cannot be read, FileError for a file that cannot.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{file}: cannot be read: {error}") from error
    source = parse_recipe(text, str(file))
    change(source, settings)
    return source


def change(source: Source, settings: Sequence[str]) -> None:
    """Apply `--set PATH=VALUE`s to a recipe that was read. Raises UserError for one that is not of this form."""
    _set_all(source, [_setting(setting) for setting in settings])


def apply(source: Source, settings: Mapping[str, Any]) -> None:
    """`--set`s that are values already: dotted path -> value."""
    _set_all(source, [(path.split("."), value) for path, value in settings.items()])


def _set_all(source: Source, settings: Sequence[tuple[list[str], Any]]) -> None:
    settings = [(_new_key(keys, settings), value) for keys, value in settings]
    for keys, value in sorted(settings, key=_outer_first):
        _set(source, keys, value)


def _new_key(keys: list[str], settings: Sequence[tuple[list[str], Any]]) -> list[str]:
    """Of a setting, under its new name, with a note. Raises UserError where others set it by the new one."""
    if keys[0] not in RENAMED:
        return keys
    old, new = keys[0], RENAMED[keys[0]]
    if any(others[0] == new for others, _ in settings):
        raise UserError(f"{old} is the old name of {new}, which is set as well; set {new} alone")
    warnings.warn(f"{'.'.join(keys)}: {old} is now called {new}; write that", Renamed, stacklevel=3)
    return [new, *keys[1:]]


def parse_recipe(text: str, file: str) -> Source:
    try:
        values, lines = _read(text)
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        key = str(error.problem).split('"')[1] if '"' in str(error.problem) else "?"
        raise RecipeError(file, [Problem(line, key, "this key is written twice")]) from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise RecipeError(file, [Problem(line, "", f"not YAML: {error.problem}")]) from error
    except YAMLError as error:
        raise RecipeError(file, [Problem(None, "", f"not YAML: {error}")]) from error
    if values is None:
        raise RecipeError(file, [Problem(None, "", "the recipe is empty")])
    if not isinstance(values, dict):
        raise RecipeError(file, [Problem(1, "", "a recipe is a mapping of keys to values")])
    source = Source(file, deepcopy(values), dict(lines))
    _with_new_keys(source)
    return source


@lru_cache(maxsize=16)
def _read(text: str) -> tuple[Any, Lines]:
    """Values, plain, and their lines; not to be changed. One text is asked for several times, by a study or a page."""
    lines: Lines = {}
    return _plain(load(text, MOST_TEXT, with_lines=True), (), lines), lines


def _with_new_keys(source: Source) -> None:
    """Keys under their new names, with a note on each. Raises RecipeError where old and new are both there."""
    for old, new in RENAMED.items():
        if old not in source.values:
            continue
        line = source.line((old,))
        if new in source.values:
            raise RecipeError(source.file, [Problem(line, old, f"is the old name of {new}, which is here as well")])
        warnings.warn(Problem(line, old, f"is now called {new}; write that").text(source.file), Renamed, stacklevel=2)
        source.values = {new if key == old else key: value for key, value in source.values.items()}
        source.lines = {(new, *k[1:]) if k[:1] == (old,) else k: line for k, line in source.lines.items()}


def read_value(text: str, option: str, name: str) -> Any:
    """The value of `OPTION NAME=TEXT`: in YAML, but a line of bare text is what it is, with any `#` in it.

    Raises UserError for what is not YAML.
    """
    try:
        value, text = _plain(load(text, MOST_TEXT, with_lines=True), (), {}), text.strip()
    except YAMLError as error:
        way_out = f"text that YAML cannot read goes in quotes: {name}='...'"
        raise UserError(f"{option} {name}={text}: the value is not YAML; {way_out}") from error
    is_scalar, is_bare = not isinstance(value, dict | list), not text.startswith(NOT_BARE) and "\n" not in text
    # to YAML the rest after a `#` is a comment, which nobody writes here, and a leading `&word` a name for the value
    return text if is_scalar and is_bare and ("#" in text or isinstance(value, str)) else value


def _plain(node: Any, path: tuple[str | int, ...], lines: Lines) -> Any:
    if isinstance(node, CommentedMap):
        for key in node:
            if key in (node.lc.data or {}):  # not merged in from elsewhere by `<<`
                lines[*path, str(key)] = node.lc.key(key)[0] + 1
        return {str(key): _plain(value, (*path, str(key)), lines) for key, value in node.items()}
    if isinstance(node, CommentedSeq):
        for index in node.lc.data or ():  # none of a list with a tag
            lines[*path, index] = node.lc.item(index)[0] + 1
        return [_plain(value, (*path, index), lines) for index, value in enumerate(node)]
    if isinstance(node, ScalarBoolean):  # a bool with an anchor: an int to Python
        return bool(node)
    for plain in (bool, int, float, str):  # ruamel's scalars remember their spelling; we do not need it
        if isinstance(node, plain):
            return plain(node)
    return node


def _setting(setting: str) -> tuple[list[str], Any]:
    """The keys and the value of a `--set`."""
    path, equals, text = setting.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UserError(f"--set {setting}: expected PATH=VALUE, as in --set train.steps=500")
    return keys, read_value(text, "--set", path)


def _outer_first(setting: tuple[list[str], Any]) -> tuple[int, bool]:
    """The order of `--set`s, however they were written: a new `use` drops old arguments, not those also set."""
    keys, _ = setting
    return len(keys), keys[-1] != "use"


def _set(source: Source, keys: Sequence[str], value: Any) -> None:
    node = source.values
    for key in keys[:-1]:
        inner = node.get(key)
        node[key] = {"use": inner} if isinstance(inner, str) else inner if isinstance(inner, dict) else {}
        node = node[key]
    prefix = tuple(keys)
    if keys[-1] == "use" and node.get("use") != value:
        node.clear()
        prefix = prefix[:-1]
    node[keys[-1]] = value
    source.lines = {k: line for k, line in source.lines.items() if k[: len(prefix)] != prefix}
    source.lines[prefix] = "--set"
