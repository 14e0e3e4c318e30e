"""The import paths of wspace 0.1 that plugins and the documentation used: each works, and names the new one."""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import wspace
import wspace.api
from wspace.recipes.bind import bind_example
from wspace.recipes.plugins import load_plugins
from wspace.support.errors import UserError
from wspace.support.moved import MOVED
from wspace.testing import cases_of

RELEASED = Path(__file__).parents[1] / "released/example-plugin-0.1/src"
OLD_LINES = {
    "from wspace.errors import UserError": ("UserError", "from wspace.api import UserError"),
    "from wspace.denoising import sinusoids": ("sinusoids", "from wspace.api import sinusoids"),
    "from wspace.weights import WeightSpec": ("WeightSpec", "from wspace.api import WeightSpec"),
    "from wspace.weights import WeightEntry": ("WeightEntry", "from wspace.api import WeightEntry"),
    "from wspace.hookspecs import Register": ("Register", "from wspace import Register"),
    "from wspace.tracing import infer": ("infer", "from wspace.api import infer"),
    "from wspace.tracing import weights_of": ("weights_of", "from wspace.api import weights_of"),
    "from wspace.tracing.spec_file import read_spec": ("read_spec", "from wspace.api import read_spec"),
    "from wspace.tracing.module_proof import prove_module": ("prove_module", "from wspace.api import prove_module"),
    "from wspace.scaling import spread_of": ("spread_of", "from wspace.api import spread_of"),
    "from wspace.scaling import fit_scale": ("fit_scale", "from wspace.api import fit_scale"),
    "from wspace.settings import Generate": ("Generate", "from wspace.api import Generate"),
    "from wspace.seeding import stream": ("stream", "from wspace.api import stream"),
    "from wspace.seeding import seeded": ("seeded", "from wspace.api import seeded"),
    "from wspace.pictures import StoredImages": ("StoredImages", "from wspace.api import StoredImages"),
    "from wspace.pictures import open_picture": ("open_picture", "from wspace.api import open_picture"),
    "from wspace.matching import match": ("match", "from wspace.api import match"),
    "from wspace.matching import move": ("move", "from wspace.api import move"),
    "from wspace.matching.barrier import MeanLoss": ("MeanLoss", "from wspace.api import MeanLoss"),
    "from wspace.matching.barrier import straight_line": ("straight_line", "from wspace.api import straight_line"),
    "from wspace.matching.activations import match_activations": (
        "match_activations",
        "from wspace.api import match_activations",
    ),
    "from wspace.zoo_format import StoredZoo": ("StoredZoo", "from wspace.api import StoredZoo"),
}


@pytest.mark.parametrize("line", OLD_LINES)
def test_an_old_line_works_and_names_the_new_one(line: str) -> None:
    name, new = OLD_LINES[line]
    names: dict[str, object] = {}
    with pytest.warns(DeprecationWarning) as caught:
        exec(compile(line, "plugin.py", "exec"), names)
    door = wspace if new.startswith("from wspace import") else wspace.api
    assert names[name] is getattr(door, name)
    assert {str(warning.message) for warning in caught} == {
        f"{line.split()[1]}.{name} is now `{new}`; the old path goes in wspace 0.3"
    }
    assert {warning.filename for warning in caught} == {"plugin.py"}, "it points at who asks"


def test_no_other_old_line_is_kept() -> None:
    kept = {f"from {module} import {name}" for module, names in MOVED.items() for name in names}
    assert kept == set(OLD_LINES) | {"from wspace.fingerprint import of_json"}


def test_the_fingerprint_was_a_module() -> None:
    with pytest.warns(
        DeprecationWarning, match=r"^wspace\.fingerprint\.of_json is now `from wspace\.api import fingerprint`"
    ):
        names: dict[str, object] = {}
        exec("from wspace import fingerprint\nsame = fingerprint.of_json", names)
    assert names["same"] is wspace.api.fingerprint


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "from wspace.errors import DataError",
            "cannot import name 'DataError' from 'wspace.errors' (unknown location)",
        ),
        ("import wspace.workbench", "No module named 'wspace.workbench'"),
        ("import wspace.matching.benchmark", "No module named 'wspace.matching.benchmark'"),
    ],
)
def test_what_was_private_is_gone(line: str, message: str) -> None:
    with pytest.raises(ImportError) as caught:
        exec(line, {})
    assert str(caught.value) == message


def test_the_rooms_of_old_names_have_their_modules_still() -> None:
    """The room `weights` answers for two names of the module that was there, without a warning for its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert importlib.import_module("wspace.weights.permutations")
        with pytest.raises(AttributeError, match=r"^module 'wspace\.weights' has no attribute 'nonsense'$"):
            importlib.import_module("wspace.weights").nonsense  # noqa: B018


def test_registering_by_an_old_path_imports_no_torch() -> None:
    script = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from wspace.hookspecs import Register; import sys; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


# ---------------------------------------------------------------- a plugin


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch):
    """The example plugin as it was published with wspace 0.1, as if installed."""
    monkeypatch.syspath_prepend(RELEASED)
    yield load_plugins(allowed="example", installed=[EntryPoint("example", "wspace_example", "wspace")])
    for name in [name for name in sys.modules if name.split(".")[0] == "wspace_example"]:
        del sys.modules[name]


def test_the_example_as_it_was_released_binds_without_a_warning_and_keeps_every_law(released) -> None:
    components = [component for component in released.registry.all() if component.plugin == "example"]
    assert [component.name for component in components] == ["example-gated", "example-mixer"] and not released.warnings
    for component in components:  # reads its source alone
        assert bind_example(component, released.registry).name == component.name
    with pytest.warns(DeprecationWarning) as caught:
        for component in components:
            for case in cases_of(component, released.registry):
                case.run()
    messages = {str(warning.message) for warning in caught if "wspace" in str(warning.message)}
    assert messages == {
        f"{old} is now `from wspace.api import {old.rpartition('.')[2]}`; the old path goes in wspace 0.3"
        for old in (
            "wspace.weights.WeightEntry", "wspace.weights.WeightSpec", "wspace.denoising.sinusoids",
            "wspace.interfaces.Target", "wspace.interfaces.Condition", "wspace.interfaces.Denoiser",
            "wspace.interfaces.TokenLayout",
        )
    }  # fmt: skip


def test_a_plugin_that_imports_what_is_gone_is_told_which_doors_there_are(tmp_path: Path) -> None:
    file = tmp_path / "plug_private.py"
    file.write_text(
        "import wspace\n\n@wspace.hookimpl\ndef wspace_register(register):\n"
        "    register('denoiser', 'private', 'plug_private_part:Net')\n"
    )
    (tmp_path / "plug_private_part.py").write_text("from wspace.workbench import Workbench\n")
    component = load_plugins([file], allowed="").registry.get("denoiser", "private")
    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.raises(UserError) as caught:
            component.load()
    finally:
        sys.path.remove(str(tmp_path))
        del sys.modules["plug_private"]
    assert str(caught.value) == (
        "denoiser 'private' of plugin 'plug_private' imports 'wspace.workbench', which this wspace does not have; a plugin "
        "imports wspace, wspace.api and wspace.testing alone"
    )


def test_the_changelog_lists_every_old_path_beside_the_new_one() -> None:
    changelog = (Path(__file__).parents[2] / "CHANGELOG.md").read_text(encoding="utf-8")
    for module, names in MOVED.items():
        for name, new in names.items():
            assert f"| `{module}.{name}` | `{new.replace(':', '.')}` |" in changelog
