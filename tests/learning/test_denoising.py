"""What all generators share that find networks in noise: their loss, the terms beside it, and how they draw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support.stand_ins import Adapter, Units
from tests.support.toys import (
    MASK,
    WIDTH,
    Fixed,
    Given,
    Knowing,
    Tokenwise,
    closed_of,
    condition_of,
    correlated,
    diffusion,
    draw,
    linear,
    live_mlp,
    null_of,
    pairs_of,
    seeded,
    tokens_of,
)
from wspace.components.generators.diffusion import Diffusion
from wspace.components.tokenizers.chunk import Chunk
from wspace.components.tokenizers.neuron import Neuron
from wspace.data.prompts import prompts_of
from wspace.interfaces import Condition, Conditioner, Denoiser, Moves, Pairs, Prompts, Tokenizer
from wspace.learning import system as system_module
from wspace.learning.system import System
from wspace.support.errors import UserError
from wspace.support.settings import Generate

SAMPLERS = ["ddim", "ddpm", "dpm-solver++"]
PREDICTIONS = ["epsilon", "x0", "v"]

# ---------------------------------------------------------------- the loss


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_denoiser_sees_clean_tokens_mixed_with_the_noise_it_should_find(prediction: str) -> None:
    """Equation 9, by the draws: level, noise, dropout, in this order."""
    count, levels = 6, 50
    tokens, condition, denoiser = tokens_of(count), condition_of(count), Fixed()
    generator = diffusion(denoiser, prediction=prediction, levels=levels, dropout=0.5)
    generator.anchor.copy_(tokens_of(1, 9)[0])
    terms = generator.loss(pairs_of(tokens, condition), seeded(3))

    rng = seeded(3)
    step = torch.randint(levels, (count,), generator=rng)
    noise = torch.randn(tokens.shape, generator=rng) * MASK
    kept = torch.rand(count, generator=rng) >= 0.5
    ((x, level, pooled, anchor),) = denoiser.calls
    errors = []
    for b in range(count):
        alpha = float(generator.alphas[step[b]])
        torch.testing.assert_close(x[b], alpha**0.5 * tokens[b] + (1 - alpha) ** 0.5 * noise[b])
        assert float(level[b]) == pytest.approx(int(step[b]) / levels)
        assert torch.equal(pooled[b], condition.pooled[b] if kept[b] else torch.zeros(WIDTH))
        assert torch.equal(anchor[b], generator.anchor)
        v = alpha**0.5 * noise[b] - (1 - alpha) ** 0.5 * tokens[b]
        goal = {"epsilon": noise[b], "x0": tokens[b], "v": v}[prediction]
        said = 0.8 * x[b] + 0.1 * level[b] + 0.3 * pooled[b].sum().sin() + 0.2 * anchor[b]
        errors.append(np.mean([float(said[i, j] - goal[i, j]) ** 2 for i, j in MASK.nonzero().tolist()]))
    assert 0 < int(kept.sum()) < count
    assert set(terms) == {"denoising"} and float(terms["denoising"]) == pytest.approx(np.mean(errors), rel=1e-4)


def test_the_loss_of_one_network_is_a_plain_number() -> None:
    terms = diffusion().loss(pairs_of(tokens_of(1)), seeded(0))
    assert all(value.shape == () for value in terms.values())


@pytest.mark.parametrize(("dropout", "nulls"), [(0.0, 0), (1.0, 64), (0.25, 16)])
def test_dropout_is_the_share_of_null_conditions(dropout: float, nulls: int) -> None:
    denoiser = Fixed()
    diffusion(denoiser, dropout=dropout).loss(pairs_of(tokens_of(64)), seeded(0))
    assert abs(int((denoiser.calls[0][2] == 0).all(1).sum()) - nulls) <= (8 if 0 < dropout < 1 else 0)


def test_what_a_denoiser_says_of_padding_has_no_loss_and_no_gradient() -> None:
    for prediction in PREDICTIONS:
        denoiser = Given(torch.zeros(MASK.shape).masked_fill(~MASK, 100.0))
        loss = diffusion(denoiser, prediction=prediction).loss(pairs_of(tokens_of(4)), seeded(0))["denoising"]
        loss.backward()
        assert float(loss.detach()) < 10
        gradient = denoiser.value.grad
        assert gradient is not None and not gradient[~MASK].any() and gradient[MASK].all()


def test_thirty_steps_on_eight_networks_lower_the_loss() -> None:
    generator = diffusion(live_mlp(), dropout=0.0)
    pairs = pairs_of(tokens_of(8) * 0.1 + 1.0 * MASK)
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-2)

    def held() -> float:
        with torch.no_grad():
            return float(np.mean([float(generator.loss(pairs, seeded(1000 + i))["denoising"]) for i in range(20)]))

    before = held()
    for step in range(30):
        loss = generator.loss(pairs, seeded(step))["denoising"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert held() < 0.7 * before


# ---------------------------------------------------------------- around a predictor


def test_what_is_left_of_of_zoo_over_its_spread_is_learnt_and_drawn_about_the_prediction() -> None:
    (tokens, condition), closed = correlated(12, 2, 0.5), closed_of()
    generator = diffusion(Given(torch.zeros(MASK.shape)), linear(), prediction="x0", dropout=1.0)
    generator.fit(closed)
    line = generator.typical(condition).detach()
    nn.init.normal_(generator.predictor.weight)  # type: ignore[union-attr] # a task loss moves it; the line stays
    loss = generator.loss(pairs_of(tokens, condition), seeded(0))["denoising"]
    left = (tokens - line) / generator.spread
    assert float(loss.detach()) == pytest.approx(float(left[:, MASK].square().mean()), rel=1e-4)
    typical = generator.typical(condition).detach()
    assert (typical - line).abs().max() > 0.5
    drawn = generator.sample(condition, null_of(condition), Generate(steps=3, temperature=1.0), seeded(0))
    torch.testing.assert_close(drawn, typical)


def test_the_task_loss_trains_the_predictor_and_the_weight_loss_leaves_it_alone() -> None:
    tokens, condition = correlated(12, 2, 0.5)
    generator = diffusion(live_mlp(), linear())
    generator.fit(closed_of())
    own = generator.task_parameters()
    generator.loss(pairs_of(tokens, condition), seeded(0))["denoising"].backward()
    assert all(p.grad is None for p in own)
    generator.typical(condition).square().sum().backward()
    assert len(own) == 2 and all(p.grad is not None and p.grad.any() for p in own)
    assert diffusion().task_parameters() == []


def test_without_a_predictor_only_the_anchor_is_taken() -> None:
    tokens, condition = correlated(12, 2, 0.5)
    generator, closed = diffusion(), closed_of()
    generator.fit(closed)
    assert not generator.typical(condition).any() and generator.typical(condition).shape == tokens.shape
    assert float(generator.spread) == 1 and torch.equal(generator.anchor, closed.anchor)


def test_networks_all_alike_leave_a_finite_loss() -> None:
    condition, tokens = condition_of(5), torch.ones(5, *MASK.shape) * MASK
    generator = diffusion(predictor=linear())
    generator.fit(replace(closed_of(), tokens=tokens, condition=condition, held_out=(tokens, condition)))
    assert torch.isfinite(generator.loss(pairs_of(tokens, condition), seeded(0))["denoising"])
    torch.testing.assert_close(draw(generator, 5, temperature=0.0), tokens)


# ---------------------------------------------------------------- the symmetry: whole systems, in double but for the MLP

TARGET = Adapter(4, feature_dim=3, text_dim=2)
SPEC, TEXTS = TARGET.spec, torch.eye(5, 2, dtype=torch.float64) + 0.1
TASKS = [(0, 1), (1, 2, 3), (3, 4), (0, 4), (0, 2, 4), (1, 3)]
COUNT = len(TASKS)
WEIGHTS = torch.randn(COUNT, SPEC.size, generator=seeded(4), dtype=torch.float64)
SYMMETRY = Units(spec=SPEC)


class Pooling(Conditioner):
    """The sum of a task's texts: the least a conditioner can do."""

    width = pooled_width = 2

    def fit(self, prompts: Prompts) -> None: ...

    def forward(self, prompts: Prompts) -> Condition:
        pooled = prompts.texts.sum(1)
        return Condition(pooled[:, None], torch.ones(len(pooled), 1, dtype=torch.bool), pooled)

    def null(self, like: Condition) -> Condition:
        return Condition(torch.zeros_like(like.tokens), like.mask, torch.zeros_like(like.pooled))


def tokenizer_of(name: str) -> Tokenizer:
    return Neuron(scale="zscore", spec=SPEC) if name == "neuron" else Chunk(5, "zscore", spec=SPEC)


def system_of(denoiser: str, tokenizer: str = "neuron", **arguments: object) -> System:
    tokens = tokenizer_of(tokenizer)
    torch.manual_seed(3)
    made: Denoiser = {
        "tokenwise": lambda: Tokenwise(tokens.layout, 2),
        "mlp": lambda: live_mlp(tokens.layout, 2),
        "fixed": Fixed,
    }[denoiser]()
    generator = Diffusion(made, None, **arguments, layout=tokens.layout)  # type: ignore[arg-type]
    system = System(SPEC, tokens, Pooling(), generator).to(torch.float32 if denoiser == "mlp" else torch.float64)
    weights, prompts = of_type(system)
    system.fit(weights, prompts, (weights, prompts))
    return system


def of_type(system: System) -> tuple[Tensor, Prompts]:
    kind = next(system.parameters(), WEIGHTS).dtype
    return WEIGHTS.to(kind), prompts_of(TASKS, TEXTS.to(kind))


def moved_pairs(system: System, seed: int = 6, augment: float = 0.0, penalty: bool = True) -> tuple[Pairs, Tensor]:
    """A batch with moves, and the elements (B, E) that its moves are."""
    moves = system.moves(SYMMETRY, COUNT, seeded(seed), augment=augment, penalty=penalty)
    elements = SYMMETRY.sample(COUNT, seeded(seed))
    assert len(elements.unique(dim=0)) > 2
    return system.pairs(*of_type(system), moves), elements


def by_hand(system: System, pairs: Pairs, elements: Tensor, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """F(g x) and g F(x) of each network, (P,) each: eq. 12 on flat values, a network at a time."""
    generator: Diffusion = system.generator  # type: ignore[assignment]
    rng = seeded(seed)
    level = generator.draw_levels(COUNT, rng)
    noise = torch.randn(pairs.tokens.shape, generator=rng) * generator.mask
    kept = torch.rand(COUNT, generator=rng) >= generator.dropout
    of_moved, moved_of = [], []
    for b in range(COUNT):
        one, g = slice(b, b + 1), elements[b : b + 1]
        alpha = generator.alphas[int(level[b] * generator.levels + 0.5)]
        condition = pairs.condition if kept[b] else pairs.null
        condition = Condition(condition.tokens[one], condition.mask[one], condition.pooled[one])
        arrange, collect = system.tokenizer.arrange, system.tokenizer.collect
        clean, drawn, anchor = collect(pairs.tokens[one]), collect(noise[one]), collect(generator.anchor[None])
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * drawn  # (1, P)
        there = alpha.sqrt() * SYMMETRY.act(g, clean) + (1 - alpha).sqrt() * SYMMETRY.act(g, drawn)
        said = generator.denoiser(arrange(noisy), level[one], condition, arrange(anchor))
        moved = generator.denoiser(arrange(there), level[one], condition, arrange(SYMMETRY.act(g, anchor)))
        of_moved.append(collect(moved)[0])
        moved_of.append(SYMMETRY.act(g, collect(said))[0])
    return of_moved, moved_of


@pytest.mark.parametrize("tokenizer", ["neuron", "chunk"])
def test_the_symmetry_term_is_equation_12_network_by_network(tokenizer: str) -> None:
    system = system_of("mlp", tokenizer, dropout=0.5)
    pairs, elements = moved_pairs(system)
    term = system.generator.loss(pairs, seeded(11))["symmetry"]
    of_moved, moved_of = by_hand(system, pairs, elements, 11)
    errors = [float((a - b).square().mean().detach()) for a, b in zip(of_moved, moved_of, strict=True)]
    assert float(term.detach()) == pytest.approx(np.mean(errors), rel=1e-4) and float(term.detach()) > 1e-3


def test_the_noise_and_the_anchor_are_moved_with_the_weights() -> None:
    system = system_of("fixed")
    pairs, elements = moved_pairs(system)
    system.generator.loss(pairs, seeded(11))
    denoiser: Fixed = system.generator.denoiser  # type: ignore[assignment]
    (x, level, pooled, anchor), (there, same_level, same_pooled, anchor_there) = denoiser.calls
    assert torch.equal(level, same_level) and torch.equal(pooled, same_pooled)
    for before, after in ((x, there), (anchor, anchor_there)):
        assert torch.equal(
            SYMMETRY.act(elements, system.tokenizer.collect(before)), system.tokenizer.collect(after)
        ) and not torch.equal(before, after)


def test_the_symmetry_term_and_error_vanish_for_an_equivariant_denoiser_and_for_no_other() -> None:
    for name, zero in (("tokenwise", True), ("mlp", False)):
        system = system_of(name)
        pairs, _ = moved_pairs(system)
        term = float(system.generator.loss(pairs, seeded(1))["symmetry"].detach())
        errors = system.generator.equivariance_error(pairs, seeded(1))
        assert errors is not None
        assert errors.shape == (COUNT,)
        assert (term < 1e-10 and bool((errors < 1e-10).all())) == zero, name
        assert (term > 1e-3 and bool((errors > 1e-2).any())) != zero, name


def test_an_equivariant_denoiser_needs_the_anchor_moved() -> None:
    system = system_of("tokenwise")
    pairs, _ = moved_pairs(system)
    noisy, anchor = (
        torch.randn(pairs.tokens.shape, dtype=torch.float64),
        system.generator.anchor.expand_as(pairs.tokens),
    )
    level, move = torch.full((COUNT,), 0.5), pairs.moves.act  # type: ignore[union-attr]
    denoise = system.generator.denoiser
    moved = denoise(move(noisy), level, pairs.condition, anchor)  # type: ignore[operator]
    assert (moved - move(denoise(noisy, level, pairs.condition, anchor))).abs().max() > 1e-3  # type: ignore[operator]


def test_the_equivariance_error_is_relative_to_what_the_denoiser_says() -> None:
    system = system_of("mlp", dropout=0.0)
    pairs, elements = moved_pairs(system)
    errors = system.generator.equivariance_error(pairs, seeded(11))
    assert errors is not None
    of_moved, moved_of = by_hand(system, pairs, elements, 11)
    expected = [
        float(((a - b).norm() / b.norm()).detach()) for a, b in zip(of_moved, moved_of, strict=True)
    ]  # |g F| = |F|
    assert errors.tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("penalty", "calls"), [(None, 1), (False, 1), (True, 2)])
def test_without_a_penalty_the_denoiser_is_asked_once(penalty: bool | None, calls: int) -> None:
    system = system_of("fixed")
    pairs, _ = moved_pairs(system, penalty=bool(penalty))
    terms = system.generator.loss(pairs if penalty is not None else replace(pairs, moves=None), seeded(0))
    assert len(system.generator.denoiser.calls) == calls  # type: ignore[arg-type, union-attr]
    assert set(terms) == ({"denoising", "symmetry"} if penalty else {"denoising"})


def test_augmented_networks_are_trained_on_moved_and_the_others_as_they_are() -> None:
    """Equation 10: the loss of a batch in which those networks are replaced, and the anchor with them."""
    system = system_of("fixed", prediction="x0", dropout=0.0)
    pairs, elements = moved_pairs(system, augment=0.5, penalty=False)
    moves: Moves = pairs.moves  # type: ignore[assignment]
    assert 0 < int(moves.augment.sum()) < COUNT
    loss = system.generator.loss(pairs, seeded(2))["denoising"]
    denoiser: Fixed = system.generator.denoiser  # type: ignore[assignment]
    x, level, _, anchor = denoiser.calls[0]
    flat, collect = system.tokenizer.collect(pairs.tokens), system.tokenizer.collect
    expected = torch.where(moves.augment[:, None], SYMMETRY.act(elements, flat), flat)
    anchors = collect(system.generator.anchor.expand_as(pairs.tokens))  # type: ignore[operator, union-attr]
    anchors = torch.where(moves.augment[:, None], SYMMETRY.act(elements, anchors), anchors)
    assert torch.equal(collect(anchor), anchors)
    said = collect(denoiser(x, level, pairs.condition, anchor))
    assert float(loss) == pytest.approx(float((said - expected).square().mean()), rel=1e-9)


@pytest.mark.parametrize(("augment", "share"), [(0.0, 0.0), (1.0, 1.0), (0.3, 0.3)])
def test_augment_is_the_share_of_networks_moved(augment: float, share: float) -> None:
    moves = system_of("fixed").moves(SYMMETRY, 2000, seeded(0), augment=augment, penalty=False)
    assert float(moves.augment.float().mean()) == pytest.approx(share, abs=0.03 if 0 < share < 1 else 0)


@pytest.mark.parametrize("tokenizer", ["neuron", "chunk"])
def test_moves_act_on_tokens_as_the_symmetry_does_on_weights(tokenizer: str) -> None:
    """Exactly, where one scale and no shift belongs to a tensor: then the token of a moved network is the moved token."""
    system = system_of("fixed", tokenizer)
    system.tokenizer.shift.zero_()  # type: ignore[union-attr, operator]
    assert (system.tokenizer.spread != 1).all()  # type: ignore[union-attr]
    pairs, elements = moved_pairs(system)
    tokens, move = system.tokenizer.tokenize(WEIGHTS), pairs.moves.act  # type: ignore[union-attr]
    assert torch.equal(move(tokens), system.tokenizer.tokenize(SYMMETRY.act(elements, WEIGHTS)))
    other = torch.randn(tokens.shape, dtype=torch.float64) * system.tokenizer.layout.mask
    torch.testing.assert_close(move(2 * tokens - other), 2 * move(tokens) - move(other))


def test_the_anchor_is_the_mean_network_each_tensor_at_unit_size() -> None:
    for tokenizer in ("neuron", "chunk"):
        system = system_of("fixed", tokenizer)
        found = SPEC.unflatten(system.tokenizer.collect(system.generator.anchor[None])[0])  # type: ignore[index]
        for name, tensor in SPEC.unflatten(WEIGHTS.mean(0)).items():
            assert float(found[name].square().mean()) == pytest.approx(1)
            torch.testing.assert_close(found[name] * tensor.square().mean().sqrt(), tensor)


# ---------------------------------------------------------------- estimates


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_an_estimate_of_a_denoiser_that_knows_is_the_network_itself(prediction: str) -> None:
    (tokens, condition), closed = correlated(12, 2, 0.5), closed_of()
    generator = diffusion(predictor=linear(), prediction=prediction, levels=100)
    generator.fit(closed)
    left = (tokens - generator.typical(condition).detach()) / generator.spread
    generator.denoiser = Knowing(left, prediction, generator.alphas)
    found = generator.estimate(pairs_of(tokens, condition), 0.5, seeded(0))
    torch.testing.assert_close(found, tokens, rtol=1e-3, atol=1e-3)
    found.square().sum().backward()
    gradient = generator.denoiser.scale.grad
    assert gradient is not None and float(gradient.abs()) > 0
    assert all(p.grad is None for p in generator.task_parameters())


def test_an_estimate_is_noised_at_most_as_much_as_asked_and_told_the_whole_condition() -> None:
    for noise in (1e-6, 0.2, 1.0):
        denoiser, tokens = Fixed(), tokens_of(64)
        generator = diffusion(denoiser, levels=1000, dropout=1.0)
        pairs = pairs_of(tokens)
        generator.estimate(pairs, noise, seeded(0))
        ((x, level, pooled, _),) = denoiser.calls
        assert 0 <= float(level.min()) < 0.2 * noise and 0.8 * noise < float(level.max()) <= noise
        assert torch.equal(pooled, pairs.condition.pooled)
        assert (float((x - tokens).abs().max()) < 0.05) == (noise == 1e-6)  # the least noisy level has a little


def test_an_estimate_is_of_networks_as_they_are_also_where_others_are_trained_on_moved() -> None:
    system = system_of("fixed")
    pairs, _ = moved_pairs(system, augment=1.0)
    plain = system.generator.estimate(replace(pairs, moves=None), 0.2, seeded(0))
    assert torch.equal(system.generator.estimate(pairs, 0.2, seeded(0)), plain)


# ---------------------------------------------------------------- drawing


def test_guidance_goes_from_the_null_prediction_through_the_conditional_one() -> None:
    """Ho and Salimans (2022), eq. 6 with w = guidance - 1; one step of x0 is what the guided denoiser says."""
    condition, generator = condition_of(3), diffusion(prediction="x0")
    x, level, anchor = torch.randn(3, *MASK.shape, generator=seeded(5)) * MASK, torch.full((3,), 0.999), 0 * MASK
    with_it, without = (Fixed()(x, level, c, anchor.expand_as(x)) for c in (condition, null_of(condition)))
    for guidance in (0.0, 0.5, 1.0, 3.0):
        expected = (1 - guidance) * without + guidance * with_it
        torch.testing.assert_close(draw(generator, guidance=guidance, steps=1), expected * MASK)
    denoiser = Fixed()
    draw(diffusion(denoiser), steps=3, guidance=1.0)
    assert len(denoiser.calls) == 3  # the null is not asked for nothing
    assert not torch.equal(draw(generator, guidance=1.0), draw(generator, guidance=2.0))


def test_clip_bounds_the_drawn_tokens() -> None:
    free, clipped = draw(diffusion()), draw(diffusion(clip=0.5))
    assert free.abs().max() > 0.5
    torch.testing.assert_close(clipped, free.clamp(-0.5, 0.5))


def test_a_denoiser_is_given_the_anchor_when_networks_are_drawn() -> None:
    denoiser, closed = Fixed(), closed_of()
    generator = diffusion(denoiser)
    generator.fit(closed)
    draw(generator, count=2, guidance=2.0, steps=2)
    assert len(denoiser.calls) == 4
    assert all(torch.equal(anchor, closed.anchor.expand(2, -1, -1)) for *_, anchor in denoiser.calls)


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("prediction", ["x0", "v"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_draw_can_be_watched_and_ends_where_the_last_look_says(
    sampler: str, prediction: str, clip: float | None
) -> None:
    generator = diffusion(predictor=linear(), prediction=prediction, clip=clip)
    generator.fit(closed_of())
    condition, how = condition_of(3), Generate(steps=7, guidance=2.0, temperature=1.0, sampler=sampler)
    seen: list[tuple[int, Tensor]] = []
    drawn = generator.sample(condition, null_of(condition), how, seeded(0), lambda n, x: seen.append((n, x.clone())))
    assert [number for number, _ in seen] == [1, 2, 3, 4, 5, 6, 7]
    assert all(network.shape == drawn.shape and not network[:, ~MASK].any() for _, network in seen)
    torch.testing.assert_close(seen[-1][1], drawn, rtol=1e-4, atol=1e-4)
    assert (seen[0][1] - drawn).abs().max() > 1e-2
    assert torch.equal(
        generator.sample(condition, null_of(condition), how, seeded(0)), drawn
    )  # looking changes nothing


def test_a_sampler_there_is_not_is_told_with_those_there_are() -> None:
    with pytest.raises(UserError) as caught:
        draw(diffusion(), sampler="dpm-solver")
    assert str(caught.value) == (
        "generate.sampler: no 'dpm-solver'. Did you mean 'dpm-solver++'? Known: ddim, ddpm, dpm-solver++"
    )
    assert caught.value.exit_status == 2


# ---------------------------------------------------------------- parts of a draw


@pytest.mark.parametrize("free", [10**12, 2 * 2 * SPEC.size * system_module.BYTES_OF_A_VALUE, 1])
def test_networks_that_memory_has_no_room_for_are_drawn_in_parts_of_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    system, drawn = system_of("mlp"), list[int]()
    _, prompts = of_type(system)
    how = Generate(steps=4, guidance=2.0, temperature=1.0, sampler="ddpm")
    rng, other = seeded(8), seeded(8)
    together = system.sample_under(system.condition(prompts, start=True), how, other)
    system.generator.denoiser.register_forward_pre_hook(lambda _, inputs: drawn.append(len(inputs[0])))
    monkeypatch.setattr(system_module, "memory", lambda: (free, free))
    assert torch.allclose(system.sample(prompts, how, rng), together, atol=1e-5)
    assert torch.equal(rng.get_state(), other.get_state())
    assert max(drawn) == {10**12: COUNT, 1: 1}.get(free, 2) and sum(drawn) == 2 * 4 * COUNT


def test_a_draw_that_is_watched_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    system, seen = system_of("mlp"), list[int]()
    monkeypatch.setattr(system_module, "memory", lambda: (1, 1))
    _, prompts = of_type(system)
    system.sample(prompts, Generate(steps=3), seeded(8), lambda done, networks: seen.append(len(networks)))
    assert seen == [COUNT] * 3
