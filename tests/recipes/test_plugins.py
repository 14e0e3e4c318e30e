"""Plugins: what is found is used, what is broken is told, and nobody is stopped by somebody else's fault."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.support.tiny import Tiny, tiny_fixture  # noqa: F401
from wspace import PLUGIN_API
from wspace.recipes import plugins
from wspace.recipes.bind import bind
from wspace.recipes.plugins import PluginFact, load_plugins
from wspace.recipes.registry import KINDS, Component, Registry
from wspace.recipes.source import read_recipe
from wspace.support.errors import FileError, NameClash, RecipeError, Renamed, UnknownComponent, UserError

GOOD = """import wspace

@wspace.hookimpl
def wspace_register(register):
    register('denoiser', '{name}', '{module}:Thing')
"""
Install = Callable[..., None]


@pytest.fixture(autouse=True)
def no_allow_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WSPACE_PLUGINS", raising=False)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Pretend that these modules, name -> source, are the plugins that are installed."""
    folder = tmp_path / "installed"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)

    def call(**sources: str) -> None:
        for name, source in sources.items():
            (folder / f"{name}.py").write_text(source)
        entries = [EntryPoint(name.removeprefix("plug_"), name, "wspace") for name in sources]
        monkeypatch.setattr(plugins, "entry_points", lambda group: entries if group == "wspace" else [])

    yield call
    for name in set(sys.modules) - before:
        if name.startswith("plug_"):
            del sys.modules[name]


def fact(loaded: plugins.Plugins, name: str) -> PluginFact:
    (found,) = [fact for fact in loaded.facts if fact.name == name]
    return found


def test_the_built_in_components_come_first(install: Install) -> None:
    install()
    loaded = load_plugins()
    assert [f.name for f in loaded.facts] == ["wspace"] and not loaded.broken
    assert fact(loaded, "wspace").components == len(loaded.registry.all()) > 10
    assert {c.kind for c in loaded.registry.all()} == set(KINDS) - {"discriminator"}


def test_an_installed_plugin_registers_its_components(install: Install) -> None:
    install(plug_good=GOOD.format(name="thing", module="plug_good"))
    loaded = load_plugins()
    assert fact(loaded, "good") == PluginFact("good", "plug_good", components=1)
    assert loaded.registry.get("denoiser", "thing") == Component("denoiser", "thing", "plug_good:Thing", "good", {})


BROKEN = {
    "plug_missing_import": (
        "import no_such_package_at_all",
        "ModuleNotFoundError: No module named 'no_such_package_at_all'",
    ),
    "plug_syntax": ("def (", "SyntaxError: invalid syntax"),
    "plug_exits": ("import sys\nsys.exit('goodbye')", "SystemExit: goodbye"),
    "plug_nothing": (
        "x = 1",
        "PluginValidationError: plugin 'nothing' registers nothing: has it a @hookimpl wspace_register?",
    ),
    "plug_unmarked": (
        "def wspace_register(register): ...",
        "PluginValidationError: plugin 'unmarked' registers nothing",
    ),
    "plug_misspelt": (
        "import wspace\n@wspace.hookimpl\ndef wspace_regster(register): ...",
        "PluginValidationError: unknown hook 'wspace_regster'",
    ),
    "plug_argument": (
        "import wspace\n@wspace.hookimpl\ndef wspace_register(registry): ...",
        "PluginValidationError: Plugin 'argument' for hook 'wspace_register'",
    ),
    "plug_raises": (
        "import wspace\n@wspace.hookimpl\ndef wspace_register(register): 1 / 0",
        "ZeroDivisionError: division by zero",
    ),
    "plug_kind": (
        "import wspace\n@wspace.hookimpl\ndef wspace_register(register): register('denoisr', 'a', 'b:C')",
        "UnknownComponent: plugin 'kind' registers 'a' of unknown kind 'denoisr'. Did you mean 'denoiser'?",
    ),
    "plug_twice": (
        "import wspace\n@wspace.hookimpl\ndef wspace_register(register):\n"
        "    register('denoiser', 'a', 'b:C'); register('denoiser', 'a', 'b:D')",
        "PluginValidationError: plugin 'twice' registers the denoiser 'a' twice",
    ),
}


@pytest.mark.parametrize("module", BROKEN)
def test_a_broken_plugin_becomes_a_fact_and_stops_nobody(install: Install, module: str) -> None:
    source, reason = BROKEN[module]
    install(**{module: source, "plug_zz_good": GOOD.format(name="thing", module="plug_zz_good")})
    loaded = load_plugins()
    broken = fact(loaded, module.removeprefix("plug_"))
    assert broken.error is not None and broken.error.startswith(reason.partition(":")[0])
    assert reason.partition(": ")[2] in broken.error and broken.components == 0
    assert loaded.broken == [broken]
    assert loaded.registry.get("denoiser", "thing").plugin == "zz_good"


def test_a_broken_plugin_leaves_none_of_its_components(install: Install) -> None:
    source = "import wspace\n@wspace.hookimpl\ndef wspace_register(register):\n"
    install(plug_half=source + "    register('denoiser', 'fine', 'b:C')\n    register('nonsense', 'a', 'b:C')\n")
    loaded = load_plugins()
    assert len(loaded.broken) == 1 and "fine" not in loaded.registry.names("denoiser")


def test_a_clash_names_both_plugins(install: Install) -> None:
    install(
        plug_one=GOOD.format(name="thing", module="plug_one"),
        plug_two=GOOD.format(name="thing", module="plug_two"),
    )
    with pytest.raises(NameClash) as caught:
        load_plugins()
    assert str(caught.value) == (
        "plugins 'one' and 'two' both register the denoiser 'thing': uninstall one, "
        "or list the plugins you want in WSPACE_PLUGINS"
    )
    assert load_plugins(allowed="two").registry.get("denoiser", "thing").plugin == "two"


def test_a_plugin_may_not_take_a_built_in_name(install: Install) -> None:
    install(plug_mlp=GOOD.format(name="mlp", module="plug_mlp"))
    with pytest.raises(NameClash, match="plugins 'wspace' and 'mlp' both register the denoiser 'mlp'"):
        load_plugins()


@pytest.mark.parametrize(
    ("allowed", "used"),
    [(None, ["one", "two"]), ("", []), ("one", ["one"]), (" two , one", ["one", "two"])],
)
def test_the_allow_list_admits_those_it_names(
    install: Install, monkeypatch, allowed: str | None, used: list[str]
) -> None:
    install(**{f"plug_{name}": GOOD.format(name=name, module=f"plug_{name}") for name in ("one", "two")})
    if allowed is not None:
        monkeypatch.setenv("WSPACE_PLUGINS", allowed)
    loaded = load_plugins()
    assert [f.name for f in loaded.facts if not f.skipped] == ["wspace", *used]
    assert [f.name for f in loaded.facts if f.skipped] == [n for n in ("one", "two") if n not in used]
    assert set(loaded.registry.names("denoiser")) - {"by-token", "mlp", "neural-graph"} == set(used)
    assert {n for n in ("plug_one", "plug_two") if n in sys.modules} == {f"plug_{n}" for n in used}, (
        "a skipped one is not imported"
    )


def test_a_plugin_that_is_named_and_not_there_is_told(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(plug_one=GOOD.format(name="one", module="plug_one"))
    monkeypatch.setenv("WSPACE_PLUGINS", "on,one,,nothing")
    loaded = load_plugins()
    assert loaded.warnings == [
        "plugin 'on' cannot be used: WSPACE_PLUGINS names it, and no installed package has it. Did you mean 'one'? "
        "Known: one",
        "plugin 'nothing' cannot be used: WSPACE_PLUGINS names it, and no installed package has it. Known: one",
    ]
    assert "one" in loaded.registry.names("denoiser")
    monkeypatch.setenv("WSPACE_PLUGINS", "other")
    loaded = load_plugins()
    assert [f.name for f in loaded.facts if not f.skipped and not f.error] == ["wspace"]
    assert "one" not in loaded.registry.names("denoiser")


# ---------------------------------------------------------------- the number of the contract


def test_a_plugin_made_for_this_contract_is_told_of_nothing(install: Install) -> None:
    install(
        plug_says=GOOD.format(name="one", module="plug_says") + "PLUGIN_API = 1\n",
        plug_silent=GOOD.format(name="two", module="plug_silent"),
    )
    assert PLUGIN_API == 1 and load_plugins().warnings == []


def test_a_plugin_made_for_another_contract_is_told_of_and_used(
    install: Install, inside: Callable[..., CompletedProcess[str]]
) -> None:
    install(plug_newer=GOOD.format(name="thing", module="plug_newer") + "PLUGIN_API = 2\n")
    sentence = "plugin 'newer' is made for plugin API 2, and this wspace has 1: it may not work"
    loaded = load_plugins()
    assert loaded.warnings == [sentence] and not loaded.broken
    assert loaded.registry.get("denoiser", "thing").plugin == "newer"
    done = inside("list", "metric")
    assert (done.returncode, done.stderr) == (0, f"warning: {sentence}\n")
    line = inside("plugins").stdout.splitlines()[-1]
    assert line == (
        f"{'newer':12} {'plug_newer':20} 1 component; is made for plugin API 2, and this wspace has 1: it may not work"
    )


def test_a_plugin_made_for_another_contract_that_breaks_says_so_with_the_fault(install: Install) -> None:
    source = "import wspace\nPLUGIN_API = 2\n@wspace.hookimpl\ndef wspace_register(register):\n    register(a=1)\n"
    install(plug_newer=source)
    (sentence,) = load_plugins().warnings
    assert sentence.startswith("plugin 'newer' cannot be used: TypeError: ")
    assert sentence.endswith(
        "; the plugin is made for plugin API 2, and this wspace has 1: it may not work (plug_newer.py, line 5)"
    )


@pytest.mark.parametrize("number", ["'1'", "1.0", "True", "None"])
def test_the_number_is_a_whole_number(install: Install, number: str) -> None:
    install(plug_odd=GOOD.format(name="thing", module="plug_odd") + f"PLUGIN_API = {number}\n")
    assert load_plugins().warnings == [
        f"plugin 'odd' cannot be used: PluginValidationError: plugin 'odd' has PLUGIN_API = {number}: write a whole number"
    ]


# ---------------------------------------------------------------- names that changed


def test_a_component_goes_by_its_old_name_with_a_note(install: Install) -> None:
    source = "import wspace\n@wspace.hookimpl\ndef wspace_register(register):\n"
    install(plug_new=source + "    register('denoiser', 'otter', 'plug_new:Net', was=('beaver', 'rat'))\n")
    registry = load_plugins().registry
    assert registry.names("denoiser") == ["by-token", "mlp", "neural-graph", "otter"], "old names are not listed"
    with pytest.warns(Renamed) as caught:
        component = registry.get("denoiser", "beaver")
    assert component.name == "otter"
    assert [str(w.message) for w in caught] == ["the denoiser 'beaver' is now called 'otter'; write that"]


def test_who_takes_a_name_that_was_given_up_has_it(install: Install) -> None:
    source = "import wspace\n@wspace.hookimpl\ndef wspace_register(register):\n    register('denoiser', "
    install(plug_a=source + "'otter', 'plug_a:Net', was=('beaver',))\n", plug_b=source + "'beaver', 'plug_b:Net')\n")
    assert load_plugins().registry.get("denoiser", "beaver").plugin == "b"


def test_old_names_are_a_tuple(install: Install) -> None:
    source = "import wspace\n@wspace.hookimpl\ndef wspace_register(register):\n"
    install(plug_odd=source + "    register('denoiser', 'otter', 'plug_odd:Net', was='beaver')\n")
    assert load_plugins().warnings == [
        "plugin 'odd' cannot be used: PluginValidationError: plugin 'odd' registers the denoiser 'otter' with was='beaver': "
        "write a tuple, as in was=('beaver',) (plug_odd.py, line 4)"
    ]


# ---------------------------------------------------------------- one file


def test_a_one_file_plugin_is_used_and_its_own_classes_found(install: Install, tmp_path: Path) -> None:
    install()
    file = tmp_path / "plug_mine.py"
    file.write_text(GOOD.format(name="thing", module="plug_mine") + "\nclass Thing:\n    pass\n")
    loaded = load_plugins([file])
    assert fact(loaded, "plug_mine") == PluginFact("plug_mine", str(file), components=1)
    assert loaded.registry.get("denoiser", "thing").load().__name__ == "Thing"
    assert load_plugins([file]).registry.get("denoiser", "thing"), "again, in one process"


def test_a_one_file_plugin_is_used_whatever_the_allow_list_says(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSPACE_PLUGINS", "")
    assert "net" in load_plugins([tiny.plugin]).registry.names("denoiser")


@pytest.mark.parametrize("name", ["missing.py", "."])
def test_a_one_file_plugin_that_is_not_there_is_a_file_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileError, match=r"no such plugin file$"):
        load_plugins([tmp_path / name])


def test_a_one_file_plugin_is_a_python_file(tmp_path: Path) -> None:
    (tmp_path / "plugin.txt").write_text("hello")
    with pytest.raises(FileError, match=r"a one-file plugin is a Python file, ending in \.py$"):
        load_plugins([tmp_path / "plugin.txt"])


@pytest.mark.parametrize("source", ["1 / 0", "def (", "import no_such_package_at_all", "raise SystemExit(0)"])
def test_a_one_file_plugin_that_cannot_be_imported_is_the_users_error(tmp_path: Path, source: str) -> None:
    file = tmp_path / "plug_bad.py"
    file.write_text(source)
    with pytest.raises(UserError, match=rf"^{file}: cannot be imported: \w+(Error|Exit): "):
        load_plugins([file])
    assert "plug_bad" not in sys.modules, "nothing half-made is left behind"


@pytest.mark.parametrize("module", [m for m in BROKEN if m not in ("plug_missing_import", "plug_syntax", "plug_exits")])
def test_a_broken_one_file_plugin_is_the_users_error(install: Install, tmp_path: Path, module: str) -> None:
    install()
    file = tmp_path / f"{module}_file.py"
    file.write_text(BROKEN[module][0])
    with pytest.raises(UserError, match=rf"^{file}: cannot be used: "):
        load_plugins([file])


def test_a_one_file_plugin_clashing_with_another_names_both(install: Install, tmp_path: Path) -> None:
    install()
    file = tmp_path / "plug_mlp_file.py"
    file.write_text(GOOD.format(name="mlp", module="plug_mlp_file"))
    with pytest.raises(NameClash, match="'wspace' and 'plug_mlp_file'"):
        load_plugins([file])


@pytest.mark.parametrize("name", ["json", "sys", "wspace", "colorsys"])  # imported, built in, our own, not imported
def test_a_one_file_plugin_may_not_hide_a_module(install: Install, tmp_path: Path, name: str) -> None:
    install()
    before = sys.modules.get(name)
    file = tmp_path / f"{name}.py"
    file.write_text(GOOD.format(name="thing", module=name))
    with pytest.raises(UserError, match=rf"there is a module '{name}' already, .*: give the plugin file another name$"):
        load_plugins([file])
    assert sys.modules.get(name) is before


def test_two_one_file_plugins_of_one_name_are_refused(install: Install, tmp_path: Path) -> None:
    install()
    files = [tmp_path / folder / "plug_same.py" for folder in "ab"]
    for number, file in enumerate(files):
        file.parent.mkdir()
        file.write_text(GOOD.format(name=f"thing{number}", module="plug_same"))
    with pytest.raises(UserError, match=f"^{files[1]}: there is a module 'plug_same' already, {files[0]}"):
        load_plugins(files)


# ---------------------------------------------------------------- registry


# ---------------------------------------------------------------- not in use


def refused(file: Path) -> str:
    with pytest.raises(RecipeError) as caught:
        bind(read_recipe(file), load_plugins().registry)
    return f"{caught.value}\n"


def test_a_plugin_that_the_allow_list_leaves_out_is_named_where_a_recipe_needs_it(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(plug_fine=GOOD.format(name="thing", module="plug_fine"), plug_sick="raise ZeroDivisionError")
    file = tmp_path / "r.yaml"
    file.write_text("generator: {use: diffusion, denoiser: thing}\n")
    monkeypatch.setenv("WSPACE_PLUGINS", "")
    assert (
        "r.yaml:1: generator.denoiser.use: no denoiser named 'thing'. Known: by-token, mlp, neural-graph; plugin 'fine' has "
        "it, which WSPACE_PLUGINS leaves out\n"
    ) in refused(file)
    file.write_text("generator: {use: diffusion, denoiser: thong}\n")
    assert "no denoiser named 'thong'. Known: by-token, mlp, neural-graph\n" in refused(file)


@pytest.mark.parametrize("beside", ["recipe", "us"])
def test_a_one_file_plugin_that_lies_there_is_named_where_a_recipe_needs_it(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: str
) -> None:
    install()
    file, here = tmp_path / "recipes/r.yaml", tmp_path / "here"
    for folder in (file.parent, here):
        folder.mkdir()
        (folder / "other.py").write_text("thing = 'thing'\n")
        (folder / "latin.py").write_bytes(b"# \xe9\n")
    monkeypatch.chdir(here)
    plugin = (file.parent if beside == "recipe" else Path()) / "my plugin.py"
    plugin.write_text(GOOD.format(name="thing", module="my"))
    file.write_text("generator: {use: diffusion, denoiser: thing}\n")
    assert (
        f"'thing'. Known: by-token, mlp, neural-graph; if the plugin {plugin} has it, add --plugin '{plugin}'\n"
        in refused(file)
    )
    file.write_text("generator: {use: diffusion, denoiser: thin}\n")
    assert "no denoiser named 'thin'. Known: by-token, mlp, neural-graph\n" in refused(file)


def test_the_registry_lists_by_kind_in_the_order_of_the_data_flow(tiny: Tiny) -> None:
    listed = [(c.kind, c.name) for c in tiny.registry.all()]
    assert listed == sorted(listed, key=lambda key: (list(KINDS).index(key[0]), key[1]))
    assert set(listed) >= set(tiny.components)
    assert [c.name for c in tiny.registry.all("tokenizer")] == tiny.registry.names("tokenizer") == ["pieces", "whole"]


def test_the_registry_names_the_nearest_kind_and_name(tiny: Tiny) -> None:
    with pytest.raises(
        UnknownComponent, match=r"^no tokenizer named 'piece'\. Did you mean 'pieces'\? Known: pieces, whole$"
    ):
        tiny.registry.get("tokenizer", "piece")
    with pytest.raises(UnknownComponent, match=r"^no kind 'token'\. Did you mean 'tokenizer'\? Known: architecture, "):
        tiny.registry.get("token", "pieces")


def test_adding_is_all_or_nothing() -> None:
    registry = Registry()
    registry.add(Component("denoiser", "a", "m:A", "first"))
    with pytest.raises(NameClash):
        registry.add(Component("denoiser", "b", "m:B", "second"), Component("denoiser", "a", "m:A", "second"))
    assert registry.names("denoiser") == ["a"] and registry.get("denoiser", "a").plugin == "first"


def test_one_name_may_be_of_two_kinds() -> None:
    registry = Registry()
    registry.add(Component("backbone", "clip", "m:A", "p"), Component("text", "clip", "m:B", "p"))
    assert registry.get("backbone", "clip").class_name == "A" and registry.get("text", "clip").class_name == "B"
