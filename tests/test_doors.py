"""The three doors: what they offer is pinned, and plugins and documentation come through no other."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import wspace
import wspace.api
import wspace.testing
from wspace.recipes.registry import KINDS
from wspace.weights.zoo import card

ROOT = Path(__file__).parents[1]
DOORS = {"wspace", "wspace.api", "wspace.testing"}
PLUGIN_SOURCES = [*ROOT.glob("plugins/*/src/**/*.py"), *ROOT.glob("docs/example-plugin/**/*.py")]
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("plugins/*/README.md")]
PYTHON = re.compile(r"^```python(?: \S+)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)

LIGHT = ["PLUGIN_API", "AddCommand", "Register", "__version__", "hookimpl", "load"]
API = """
    CODES PICTURE PICTURE_SIDE TEST TRAIN VAL Answers Architecture Attention AxisPermutations Backbone ClassStatistics
    Classifier Closed Collection Condition Conditioner Contest DataError Dataset Default Denoiser Description
    Discriminator Engine Evidence Exporter Figure FileError Fit Fusion Generate Generator Images ImportedNetwork Importer
    Inferred Json Layers MeanLoss Metric Move Moves Network Opponent Outcome Pairs Part PluginFiles Precision Predictor
    Product Prompts Row Run RunFolder Scale Section Shots Sidecars Since Span StoredImages StoredZoo Symmetry Table
    Target Task Text TokenLayout Tokenizer Told Tracker UnitTokens UserError WeightEntry WeightSpec Wording WspaceError affine
    attention built cosine_scores fingerprint fit_scale infer match match_activations move open_picture open_run prove_module
    read_spec seeded show_section sinusoids spread_of straight_line stream uniform_by_fan_in weights_of
"""
TESTING = ["CHECKS", "Case", "Subject", "Unlawful", "cases", "cases_of", "conformance"]


def test_what_the_doors_offer_is_what_third_parties_rely_on() -> None:
    """A name that goes from here breaks somebody's plugin; docs/stability.md says what must come first."""
    assert sorted(wspace.__all__) == sorted(LIGHT)
    assert sorted(wspace.api.__all__) == sorted(API.split())
    assert sorted(wspace.testing.__all__) == sorted(TESTING)


@pytest.mark.parametrize("door", [wspace, wspace.api, wspace.testing], ids=lambda door: door.__name__)
def test_every_name_of_a_door_is_there(door) -> None:
    for name in door.__all__:
        getattr(door, name)


def test_every_kind_has_its_contract_in_the_door() -> None:
    assert set(KINDS.values()) <= set(wspace.api.__all__)


def test_the_docstring_of_the_door_says_what_each_name_is_for() -> None:
    assert wspace.api.__doc__ is not None
    assert set(re.findall(r"`(\w+)`", wspace.api.__doc__)) - {"wspace"} == set(wspace.api.__all__)


def test_the_light_door_imports_no_torch() -> None:
    script = "import sys, wspace; sys.exit('torch' in sys.modules or 'wspace.api' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


@pytest.mark.slow
def test_the_door_of_plugins_does_not_import_the_compiler_of_torch() -> None:
    """It takes longer than torch itself, every command waits for it, and only tracing and exporting need it."""
    script = (
        "import sys, wspace.api; sys.exit(any(name in sys.modules for name in ('torch._dynamo', 'sympy', 'diffusers')))"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def imported(code: str) -> Iterator[str]:
    """The modules of wspace that some code imports."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "wspace")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "wspace":
            assert node.module is not None
            public = sys.modules[node.module].__all__ if node.module in DOORS else ()
            for alias in node.names:
                yield node.module if alias.name in public else f"{node.module}.{alias.name}"


def blocks() -> Iterator[tuple[str, str]]:
    """Every block of Python in the documentation, and in the card of a zoo, with the page it is on."""
    for page in PAGES:
        yield from ((page.name, code) for code in PYTHON.findall(page.read_text(encoding="utf-8")))
    yield from (("the card of a zoo", code.replace("{{", "{").replace("}}", "}")) for code in PYTHON.findall(card.CARD))


@pytest.mark.parametrize("file", PLUGIN_SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_plugin_comes_through_the_doors_alone(file: Path) -> None:
    assert set(imported(file.read_text(encoding="utf-8"))) <= DOORS


def test_the_documentation_comes_through_the_doors_alone() -> None:
    shown = list(blocks())
    assert len(shown) > 12 and "the card of a zoo" in dict(shown)
    strange = {(page, module) for page, code in shown for module in imported(code) if module not in DOORS}
    assert strange == set()


def test_an_import_from_elsewhere_would_be_seen() -> None:
    assert set(imported("from wspace.interfaces import Target")) == {"wspace.interfaces.Target"}
    assert set(imported("import wspace.support.errors as e\nfrom wspace import support, load")) == {
        "wspace.support.errors", "wspace.support", "wspace",
    }  # fmt: skip
