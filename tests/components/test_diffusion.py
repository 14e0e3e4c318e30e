"""Diffusion against the equations written out, and against diffusers' own samplers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.toys import MASK, Fixed, Knowing, closed_of, condition_of, diffusion, draw, linear, seeded, tokens_of

SAMPLERS = ["ddpm", "ddim", "dpm-solver++"]
PREDICTIONS = ["epsilon", "x0", "v"]


# ---------------------------------------------------------------- forward process


def naive_betas(schedule: str, levels: int) -> list[float]:
    if schedule == "linear":
        return np.linspace(1e-4 * 1000 / levels, min(0.02 * 1000 / levels, 0.999), levels).tolist()
    curve = [np.cos((t / levels + 0.008) / 1.008 * np.pi / 2) ** 2 for t in range(levels + 1)]
    return [min(1 - after / before, 0.999) for before, after in pairwise(curve)]


@pytest.mark.parametrize("levels", [10, 100, 1000])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_alphas_are_the_product_of_one_minus_beta(schedule: str, levels: int) -> None:
    product, expected = 1.0, []
    for beta in naive_betas(schedule, levels):
        product *= 1 - beta
        expected.append(product)
    alphas = diffusion(schedule=schedule, levels=levels).alphas
    np.testing.assert_allclose(alphas.numpy(), expected, rtol=2e-3, atol=1e-7)
    assert alphas[-1] < 1e-3  # all but pure noise, from which sampling starts
    assert alphas[0] > 0.9


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_noise_of_a_level_has_the_moments_of_equation_6_iterated(schedule: str) -> None:
    """theta_n = sqrt(1 - beta) theta_{n-1} + sqrt(beta) e: the factor of theta_0, and the variance."""
    generator = diffusion(schedule=schedule, levels=20)
    signal, variance = 1.0, 0.0
    for n, beta in enumerate(naive_betas(schedule, 20)):
        signal, variance = (1 - beta) ** 0.5 * signal, (1 - beta) * variance + beta
        one, none, level = torch.ones(1, 1, 1), torch.zeros(1, 1, 1), torch.tensor([n / 20])
        assert float(generator.mix(one, none, level)[0]) == pytest.approx(signal, rel=1e-3, abs=1e-6)
        assert float(generator.mix(none, one, level)[0]) ** 2 == pytest.approx(variance, rel=1e-3)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_what_is_to_be_returned_is_that_of_the_prediction(prediction: str) -> None:
    clean, noise, level = tokens_of(4), tokens_of(4, 1), torch.tensor([0.0, 0.1, 0.5, 0.98])
    generator = diffusion(prediction=prediction, levels=50)
    noisy, goal = generator.mix(clean, noise, level)
    for b, step in enumerate((0, 5, 25, 49)):
        alpha = float(generator.alphas[step])
        torch.testing.assert_close(noisy[b], alpha**0.5 * clean[b] + (1 - alpha) ** 0.5 * noise[b])
        v = alpha**0.5 * noise[b] - (1 - alpha) ** 0.5 * clean[b]
        torch.testing.assert_close(goal[b], {"epsilon": noise[b], "x0": clean[b], "v": v}[prediction])
    within = slice(0, 3)  # epsilon says nothing of what is clean in pure noise
    torch.testing.assert_close(generator.clean_of(noisy, goal, level)[within], clean[within], rtol=1e-4, atol=1e-4)


def test_levels_are_drawn_uniformly_and_below_one() -> None:
    levels = diffusion(levels=10).draw_levels(5000, seeded(0))
    found, counts = levels.unique(return_counts=True)
    torch.testing.assert_close(found, torch.arange(10) / 10)
    assert (counts - 500).abs().max() < 90


# ---------------------------------------------------------------- samplers


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_ddpm_at_temperature_one_is_diffusers_ddpm_with_the_same_noise(schedule: str, prediction: str) -> None:
    levels, steps, count = 1000, 8, 3
    denoiser, condition = Fixed(), condition_of(count)
    generator = diffusion(denoiser, prediction=prediction, schedule=schedule)
    drawn = draw(generator, count, steps=steps, sampler="ddpm")

    reference = DDPMScheduler(
        levels,
        beta_schedule={"linear": "linear", "cosine": "squaredcos_cap_v2"}[schedule],
        prediction_type={"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}[prediction],
        timestep_spacing="trailing",
        clip_sample=False,
        variance_type="fixed_small",
    )
    reference.set_timesteps(steps)
    rng = seeded(5)
    x, fixed = torch.randn(drawn.shape, generator=rng) * MASK, Fixed()
    for t in reference.timesteps:
        noise = torch.randn(drawn.shape, generator=rng) * MASK
        predicted = fixed(x, torch.full((count,), int(t) / levels), condition, torch.zeros_like(x))
        mean = reference.step(predicted, int(t), x, generator=seeded(0)).prev_sample
        if t > levels // steps:  # diffusers draws its own noise: taken out, and ours put in
            spread = reference._get_variance(int(t)).sqrt()
            mean = mean - spread * torch.randn(x.shape, generator=seeded(0)) + spread * noise
        x = mean
    torch.testing.assert_close(drawn, x * MASK, rtol=1e-3, atol=2e-4)
    assert [round(float(level[0]) * levels) for _, level, *_ in denoiser.calls] == reference.timesteps.tolist()


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("steps", [1, 3, 7, 20])
def test_ddim_is_the_equations_of_ddim_written_out(steps: int, prediction: str) -> None:
    levels, count = 20, 3
    generator = diffusion(prediction=prediction, levels=levels)
    drawn = draw(generator, count, steps=steps, sampler="ddim")
    alphas, fixed, condition = generator.alphas.double().numpy(), Fixed(), condition_of(count)
    visited = [round(levels - i * levels / steps) - 1 for i in range(steps)]  # from pure noise, evenly down
    assert visited[0] == levels - 1
    x = torch.randn(drawn.shape, generator=seeded(5)).double() * MASK
    for now, after in zip(visited, [*visited[1:], None], strict=True):
        a = alphas[now]
        level = torch.full((count,), now / levels)
        said = fixed(x.float(), level, condition, torch.zeros(x.shape)).double()
        if prediction == "epsilon":
            clean = (x - (1 - a) ** 0.5 * said) / a**0.5
        else:
            clean = said if prediction == "x0" else a**0.5 * x - (1 - a) ** 0.5 * said
        epsilon = (x - a**0.5 * clean) / (1 - a) ** 0.5
        b = 1.0 if after is None else alphas[after]
        x = b**0.5 * clean + (1 - b) ** 0.5 * epsilon
    torch.testing.assert_close(drawn.double(), x * MASK, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sampler", SAMPLERS)
@settings(deadline=None, max_examples=30, derandomize=True)
@given(
    levels=st.sampled_from([2, 5, 20, 1000]),
    steps=st.integers(1, 60),
    schedule=st.sampled_from(["linear", "cosine"]),
    temperature=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_a_denoiser_that_knows_the_answer_is_followed_to_it_in_whatever_terms(
    sampler: str, levels: int, steps: int, schedule: str, temperature: float
) -> None:
    clean = tokens_of(3)
    for prediction in PREDICTIONS:
        generator = diffusion(prediction=prediction, levels=levels, schedule=schedule)
        generator.denoiser = Knowing(clean, prediction, generator.alphas)
        drawn = draw(generator, steps=steps, temperature=temperature, sampler=sampler)
        tolerance = 2e-2 if prediction == "epsilon" and schedule == "cosine" else 1e-3  # its alpha-bar ends near 1e-9
        torch.testing.assert_close(drawn, clean, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_number_of_steps_visits_that_many_levels_from_the_noisiest_down(sampler: str) -> None:
    for steps in (*range(1, 51), 70):
        denoiser = Fixed()
        draw(diffusion(denoiser, levels=50), count=1, steps=steps, sampler=sampler)
        levels = [round(float(level[0]) * 50) for _, level, *_ in denoiser.calls]
        assert len(levels) == min(steps, 50)
        assert levels[0] == 49 and levels == sorted(set(levels), reverse=True)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_draws_the_same_bytes_and_another_seed_others(sampler: str) -> None:
    generator = diffusion()
    state = torch.random.get_rng_state()
    first = draw(generator, seed=5, sampler=sampler)
    assert torch.equal(draw(generator, seed=5, sampler=sampler), first)
    assert not torch.equal(draw(generator, seed=6, sampler=sampler), first)
    assert torch.equal(torch.random.get_rng_state(), state)  # no draw from the global state


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_temperature_zero_is_the_same_network_whatever_the_seed(sampler: str) -> None:
    generator = diffusion()
    drawn = [draw(generator, seed=seed, temperature=0.0, sampler=sampler) for seed in (5, 6)]
    assert torch.equal(*drawn)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_padding_stays_zero(sampler: str) -> None:
    generator = diffusion(predictor=linear())
    generator.fit(closed_of())
    drawn = draw(generator, sampler=sampler)
    assert not drawn[:, ~MASK].any() and drawn[:, MASK].all()


def test_the_sampler_of_a_generator_that_names_none_is_ddim() -> None:
    generator = diffusion()
    drawn = {sampler: draw(generator, sampler=sampler) for sampler in (None, *SAMPLERS)}
    assert sorted(generator.samplers) == sorted(SAMPLERS) and torch.equal(drawn[None], drawn["ddim"])
    assert not torch.equal(drawn["ddim"], drawn["ddpm"]) and not torch.equal(drawn["ddim"], drawn["dpm-solver++"])
