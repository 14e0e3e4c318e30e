"""Commands from outside: listed without being imported, found by their plugin, and their sections part of the report."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wspace.cli.commands import loaded
from wspace.recipes.commands import Command
from wspace.recipes.plugins import built_in, load_plugins
from wspace.support.errors import MissingPackage, UserError

Inside = Callable[..., subprocess.CompletedProcess[str]]

NORMS = '''"""How long generated weights are."""

from pathlib import Path

import wspace


@wspace.hookimpl
def wspace_commands(add):
    add("norms", "norms:norms")


def norms(run: Path, tasks: int = 3, plugin: list[Path] | None = None) -> None:
    """Lengths of generated weights.

    More than the first line is not shown in `wspace --help`.
    """
    from wspace.api import Row, Section, Table, open_run, show_section, stream

    opened = open_run(run, plugin)
    lengths = opened.sample(opened.unseen(tasks), stream(0, "norms")).norm(dim=1)
    cell = {"mean": float(lengths.mean()), "ci_low": float(lengths.min()), "ci_high": float(lengths.max()), "n": tasks}
    table = Table("Lengths", {"length": "number"}, [Row("generated", {"length": cell}, own=True)])
    section = Section("norms", "How long weights are", [f"Of {tasks} tasks."], {"tasks": tasks}, [table])
    show_section(section, run)
'''


@pytest.fixture
def norms(tmp_path: Path):
    file = tmp_path / "norms.py"
    file.write_text(NORMS)
    yield file
    sys.modules.pop("norms", None)


def plugin_of(tmp_path: Path, source: str, name: str = "plug_commands") -> Path:
    file = tmp_path / f"{name}.py"
    file.write_text(f"import wspace\n\n@wspace.hookimpl\ndef wspace_commands(add):\n    {source}\n")
    return file


@pytest.fixture(autouse=True)
def forgotten():
    yield
    sys.modules.pop("plug_commands", None)


def test_the_summary_of_every_command_fits_its_line_of_the_help(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every group, those of plugins too: at 80 columns, nothing is cut off and ends in '...'."""
    monkeypatch.setenv("COLUMNS", "80")
    commands = load_plugins().commands
    groups = [name for name, command in commands.items() if hasattr(loaded(command), "commands")]
    assert {"bench", "zoo"} <= {*groups}
    for group in ([], *([name] for name in groups)):
        listed = inside(*group, "--help").stdout.partition("Commands:\n")[2].splitlines()
        assert len(listed) > 3 and [line for line in listed if line.endswith("...") or len(line.split()) < 3] == []
    listed = inside("--help").stdout
    assert [name for name, command in commands.items() if f" {command.summary()}\n" not in listed] == []


def test_a_command_of_a_one_file_plugin_makes_a_section_of_the_report(
    nano: Path, norms: Path, inside: Inside, tmp_path: Path
) -> None:
    run = tmp_path / "nano"
    shutil.copytree(nano, run)
    done = inside("norms", run, "--tasks", "2", "--plugin", norms)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(run / "report.html") and "Of 2 tasks." in done.stdout
    section = json.loads(inside("report", run, "--json").stdout)["uses"]["norms"]
    assert section["use"] == "norms" and section["tables"][0]["rows"][0]["cells"]["length"]["n"] == 2
    assert "How long weights are" in (run / "report.html").read_text(encoding="utf-8")


def test_its_own_help_is_that_of_the_function(norms: Path, inside: Inside) -> None:
    done = inside("norms", "--plugin", norms, "--help")
    assert done.returncode == 0 and "Lengths of generated weights." in done.stdout and "--tasks" in done.stdout


@pytest.mark.parametrize("command", ["norms", "nroms"])
def test_without_its_plugin_there_is_no_such_command(inside: Inside, command: str) -> None:
    done = inside(command, "runs/nano")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: No such command '{command}'.")


def test_the_nearest_command_is_suggested(inside: Inside, norms: Path) -> None:
    assert inside("chekc", "nano").stderr == "error: No such command 'chekc'. Did you mean 'check'?\n"
    assert inside("nrms", "x", "--plugin", norms).stderr == "error: No such command 'nrms'. Did you mean 'norms'?\n"


def test_what_help_lists_is_read_from_the_source(norms: Path) -> None:
    commands = load_plugins([norms], allowed="").commands
    assert list(commands)[:2] == ["run", "check"] and list(commands)[-1] == "norms"
    assert commands["norms"].summary() == "Lengths of generated weights."
    for command in built_in().commands.values():
        summary = command.summary()
        assert summary.endswith(".") and "broken" not in summary, command
        assert str(loaded(command).help).startswith(summary)


def test_help_imports_no_command() -> None:
    script = (
        "import sys\nfrom wspace.cli import main\nsys.argv = ['wspace', '--help']\n"
        "try:\n    main()\nfinally:\n"
        "    bad = [m for m in sys.modules if m == 'torch' or m.startswith(('wspace.cli.uses', 'wspace.runs', 'wspace.api'))]\n"
        "    print(bad, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "[]\n")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("add('run', 'a:b')", "plugins 'wspace' and 'plug_commands' both add the command 'run': uninstall one, or list "
         "the plugins you want in WSPACE_PLUGINS"),
        ("add('x', 'a:b'); add('x', 'a:c')", "{file}: cannot be used: PluginValidationError: plugin 'plug_commands' adds "
         "the command 'x' twice (plug_commands.py, line 5)"),
        ("add('x', 'a')", "{file}: cannot be used: PluginValidationError: plugin 'plug_commands' adds the command 'x' as "
         "'a': write where its function is, as in 'package.module:function' (plug_commands.py, line 5)"),
    ],
)  # fmt: skip
def test_a_command_that_cannot_be_added(tmp_path: Path, source: str, said: str) -> None:
    file = plugin_of(tmp_path, source)
    with pytest.raises(UserError) as caught:
        load_plugins([file], allowed="")
    assert str(caught.value) == said.format(file=file)


@pytest.mark.parametrize(
    ("target", "kind", "said"),
    [
        ("no_such_module_here:run", MissingPackage,
         "command 'x' of plugin 'p' needs the package 'no_such_module_here', which is not installed"),
        ("json:nonsense", UserError, "command 'x' of plugin 'p': module 'json' has no function 'nonsense'"),
    ],
)  # fmt: skip
def test_a_command_that_cannot_be_loaded(target: str, kind: type[UserError], said: str) -> None:
    with pytest.raises(kind) as caught:
        loaded(Command("x", target, "p"))
    assert str(caught.value) == said


def test_a_command_whose_source_is_not_there_says_so_in_help() -> None:
    assert Command("x", "json:nonsense", "p").summary() == "broken: module 'json' has no function 'nonsense'"
    assert Command("x", "no_such_module_here:f", "p").summary() == "broken: no module 'no_such_module_here'"


def test_a_group_of_commands_is_a_typer(tmp_path: Path, inside: Inside) -> None:
    file = plugin_of(tmp_path, "add('things', 'plug_commands:app')")
    file.write_text(
        file.read_text() + "\nimport typer\n\napp = typer.Typer(help='Things in a row.')\n\n"
        "@app.command()\ndef one():\n    'One of them.'\n    print('one')\n\n"
        "@app.command()\ndef two(plugin: list[str] | None = None):\n    'The other.'\n    print('two')\n"
    )
    assert load_plugins([file], allowed="").commands["things"].summary() == "Things in a row."
    done = inside("things", "two", "--plugin", file)
    assert (done.returncode, done.stdout, done.stderr) == (0, "two\n", "")
