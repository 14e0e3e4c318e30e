"""T2W's components against the paper: algorithm 1 written out, and a transformer that sees what it should."""

from __future__ import annotations

from dataclasses import replace
from math import exp
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from wspace_t2w.conditioned_attention import AdaptiveBlock, ConditionedAttention, Rows, through_encoder_layer
from wspace_t2w.prior_attention import PriorAttention
from wspace_t2w.prior_fusion import PriorFusion, fuse
from wspace_t2w.unit_attention import UnitAttention

from wspace.data.prompts import prompts_of
from wspace.interfaces import Condition, Prompts, TokenLayout
from wspace.learning.denoising import sinusoids
from wspace.recipes.bind import bind_one
from wspace.recipes.plugins import load_plugins
from wspace.support.errors import RecipeError, UserError

TEXT = 6
TASKS = [(0, 3, 4), (1, 2), (5, 6, 7, 8, 9), (2, 9)]
LAYOUT = TokenLayout(torch.tensor([[True] * 5, [True] * 5, [True] * 3 + [False] * 2]))  # (N, D)


def class_texts() -> Tensor:
    return functional.normalize(torch.randn(10, TEXT, generator=torch.Generator().manual_seed(0)), dim=1)


def padded_to(prompts: Prompts, length: int) -> Prompts:
    extra = length - prompts.mask.shape[1]
    return Prompts(functional.pad(prompts.texts, (0, 0, 0, extra)), functional.pad(prompts.mask, (0, extra)))


def fitted() -> tuple[PriorFusion, Prompts]:
    conditioner, prompts = PriorFusion(text_dim=TEXT), prompts_of(TASKS, class_texts())
    conditioner.fit(prompts)
    return conditioner, prompts


# ---------------------------------------------------------------- prior fusion


def algorithm_1(embeddings: list[list[float]]) -> list[float]:
    """Step 3 of the paper's algorithm 1, line by line."""
    k, width = len(embeddings), len(embeddings[0])
    mean = [sum(e[d] for e in embeddings) / k for d in range(width)]  # (1)

    def normalised(vector: list[float]) -> list[float]:
        return [v / sum(u * u for u in vector) ** 0.5 for v in vector]

    unit_mean = normalised(mean)  # (2)
    cosines = [sum(a * b for a, b in zip(normalised(e), unit_mean, strict=True)) for e in embeddings]
    weights = [exp(c) / sum(exp(other) for other in cosines) for c in cosines]  # (3)
    return [sum(w * e[d] for w, e in zip(weights, embeddings, strict=True)) for d in range(width)]  # (4)


def test_fused_texts_are_those_of_algorithm_1() -> None:
    expected = [algorithm_1(class_texts()[list(task)].tolist()) for task in TASKS]
    fused = fuse(prompts_of(TASKS, class_texts()))
    torch.testing.assert_close(fused, torch.tensor(expected), rtol=1e-5, atol=1e-6)
    means = torch.stack([class_texts()[list(task)].mean(0) for task in TASKS])
    assert (fused - means).abs().max() > 1e-3  # not the plain mean


def test_the_condition_is_the_fused_vector_at_unit_variance_over_the_training_tasks() -> None:
    conditioner, prompts = fitted()
    condition, fused = conditioner(prompts), fuse(prompts)
    assert condition.tokens.shape == (4, 1, TEXT) and condition.mask.all() and condition.mask.shape == (4, 1)
    assert torch.equal(condition.tokens[:, 0], condition.pooled)
    torch.testing.assert_close(condition.pooled, (fused - fused.mean(0)) / fused.std(0, correction=0))


def test_neither_padding_nor_the_order_of_classes_matters() -> None:
    conditioner, prompts = fitted()
    expected = conditioner(prompts).pooled
    torch.testing.assert_close(conditioner(padded_to(prompts, 9)).pooled, expected)
    turned = prompts_of([task[::-1] for task in TASKS], class_texts())
    torch.testing.assert_close(conditioner(turned).pooled, expected, rtol=1e-4, atol=1e-5)
    again = PriorFusion(text_dim=TEXT)
    again.fit(padded_to(prompts, 9))
    torch.testing.assert_close(again.center, conditioner.center)
    torch.testing.assert_close(again.spread, conditioner.spread)


def test_a_single_training_task_leaves_finite_conditions() -> None:
    conditioner, prompts = fitted()
    conditioner.fit(prompts[:1])
    assert conditioner(prompts).pooled.abs().max() < 10


def test_the_null_is_the_average_task_and_no_prompt() -> None:
    conditioner, prompts = fitted()
    condition = conditioner(prompts)
    null = conditioner.null(condition)
    assert not null.pooled.any() and not null.tokens.any() and null.mask.all()
    torch.testing.assert_close(condition.pooled.mean(0), null.pooled[0], rtol=0, atol=1e-5)
    assert all(not torch.equal(null.pooled[b], condition.pooled[b]) for b in range(4))


# ---------------------------------------------------------------- prior attention


def denoiser(seed: int = 0, live: bool = True, **arguments: Any) -> PriorAttention:
    torch.manual_seed(seed)
    settings = {"width": 8, "depth": 2, "heads": 2} | arguments
    made = PriorAttention(**settings, layout=LAYOUT, condition_width=TEXT, pooled_width=TEXT)
    if live:  # the output layer starts at zero, behind which nothing can be seen
        for parameter in (made.leave, made.leave_bias, made.gate.weight, made.gate.bias):
            nn.init.normal_(parameter, std=0.5)
    return made


def inputs(count: int = 4) -> tuple[Tensor, Tensor, Condition, Tensor]:
    rng = torch.Generator().manual_seed(1)
    x, level = torch.randn(count, 3, 5, generator=rng) * LAYOUT.mask, torch.rand(count, generator=rng)
    tokens, mask = torch.randn(count, 3, TEXT, generator=rng), torch.ones(count, 3, dtype=torch.bool)
    mask[1, 2] = mask[2, 1:] = False
    anchor = torch.randn(1, 3, 5, generator=rng) * LAYOUT.mask
    return x, level, Condition(tokens * mask[..., None], mask, torch.zeros(count, TEXT)), anchor.expand_as(x)


PROJECTIONS = pytest.mark.parametrize("projections", ["own", "shared"])
SKIPS = pytest.mark.parametrize("skip", [True, False])


@PROJECTIONS
@SKIPS
def test_the_output_is_shaped_as_the_tokens_and_starts_at_zero(
    projections: Literal["own", "shared"], skip: bool
) -> None:
    x, level, condition, anchor = inputs()
    assert denoiser(projections=projections, skip=skip)(x, level, condition, anchor).shape == x.shape
    assert not denoiser(live=False, projections=projections, skip=skip)(x, level, condition, anchor).any()


@PROJECTIONS
def test_gradients_reach_every_parameter(projections: Literal["own", "shared"]) -> None:
    made, (x, level, condition, anchor) = denoiser(projections=projections), inputs()
    made(x, level, condition, anchor).square().sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
    fresh = denoiser(live=False, projections=projections)
    (fresh(x, level, condition, anchor) - x).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in (fresh.leave, fresh.leave_bias, fresh.gate.weight))


@PROJECTIONS
def test_padding_among_condition_tokens_changes_nothing(projections: Literal["own", "shared"]) -> None:
    made, (x, level, condition, anchor) = denoiser(projections=projections), inputs()
    expected = made(x, level, condition, anchor)
    hidden = ~condition.mask[..., None]
    filled = Condition(condition.tokens.masked_fill(hidden, 50.0), condition.mask, condition.pooled)
    longer = Condition(
        functional.pad(condition.tokens, (0, 0, 0, 4), value=9.0),
        functional.pad(condition.mask, (0, 4)),
        condition.pooled,
    )
    for other in (filled, longer):
        torch.testing.assert_close(made(x, level, other, anchor), expected, rtol=1e-4, atol=1e-5)
    for b in range(4):  # each task without any padding, on the path that has no mask
        kept = condition.mask[b]
        alone = Condition(condition.tokens[b : b + 1, kept], kept[kept][None], condition.pooled[b : b + 1])
        torch.testing.assert_close(
            made(x[b : b + 1], level[b : b + 1], alone, anchor[:1])[0], expected[b], rtol=1e-4, atol=1e-5
        )


@SKIPS
def test_the_output_depends_on_level_condition_and_every_token(skip: bool) -> None:
    made, (x, level, condition, anchor) = denoiser(skip=skip), inputs()
    before = made(x, level, condition, anchor)

    def moved(after: Tensor) -> list[bool]:
        return [bool((after[b] - before[b]).abs().max() > 1e-4) for b in range(4)]

    assert moved(made(x, level + torch.tensor([0.1, 0, 0, 0]), condition, anchor)) == [True, False, False, False]
    tokens = condition.tokens.clone()
    tokens[1, 0] += 1
    assert moved(made(x, level, Condition(tokens, condition.mask, condition.pooled), anchor)) == [
        False,
        True,
        False,
        False,
    ]
    shifted = x.clone()
    shifted[2, 0] += torch.arange(5.0)
    after = made(shifted, level, condition, anchor)
    assert moved(after) == [False, False, True, False]
    assert ((after - before)[2].abs().amax(1) > 1e-5).all()  # attention has no mask: all tokens of that network


def test_own_projections_tell_tokens_apart_and_shared_ones_are_the_same_for_all() -> None:
    own, shared = denoiser(projections="own"), denoiser(projections="shared")
    assert (own.enter.shape, own.leave.shape) == ((3, 5, 8), (3, 8, 5))  # eq. 5: a projection for each block
    assert (shared.enter.shape, shared.leave.shape) == ((1, 5, 8), (1, 8, 5))
    x, level, condition, anchor = inputs()
    for made in (own, shared):  # without positions, biases and gates, only projections tell tokens apart
        nn.init.zeros_(made.position)
        nn.init.zeros_(made.leave_bias)
        nn.init.constant_(made.gate.weight, 0.1)
        nn.init.zeros_(made.gate.bias)
        turned = made(x.flip(1), level, condition, anchor).flip(1)
        equal = torch.allclose(turned, made(x, level, condition, anchor), atol=1e-5)
        assert equal == (made is shared)


def test_the_skip_is_a_gate_of_the_level_times_the_input() -> None:
    made, (x, level, condition, anchor) = denoiser(), inputs()
    for parameter in (made.leave, made.leave_bias):
        nn.init.zeros_(parameter)
    level = torch.tensor([0.2, 0.2, 0.2, 0.7])
    out = made(x, level, condition, anchor).detach()
    gates = (out / x.where(LAYOUT.mask, torch.ones(()))).masked_fill(~LAYOUT.mask, 0)  # (B, N, D)
    for n in range(3):
        width = int(LAYOUT.mask[n].sum())
        torch.testing.assert_close(gates[:3, n, :width], gates[0, n, 0].expand(3, width), rtol=1e-3, atol=1e-4)
        assert abs(float(gates[3, n, 0] - gates[0, n, 0])) > 1e-3
    made.skip = False
    assert not made(x, level, condition, anchor).any()


def test_a_width_that_heads_do_not_divide_is_an_error_of_the_user() -> None:
    with pytest.raises(UserError) as caught:
        denoiser(width=10, heads=4)
    assert str(caught.value) == "denoiser 'prior-attention': width 10 is not a multiple of heads 4"


def test_an_odd_width_works() -> None:
    assert denoiser(width=9, heads=3)(*inputs()).shape == (4, 3, 5)


# ---------------------------------------------------------------- unit attention

UNITS = TokenLayout(torch.tensor([[True] * 5] * 6 + [[True] * 3 + [False] * 2]), 6)  # six units and an output bias


def unit_denoiser(layout: TokenLayout = UNITS, seed: int = 0, live: bool = True, **arguments: Any) -> UnitAttention:
    torch.manual_seed(seed)
    settings = {"width": 8, "depth": 2, "heads": 2} | arguments
    made = UnitAttention(**settings, layout=layout, condition_width=TEXT, pooled_width=TEXT)
    if live:
        for parameter in (made.leave.weight, made.leave_others, made.gate.weight, made.gate.bias):
            nn.init.normal_(parameter, std=0.5)
    return made.eval()


def unit_inputs(layout: TokenLayout = UNITS, count: int = 4) -> tuple[Tensor, Tensor, Condition, Tensor]:
    _, level, condition, _ = inputs(count)
    rng = torch.Generator().manual_seed(2)
    x, anchor = (torch.randn(count, *layout.mask.shape, generator=rng) * layout.mask for _ in range(2))
    return x, level, condition, anchor


def permuted(tokens: Tensor, places: Tensor) -> Tensor:
    """The unit tokens of each network in another order, network by network; the other tokens where they are."""
    rows = [torch.cat([network[order], network[len(order) :]]) for network, order in zip(tokens, places, strict=True)]
    return torch.stack(rows)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_units_permuted_come_out_permuted(dtype: torch.dtype, tolerance: float) -> None:
    for seed in range(3):
        made = unit_denoiser(seed=seed).to(dtype)
        x, level, condition, anchor = unit_inputs()
        condition = Condition(condition.tokens.to(dtype), condition.mask, condition.pooled.to(dtype))
        x, level, anchor = x.to(dtype), level.to(dtype), anchor.to(dtype)
        places = torch.rand(4, 6, generator=torch.Generator().manual_seed(seed)).argsort(1)
        output = made(x, level, condition, anchor)
        moved = made(permuted(x, places), level, condition, permuted(anchor, places))
        error = (moved - permuted(output, places)).flatten(1).norm(dim=1) / output.flatten(1).norm(dim=1)
        assert float(error.max().detach()) < tolerance
        for half in (
            (permuted(x, places), anchor),
            (x, permuted(anchor, places)),
        ):  # both move, or it is another network
            other = made(half[0], level, condition, half[1])
            assert (other - permuted(output, places)).abs().max() > 1e-2 and (other - output).abs().max() > 1e-2


def test_tokens_that_are_no_units_have_places_of_their_own() -> None:
    layout = TokenLayout(torch.ones(4, 5, dtype=torch.bool), 2)
    made, (x, level, condition, anchor) = unit_denoiser(layout), unit_inputs(layout)
    output, order = made(x, level, condition, anchor), [0, 1, 3, 2]
    turned = made(x[:, order], level, condition, anchor[:, order])
    assert (turned - output[:, order])[:, 2:].abs().max() > 1e-2
    swapped = made(x[:, [1, 0, 2, 3]], level, condition, anchor[:, [1, 0, 2, 3]])
    torch.testing.assert_close(swapped, output[:, [1, 0, 2, 3]], rtol=1e-4, atol=1e-5)


def test_a_unit_sees_level_condition_and_every_other_token() -> None:
    made, (x, level, condition, anchor) = unit_denoiser(), unit_inputs()
    before = made(x, level, condition, anchor)

    def moved(after: Tensor) -> list[bool]:
        return [bool((after[b] - before[b]).abs().max() > 1e-4) for b in range(4)]

    assert moved(made(x, level + torch.tensor([0.1, 0, 0, 0]), condition, anchor)) == [True, False, False, False]
    tokens = condition.tokens.clone()
    tokens[1, 0] += 1
    exchanged = Condition(tokens, condition.mask, condition.pooled)
    assert moved(made(x, level, exchanged, anchor)) == [False, True, False, False]
    for token in (0, 6):
        for shifted, others in (((x, token), anchor), ((anchor, token), x)):
            changed = shifted[0].clone()
            changed[2, shifted[1]] += torch.arange(5.0)
            pair = (changed, others) if shifted[0] is x else (others, changed)
            after = made(pair[0], level, condition, pair[1])
            assert moved(after) == [False, False, True, False]
            assert ((after - before)[2].abs().amax(1) > 1e-5).all()
    filled = condition.tokens.masked_fill(~condition.mask[..., None], 50.0)
    hidden = Condition(filled, condition.mask, condition.pooled)
    torch.testing.assert_close(made(x, level, hidden, anchor), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("units", [6, 7])
def test_a_fresh_one_says_zero_and_its_gradients_reach_every_parameter(units: int) -> None:
    """Also where every token is a unit: a target without an output bias."""
    layout = TokenLayout(UNITS.mask if units == 6 else torch.ones(7, 5, dtype=torch.bool), units)
    fresh, (x, level, condition, anchor) = unit_denoiser(layout, live=False), unit_inputs(layout)
    assert not fresh(x, level, condition, anchor).any() and fresh(x, level, condition, anchor).shape == x.shape
    made = unit_denoiser(layout)
    made(x, level, condition, anchor).square().sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and (parameter.grad.any() or not parameter.numel()), name


def test_what_unit_attention_cannot_use_is_an_error_of_the_user() -> None:
    with pytest.raises(UserError) as caught:
        unit_denoiser(width=10, heads=4)
    assert str(caught.value) == "denoiser 'unit-attention': width 10 is not a multiple of heads 4"
    with pytest.raises(UserError) as caught:
        unit_denoiser(LAYOUT)
    assert str(caught.value) == (
        "denoiser 'unit-attention': it needs a token for each hidden unit, as `tokenizer: neuron` makes"
    )


# ---------------------------------------------------------------- how a denoiser learns of its condition

WAYS = ["tokens", "adaln", "cross", "concat"]
BY_TOKENS = ["tokens", "cross"]  # the others read the pooled vector
EACH_WAY = pytest.mark.parametrize("conditioning", WAYS)


def listening(conditioning: str, units: bool, dtype: torch.dtype = torch.float32) -> ConditionedAttention:
    """As trained for a while: a fresh block under `adaln` changes nothing."""
    made = unit_denoiser(conditioning=conditioning) if units else denoiser(conditioning=conditioning).eval()
    for name, parameter in made.named_parameters():
        if ".modulation." in name:
            nn.init.normal_(parameter, std=0.5)
    return made.to(dtype)


def listening_inputs(units: bool, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Condition, Tensor]:
    x, level, condition, anchor = unit_inputs() if units else inputs()
    pooled = torch.randn(4, TEXT, generator=torch.Generator().manual_seed(3))
    condition = Condition(condition.tokens.to(dtype), condition.mask, pooled.to(dtype))
    return x.to(dtype), level.to(dtype), condition, anchor.to(dtype)


@EACH_WAY
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_units_permuted_come_out_permuted_whatever_way_they_learn_of_the_condition(
    conditioning: str, dtype: torch.dtype, tolerance: float
) -> None:
    made, (x, level, condition, anchor) = listening(conditioning, True, dtype), listening_inputs(True, dtype)
    places = torch.rand(4, 6, generator=torch.Generator().manual_seed(5)).argsort(1)
    output = made(x, level, condition, anchor)
    moved = made(permuted(x, places), level, condition, permuted(anchor, places))
    error = (moved - permuted(output, places)).flatten(1).norm(dim=1) / output.flatten(1).norm(dim=1)
    assert float(error.max().detach()) < tolerance
    assert (moved - output).abs().max() > 1e-2


@EACH_WAY
@pytest.mark.parametrize("units", [True, False])
def test_each_way_tells_of_the_level_and_of_the_condition_task_by_task(conditioning: str, units: bool) -> None:
    made, (x, level, condition, anchor) = listening(conditioning, units), listening_inputs(units)
    before = made(x, level, condition, anchor)

    def changed_by(level: Tensor, condition: Condition) -> list[bool]:
        after = made(x, level, condition, anchor)
        return [bool((after[b] - before[b]).abs().max() > 1e-4) for b in range(4)]

    first = torch.tensor([1.0, 0, 0, 0])
    assert changed_by(level + 0.1 * first, condition) == [True, False, False, False]
    tokens, pooled = condition.tokens + first[:, None, None], condition.pooled + first[:, None]
    other_tokens = Condition(tokens, condition.mask, condition.pooled)
    other_vector = Condition(condition.tokens, condition.mask, pooled)
    read, left = (other_tokens, other_vector) if conditioning in BY_TOKENS else (other_vector, other_tokens)
    assert changed_by(level, read) == [True, False, False, False]
    assert not any(changed_by(level, left))


@pytest.mark.parametrize("conditioning", BY_TOKENS)
@pytest.mark.parametrize("units", [True, False])
def test_padding_among_condition_tokens_is_not_listened_to(conditioning: str, units: bool) -> None:
    made, (x, level, condition, anchor) = listening(conditioning, units), listening_inputs(units)
    filled = condition.tokens.masked_fill(~condition.mask[..., None], 50.0)
    hidden = Condition(filled, condition.mask, condition.pooled)
    expected = made(x, level, condition, anchor)
    torch.testing.assert_close(made(x, level, hidden, anchor), expected, rtol=1e-4, atol=1e-5)


@EACH_WAY
@pytest.mark.parametrize("units", [True, False])
def test_gradients_reach_every_parameter_each_way(conditioning: str, units: bool) -> None:
    made = listening(conditioning, units)
    made(*listening_inputs(units)).square().sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_a_fresh_adaptive_block_changes_nothing() -> None:
    torch.manual_seed(0)
    block, tokens = AdaptiveBlock(8, 2, 0.0), torch.randn(3, 5, 8)
    assert torch.equal(block(tokens, torch.randn(3, 1, 8)), tokens)


def test_left_out_the_condition_stands_before_the_weights_and_parameters_are_what_they_were() -> None:
    """Names in their order, which random starts, optimisers and files go by."""
    of_blocks = [name for name, _ in torch.nn.TransformerEncoderLayer(8, 2, 32).named_parameters()]
    shared = ["of_condition", "of_level.0", "of_level.2"]
    trunk = [f"{layer}.{kind}" for layer in shared for kind in ("weight", "bias")]
    trunk += [f"blocks.{number}.{name}" for number in range(2) for name in of_blocks] + ["norm.weight", "norm.bias"]
    gate = ["gate.weight", "gate.bias"]
    made, of_units = denoiser().eval(), unit_denoiser()
    names = [name for name, _ in made.named_parameters()]
    assert sorted(names) == sorted(["enter", "leave", "leave_bias", "position", *trunk, *gate])
    assert [name for name in names if name in trunk] == trunk
    assert [name for name, _ in of_units.named_parameters() if name in trunk] == trunk


@PROJECTIONS
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("depth", [1, 3])
def test_what_leaves_padding_out_is_torchs_own_encoder(
    projections: Literal["own", "shared"], padded: bool, depth: int
) -> None:
    """Values, and gradients of every parameter."""
    made = denoiser(projections=projections, depth=depth).double()
    x, level, condition, anchor = (value.double() if isinstance(value, Tensor) else value for value in inputs())
    mask = condition.mask if padded else torch.ones_like(condition.mask)
    condition = Condition(condition.tokens.double(), mask, condition.pooled.double())
    waves = sinusoids(level, 8)
    weights = torch.einsum("bnd,ndw->bnw", x, made.enter.expand(3, -1, -1)) + made.position
    sequence = torch.cat([made.of_condition(condition.tokens), made.of_level(waves)[:, None], weights], dim=1)
    hidden = functional.pad(~mask, (0, 4), value=False)
    for block in made.blocks:
        sequence = block(sequence, src_key_padding_mask=hidden)
    out = torch.einsum("bnw,nwd->bnd", made.norm(sequence[:, -3:]), made.leave.expand(3, -1, -1)) + made.leave_bias
    expected, ours = out + made.gate(waves)[..., None] * x, made(x, level, condition, anchor)
    assert torch.allclose(ours, expected, rtol=1e-10, atol=1e-12)
    pull = torch.randn(ours.shape, generator=torch.Generator().manual_seed(5), dtype=torch.double)
    for there, here in zip(
        *(torch.autograd.grad((values * pull).sum(), list(made.parameters())) for values in (expected, ours)),
        strict=True,
    ):
        assert torch.allclose(here, there, rtol=1e-9, atol=1e-11)


def test_padding_that_is_kept_as_on_a_gpu_gives_the_same() -> None:
    layer = denoiser().blocks[0]
    assert isinstance(layer, nn.TransformerEncoderLayer)
    _, _, condition, _ = inputs()
    left_out = Rows.of(condition, 4)
    kept = replace(left_out, real=None)
    assert left_out.real is not None and len(left_out.real) == condition.mask.sum()
    tokens = torch.randn(4, 7, 8, generator=torch.Generator().manual_seed(5))
    for last in (None, 3):
        without, with_padding = (
            through_encoder_layer(layer, rows.unpadded(tokens), rows, last) for rows in (left_out, kept)
        )
        if last is None:
            with_padding = left_out.unpadded(kept.padded(with_padding))
        assert without.shape == ((int(condition.mask.sum()) + 16, 8) if last is None else (12, 8))
        assert torch.allclose(without, with_padding, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["prior-attention", "unit-attention"])
def test_the_default_way_is_in_no_key_and_a_way_there_is_not_is_refused(name: str) -> None:
    registry = load_plugins().registry

    def keyed(**settings: str) -> dict[str, Any]:
        return bind_one("denoiser", {"use": name, **settings}, registry, "a recipe").told(later=False)

    assert "conditioning" not in keyed() and keyed(conditioning="cross")["conditioning"] == "cross"
    with pytest.raises(RecipeError) as caught:
        keyed(conditioning="film")
    assert str(caught.value) == (
        "a recipe: conditioning: expected one of 'tokens', 'adaln', 'cross', 'concat', got 'film'"
    )
