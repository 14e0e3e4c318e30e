"""The site: its API reference is whole, and its links lead to the same place as on the repository's host.

What builds it is in the dependency group `docs`; without that, only the first test runs.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("door", ["wspace", "wspace.api", "wspace.testing"])
def test_every_public_name_is_in_the_reference(door: str) -> None:
    shown = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs/reference").glob("*.md"))
    for name in importlib.import_module(door).__all__:
        assert len(re.findall(rf"^::: {re.escape(f'{door}.{name}')}$", shown, re.MULTILINE)) == 1, f"{door}.{name}"


@pytest.mark.parametrize("file", [".ci/run", "Makefile"])
def test_the_strict_build_hears_warnings(file: str) -> None:
    """With --quiet, mkdocs counts no warning, and --strict then fails at none."""
    (build,) = re.findall(r"mkdocs build .*", (ROOT / file).read_text(encoding="utf-8"))
    assert "--strict" in build and "--quiet" not in build and " -q" not in build


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """docs/site/hooks.py, as mkdocs imports it."""
    pytest.importorskip("mkdocs", reason="the dependency group `docs` is not installed")
    monkeypatch.syspath_prepend(str(ROOT / "docs/site"))
    yield importlib.import_module("hooks")


def test_the_reference_is_whole(site: ModuleType) -> None:
    importlib.import_module("reference").check_reference(ROOT)


def test_what_the_reference_lacks_is_named(site: ModuleType, tmp_path: Path) -> None:
    from mkdocs.exceptions import PluginError

    (tmp_path / "docs/reference").mkdir(parents=True)
    (tmp_path / "docs/reference/index.md").write_text(
        "::: wspace.load\n\n::: wspace.load\n\n::: wspace.testing.cases\n"
    )
    (tmp_path / "wspace").mkdir()
    (tmp_path / "wspace/__init__.py").write_text('__all__ = ["load"]\ndef load(): ...\n')
    (tmp_path / "wspace/api.py").write_text(
        '__all__ = ["Layers"]\nclass Layers:\n    """Documented."""\n    count: int\n'
    )
    (tmp_path / "wspace/testing.py").write_text(
        '__all__ = ["cases"]\nclass cases:\n    """Documented."""\n    name: str  # commented\n    def run(self): ...\n'
    )
    with pytest.raises(PluginError) as raised:
        importlib.import_module("reference").check_reference(tmp_path)
    assert str(raised.value).splitlines() == [
        "the API reference is not whole:",
        "wspace.api.Layers: is public, and on no page of docs/reference",
        "wspace.load: is twice in docs/reference",
        "wspace.load: has no docstring",
        "wspace.testing.cases.run: has no docstring",
    ]


@pytest.mark.parametrize(
    ("path", "page"),
    [
        ("docs/t2w.md", "t2w.md"),
        ("docs/rooms.svg", "rooms.svg"),
        ("README.md", "index.md"),
        ("docs/notebooks/your-own-zoo.ipynb", "notebooks/your-own-zoo.md"),
        ("recipes/t2w.yaml", "repository/recipes/t2w.yaml.md"),
        ("docs/example-plugin", "repository/docs/example-plugin.md"),
    ],
)
def test_every_file_has_its_page(site: ModuleType, path: str, page: str) -> None:
    assert site.page_of(path) == page


def test_links_are_resolved_from_the_page_that_has_them(site: ModuleType) -> None:
    text = (
        "[a](../recipes/nano.yaml) [b](t2w.md#against-the-paper) [c](https://a.example)\n```sh\n[d](nothing.md)\n```\n"
    )
    assert list(site.links_of(text, "docs/uses.md")) == ["recipes/nano.yaml", "docs/t2w.md"]


@pytest.mark.parametrize("target", ["nothing.md", "../nothing", "../../outside.md"])
def test_a_dead_link_is_refused(site: ModuleType, target: str) -> None:
    from mkdocs.exceptions import PluginError

    with pytest.raises(PluginError, match=re.escape(f"docs/uses.md: dead link: {target}")):
        list(site.links_of(f"[a]({target})", "docs/uses.md"))


def test_a_folder_is_shown_file_by_file(site: ModuleType) -> None:
    page = site.listing("docs/example-plugin")
    assert "\n# `docs/example-plugin`\n" in page
    for name in ("pyproject.toml", "src/wspace_example/mixer.py", "tests/test_conformance.py"):
        assert f"## `{name}`" in page and (ROOT / "docs/example-plugin" / name).read_text(encoding="utf-8") in page


def test_a_notebook_is_a_page_of_its_text_and_code(site: ModuleType) -> None:
    notebook = ROOT / "docs/notebooks/your-own-zoo.ipynb"
    page = site.notebook_page(notebook)
    assert page.startswith("# Your own zoo\n") and '<a href="../your-own-zoo.ipynb" download>' in page
    assert "\n```python shapes_net.py\nfrom torch import nn\n" in page and "\n```yaml shapes.yaml\n" in page
    assert "\n```sh\nrm -rf zoo\n" in page and "%%" not in page


@pytest.mark.parametrize(
    ("output", "refused"),
    [
        ('<script src="https://unpkg.example/a.js">', True),
        ('<link rel="stylesheet" href="//fonts.example/a.css">', True),
        ('<a href="https://a.example">', False),
        ('<script src="assets/a.js">', False),
    ],
)
def test_a_page_that_loads_from_another_host_is_refused(site: ModuleType, output: str, refused: bool) -> None:
    assert bool(site.FOREIGN.search(output)) == refused
