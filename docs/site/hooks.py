"""The site's pages from outside docs/, and links that lead to the same place on the repository's host and on the site.

Pages link to files of the repository by relative paths, as the host wants them. Here such a link becomes one to a page of
the site: the root's Markdown files are pages of their own, and any other file or folder that is linked gets a page with
its text. A notebook is a page of its text and its code.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
from reference import check_reference

ROOT = Path(__file__).parents[2]
ROOT_PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
"""File of the repository's root -> page of the site."""
NOTEBOOKS = "notebooks"
"""Folder of the notebooks, and of their pages."""
LISTINGS = "repository"
"""Folder of the pages that show a file or a folder of the repository."""
LANGUAGES = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".md": "markdown", ".csv": "text"}
"""Files shown of a linked folder, by suffix."""

FENCE_OR_LINK = re.compile(
    r"^(?P<fence>`{3,}).*?^(?P=fence)$|\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)", re.M | re.S
)
NAMED_FENCE = re.compile(r"^```(?P<language>\w+) (?P<file>[\w./-]+)$", re.M)
FOREIGN = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^"'\s>]*""")


def on_pre_build(config: MkDocsConfig) -> None:
    """Refuse to build an API reference that is not whole."""
    check_reference(ROOT)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the root's pages, and a listing of whatever else a page links to."""
    for source, page in ROOT_PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    for notebook in sorted((ROOT / "docs" / NOTEBOOKS).glob("*.ipynb")):
        files.append(
            File.generated(config, page_of(f"docs/{NOTEBOOKS}/{notebook.name}"), content=notebook_page(notebook))
        )
    pages = {source_of(file.src_uri): file.content_string for file in files.documentation_pages()}
    linked = {target for source, text in pages.items() for target in links_of(text, source)}
    for target in sorted(linked):
        if page_of(target).startswith(f"{LISTINGS}/"):
            files.append(File.generated(config, page_of(target), content=listing(target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository into links to pages; a fence's file name into its title."""
    here = page.file.src_uri
    if here.startswith(f"{LISTINGS}/"):
        return markdown

    def to_page(match: re.Match[str]) -> str:
        if match["target"] is None or not _is_local(match["target"]):
            return match[0]
        target = page_of(resolved(match["target"], source_of(here)))
        return f"]({posixpath.relpath(target, posixpath.dirname(here))}{match['anchor'] or ''})"

    return NAMED_FENCE.sub(r'```\g<language> title="\g<file>"', FENCE_OR_LINK.sub(to_page, markdown))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page that would load something from another host."""
    foreign = FOREIGN.search(output)
    if foreign:
        raise PluginError(f"{page.file.src_uri}: loads from another host: {foreign[0]}")
    return output


def links_of(text: str, source: str) -> Iterator[str]:
    """Files of the repository that a page links to, as paths from its root. Raises PluginError for a dead link."""
    for match in FENCE_OR_LINK.finditer(text):
        if match["target"] is not None and _is_local(match["target"]):
            yield resolved(match["target"], source)


def resolved(target: str, source: str) -> str:
    """A relative link of a file, as a path from the repository's root. Raises PluginError if nothing is there."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if path.startswith("..") or not (ROOT / path).exists():
        raise PluginError(f"{source}: dead link: {target}")
    return path


def source_of(page: str) -> str:
    """A page's file, as a path from the repository's root."""
    for source, root_page in ROOT_PAGES.items():
        if page == root_page:
            return source
    return f"docs/{page}"


def page_of(path: str) -> str:
    """The page that shows a file or a folder of the repository."""
    if path in ROOT_PAGES:
        return ROOT_PAGES[path]
    inside = path.removeprefix("docs/")
    if inside.startswith(f"{NOTEBOOKS}/"):
        return f"{inside.removesuffix('.ipynb')}.md"
    if inside != path and (ROOT / path).is_file() and not inside.startswith(("example-plugin/", "site/")):
        return inside
    return f"{LISTINGS}/{path}.md"


def notebook_page(notebook: Path) -> str:
    """The cells of a notebook, without what they gave, and the notebook itself to be taken along."""
    parts = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source, head, language = "".join(cell["source"]), "", "python"
        if source.startswith("%%"):
            command, _, source = source.partition("\n")
            magic, *rest = command.removeprefix("%%").split()
            head = " ".join(rest)
            language = LANGUAGES[Path(head).suffix] if magic == "writefile" else magic
        parts.append(
            source if cell["cell_type"] == "markdown" else f"```{language} {head}".rstrip() + f"\n{source}\n```"
        )
    parts.insert(1, f'<a href="../{notebook.name}" download>The notebook</a>')
    return "\n\n".join(parts) + "\n"


def listing(path: str) -> str:
    """A page with the text of a file, or of a folder's files."""
    shown = ROOT / path
    files = sorted(_texts_in(shown)) if shown.is_dir() else [shown]
    sections = ["---\nsearch: {exclude: true}\n---", f"# `{path}`"]
    for file in files:
        if file != shown:
            sections.append(f"## `{file.relative_to(shown).as_posix()}`")
        sections.append(f"~~~~{LANGUAGES.get(file.suffix, 'text')}\n{file.read_text(encoding='utf-8')}\n~~~~")
    return "\n\n".join(sections) + "\n"


def _texts_in(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        yield from (Path(parent, name) for name in names if Path(name).suffix in LANGUAGES)


def _is_local(target: str) -> bool:
    return not re.match(r"[a-z]+:|/", target)
