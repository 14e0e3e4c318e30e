"""Flow matching against the equations written out, closed forms and naive loops."""

from __future__ import annotations

from itertools import pairwise
from math import erf, exp
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.support.toys import (
    LAYOUT,
    MASK,
    WIDTH,
    Fixed,
    Given,
    closed_of,
    condition_of,
    draw,
    linear,
    live_mlp,
    null_of,
    pairs_of,
    seeded,
    tokens_of,
)
from wspace.components.generators.flow import Flow
from wspace.interfaces import Condition, Denoiser, Predictor
from wspace.support.errors import UserError
from wspace.support.settings import Generate

SAMPLERS = ["heun", "euler"]


def flow(denoiser: Denoiser | None = None, predictor: Predictor | None = None, **arguments: Any) -> Flow:
    return Flow(denoiser or Fixed(), predictor, **arguments, layout=LAYOUT)


class Straight(Denoiser):
    """Knows the clean tokens, and so the velocity of the path that leads there."""

    def __init__(self, clean: Tensor):
        super().__init__()
        self.clean = clean

    def forward(self, x: Tensor, level: Tensor, condition: Condition, anchor: Tensor) -> Tensor:
        return (x - self.clean) / level[:, None, None]


class Bent(Denoiser):
    """A velocity field that is linear in nothing."""

    def forward(self, x: Tensor, level: Tensor, condition: Condition, anchor: Tensor) -> Tensor:
        return (2 * x).sin() + level[:, None, None].square() + condition.pooled.sum(1)[:, None, None].cos()


class Gaussian(Denoiser):
    """E[noise - clean | x] for clean tokens that are normal: what a denoiser trained on such tokens comes to."""

    def __init__(self, mean: float, spread: float):
        super().__init__()
        self.mean, self.spread = mean, spread

    def forward(self, x: Tensor, level: Tensor, condition: Condition, anchor: Tensor) -> Tensor:
        t = level[:, None, None]
        variance = (1 - t) ** 2 * self.spread**2 + t**2
        covariance = t - (1 - t) * self.spread**2  # of noise - clean with x
        return -self.mean + covariance / variance * (x - (1 - t) * self.mean)


# ---------------------------------------------------------------- training


def test_a_pair_is_the_point_on_the_straight_path_and_the_velocity_along_it() -> None:
    clean, noise, level = tokens_of(5), tokens_of(5, 1), torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0])
    noisy, goal = flow().mix(clean, noise, level)
    found = flow().clean_of(noisy, goal, level)
    for b, t in enumerate(level.tolist()):
        torch.testing.assert_close(noisy[b], (1 - t) * clean[b] + t * noise[b])
        assert torch.equal(goal[b], noise[b] - clean[b])
        torch.testing.assert_close(found[b], clean[b])
    near, _ = flow().mix(clean, noise, level + 1e-2)
    torch.testing.assert_close((near - noisy) / 1e-2, goal, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("levels", ["uniform", "logit-normal"])
def test_the_denoiser_is_trained_to_return_the_velocity(levels: str) -> None:
    """By the draws: level, noise, dropout, in this order."""
    count, denoiser = 6, Fixed()
    pairs = pairs_of(tokens_of(count))
    terms = flow(denoiser, levels=levels, dropout=0.5).loss(pairs, seeded(3))

    rng = seeded(3)
    level = torch.rand(count, generator=rng) if levels == "uniform" else torch.randn(count, generator=rng).sigmoid()
    noise = torch.randn(pairs.tokens.shape, generator=rng) * MASK
    kept = torch.rand(count, generator=rng) >= 0.5
    x, seen, pooled, _ = denoiser.calls[0]
    errors = []
    for b, t in enumerate(level.tolist()):
        torch.testing.assert_close(x[b], (1 - t) * pairs.tokens[b] + t * noise[b])
        assert float(seen[b]) == pytest.approx(t)
        assert torch.equal(pooled[b], pairs.condition.pooled[b] if kept[b] else torch.zeros(WIDTH))
        said = 0.8 * x[b] + 0.1 * t + 0.3 * pooled[b].sum().sin()
        goal = noise[b] - pairs.tokens[b]
        errors.append(np.mean([float(said[i, j] - goal[i, j]) ** 2 for i, j in MASK.nonzero().tolist()]))
    assert 0 < int(kept.sum()) < count
    assert set(terms) == {"denoising"}
    assert float(terms["denoising"]) == pytest.approx(np.mean(errors), rel=1e-4)


def normal_cdf(z: float) -> float:
    return (1 + erf(z / 2**0.5)) / 2


@pytest.mark.parametrize("levels", ["uniform", "logit-normal"])
def test_levels_are_drawn_as_their_distribution_has_it(levels: str) -> None:
    drawn = flow(levels=levels).draw_levels(20_000, seeded(0))
    assert drawn.shape == (20_000,) and float(drawn.min()) >= 0 and float(drawn.max()) <= 1
    for t in (0.1, 0.3, 0.5, 0.8):
        below = t if levels == "uniform" else normal_cdf(np.log(t / (1 - t)))  # Esser et al., eq. 19
        assert float((drawn < t).float().mean()) == pytest.approx(below, abs=0.012), t


def test_thirty_steps_on_eight_networks_lower_the_loss() -> None:
    generator = flow(live_mlp(), dropout=0.0)
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


# ---------------------------------------------------------------- samplers


def start_of(count: int, seed: int = 5) -> Tensor:
    """The noise that `draw` starts from at temperature 1."""
    return torch.randn(count, *MASK.shape, generator=seeded(seed)) * MASK


def naive(sampler: str, steps: int, count: int = 3) -> np.ndarray:
    """Euler, and Karras et al. (2022), algorithm 1, for `Bent`, in double precision."""
    shift = np.cos(condition_of(count).pooled.double().numpy().sum(1))[:, None, None]

    def velocity(x: np.ndarray, t: float) -> np.ndarray:
        return np.sin(2 * x) + t**2 + shift

    times = np.linspace(1, 0, steps + 1)
    x = start_of(count).double().numpy()
    for i in range(steps):
        h = times[i + 1] - times[i]
        d = velocity(x, times[i])
        after = x + h * d
        if sampler == "heun" and times[i + 1] != 0:
            after = x + h * (d / 2 + velocity(after, times[i + 1]) / 2)
        x = after
    return x * MASK.numpy()


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 7, 20])
def test_a_draw_is_the_sampler_written_out(sampler: str, steps: int) -> None:
    drawn = draw(flow(Bent()), steps=steps, sampler=sampler)
    np.testing.assert_allclose(drawn.numpy(), naive(sampler, steps), rtol=1e-4, atol=1e-5)


def exact(count: int) -> np.ndarray:
    """Where dx/dt = a x + b t + c, which `Fixed` is, leads from t = 1 to t = 0."""
    a, b = 0.8, 0.1
    c = 0.3 * np.sin(condition_of(count).pooled.double().numpy().sum(1))[:, None, None]

    def particular(t: float) -> np.ndarray:
        return -b / a * t - b / a**2 - c / a

    return ((start_of(count).double().numpy() - particular(1)) * exp(-a) + particular(0)) * MASK.numpy()


@pytest.mark.parametrize(("sampler", "gain"), [("euler", 2.0), ("heun", 4.0)])
def test_half_the_step_is_half_the_error_of_euler_and_a_quarter_of_heuns(sampler: str, gain: float) -> None:
    errors = [np.abs(draw(flow(), steps=n, sampler=sampler).numpy() - exact(3)).max() for n in (4, 8, 16, 32)]
    for rough, fine in pairwise(errors):
        assert rough / fine == pytest.approx(gain, rel=0.15)


@pytest.mark.parametrize("sampler", SAMPLERS)
@settings(deadline=None, max_examples=30, derandomize=True)
@given(steps=st.integers(1, 60), temperature=st.sampled_from([0.0, 0.5, 1.0, 3.0]))
def test_a_straight_path_is_followed_to_its_end_in_any_number_of_steps(
    sampler: str, steps: int, temperature: float
) -> None:
    clean = tokens_of(3)
    drawn = draw(flow(Straight(clean)), steps=steps, temperature=temperature, sampler=sampler)
    torch.testing.assert_close(drawn, clean, rtol=1e-4, atol=1e-4)


def test_noise_becomes_draws_of_the_distribution_that_was_learned() -> None:
    """Between two normal distributions the flow is the map mean + spread z; a denoiser that returns the mean velocity."""
    for mean, spread in ((0.0, 1.0), (1.5, 0.3), (-2.0, 2.0)):
        drawn = draw(flow(Gaussian(mean, spread)), count=50, steps=100, sampler="heun")
        expected = (mean + spread * start_of(50)) * MASK
        torch.testing.assert_close(drawn, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_euler_asks_the_denoiser_once_a_step_and_heun_twice_but_at_the_end(steps: int) -> None:
    times = [1 - i / steps for i in range(steps)]
    visited = {"euler": times, "heun": [t for pair in pairwise(times) for t in pair] + times[-1:]}
    for sampler, expected in visited.items():
        denoiser = Fixed()
        draw(flow(denoiser), count=2, steps=steps, sampler=sampler)
        assert [level.tolist() for _, level, *_ in denoiser.calls] == [pytest.approx([t, t]) for t in expected]
    assert (len(visited["euler"]), len(visited["heun"])) == (steps, 2 * steps - 1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_draws_the_same_bytes_and_another_seed_others(sampler: str) -> None:
    generator = flow(live_mlp())
    state = torch.random.get_rng_state()
    first = draw(generator, seed=5, sampler=sampler)
    assert torch.equal(draw(generator, seed=5, sampler=sampler), first)
    assert not torch.equal(draw(generator, seed=6, sampler=sampler), first)
    assert torch.equal(torch.random.get_rng_state(), state)  # no draw from the global state


@pytest.mark.parametrize("temperature", [0.0, 0.5, 2.0])
def test_temperature_scales_the_noise_a_draw_starts_from(temperature: float) -> None:
    denoiser = Fixed()
    draw(flow(denoiser), temperature=temperature)
    torch.testing.assert_close(denoiser.calls[0][0], temperature * start_of(3))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_padding_stays_zero(sampler: str) -> None:
    generator = flow(predictor=linear())
    generator.fit(closed_of())
    drawn = draw(generator, sampler=sampler)
    assert not drawn[:, ~MASK].any() and drawn[:, MASK].all()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_denoiser_that_says_nothing_at_temperature_zero_leaves_the_predictor(sampler: str) -> None:
    generator = flow(Given(torch.zeros(MASK.shape)), linear())
    generator.fit(closed_of())
    expected = generator.typical(condition_of(3)).detach()
    assert expected.abs().max() > 0.5 and torch.equal(draw(generator, temperature=0.0, sampler=sampler), expected)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_guidance_goes_from_the_null_velocity_through_the_conditional_one(sampler: str) -> None:
    """For a field that the condition only shifts, a draw is shifted likewise: eq. 6 of Ho and Salimans, w = guidance - 1."""

    class Shift(Denoiser):
        def forward(self, x: Tensor, level: Tensor, condition: Condition, anchor: Tensor) -> Tensor:
            return condition.pooled.sum(1)[:, None, None].expand_as(x)

    shift = condition_of(3).pooled.sum(1)[:, None, None]
    for guidance in (0.0, 0.5, 1.0, 3.0):
        drawn = draw(flow(Shift()), steps=3, guidance=guidance, sampler=sampler)
        torch.testing.assert_close(drawn, (start_of(3) - guidance * shift) * MASK)
    denoiser = Fixed()
    draw(flow(denoiser), steps=3, guidance=2.0, sampler=sampler)
    assert len(denoiser.calls) == 2 * {"euler": 3, "heun": 5}[sampler]


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_draw_is_watched_once_a_step_and_ends_where_the_last_look_says(sampler: str, clip: float | None) -> None:
    generator = flow(Bent(), linear(), clip=clip)
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


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_on_a_straight_path_every_look_is_at_its_end(sampler: str) -> None:
    clean, condition, looks = tokens_of(3), condition_of(3), list[Tensor]()
    how = Generate(steps=6, temperature=1.0, sampler=sampler)
    flow(Straight(clean)).sample(condition, null_of(condition), how, seeded(0), lambda n, x: looks.append(x))
    assert len(looks) == 6
    for look in looks:
        torch.testing.assert_close(look, clean, rtol=1e-4, atol=1e-4)


def test_the_sampler_of_a_flow_that_names_none_is_heun() -> None:
    drawn = {sampler: draw(flow(Bent()), sampler=sampler) for sampler in (None, *SAMPLERS)}
    assert sorted(Flow.samplers) == sorted(SAMPLERS) and torch.equal(drawn[None], drawn["heun"])
    assert not torch.equal(drawn["heun"], drawn["euler"])


def test_a_sampler_of_diffusion_is_none_of_a_flow() -> None:
    with pytest.raises(UserError) as caught:
        draw(flow(), sampler="ddim")
    assert str(caught.value) == "generate.sampler: no 'ddim'. Known: euler, heun"


# ---------------------------------------------------------------- a discriminator's view


def test_an_estimate_is_the_end_of_the_path_from_a_little_noise() -> None:
    tokens = tokens_of(4)
    found = flow(Given(torch.zeros(MASK.shape))).estimate(pairs_of(tokens), 0.2, seeded(0))

    rng = seeded(0)
    level = 0.2 * torch.rand(4, generator=rng)[:, None, None]
    noise = torch.randn(tokens.shape, generator=rng) * MASK
    torch.testing.assert_close(found, (1 - level) * tokens + level * noise)  # it says that nothing moves
    assert (found - tokens).abs().max() > 1e-2
