"""Which modules a module is computed with, read from source like everything here: nothing is imported."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from wspace.recipes.signature import UnreadableSignature, source_file
from wspace.support.moved import MOVED, STILL_THERE

CORE = "wspace"
DOOR = "wspace.api"
"""What plugins import from: only the modules that the names come from count, not all that it names."""

DOORS = (CORE, DOOR, "wspace.testing")
"""All that a third party may import from: see docs/stability.md."""

OLD_DOORS = STILL_THERE | MOVED.keys()
"""What it could import from before: each such import has a warning of its own."""

NAMED = 3  # modules that a sentence names; of others it says how many


@dataclass(frozen=True)
class Changes:
    """What became of modules since something was computed with them."""

    edited: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()  # moved, renamed or removed

    def __bool__(self) -> bool:
        return bool(self.edited or self.gone)

    def __str__(self) -> str:
        if self.gone:  # of what is there under the same name little can be said then
            return f"made by code that was moved or removed since ({_few(self.gone)})"
        return f"{_few(self.edited)} changed since"


UNCHANGED = Changes()


def _few(modules: tuple[str, ...]) -> str:
    if len(modules) <= NAMED + 1:
        return ", ".join(modules)
    return f"{', '.join(modules[:NAMED])} and {len(modules) - NAMED} more"


def sources_of(modules: Iterable[str]) -> dict[str, str]:
    """Module -> sha256 of its source: of these, and of all that they import from wspace and from their own packages.

    Imports inside functions count; those for type checkers alone, and packages passed through on the way, do not. Raises
    UnreadableSignature for one of `modules` that is not there.
    """
    waiting = list(modules)
    tops = {CORE, *(module.partition(".")[0] for module in waiting)}
    sources: dict[str, str] = {}
    for module in waiting:
        file = _file_of(module)
        if file is None:
            source_file(module)  # says what is the matter
            continue
        sources[module] = _digest(file)
        waiting += [name for name in _imported(module, file, sources[module], frozenset(tops)) if name not in waiting]
    return dict(sorted(sources.items()))


def changes(sources: Mapping[str, str]) -> Changes:
    """What `sources_of` said, against what is there now. Only the files of these modules are read."""
    files = {module: _file_of(module) for module in sources}
    gone = tuple(module for module, file in files.items() if file is None)
    edited = tuple(module for module, file in files.items() if file is not None and _digest(file) != sources[module])
    return Changes(edited, gone)


def behind_the_doors(module: str) -> tuple[str, ...]:
    """What a module imports from wspace past its doors, those for type checkers left out; nothing of wspace's own modules.

    Raises UnreadableSignature for a module that is not there.
    """
    file = source_file(module)
    if module.partition(".")[0] == CORE:
        return ()
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    private: dict[str, None] = {}
    for whence, name in _imports(ast.parse(file.read_bytes()), package):
        whole = whence if name is None or whence in DOORS[1:] else f"{whence}.{name}"
        if whence == CORE and _file_of(whole) is None:  # a name of the light door
            continue
        if whole.partition(".")[0] == CORE and whole not in DOORS and whence not in OLD_DOORS:
            private[whole] = None
    return tuple(private)


def _file_of(module: str) -> Path | None:
    """Its source, found from that of its top-level package, so that no package between them is imported."""
    top, *inner = module.split(".")
    try:
        root = source_file(top)
    except UnreadableSignature:
        root = None
    if root is None or root.name != "__init__.py":  # one file, or a package that is spread over folders
        try:
            return source_file(module)
        except UnreadableSignature:
            return None
    place = root.parent.joinpath(*inner)
    candidates = (place.with_suffix(".py"), place / "__init__.py") if inner else (root,)
    return next((file for file in candidates if file.is_file()), None)


def _digest(file: Path) -> str:
    state = file.stat()
    return _digest_at(file, state.st_mtime_ns, state.st_size)


@cache
def _digest_at(file: Path, modified: int, size: int) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@cache
def _imported(module: str, file: Path, digest: str, tops: frozenset[str]) -> tuple[str, ...]:
    """Modules of these top-level packages that a module of this content imports."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    imported: dict[str, None] = {}
    for whence, name in _imports(ast.parse(file.read_bytes()), package):
        if whence.partition(".")[0] in tops:
            imported |= dict.fromkeys(_resolved(whence, name))
    return tuple(name for name in imported if name not in (CORE, DOOR))


def _resolved(module: str, name: str | None) -> Iterator[str]:
    """The module that `from module import name` takes it from."""
    if name is None:
        yield module
    elif _file_of(f"{module}.{name}") is not None:
        yield f"{module}.{name}"
    elif module == DOOR:
        door = _file_of(DOOR)
        assert door is not None
        behind = _imports(ast.parse(door.read_bytes()), CORE)
        yield from (whence for whence, offered in behind if offered == name)
    else:
        yield module


def _imports(tree: ast.AST, package: str) -> Iterator[tuple[str, str | None]]:
    """(module, name) of every `from module import name`, (module, None) of every `import module`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((module, alias.name) for alias in node.names)
        else:
            yield from _imports(node, package)
