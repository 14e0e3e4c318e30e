"""Which modules a module is computed with: what it imports from its package and from wspace, and nothing is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from wspace.recipes.imports import Changes, changes, sources_of
from wspace.recipes.signature import UnreadableSignature

MODULES = {
    "__init__": "raise SystemExit('imported')\n",
    "net": (
        "from typing import TYPE_CHECKING\nimport torch\nimport pkg_of_test.direct\n"
        "from .layers import block, WIDTH\nfrom wspace.api import seeded, Denoiser\n"
        "if TYPE_CHECKING:\n    from pkg_of_test import only_typed\n\n"
        "def build():\n    from pkg_of_test.lazy import late\n"
    ),
    "direct": "",
    "lazy": "from . import deepest\nlate = 1\n",
    "deepest": "import pkg_of_test.net\n",  # a cycle
    "only_typed": "",
    "unused": "",
    "layers/__init__": "WIDTH = 3\n",
    "layers/block": "from ..direct import nothing\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, source in MODULES.items():
        file = tmp_path / "pkg_of_test" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "pkg_of_test"


def ours(sources: dict[str, str]) -> set[str]:
    return {name.removeprefix("pkg_of_test.") for name in sources if name.startswith("pkg_of_test")}


def test_it_is_all_that_a_module_imports_from_its_package_lazily_too(package: Path) -> None:
    sources = sources_of(["pkg_of_test.net"])
    assert ours(sources) == {"net", "direct", "layers", "layers.block", "lazy", "deepest"}
    assert "pkg_of_test" not in sys.modules


def test_through_the_door_of_wspace_it_is_what_the_names_come_from(package: Path) -> None:
    """Of a package that names many, as `wspace.interfaces` does, it is what all of these come from."""
    sources = sources_of(["pkg_of_test.net"])
    assert {"wspace.support.seeding", "wspace.interfaces", "wspace.interfaces.generators"} < set(sources)
    assert not {"wspace", "wspace.api", "wspace.runs.run", "wspace.weights.zoo.format"} & set(sources)


def test_changes_name_what_was_edited(package: Path) -> None:
    sources = sources_of(["pkg_of_test.net"])
    assert changes(sources) == Changes() and not changes(sources)
    (package / "unused.py").write_text("x = 1\n")
    assert not changes(sources)
    (package / "deepest.py").write_text("import pkg_of_test.net  # a comment\n")
    assert changes(sources) == Changes(edited=("pkg_of_test.deepest",))
    assert str(changes(sources)) == "pkg_of_test.deepest changed since"
    for name in ("net", "direct", "lazy", "layers/__init__"):
        (package / f"{name}.py").write_text("y = 2  # another\n")
    assert str(changes(sources)) == (
        "pkg_of_test.deepest, pkg_of_test.direct, pkg_of_test.layers and 2 more changed since"
    )


def test_changes_tell_code_that_is_gone(package: Path) -> None:
    sources = sources_of(["pkg_of_test.net"])
    (package / "deepest.py").unlink()
    (package / "net.py").write_text("")
    assert str(changes(sources)) == "made by code that was moved or removed since (pkg_of_test.deepest)"


def test_a_module_that_is_not_there_is_refused(package: Path) -> None:
    with pytest.raises(UnreadableSignature, match=r"^no module 'pkg_of_nobody'"):
        sources_of(["pkg_of_nobody"])


def test_nothing_heavy_is_imported() -> None:
    script = (
        "import sys\nfrom wspace.recipes.imports import changes, sources_of\n"
        "assert not changes(sources_of(['wspace.runs.stages.train', 'wspace.components.denoisers.mlp']))\n"
        "assert not {'torch', 'timm', 'wspace.interfaces', 'wspace.components'} & set(sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stderr == ""
