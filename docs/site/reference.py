"""What the API reference lacks: public names that no page shows, and names without a docstring."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import griffe
from mkdocs.exceptions import PluginError

DOORS = ("wspace", "wspace.api", "wspace.testing")
"""The public modules. Every name in their `__all__` is on a page of the reference."""
SHOWN = re.compile(r"^::: (\S+)$", re.M)


def check_reference(root: Path) -> None:
    """Raise PluginError for public names that the reference does not show, shows twice, or that have no docstring."""
    shown = [
        name for page in sorted((root / "docs/reference").glob("*.md")) for name in SHOWN.findall(page.read_text())
    ]
    extensions = griffe.load_extensions(str(Path(__file__).with_name("comments.py")))
    package = griffe.load(
        "wspace", search_paths=[root], try_relative_path=False, extensions=extensions, resolve_aliases=True
    )
    public = [f"{door}.{name}" for door in DOORS for name in _at(package, door).exports or ()]
    problems = [f"{name}: is public, and on no page of docs/reference" for name in public if name not in shown]
    problems += [f"{name}: is twice in docs/reference" for name in sorted(set(shown)) if shown.count(name) > 1]
    problems += [
        f"{name}: has no docstring"
        for shown_name in dict.fromkeys(shown)
        for name in undocumented(_at(package, shown_name))
    ]
    if problems:
        raise PluginError("the API reference is not whole:\n" + "\n".join(problems))


def undocumented(thing: griffe.Object | griffe.Alias) -> Iterator[str]:
    """Names of an object and of its public members that neither they nor a base class of theirs document."""
    if not thing.has_docstring:
        yield thing.path
    if thing.is_class:
        for name, member in thing.members.items():
            bases = [base.members[name] for base in thing.mro() if name in base.members]
            if not name.startswith("_") and not any(one.has_docstring for one in (member, *bases)):
                yield member.path


def _at(package: griffe.Object | griffe.Alias, path: str) -> griffe.Object | griffe.Alias:
    inside = path.split(".")[1:]
    found = package[tuple(inside)] if inside else package
    return found.final_target if isinstance(found, griffe.Alias) else found
