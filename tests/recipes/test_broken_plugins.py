"""Plugins that are somebody's fault: each told in one sentence, and nobody else stopped."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from wspace.recipes import plugins
from wspace.recipes.plugins import load_plugins
from wspace.recipes.registry import Component
from wspace.support.errors import MissingPackage, NameClash, UserError

Install = Callable[..., None]
HOOK = "import wspace\n@wspace.hookimpl\ndef wspace_register(register):\n"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Pretend that these modules, name -> source, are the plugins that are installed."""
    monkeypatch.delenv("WSPACE_PLUGINS", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def call(**sources: str) -> None:
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        entries = [EntryPoint(name.removeprefix("plug_"), name, "wspace") for name in sources]
        monkeypatch.setattr(plugins, "entry_points", lambda group: entries)

    yield call
    for name in set(sys.modules) - before:
        if name.startswith("plug_"):
            del sys.modules[name]


BROKEN = {
    "raises on import": ("1 / 0", "ZeroDivisionError: division by zero (plug_bad.py, line 1)"),
    "is not Python": ("def (", "SyntaxError: invalid syntax (plug_bad.py, line 1)"),
    "needs a missing package": (
        "import torch_of_tomorrow",
        "ModuleNotFoundError: No module named 'torch_of_tomorrow' (plug_bad.py, line 1)",
    ),
    "raises as it registers": (
        HOOK + "    raise ValueError('no\\nGPU')",
        "ValueError: no; GPU (plug_bad.py, line 4)",
    ),
    "registers twice": (
        HOOK + "    register('denoiser', 'a', 'b:C')\n    register('denoiser', 'a', 'b:D')",
        "PluginValidationError: plugin 'bad' registers the denoiser 'a' twice (plug_bad.py, line 5)",
    ),
    "registers an unknown kind": (
        HOOK + "    register('denoisr', 'a', 'b:C')",
        "UnknownComponent: plugin 'bad' registers 'a' of unknown kind 'denoisr'. Did you mean 'denoiser'? Known: ",
    ),
    "misspells a hook": (
        "import wspace\n@wspace.hookimpl\ndef wspace_regster(register): ...",
        "PluginValidationError: unknown hook 'wspace_regster'. Did you mean 'wspace_register'? "
        "Known: wspace_commands, wspace_register",
    ),
    "misspells a second hook": (
        HOOK + "    register('denoiser', 'a', 'b:C')\n@wspace.hookimpl\ndef wspace_registers(register): ...",
        "PluginValidationError: unknown hook 'wspace_registers'. Did you mean 'wspace_register'? "
        "Known: wspace_commands, wspace_register",
    ),
    "misnames a hook's argument": (
        "import wspace\n@wspace.hookimpl\ndef wspace_register(registry): ...",
        "PluginValidationError: Plugin 'bad' for hook 'wspace_register'; hookimpl definition: wspace_register(registry); "
        "Argument(s) {'registry'} are declared in the hookimpl but can not be found in the hookspec",
    ),
    "registers a class": (
        HOOK + "    class Net: ...\n    register('denoiser', 'a', Net)",
        "PluginValidationError: plugin 'bad' registers the denoiser 'a' as <class 'plug_bad.wspace_register.<locals>.Net'>: "
        "write where its class is, as in 'package.module:Class' (plug_bad.py, line 5)",
    ),
    "registers a module": (
        HOOK + "    register('denoiser', 'a', 'b.C')",
        "PluginValidationError: plugin 'bad' registers the denoiser 'a' as 'b.C': write where its class is, as in "
        "'package.module:Class' (plug_bad.py, line 4)",
    ),
    "registers nothing": (
        "",
        "PluginValidationError: plugin 'bad' registers nothing: has it a @hookimpl wspace_register?",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_it_is_told_in_one_line_and_the_others_are_used(install: Install, inside, tmp_path: Path, fault: str) -> None:
    source, said = BROKEN[fault]
    install(plug_bad=source, plug_good=HOOK + "    register('denoiser', 'thing', 'plug_good:Thing')")
    loaded = load_plugins()
    (broken,) = loaded.broken
    assert broken.name == "bad" and broken.error is not None
    assert broken.error.startswith(said) and "\n" not in broken.error
    assert loaded.registry.get("denoiser", "thing").plugin == "good"
    listed = inside("list", "denoiser")
    assert listed.returncode == 0 and "thing" in listed.stdout
    assert listed.stderr == f"warning: plugin 'bad' cannot be used: {broken.error}\n"
    assert f"bad          plug_bad             {broken.error}\n" in inside("plugins").stdout


@pytest.mark.parametrize("fault", BROKEN)
def test_as_a_file_that_the_user_named_it_is_the_users_error(
    install: Install, inside, tmp_path: Path, fault: str
) -> None:
    install()
    file = tmp_path / "plug_bad.py"
    file.write_text(BROKEN[fault][0])
    done = inside("list", "--plugin", file)
    assert done.returncode == 2 and done.stdout == ""
    said = BROKEN[fault][1].replace("plugin 'bad'", "plugin 'plug_bad'").replace("Plugin 'bad'", "Plugin 'plug_bad'")
    found = done.stderr.removeprefix(f"error: {file}: cannot be imported: ").removeprefix(
        f"error: {file}: cannot be used: "
    )
    assert found.startswith(said) and found.count("\n") == 1


def test_two_plugins_with_one_component_are_told_by_name(install: Install, inside) -> None:
    install(**{f"plug_{name}": HOOK + "    register('denoiser', 'a', 'b:C')" for name in ("one", "two")})
    done = inside("list")
    assert (done.returncode, done.stderr) == (
        2,
        "error: plugins 'one' and 'two' both register the denoiser 'a': uninstall one, or list the plugins you want in "
        "WSPACE_PLUGINS\n",
    )
    with pytest.raises(NameClash):
        load_plugins()


# ---------------------------------------------------------------- a component's own module


@pytest.mark.parametrize(
    ("source", "error", "said"),
    [
        ("import torch_of_tomorrow", MissingPackage, "needs the package 'torch_of_tomorrow', which is not installed"),
        ("1 / 0", UserError, "cannot be imported: ZeroDivisionError: division by zero (plug_part.py, line 1)"),
        (
            "raise UserError('set X')",
            UserError,
            "cannot be imported: NameError: name 'UserError' is not defined (plug_part",
        ),
        ("x = 1", UserError, "module 'plug_part' has no class 'Net'"),
    ],
)
def test_a_class_that_cannot_be_imported_is_told(
    install: Install, tmp_path: Path, source: str, error: type[UserError], said: str
) -> None:
    install(plug_mine=HOOK + "    register('denoiser', 'net', 'plug_part:Net')")
    (tmp_path / "plug_part.py").write_text(source)
    with pytest.raises(error) as caught:
        load_plugins().registry.get("denoiser", "net").load()
    assert type(caught.value) is error
    joint = ": " if "has no class" in said else " "
    assert str(caught.value).startswith(f"denoiser 'net' of plugin 'mine'{joint}{said}")


def test_a_class_that_misspells_a_method_of_its_contract_is_told(install: Install, tmp_path: Path) -> None:
    install(plug_mine=HOOK + "    register('fusion', 'first', 'plug_part:First')")
    (tmp_path / "plug_part.py").write_text(
        "from wspace.api import Fusion\n\n\nclass First(Fusion):\n    def fusse(self, first, second):\n        return first\n"
    )
    with pytest.raises(UserError) as caught:
        load_plugins().registry.get("fusion", "first").load()
    assert str(caught.value) == ("fusion 'first' of plugin 'mine': plug_part:First has no fuse, which every fusion has")


def test_an_error_that_is_ours_already_stays(install: Install, tmp_path: Path) -> None:
    install()
    (tmp_path / "plug_part.py").write_text("from wspace.support.errors import UserError\nraise UserError('set X to Y')")
    with pytest.raises(UserError) as caught:
        Component("denoiser", "net", "plug_part:Net", "mine").load()
    assert str(caught.value) == "set X to Y"


def test_a_run_with_a_component_that_lacks_its_package_ends_in_one_sentence(
    install: Install, inside, tmp_path: Path
) -> None:
    """Before any stage runs."""
    install(plug_mine=HOOK + "    register('metric', 'net', 'plug_part:Net')")
    (tmp_path / "plug_part.py").write_text("import torch_of_tomorrow\nclass Net:\n    def __init__(self): ...\n")
    settings = ["--set=metrics=[net]"]
    assert inside("check", "core", *settings).returncode == 0, "its constructor can be read all the same"
    done = inside("run", "core", *settings, "--runs", tmp_path / "runs")
    assert (done.returncode, done.stdout, done.stderr.splitlines()[-1]) == (
        2,
        "",
        "error: metric 'net' of plugin 'mine' needs the package 'torch_of_tomorrow', which is not installed",
    )
    assert not list((tmp_path / "runs").rglob("artifact.json"))
