"""Notebooks: kept without what they gave, and made of commands and names that there are. Continuous integration runs them."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


def cells(notebook: Path) -> list[dict[str, Any]]:
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def test_there_are_two() -> None:
    assert [notebook.stem for notebook in NOTEBOOKS] == ["a-classifier-from-words", "your-own-zoo"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_kept_without_what_it_gave(notebook: Path) -> None:
    code = [cell for cell in cells(notebook) if cell["cell_type"] == "code"]
    assert len(code) >= 6
    assert [cell for cell in code if cell["outputs"] or cell["execution_count"] is not None] == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_the_code_of_a_notebook_imports_nothing_private(notebook: Path) -> None:
    imported = set()
    for cell in cells(notebook):
        source = re.sub(r"^%%writefile \S+\.py\n", "", "".join(cell["source"]))
        if cell["cell_type"] == "code" and not source.startswith("%%"):
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.ImportFrom):
                    imported.add(str(node.module))
                elif isinstance(node, ast.Import):
                    imported |= {alias.name for alias in node.names}
    assert {name for name in imported if name.startswith("wspace")} <= {"wspace", "wspace.api"}
    assert imported & {"wspace"}


def test_continuous_integration_runs_them_and_the_site_shows_them() -> None:
    assert "--nbmake" in (ROOT / ".ci/run").read_text(encoding="utf-8")
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert all(f"notebooks/{notebook.stem}.md" in site for notebook in NOTEBOOKS)
