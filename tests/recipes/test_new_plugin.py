"""From `new-plugin` to a run with the new component, as docs/writing-plugins.md has it; the example plugin; bad names."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from wspace.recipes import new_plugin as skeleton
from wspace.recipes import plugins
from wspace.recipes.bind import bind_one
from wspace.recipes.plugins import load_plugins
from wspace.recipes.registry import Component, Registry
from wspace.recipes.schema import as_keyed
from wspace.testing import cases, cases_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/writing-plugins.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "docs/example-plugin"
BLOCK = re.compile(r"^```(sh|console|python|toml|yaml|text|)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILES = {file.removesuffix(".py"): code for _, file, code in BLOCK.findall(PAGE) if re.fullmatch(r"[a-z_]+\.py", file)}
"""The page's files outside of the example, by module."""
COMPONENTS = sorted(module for module, code in FILES.items() if "def wspace_register(" in code)
Wspace = Callable[..., CompletedProcess[str]]


FEW_STEPS = ["--set", "train.steps=2", "--set", "task_loss.steps=2"]
SHORTER = {
    "generator.denoiser=scaled": [*FEW_STEPS, "--only", "train"],
    "generator=direct": ["--set", "task_loss.steps=2", "--only", "train"],
    "generator.predictor=few-axes": [*FEW_STEPS, "--only", "train"],
    "generator.denoiser=otters-mixer": [*FEW_STEPS, "--only", "train"],
    "target=otters-gated": [
        "--set",
        "tasks.seen=16",
        "--set",
        "zoo.steps=2",
        "--set",
        "zoo.base_steps=2",
        "--only",
        "zoo",
    ],
}
"""What of the page's runs is left out here, to save time; continuous integration runs the example with no such thing."""


class Installed:
    """What `pip install -e` would put where Python finds it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.monkeypatch, self.entries = monkeypatch, list(entry_points(group="wspace"))
        monkeypatch.setattr(plugins, "entry_points", lambda group: self.entries)

    def install(self, folder: Path) -> None:
        """A distribution's metadata in its source folder, and that on Python's path."""
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        source, stem = folder / "src", project["name"].replace("-", "_")
        metadata = source / f"{stem}-{project['version']}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
        lines = [f"{name} = {module}\n" for name, module in project["entry-points"]["wspace"].items()]
        (metadata / "entry_points.txt").write_text("[wspace]\n" + "".join(lines))
        self.monkeypatch.syspath_prepend(source)
        importlib.invalidate_caches()
        self.entries[:] = entry_points(group="wspace")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:
    monkeypatch.delenv("WSPACE_PLUGINS", raising=False)
    before = set(sys.modules)
    yield Installed(monkeypatch)
    for name in set(sys.modules) - before:
        if name.startswith(("wspace_otters", "wspace_example")) or name in FILES:
            del sys.modules[name]


# ---------------------------------------------------------------- the page


def test_the_page_shows_the_example_plugin_as_it_is() -> None:
    shown = {file: code for _, file, code in BLOCK.findall(PAGE) if (EXAMPLE / file).is_file() and file}
    assert shown == {
        str(file.relative_to(EXAMPLE)): file.read_text(encoding="utf-8")
        for part in skeleton.PARTS
        for file in EXAMPLE.glob(part)
        if file.name != "README.md"
    }


@pytest.mark.slow
def test_the_page_from_an_idea_to_a_package_that_runs(
    nano: Path, inside: Wspace, installed: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every block, in order. `pip install` and `pytest` are done in this process, and the zoo is that of other tests."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(nano, tmp_path / "runs/nano")
    done = []
    for language, file, code in BLOCK.findall(PAGE):
        if file and not (EXAMPLE / file).is_file():
            Path(file).write_text(code, encoding="utf-8")
        for line in code.splitlines() if language == "sh" else ():
            command, *arguments = shlex.split(line)
            done.append(line)
            if command == "wspace":
                arguments += next((extra for name, extra in SHORTER.items() if name in arguments), [])
                answer = inside(*arguments)
                assert answer.returncode == 0, f"{line}\n{answer.stdout}\n{answer.stderr}"
            elif command == "pip":
                assert arguments[:2] == ["install", "-e"]
                installed.install(Path(arguments[2]))
            else:
                assert command == "pytest"
                checked(Path(arguments[0]))
    assert sum(line.startswith("wspace run nano") for line in done) == 5 and len(done) == 21


def test_the_page_shows_a_file_for_most_kinds() -> None:
    assert COMPONENTS == [
        "closest",
        "direct",
        "distance",
        "doubles",
        "few_axes",
        "number_files",
        "residual",
        "scaled",
        "shrunk",
        "smaller",
        "spreadsheet",
        "threads",
    ]


@pytest.mark.parametrize("module", COMPONENTS)
def test_what_the_page_registers_keeps_the_laws_of_its_kind(module: str, installed: Installed, tmp_path: Path) -> None:
    file = tmp_path / f"{module}.py"
    file.write_text(FILES[module], encoding="utf-8")
    every = cases(str(file))
    assert len(every) >= 5
    for case in every:
        case.run()


def test_the_parameter_that_came_later_is_in_no_key_at_its_default(installed: Installed, tmp_path: Path) -> None:
    """As the page says of `Since`; without it, it is."""
    code = FILES["distance"]
    undated = code.replace(', Since("0.2")]', "]")
    assert undated != code

    def keyed(module: str, code: str) -> object:
        file = tmp_path / f"{module}.py"
        file.write_text(code.replace("distance:", f"{module}:"), encoding="utf-8")
        return as_keyed(bind_one("metric", "distance", load_plugins([file]).registry, "metrics"))

    assert keyed("distance", code) == {"use": "distance"}
    assert keyed("distance_undated", undated) == {"use": "distance", "order": 2.0}


def checked(path: Path) -> None:
    """Run the checks that a test file, or those of a folder, ask for."""
    files = [path] if path.is_file() else list(path.glob("tests/test_*.py"))
    asked = [name for file in files for name in re.findall(r'conformance\("(.*)"\)', file.read_text(encoding="utf-8"))]
    assert asked
    for name in asked:
        found = cases(name)
        assert len(found) > 12
        for case in found:
            case.run()


def test_what_the_page_says_of_a_wrong_axis(
    installed: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (EXAMPLE / "src/wspace_example/gated.py").read_text(encoding="utf-8")
    wrong = source.replace('"w": ("hidden", "text")', '"w": ("other", "text")').replace(
        ': rank, "text"', ': rank, "other": rank, "text"'
    )
    (tmp_path / "wspace_example_wrong.py").write_text(wrong, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry()
    registry.add(Component("target", "example-gated", "wspace_example_wrong:Gated", "example", {"rank": 4}))
    said = []
    for case in cases_of(registry.get("target", "example-gated"), registry):
        try:
            case.run()
        except AssertionError as error:
            said.append(str(error))
    (block,) = [code for language, _, code in BLOCK.findall(PAGE) if not language]
    assert said == [" ".join(block.split())]


# ---------------------------------------------------------------- the example plugin


def test_a_denoiser_takes_a_third_party_under_60_lines_and_all_of_the_example_under_120() -> None:
    """Packaging included, blank lines as well."""
    lines = {
        file: len(file.read_text(encoding="utf-8").splitlines())
        for part in skeleton.PARTS
        for file in EXAMPLE.glob(part)
    }
    code = {file.name: count for file, count in lines.items() if file.suffix != ".md"}
    assert set(code) == {"pyproject.toml", "__init__.py", "mixer.py", "gated.py", "test_conformance.py"}
    assert sum(code.values()) < 120
    assert sum(code.values()) - code["gated.py"] - 1 < 60  # the target goes, and its line


def test_the_example_is_no_part_of_the_workspace_and_ci_tests_it_in_its_own_folder() -> None:
    workspace = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"]["workspace"]
    assert workspace["members"] == ["plugins/*"]
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert (
        "-e docs/example-plugin" in script
        and "cd docs/example-plugin" in script
        and "--pyargs wspace.testing" in script
    )


# ---------------------------------------------------------------- the command


def test_a_plugin_of_two_words_is_named_so_throughout(
    inside: Wspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)  # under `uv run` the commands are uv's
    done = inside("new-plugin", "wspace-river-otters", "--dest", tmp_path)
    folder = tmp_path / "wspace-river-otters"
    assert done.returncode == 0 and done.stdout.splitlines() == [
        str(folder),
        "",
        f"  pip install -e {folder}",
        f"  pytest {folder}",
        "  wspace run nano --set generator.denoiser=river-otters-mixer",
    ]
    written = {str(file.relative_to(folder)): file.read_text(encoding="utf-8") for file in folder.rglob("*.*")}
    assert set(written) == {
        "pyproject.toml", "README.md", "tests/test_conformance.py",
        *(f"src/wspace_river_otters/{name}.py" for name in ("__init__", "mixer", "gated")),
    }  # fmt: skip
    project = tomllib.loads(written["pyproject.toml"])["project"]
    assert project["name"] == "wspace-river-otters"
    assert project["entry-points"]["wspace"] == {"river-otters": "wspace_river_otters"}
    assert (
        'register("denoiser", "river-otters-mixer", "wspace_river_otters.mixer:Mixer", example={'
        in (written["src/wspace_river_otters/__init__.py"])
    )
    assert 'conformance("river-otters")' in written["tests/test_conformance.py"]
    assert not any(re.search(r"example(?!=)", text) for text in written.values())


def test_the_next_commands_are_those_of_uv_under_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    assert skeleton.next_commands(Path("wspace-a b")) == [
        "uv pip install -e 'wspace-a b'",
        "uv run pytest 'wspace-a b'",
        "uv run wspace run nano --set 'generator.denoiser=a b-mixer'",
    ]


@pytest.mark.parametrize("name", ["Otters", "river otters", "1st", "a--b", "a-", "été", "", "../up", "wspace-"])
def test_a_name_that_will_not_do_is_told(inside: Wspace, tmp_path: Path, name: str) -> None:
    done = inside("new-plugin", name, "--dest", tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        f"error: {name.removeprefix('wspace-')!r} cannot be the name of a plugin: use small letters, digits and single "
        "hyphens, as in 'my-plugin'\n",
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("wspace", "built in"),
        pytest.param("t2w", "wspace-t2w 0.1.0", marks=pytest.mark.plugins("t2w")),
    ],
)
def test_a_name_that_is_taken_is_told(inside: Wspace, tmp_path: Path, name: str, source: str) -> None:
    done = inside("new-plugin", name, "--dest", tmp_path)
    assert done.stderr == f"error: there is a plugin {name!r} already ({source}): choose another name\n"
    assert done.returncode == 2 and not list(tmp_path.iterdir())


def test_nothing_is_overwritten_and_nothing_half_made(
    inside: Wspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "wspace-otters"
    mine.write_text("mine")
    done = inside("new-plugin", "otters", "--dest", tmp_path)
    assert (done.returncode, mine.read_text()) == (2, "mine")
    assert done.stderr == f"error: {mine}: is there already; choose another name, or another folder with --dest\n"
    done = inside("new-plugin", "otters", "--dest", tmp_path / "nowhere")
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path}/nowhere: no such folder\n")

    def full(self: Path, *arguments: object, **options: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    done = inside("new-plugin", "beavers", "--dest", tmp_path)
    assert done.stderr == f"error: {tmp_path}/wspace-beavers: cannot be written: No space left on device\n"
    assert done.returncode == 2 and not (tmp_path / "wspace-beavers").exists()
