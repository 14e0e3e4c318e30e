"""docs/components.md is what the registry says; what `show` says of types, bounds, papers and places."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from wspace.recipes import catalogue
from wspace.recipes.catalogue import described, in_words, page, sources_of
from wspace.recipes.plugins import HOOKS, load_plugins
from wspace.recipes.registry import KINDS, Component, Registry
from wspace.recipes.signature import VOCABULARY, read_class, signature_of

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/components.md"


def ours() -> Registry:
    """The built-in components, and those of the plugins that are kept beside them."""
    files = (ROOT / "plugins").glob("*/pyproject.toml")
    projects = [tomllib.loads(file.read_text(encoding="utf-8"))["project"] for file in files]
    names = [name for project in projects for name in project["entry-points"]["wspace"]]
    loaded = load_plugins(allowed=",".join(names))
    assert not loaded.broken and names
    return loaded.registry


@pytest.mark.plugins("igpg", "t2w", "taskid")
def test_the_page_is_what_the_registry_says() -> None:
    plugins = ",".join(sorted({component.plugin for component in ours().all()} - {"wspace"}))
    assert PAGE.read_text(encoding="utf-8") == page(ours()), (
        f"docs/components.md is of other components: WSPACE_PLUGINS={plugins} wspace list --markdown > docs/components.md"
    )


def test_every_kind_component_and_hook_has_its_place() -> None:
    text = page(ours())
    headings = re.findall(r"^### (\w+) `(.+)`$", text, re.MULTILINE)
    assert headings == [(component.kind, component.name) for component in ours().all()] and len(headings) > 20
    for heading in ("Datasets", "Symmetries", "Generators", "Hooks"):
        assert f"\n## {heading}\n" in text
    for interface in KINDS.values():
        assert re.search(rf"^`{interface}`: [A-Z].*\.$", text, re.MULTILINE), f"{interface} has no docstring"
    assert HOOKS == ["wspace_register", "wspace_commands"]
    assert "### `wspace_register(register)`" in text and "### `wspace_commands(add)`" in text
    for call in (
        "register(kind: str, name: str, target: str, *, example: Mapping[str, Any] | None = None, was: tuple[str, ...] = ())",
        "add(name: str, target: str)",
    ):
        assert f"`{call} -> None`" in text


def test_every_example_on_the_page_is_yaml_that_names_its_component() -> None:
    blocks = re.findall(r"^### \w+ `([^`]+)`$.*?^```yaml\n(.*?)^```$", page(ours()), re.MULTILINE | re.DOTALL)
    assert len(blocks) == len(ours().all())
    for name, block in blocks:
        ((value),) = YAML(typ="safe").load(block).values()
        assert (value[0] if isinstance(value, list) else value)["use"] == name


def test_a_component_on_the_page(inside) -> None:
    done = inside("list", "--markdown")
    assert done.returncode == 0
    (text,) = re.findall(r"### fusion `slerp`\n\n(.*?)\n##", done.stdout, re.DOTALL)
    assert text == (
        "Spherical interpolation (Shoemake, 1985), of each tensor by itself; `at` is 0 for the first network, 1 for the "
        "second.\n\n"
        "Halfway between two tensors at right angles the mean is shorter than either, by a factor of 0.7; the arc is not.\n\n"
        "| parameter | type | default |\n|---|---|---|\n| `at` | float, at least 0, at most 1 | `0.5` |\n\n"
        "```yaml\nfusion: {use: slerp}\n```\n\n"
        "Plugin wspace, version 1, `wspace/components/fusions/slerp.py`; given `spec`; papers: Shoemake (1985).\n"
    )


def test_the_page_is_about_every_kind(inside) -> None:
    done = inside("list", "metric", "--markdown")
    assert (done.returncode, done.stderr) == (
        2,
        "error: list --markdown: the page is about every kind; leave the kind out\n",
    )


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ("int", "int"),
        ("Path", "path"),
        ("str | None", "str or null"),
        ("Annotated[int, Ge(1)]", "int, at least 1"),
        ("Annotated[float, Gt(0), Le(1)]", "float, above 0, at most 1"),
        ("Annotated[float, Ge(0), Lt(1)] | None", "float, at least 0, below 1; or null"),
        ("Literal['gelu', 'tanh', 'none']", "gelu, tanh or none"),
        ("Literal['a']", "a"),
        ("Denoiser", "a denoiser"),
        ("Predictor | None", "a predictor or null"),
        ("tuple[str, ...]", "list of str"),
        ("list[Annotated[int, Ge(2)]]", "list of (int, at least 2)"),
        ("tuple[int, float]", "list of 2: int; float"),
        ("Annotated[tuple[float, ...], MinLen(1), MaxLen(3)]", "list of float, 1 or more, 3 or fewer"),
    ],
)
def test_a_type_in_words(annotation: str, words: str) -> None:
    assert in_words(eval(annotation, {"__builtins__": {}}, VOCABULARY)) == words


@pytest.mark.parametrize(
    ("doc", "papers"),
    [
        ("DDPM (Ho et al., 2020; Tian et al., 2025, eq. 6-9).", ["Ho et al. (2020)", "Tian et al. (2025)"]),
        ("v (Salimans and Ho, 2022) of Song et al. (2021), eta 1", ["Salimans and Ho (2022)", "Song et al. (2021)"]),
        ("(Chen, Lu, Hecht-Nielsen, 1993)", ["Chen, Lu, Hecht-Nielsen (1993)"]),
        (
            'rotation is Procrustes\' (Tu et al.,\n2016, "Flow"; Schönemann, 1966)',
            ["Tu et al. (2016)", "Schönemann (1966)"],
        ),
        ("T2W's head (Tian et al., 2025, eq. 15 and listing 1)", ["Tian et al. (2025)"]),
        ("Ho et al., 2020, and again Ho et al. (2020)", ["Ho et al. (2020)"]),
        ("Files of 2020 pixels; nobody's.", []),
    ],
)
def test_papers_are_found_in_a_docstring(doc: str, papers: list[str]) -> None:
    assert sources_of(doc) == papers


COMPONENT = '''from pathlib import Path


class Thing:
    """After Peebles et al., 2022.

    more: of it.
    """

    version = 4

    def __init__(self, denoiser: Denoiser, more: tuple[str, ...] = ("a", ""), file: Path | None = None, *, layout: object):
        ...
'''


def test_show_says_all_there_is_to_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "shown_thing.py"
    file.write_text(COMPONENT)
    component = Component("denoiser", "thing", "shown_thing:Thing", "mine", {"denoiser": "mlp"})
    assert described(component).splitlines() == [
        "denoiser thing   (Thing, plugin mine, version 4)",
        f"{file}:4",
        "",
        "After Peebles et al., 2022.",
        "",
        "more: of it.",
        "",
        "  denoiser: a denoiser (required)",
        '  more: list of str = [a, ""]',
        "  file: path or null = null",
        "  layout: given by the run: shape and mask of the token sequence (TokenLayout)",
        "",
        "papers: Peebles et al. (2022)",
        "",
        "denoiser: {use: thing, denoiser: mlp}",
    ]


def test_a_file_of_ours_is_named_from_the_root_and_others_as_their_module() -> None:
    component = load_plugins(allowed="").registry.get("denoiser", "mlp")
    file = signature_of(component).file
    assert catalogue._relative(file, component.module) == "wspace/components/denoisers/mlp.py"
    assert catalogue._relative(Path("/elsewhere/site-packages/mine/net.py"), "mine.net") == "mine/net.py"


def test_every_setting_of_a_recipe_can_be_said_in_words() -> None:
    recipe = read_class(ROOT / "wspace/support/settings.py", "Train")
    assert {name: in_words(p.annotation) for name, p in recipe.settable.items()}["clip"] == "float, above 0; or null"
