"""Who may import whom, what lives where, and that every recipe there is can be used."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import wspace
from wspace import components as builtin
from wspace.recipes.bind import bind
from wspace.recipes.plugins import load_plugins
from wspace.recipes.registry import KINDS
from wspace.recipes.source import read_recipe
from wspace.runs.joint.file import bind_joint, is_joint
from wspace.runs.study.file import bind_study, is_study

PACKAGE = Path(wspace.__file__).parent
ROOT = PACKAGE.parent
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for file in sorted(PACKAGE.rglob("*.py"))
}
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
CORE = ("core.yaml", "lora.yaml")  # recipes that need no plugin
FOLDERS = {kind: "symmetries" if kind == "symmetry" else f"{kind}s" for kind in KINDS}
HEAVY = {"torch", "torchvision", "timm", "open_clip", "diffusers", "matplotlib", "safetensors"}
LIGHT = [
    name
    for name in MODULES
    if name.startswith(("wspace.cli", "wspace.recipes"))
    or name in ("wspace", "wspace.components", "wspace.runs.keys", "wspace.runs.pipeline", "wspace.runs.store")
    or (
        name.startswith(("wspace.runs.study.", "wspace.runs.joint.", "wspace.runs.report."))
        and name not in ("wspace.runs.joint.training", "wspace.runs.report.intervals")
    )
    or (name.startswith("wspace.support.") and name not in ("wspace.support.checkpoints", "wspace.support.seeding"))
]
"""What `wspace --help`, `check`, `list` and `run --dry` may load."""


def imports(file: Path, *, everywhere: bool = False) -> set[str]:
    """Full names of the modules that a file imports at module level or anywhere, not those for type checkers."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        children = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{file}:{node.lineno}: a relative import"
            found.add(node.module)
            found.update(
                f"{node.module}.{alias.name}" for alias in node.names if f"{node.module}.{alias.name}" in MODULES
            )
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            children = node.orelse
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not everywhere:
            children = []
        for child in children:
            visit(child)

    visit(ast.parse(file.read_text(encoding="utf-8")))
    return found


def reached(module: str) -> set[str]:
    """All that is imported with a module of ours, itself included."""
    found, open_ = set(), [module]
    while open_:
        name = open_.pop()
        if name in found:
            continue
        found.add(name)
        if name in MODULES:
            packages = [name.rsplit(".", n)[0] for n in range(1, name.count(".") + 1)]
            open_ += [*packages, *imports(MODULES[name])]
    return found


def test_imports_are_found_where_they_are(tmp_path: Path) -> None:
    file = tmp_path / "m.py"
    file.write_text(
        "import a.b\nfrom wspace.recipes import bind\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import c\nelse:\n    import d\n"
        "try:\n    import e\nexcept ImportError: ...\nclass X:\n    import f\n"
        "def function():\n    from g.h import i\n"
    )
    assert imports(file) == {"a.b", "wspace.recipes", "wspace.recipes.bind", "typing", "d", "e", "f"}
    assert imports(file, everywhere=True) == imports(file) | {"g.h"}


@pytest.mark.parametrize("name", LIGHT)
def test_a_light_module_imports_nothing_heavy(name: str) -> None:
    found = reached(name)
    assert {module.partition(".")[0] for module in found} & HEAVY == set()


def test_the_guard_against_heavy_imports_sees_one() -> None:
    assert "torch" in reached("wspace.runs.run") and "torch" in reached("wspace.runs.workbench")


def components_of(kind: str) -> dict[str, Path]:
    prefix = f"wspace.components.{FOLDERS[kind]}"
    return {name: file for name, file in MODULES.items() if name.startswith(f"{prefix}.")}


def test_every_room_says_what_lives_in_it_and_what_it_may_import() -> None:
    rooms = [folder for folder in sorted(PACKAGE.iterdir()) if (folder / "__init__.py").is_file()]
    assert 8 <= len(rooms) <= 12
    for room in rooms:
        doc = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or ""
        assert "import" in doc and len(doc.split(". ")) >= 1, room.name


def test_no_file_is_a_drawer_for_odds_and_ends() -> None:
    assert len(MODULES) > 40
    drawers = {"utils", "util", "common", "helpers", "misc", "core", "base"}
    assert [
        name
        for name in MODULES
        if name.rsplit(".", 1)[-1] in drawers and not name.startswith("wspace.components.")  # the opponent `base`
    ] == []


def test_no_folder_below_the_package_lacks_its_init_file() -> None:
    folders = {file.parent for file in MODULES.values()}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize("component", load_plugins(allowed="").registry.all(), ids=lambda c: f"{c.kind}-{c.name}")
def test_a_built_in_component_lives_in_the_file_of_its_name(component) -> None:
    module = f"wspace.components.{FOLDERS[component.kind]}.{component.name.replace('-', '_')}"
    assert component.module == module and MODULES[module].is_file()
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    assert component.class_name in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}


def test_every_component_file_is_registered() -> None:
    registered = {component.module for component in load_plugins(allowed="").registry.all()}
    files = {name for kind in KINDS for name in components_of(kind)}
    assert files == registered, f"not in {Path(builtin.__file__).name}: {sorted(files - registered)}"


def test_every_module_says_what_it_is_for_on_its_first_line() -> None:
    silent = [
        name
        for name, file in MODULES.items()
        if (text := file.read_text(encoding="utf-8")) and not text.startswith('"""')
    ]
    assert silent == []


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 3


def test_the_core_has_recipes_of_its_own() -> None:
    registry = load_plugins(allowed="").registry
    assert [bind(read_recipe(ROOT / "recipes" / name), registry).discriminator for name in CORE] == [None, None]


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(file, marks=() if file.name in CORE else pytest.mark.plugins("igpg", "t2w", "taskid"))
        for file in RECIPES
    ],
    ids=lambda file: str(file.relative_to(ROOT / "recipes")),
)
def test_a_recipe_has_no_problem_and_says_how_to_run_it(recipe: Path) -> None:
    source, registry = read_recipe(recipe), load_plugins().registry
    several = bind_study if is_study(source) else bind_joint if is_joint(source) else None
    bound = bind(source, registry) if several is None else several(source, registry)
    assert bound.name == recipe.stem
    assert recipe.read_text(encoding="utf-8").startswith(f"# wspace run {recipe.relative_to(ROOT)}")


def test_the_citation_is_of_this_version() -> None:
    cited = YAML(typ="safe").load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == wspace.__version__ and cited["license"] == "Apache-2.0"
