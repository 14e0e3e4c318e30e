"""A symmetry is one of a target, or is refused with what breaks it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.support import synthetic
from tests.support.mlp import DIMS, MLP, SPEC, declared, without
from tests.support.stand_ins import Adapter, Units
from wspace.components.symmetries.gl import GL
from wspace.components.symmetries.none import Trivial
from wspace.components.symmetries.sign_permutation import SignPermutation
from wspace.interfaces import Symmetry, Target
from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.support.errors import UserError
from wspace.weights.permutations import AxisPermutations
from wspace.weights.proof import TOLERANCE, Trial, prove, prove_by, symmetry_error

ADAPTERS = [(activation, bias) for activation in ("gelu", "tanh", "none") for bias in (True, False)]
KINDS = {"permutation": Units, "sign-permutation": SignPermutation, "gl": GL}
HOLDS = {"permutation": ("gelu", "tanh", "none"), "sign-permutation": ("tanh", "none"), "gl": ("none",)}
BREAKS = {"sign-permutation": "flipping the signs of", "gl": "changing the basis of"}


def refusal(symmetry: Symmetry, target: Target, name: str, seed: int = 0) -> str:
    """What is said of a symmetry that is none, with X for by how much, which is a lot."""
    with pytest.raises(UserError) as caught:
        prove(symmetry, target, name, DIMS, torch.Generator().manual_seed(seed))
    found = re.search(r"by ([\d.e+]+)% of", str(caught.value))
    assert found is not None and float(found[1]) > 1
    return str(caught.value).replace(found[1], "X")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("activation", "bias"), ADAPTERS)
def test_what_leaves_an_adapter_as_it_is_depends_on_its_activation(kind: str, activation, bias: bool) -> None:
    target = Adapter(5, activation, bias, feature_dim=DIMS[0], text_dim=DIMS[1])
    symmetry: Symmetry = KINDS[kind](spec=target.spec)
    if activation in HOLDS[kind]:
        prove(symmetry, target, kind, DIMS, torch.Generator().manual_seed(0))
        assert 0 < symmetry_error(symmetry, target, DIMS, torch.Generator().manual_seed(0)) < TOLERANCE / 10
    else:
        of = "w1, b1, w2" if bias else "w1, w2"
        assert refusal(symmetry, target, kind) == (
            f"symmetry {kind!r}: {BREAKS[kind]} axis 'hidden' (of {of}) changes what this target's networks compute, "
            "by X% of the largest score"
        )


@pytest.mark.parametrize(
    ("symmetry", "target"),
    [
        (Units(spec=SPEC), MLP(functional.gelu)),
        (SignPermutation(spec=SPEC), MLP(torch.tanh)),
        (SignPermutation(("second",), spec=without("mix")), MLP(torch.sin, without("mix"))),
        (GL(("second",), spec=without("mix")), MLP(lambda x: x, without("mix"))),
        (Trivial(), MLP(functional.gelu)),
    ],
)
def test_several_layers_and_square_ones_have_them_too(symmetry: Symmetry, target: Target) -> None:
    for seed in range(5):
        prove(symmetry, target, "any", DIMS, torch.Generator().manual_seed(seed))


def test_an_axis_named_by_the_user_whose_order_means_something_is_refused() -> None:
    target = Adapter(3, feature_dim=DIMS[0], text_dim=DIMS[1])
    end = "changes what this target's networks compute, by X% of the largest score; free axes: hidden"
    said = refusal(Units(("feature",), spec=target.spec), target, "permutation")
    assert said == f"symmetry 'permutation': permuting axis 'feature' (of w1) {end}"
    said = refusal(Units(("hidden", "text"), spec=target.spec), target, "permutation")
    assert said == f"symmetry 'permutation': permuting axis 'text' (of w2, b2) {end}"
    said = refusal(SignPermutation(("text",), spec=target.spec), target, "sign-permutation")
    assert said == f"symmetry 'sign-permutation': permuting axis 'text' (of w2, b2) {end}"


def test_an_axis_that_is_free_though_not_declared_so_is_taken() -> None:
    target = MLP(functional.gelu, declared({}, free=("first",)))
    prove(Units(("second",), spec=target.spec), target, "permutation", DIMS, torch.Generator().manual_seed(0))


def said_of_adapter(axes: dict[str, tuple[str, ...]], free: tuple[str, ...] = ("hidden",)) -> Adapter:
    """An adapter as wide as its texts, so that a square tensor is in it, of which other axes are said."""
    target = Adapter(DIMS[1], feature_dim=DIMS[0], text_dim=DIMS[1])
    entries = tuple(replace(e, axes=axes.get(e.name, e.axes)) for e in target.spec.entries)
    target.spec = WeightSpec(entries, free)
    return target


WRONG = "the target's spec is wrong about tensor"


@pytest.mark.parametrize(
    ("target", "of", "hint"),
    [
        (
            said_of_adapter({"b1": ("bias",)}),
            "'hidden' (of w1, w2)",
            f"; {WRONG} 'b1': axis 'hidden' is its dimension 0",
        ),
        (
            MLP(functional.gelu, declared({"b2": ("bias",)})),  # which starts at 0
            "'second' (of w2, w3)",
            f"; {WRONG} 'b2': axis 'second' is its dimension 0",
        ),
        (
            said_of_adapter({"w2": ("text", "hidden")}),
            "'hidden' (of w1, b1, w2)",
            f"; {WRONG} 'w2': axis 'hidden' is its dimension 0, not dimension 1",
        ),
        (
            said_of_adapter({"b2": ("hidden",)}),
            "'hidden' (of w1, b1, w2, b2)",
            f"; {WRONG} 'b2': its dimension 0 is not axis 'hidden'",
        ),
        (
            MLP(functional.gelu, declared({"mix": ("first", "mixed")})),
            "'first' (of w1, b1, mix, w2)",
            f"; {WRONG} 'mix': axis 'first' is its dimensions 0 and 1, not dimension 0",
        ),
        (
            MLP(functional.gelu, declared({"b2": ("bias",)}, ("first", "bias", "second"))),
            "'bias' (of b2)",
            "",  # that nothing moves would be no correction
        ),
        (
            said_of_adapter({"b1": ("bias",), "w2": ("text", "hidden")}),
            "'hidden' (of w1, w2)",
            f"; {WRONG} 'b1': axis 'hidden' is its dimension 0, and about tensor 'w2': axis 'hidden' is its dimension 0, "
            "not dimension 1",
        ),
        (  # about three
            said_of_adapter({"w1": ("feature", "9"), "b1": ("9",), "w2": ("hidden", "text"), "b2": ("hidden",)}),
            "'hidden' (of w2, b2)",
            "",
        ),
        (said_of_adapter({}, ("hidden", "text")), "'text' (of w2, b2)", ""),  # nothing else could make it free
    ],
)
def test_a_wrong_spec_is_refused_with_the_tensor_and_the_axis_that_break_it(target: Target, of: str, hint: str) -> None:
    for seed in range(3):
        assert refusal(Units(spec=target.spec), target, "permutation", seed) == (
            f"symmetry 'permutation': permuting axis {of} changes what this target's networks compute, "
            f"by X% of the largest score{hint}"
        )


def test_an_axis_of_two_units_is_not_let_through_by_chance() -> None:
    target = Adapter(3, feature_dim=2, text_dim=DIMS[1])
    for seed in range(30):
        rng = torch.Generator().manual_seed(seed)
        with pytest.raises(UserError):
            prove(Units(("feature",), spec=target.spec), target, "permutation", (2, DIMS[1]), rng)


def test_of_an_axis_on_which_nothing_depends_nothing_is_proven() -> None:
    target = MLP(lambda x: x * 0)
    with pytest.raises(UserError) as caught:
        prove(Units(spec=SPEC), target, "permutation", DIMS, torch.Generator().manual_seed(0))
    assert str(caught.value) == (
        "symmetry 'permutation': nothing is proven of axis 'first' (of w1, b1, mix, w2): what this target's networks compute "
        "does not depend on it, with any random weights and inputs that were tried"
    )


class Amplifying(MLP):
    """Of which float32 keeps but three digits."""

    def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:
        return torch.sin(3000 * super().logits(weights, features, texts))


def test_what_float32_cannot_tell_from_rounding_is_decided_in_float64() -> None:
    right, wrong = Amplifying(torch.tanh), Amplifying(torch.tanh, declared({"b2": ("bias",)}))
    rng = torch.Generator().manual_seed(0)
    assert symmetry_error(Units(spec=SPEC), right, DIMS, rng) > 10 * TOLERANCE
    prove(Units(spec=SPEC), right, "permutation", DIMS, rng)
    assert refusal(Units(spec=wrong.spec), wrong, "permutation").endswith(
        f"; {WRONG} 'b2': axis 'second' is its dimension 0"
    )


class Doubling(Symmetry):
    """No group of anything, in one piece."""

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        return torch.full((count, 1), 2.0)

    identity = inverse = compose = align = None  # type: ignore[assignment]

    def act(self, elements: Tensor, weights: Tensor) -> Tensor:
        return elements * weights


def test_a_symmetry_without_parts_is_refused_as_a_whole() -> None:
    assert refusal(Doubling(), MLP(functional.gelu), "doubling") == (
        "symmetry 'doubling': it changes what this target's networks compute, by X% of the largest score"
    )


class Exploding(Doubling):
    def act(self, elements: Tensor, weights: Tensor) -> Tensor:
        return weights * torch.inf


def test_scores_that_are_no_numbers_prove_nothing() -> None:
    with pytest.raises(UserError) as caught:
        prove(Exploding(), MLP(functional.gelu), "exploding", DIMS, torch.Generator().manual_seed(0))
    assert str(caught.value) == (
        "symmetry 'exploding': it changes which of the numbers that this target's networks compute are finite"
    )


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (
            "tokenizer={use: neuron, axis: units}",
            "tokenizer 'neuron': this target has no axis 'units'; it has feature, h",
        ),
        (
            "symmetry=gl",
            "symmetry 'gl': changing the basis of axis 'hidden' (of w1, b1, w2) changes what this target's",
        ),
    ],
)
def test_what_does_not_suit_the_target_is_said_before_a_zoo_is_trained(tmp_path: Path, setting: str, said: str) -> None:
    recipe = synthetic.recipe_of(tmp_path, setting)
    with pytest.raises(UserError) as caught:
        synthetic.run(recipe, synthetic.bench_of(recipe), tmp_path, "zoo")
    assert str(caught.value).startswith(said)
    assert not list((tmp_path / "zoo").iterdir())


def test_what_was_next_to_nothing_is_no_percentage() -> None:
    spec = WeightSpec((WeightEntry("w", (2,), ("units",)),), free=("units",))
    trial = Trial(torch.tensor([[0.0, 1.0]]), lambda weights: [weights[:, :1]])
    with pytest.raises(UserError, match="changes what they compute, from next to nothing$"):
        prove_by(AxisPermutations(spec), spec, [trial], torch.Generator(), "permutation", "they compute", "the spec")
