"""A plugin to begin with: the one of docs/example-plugin, under another name."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

from wspace.recipes.plugins import load_plugins
from wspace.support.errors import FileError, UserError
from wspace.support.files import check_place

PACKAGE = Path(__file__).parent.parent
PACKAGED = PACKAGE / "_example_plugin"  # where an installed wspace keeps it
SOURCE = PACKAGE.parent / "docs" / "example-plugin"  # in a checkout
PARTS = ("pyproject.toml", "README.md", "src/*/*.py", "tests/*.py")
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def new_plugin(name: str, dest: Path) -> Path:
    """Write `dest`/wspace-NAME, and return it. Raises UserError for a name that will not do, FileError for a folder."""
    name = name.removeprefix("wspace-")
    if not NAME.fullmatch(name):
        raise UserError(
            f"{name!r} cannot be the name of a plugin: use small letters, digits and single hyphens, as in 'my-plugin'"
        )
    for fact in load_plugins().facts:
        if fact.name == name:
            raise UserError(f"there is a plugin {name!r} already ({fact.source}): choose another name")
    folder = dest / f"wspace-{name}"
    check_place(folder)
    if not dest.is_dir():
        raise FileError(f"{dest}: no such folder")
    if folder.exists():
        raise FileError(f"{folder}: is there already; choose another name, or another folder with --dest")
    template = PACKAGED if PACKAGED.is_dir() else SOURCE
    try:
        for part in PARTS:
            for source in sorted(template.glob(part)):
                file = folder / renamed(str(source.relative_to(template)), name)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(renamed(source.read_text(encoding="utf-8"), name), encoding="utf-8")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise FileError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return folder


def renamed(text: str, name: str) -> str:
    """With the plugin's name in place of `example`, but for the argument of `register` that is called so."""
    module = f"wspace_{name.replace('-', '_')}"
    return re.sub(r"(wspace_)?example(?!=)", lambda match: module if match[1] else name, text)


def next_commands(folder: Path) -> list[str]:
    """Install it, test it, run something with it: as `uv run` has it, if that is where we are."""
    name = folder.name.removeprefix("wspace-")
    install, run = (["uv", "pip"], ["uv", "run"]) if "UV_RUN_RECURSION_DEPTH" in os.environ else (["pip"], [])
    commands = [
        [*install, "install", "-e", str(folder)],
        [*run, "pytest", str(folder)],
        [*run, "wspace", "run", "nano", "--set", f"generator.denoiser={name}-mixer"],
    ]
    return [shlex.join(command) for command in commands]
