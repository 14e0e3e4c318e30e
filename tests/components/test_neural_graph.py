"""Tokens along every hidden layer, and the denoiser that sees nothing of their order."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from wspace.components.denoisers.neural_graph import NeuralGraph
from wspace.components.tokenizers.units import Units
from wspace.interfaces import Condition, Span, TokenLayout, UnitTokens
from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.support.errors import UserError
from wspace.weights.permutations import AxisPermutations

WIDTH = 6  # of a condition token


def spec_of(*entries: tuple[str, tuple[int, ...], tuple[str, ...]], free: tuple[str, ...]) -> WeightSpec:
    return WeightSpec(tuple(WeightEntry(*entry) for entry in entries), free)


PERCEPTRON = spec_of(
    ("w1", (3, 7), ("a", "7")), ("b1", (3,), ("a",)),
    ("w2", (4, 3), ("b", "a")), ("b2", (4,), ("b",)),
    ("w3", (5, 4), ("5", "b")), ("b3", (5,), ("5",)),
    free=("a", "b"),
)  # fmt: skip
BARE = spec_of(
    ("w1", (3, 7), ("a", "7")), ("w2", (4, 3), ("b", "a")), ("w3", (5, 4), ("c", "b")), ("w4", (2, 5), ("2", "c")),
    free=("a", "b", "c"),
)  # fmt: skip
"""Without biases: the middle layer's units have edges alone, and no token is of no unit."""
RESIDUAL = spec_of(
    ("stem", (4, 3, 2, 2), ("a", "3", "2", "2")), ("inside", (4, 4, 3, 3), ("a", "a", "3", "3")),
    ("head", (5, 4), ("5", "a")), ("bias", (5,), ("5",)),
    free=("a",),
)  # fmt: skip
"""Convolutions, the second from a layer to itself."""
SPECS = {"perceptron": PERCEPTRON, "bare": BARE, "residual": RESIDUAL}


def zoo(spec: WeightSpec, count: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(count, spec.size, generator=torch.Generator().manual_seed(seed))


def live(spec: WeightSpec, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Units, NeuralGraph]:
    torch.manual_seed(seed)
    tokenizer = Units(spec=spec)
    tokenizer.fit(zoo(spec, 9))
    denoiser = NeuralGraph(width=16, depth=2, heads=2, layout=tokenizer.layout, condition_width=WIDTH)
    for parameter in denoiser.parameters():
        nn.init.normal_(parameter, std=0.3)
    return tokenizer.to(dtype), denoiser.eval().to(dtype)


def told(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Condition]:
    rng = torch.Generator().manual_seed(1)
    tokens = torch.randn(4, 3, WIDTH, generator=rng)
    mask = torch.arange(3) < torch.tensor([1, 2, 3, 2])[:, None]
    return torch.linspace(0.1, 0.9, 4).to(dtype), Condition(tokens.to(dtype), mask, tokens[:, 0].to(dtype))


# ---------------------------------------------------------------- tokens


def test_units_of_every_layer_have_a_token_and_the_layout_says_what_is_in_it() -> None:
    layout = Units(spec=PERCEPTRON).layout
    assert layout.groups == (
        UnitTokens("a", 3, (Span(7), Span(1))),
        UnitTokens("b", 4, (Span(3, "a"), Span(1), Span(5))),
    )
    assert layout.mask.shape == (3 + 4 + 1, 9) and layout.units == 0
    assert layout.mask.sum(1).tolist() == [8] * 3 + [9] * 4 + [5]


def test_values_lie_in_the_token_of_their_unit() -> None:
    tokens = Units(spec=PERCEPTRON).arrange(torch.arange(float(PERCEPTRON.size))[None])[0]
    named = PERCEPTRON.unflatten(torch.arange(float(PERCEPTRON.size)))
    for unit in range(3):
        assert tokens[unit].tolist() == [*named["w1"][unit], named["b1"][unit], 0]
    for unit in range(4):
        assert tokens[3 + unit].tolist() == [*named["w2"][unit], named["b2"][unit], *named["w3"][:, unit]]
    assert tokens[7].tolist() == [*named["b3"], 0, 0, 0, 0]


def test_values_between_two_units_lie_side_by_side() -> None:
    tokenizer = Units(spec=RESIDUAL)
    (group,) = tokenizer.layout.groups
    assert group.spans == (Span(12), Span(36, "a"), Span(5)) and tokenizer.layout.units == 4
    tokens = tokenizer.arrange(torch.arange(float(RESIDUAL.size))[None])[0]
    inside = RESIDUAL.unflatten(torch.arange(float(RESIDUAL.size)))["inside"]
    assert torch.equal(tokens[2, 12:48].view(4, 9), inside[2].flatten(1))


def test_one_axis_may_be_named_alone() -> None:
    layout = Units(axes=("b",), spec=PERCEPTRON).layout
    assert layout.groups == (UnitTokens("b", 4, (Span(3), Span(1), Span(5))),) and layout.units == 4


@pytest.mark.parametrize(
    ("spec", "axes", "message"),
    [
        (PERCEPTRON, ("hidden",), "this target has no axis 'hidden'; it has a, b"),
        (
            spec_of(("w", (6, 2), ("a/3", "2")), free=("a",)),
            None,
            "axis 'a' is only a part of a dimension of 'w', 'a/3', so that its units are no tokens: use the tokenizer 'chunk', "
            "or name other axes",
        ),
        (
            spec_of(("w", (2, 3, 4), ("a", "b", "c")), free=("a", "b", "c")),
            None,
            "tensor 'w' lies along 'a', 'b' and 'c'; of one tensor two axes at most can be tokens: name those in `axes`",
        ),
        (
            spec_of(("w", (2, 3), ("2", "3")), free=()),
            None,
            "this target has no axis whose units may be permuted; use the tokenizer 'chunk'",
        ),
    ],
)
def test_axes_that_cannot_be_tokens_are_refused(spec: WeightSpec, axes: tuple[str, ...] | None, message: str) -> None:
    with pytest.raises(UserError) as caught:
        Units(axes, spec=spec)
    assert str(caught.value) == f"tokenizer 'units': {message}"


# ---------------------------------------------------------------- the denoiser


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-13)])
def test_units_of_all_layers_permuted_come_out_permuted(name: str, dtype: torch.dtype, tolerance: float) -> None:
    """Each network by a permutation of its own, all layers at once."""
    spec = SPECS[name]
    group = AxisPermutations(spec)
    level, condition = told(dtype)
    for seed in range(3):
        tokenizer, denoiser = live(spec, seed, dtype)

        def through(weights: Tensor, tokenizer: Units = tokenizer, denoiser: NeuralGraph = denoiser) -> Tensor:
            tokens = tokenizer.tokenize(weights)
            return tokenizer.collect(denoiser(tokens, level, condition, tokens))

        weights = zoo(spec, seed=seed).to(dtype)
        places = group.sample(4, torch.Generator().manual_seed(seed))
        with torch.no_grad():
            output = through(weights)
            moved, expected = through(group.act(places, weights)), group.act(places, output)
        error = (moved - expected).norm(dim=1) / output.norm(dim=1)
        assert float(error.max()) < tolerance and float((expected - output).abs().max()) > 1e-2


@pytest.mark.parametrize("name", SPECS)
def test_every_weight_hangs_on_every_other_on_level_and_on_the_condition(name: str) -> None:
    spec = SPECS[name]
    tokenizer, denoiser = live(spec)
    level, condition = told()
    weights = zoo(spec).requires_grad_()

    def through(level: Tensor, condition: Condition) -> Tensor:
        tokens = tokenizer.tokenize(weights)
        return tokenizer.collect(denoiser(tokens, level, condition, tokens))

    output = through(level, condition)
    for place in range(0, spec.size, 5):
        (gradient,) = torch.autograd.grad(output[:, place].sum(), weights, retain_graph=True)
        assert (gradient != 0).all()
    assert ((through(level + 0.05, condition) - output).abs() > 1e-6).any(0).all()
    other = replace(condition, tokens=condition.tokens + condition.mask[..., None])
    assert ((through(level, other) - output).abs() > 1e-6).any(0).all()
    padded = replace(condition, tokens=condition.tokens.masked_fill(~condition.mask[..., None], 50.0))
    torch.testing.assert_close(through(level, padded), output, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SPECS)
def test_a_fresh_one_says_zero_and_gradients_reach_every_parameter(name: str) -> None:
    tokenizer, denoiser = live(SPECS[name])
    level, condition = told()
    tokens = tokenizer.tokenize(zoo(SPECS[name]))
    fresh = NeuralGraph(width=16, depth=2, heads=2, layout=tokenizer.layout, condition_width=WIDTH)
    said = fresh(tokens, level, condition, tokens)
    assert said.shape == tokens.shape and not said.any()
    denoiser(tokens, level, condition, tokens).square().sum().backward()
    for parameter_name, parameter in denoiser.named_parameters():
        assert parameter.grad is not None and (parameter.grad.any() or not parameter.numel()), parameter_name


def test_what_it_cannot_use_is_an_error_of_the_user() -> None:
    with pytest.raises(UserError) as caught:
        NeuralGraph(width=10, heads=4, layout=Units(spec=PERCEPTRON).layout, condition_width=WIDTH)
    assert str(caught.value) == "denoiser 'neural-graph': width 10 is not a multiple of heads 4"
    with pytest.raises(UserError) as caught:
        NeuralGraph(layout=TokenLayout(torch.ones(2, 3, dtype=torch.bool)), condition_width=WIDTH)
    assert str(caught.value) == (
        "denoiser 'neural-graph': it needs a token for each unit of every hidden layer, as `tokenizer: units` makes"
    )
