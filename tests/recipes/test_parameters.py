"""What a parameter says beside its type: since when it exists, and which component is its default."""

from __future__ import annotations

import ast
import inspect
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch

import wspace
from tests.support.tiny import Tiny, tiny_fixture  # noqa: F401
from tests.support.toys import LAYOUT
from wspace.components.architectures.mlp import MLP
from wspace.components.generators.diffusion import Diffusion
from wspace.components.generators.flow import Flow
from wspace.components.predictors.linear import Linear
from wspace.components.targets.module import Module
from wspace.components.tokenizers.chunk import Chunk
from wspace.interfaces import Denoiser
from wspace.interfaces.weights import plain_spec
from wspace.recipes.bind import bind
from wspace.recipes.plugins import BUILTIN, load_plugins
from wspace.recipes.signature import UnreadableSignature, mentions_slot, read_class, signature_of
from wspace.recipes.source import packaged_recipes, parse_recipe
from wspace.runs.keys import keys
from wspace.runs.pipeline import STAGES
from wspace.support.errors import RecipeError, UserError
from wspace.support.parameters import built, is_default

CORE = Path(wspace.__file__).parent


class Same(Denoiser):
    def forward(self, x, level, condition, anchor):
        return x


# ---------------------------------------------------------------- since


def dated(tiny: Tiny, default: str = "3") -> None:
    """The tiny metric has a new setting, and the tiny denoiser a new component."""
    old = tiny.file.read_text()
    new = old.replace("most: int = 3", f'most: Annotated[int, Since("0.2")] = {default}')
    new = new.replace(
        "rate: float = 1e-3,", 'rate: float = 1e-3, extra: Annotated[Denoiser | None, Since("0.2")] = None,'
    )
    assert new.count("Since") == 2
    tiny.file.write_text(new)
    read_class.cache_clear()


@pytest.mark.parametrize("written", ["", "3"])
def test_at_its_default_what_came_later_is_in_no_key(tiny: Tiny, written: str) -> None:
    metric = f"[{{use: count, most: {written}}}]" if written else "[count]"
    recipe = tiny.recipe.replace("[count]", metric)
    tiny.file.write_text(tiny.file.read_text().replace("most: int = 3", ""))
    read_class.cache_clear()
    before = keys(bind(parse_recipe(tiny.recipe, "tiny.yaml"), tiny.registry), STAGES)
    tiny.file.write_text(tiny.file.read_text().replace("def __init__(self, ):", "def __init__(self, most: int = 3):"))
    dated(tiny)
    bound = bind(parse_recipe(recipe, "tiny.yaml"), tiny.registry)
    assert keys(bound, STAGES) == before and bound.filled["metrics"] == [{"use": "count", "most": 3}]


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("[count]", "[{use: count, most: 4}]", ["evaluate", "report"]),
        ("width: 8", "width: 8\n    extra: {use: net, width: 1}", ["train", "generate", "evaluate", "report"]),
    ],
)
def test_at_any_other_value_it_is(tiny: Tiny, old: str, new: str, changed: list[str]) -> None:
    dated(tiny)
    before = keys(bind(parse_recipe(tiny.recipe, "tiny.yaml"), tiny.registry), STAGES)
    after = keys(bind(parse_recipe(tiny.recipe.replace(old, new), "tiny.yaml"), tiny.registry), STAGES)
    assert [name for name in before if before[name] != after[name]] == changed


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ('n: Annotated[int, Since("0.2")]', "what came later has a default, that of before"),
        ('n: int = Default("net")', "the default of 'n' names a component, and 'n' takes none"),
        ("n: Denoiser = Default(3)", "the default of 'n' is not a literal: Default(3)"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, argument: str, message: str) -> None:
    file = tmp_path / "written.py"
    file.write_text(f"class A:\n    def __init__(self, {argument}): ...\n")
    with pytest.raises(UnreadableSignature) as caught:
        read_class(file, "A")
    assert str(caught.value).startswith(f"{file}: ") and str(caught.value).endswith(message)


# ---------------------------------------------------------------- defaults


@pytest.mark.parametrize("generator", [Diffusion, Flow])
def test_a_generator_is_built_in_python_with_its_default_predictor(generator: type) -> None:
    torch.manual_seed(0)
    made = generator(Same(), layout=LAYOUT, pooled_width=4)
    assert isinstance(made.predictor, Linear)
    assert generator(Same(), None, layout=LAYOUT).predictor is None
    with pytest.raises(UserError, match=r"^the predictor 'linear' needs pooled_width: pass that, or a predictor$"):
        generator(Same(), layout=LAYOUT)


def test_a_component_is_built_by_its_name_with_its_defaults() -> None:
    spec = plain_spec({"layer.weight": (3, 4)})
    made = built("tokenizer", "chunk", spec=spec)
    assert isinstance(made, Chunk) and made.layout.mask.shape[1] == Chunk(spec=spec).layout.mask.shape[1]
    assert built("tokenizer", made) is made
    with pytest.raises(UserError, match=r"^the tokenizer 'chunk' needs spec: pass that, or a tokenizer$"):
        built("tokenizer", "chunk")
    with pytest.raises(RecipeError, match="no tokenizer named 'chunks'. Did you mean 'chunk'"):
        built("tokenizer", "chunks", spec=spec)


def test_a_target_is_built_in_python_with_its_default_architecture() -> None:
    assert isinstance(Module(feature_dim=5, text_dim=3).architecture, MLP)


@pytest.mark.filterwarnings("default")  # of the packages that some components import
def test_every_default_of_a_component_is_of_its_type() -> None:
    """No name in a component's place: a type checker and plain Python take it for a component."""
    seen = 0
    for component in load_plugins().registry.all():
        for parameter in signature_of(component).settable.values():
            if isinstance(parameter.default, str) and mentions_slot(parameter.annotation):
                default = inspect.signature(component.load()).parameters[parameter.name].default
                assert is_default(default), f"{component.kind} {component.name}: {parameter.name}"
                seen += 1
    assert seen >= 3


# ---------------------------------------------------------------- the core knows no plugin


def test_no_text_or_comparison_of_the_core_names_a_plugin_or_its_components() -> None:
    registry = load_plugins().registry
    built_in = {component.name for component in registry.all() if component.plugin == BUILTIN}
    names = {component.name for component in registry.all()} - built_in
    names |= {entry.name for entry in entry_points(group="wspace")} | {"T2W"}
    names -= {"digits", "nested", "instruction", "permutation", "serve"}  # words that a sentence may need
    assert "vq" in names or not entry_points(group="wspace")
    named, recipes = [], packaged_recipes()
    for file in sorted(CORE.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # citations
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                if node.value in recipes:
                    continue
                words = {word.strip("`'\".,:;()") for word in node.value.split()}
                named += [f"{file.relative_to(CORE)}:{node.lineno}: {word}" for word in sorted(words & names)]
    assert named == []
