"""Diffusion against the equations written out, and against diffusers' own samplers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from wspace.denoisers.mlp import MLP
from wspace.generators.diffusion import Diffusion
from wspace.interfaces import Condition, Denoiser, Pairs, TokenLayout
from wspace.ridge import PENALTIES

# diffusers 0.3x hands tensors to numpy 2 in a way that numpy deprecates

MASK = torch.tensor([[True, True, True, True], [True, True, False, False]])  # (N, D)
WIDTH = 3  # of conditions
SAMPLERS = ["ddpm", "ddim", "dpm-solver++"]
PREDICTIONS = ["epsilon", "x0", "v"]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tokens_of(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *MASK.shape, generator=seeded(seed)) * MASK


def condition_of(count: int, seed: int = 1) -> Condition:
    pooled = torch.randn(count, WIDTH, generator=seeded(seed))
    return Condition(pooled[:, None], torch.ones(count, 1, dtype=torch.bool), pooled)


def null_of(condition: Condition) -> Condition:
    zeros = torch.zeros_like
    return Condition(zeros(condition.tokens), condition.mask, zeros(condition.pooled))


class Fixed(Denoiser):
    """A smooth function of everything it is given; notes what that was."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, x: Tensor, level: Tensor, condition: Condition) -> Tensor:
        self.calls.append((x.clone(), level.clone(), condition.pooled.clone()))
        return 0.8 * x + 0.1 * level[:, None, None] + 0.3 * condition.pooled.sum(1)[:, None, None].sin()


class Knowing(Denoiser):
    """Knows the clean tokens, and says so in the asked-for terms."""

    def __init__(self, clean: Tensor, prediction: str, alphas: Tensor):
        super().__init__()
        self.clean, self.prediction, self.alphas = clean, prediction, alphas.double()

    def forward(self, x: Tensor, level: Tensor, condition: Condition) -> Tensor:
        alpha = self.alphas[(level * len(self.alphas)).round().long()][:, None, None]
        epsilon = (x - alpha.sqrt() * self.clean) / (1 - alpha).sqrt()
        v = alpha.sqrt() * epsilon - (1 - alpha).sqrt() * self.clean
        return {"epsilon": epsilon, "x0": self.clean.double(), "v": v}[self.prediction].float()


class Given(Denoiser):
    """Returns what it was made with."""

    def __init__(self, value: Tensor):
        super().__init__()
        self.value = nn.Parameter(value)

    def forward(self, x: Tensor, level: Tensor, condition: Condition) -> Tensor:
        return self.value.expand_as(x)


def diffusion(denoiser: Denoiser | None = None, **arguments: Any) -> Diffusion:
    return Diffusion(denoiser or Fixed(), **{"path": "none"} | arguments, layout=TokenLayout(MASK), pooled_width=WIDTH)


def draw(generator: Diffusion, count: int = 3, seed: int = 5, **arguments: Any) -> Tensor:
    condition = condition_of(count)
    settings_ = {"steps": 4, "guidance": 1.0, "temperature": 1.0} | arguments
    return generator.sample(condition, null_of(condition), **settings_, rng=seeded(seed))


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
        a, b = generator._coefficients(torch.tensor([n]))
        assert float(a) == pytest.approx(signal, rel=1e-3, abs=1e-6)
        assert float(b) ** 2 == pytest.approx(variance, rel=1e-3)


def test_the_denoiser_sees_clean_tokens_mixed_with_the_noise_it_should_find() -> None:
    """Equation 9, by the draws: step, noise, dropout, in this order."""
    count, levels = 6, 50
    tokens, condition = tokens_of(count), condition_of(count)
    for prediction in PREDICTIONS:
        denoiser = Fixed()
        generator = diffusion(denoiser, prediction=prediction, levels=levels, dropout=0.5)
        loss, shown = generator.loss(Pairs(tokens, condition, null_of(condition)), seeded(3))

        rng = seeded(3)
        step = torch.randint(levels, (count,), generator=rng)
        noise = torch.randn(tokens.shape, generator=rng) * MASK
        kept = torch.rand(count, generator=rng) >= 0.5
        x, level, pooled = denoiser.calls[0]
        errors = []
        for b in range(count):
            alpha = float(generator.alphas[step[b]])
            torch.testing.assert_close(x[b], alpha**0.5 * tokens[b] + (1 - alpha) ** 0.5 * noise[b])
            assert float(level[b]) == pytest.approx(int(step[b]) / levels)
            assert torch.equal(pooled[b], condition.pooled[b] if kept[b] else torch.zeros(WIDTH))
            v = alpha**0.5 * noise[b] - (1 - alpha) ** 0.5 * tokens[b]
            goal = {"epsilon": noise[b], "x0": tokens[b], "v": v}[prediction]
            said = 0.8 * x[b] + 0.1 * level[b] + 0.3 * pooled[b].sum().sin()
            errors.append(np.mean([float(said[i, j] - goal[i, j]) ** 2 for i, j in MASK.nonzero().tolist()]))
        assert 0 < int(kept.sum()) < count
        assert float(loss) == pytest.approx(np.mean(errors), rel=1e-4)
        assert float(shown["diffusion"]) == pytest.approx(float(loss))


def test_the_loss_of_one_network_is_a_plain_number() -> None:
    condition = condition_of(1)
    loss, shown = diffusion().loss(Pairs(tokens_of(1), condition, null_of(condition)), seeded(0))
    assert loss.shape == () and all(value.shape == () and not value.requires_grad for value in shown.values())


@pytest.mark.parametrize(("dropout", "nulls"), [(0.0, 0), (1.0, 64), (0.25, 16)])
def test_dropout_is_the_share_of_null_conditions(dropout: float, nulls: int) -> None:
    denoiser, condition = Fixed(), condition_of(64)
    diffusion(denoiser, dropout=dropout).loss(Pairs(tokens_of(64), condition, null_of(condition)), seeded(0))
    assert abs(int((denoiser.calls[0][2] == 0).all(1).sum()) - nulls) <= (8 if 0 < dropout < 1 else 0)


def test_what_a_denoiser_says_of_padding_has_no_loss_and_no_gradient() -> None:
    condition = condition_of(4)
    for prediction in PREDICTIONS:
        denoiser = Given(torch.zeros(MASK.shape).masked_fill(~MASK, 100.0))
        generator = diffusion(denoiser, prediction=prediction)
        loss, _ = generator.loss(Pairs(tokens_of(4), condition, null_of(condition)), seeded(0))
        loss.backward()
        assert float(loss.detach()) < 10
        gradient = denoiser.value.grad
        assert gradient is not None and not gradient[~MASK].any() and gradient[MASK].all()


def test_thirty_steps_on_eight_networks_lower_the_loss() -> None:
    torch.manual_seed(0)
    layout, condition = TokenLayout(MASK), condition_of(8)
    generator = diffusion(MLP(32, 1, layout=layout, pooled_width=WIDTH), dropout=0.0)
    pairs = Pairs(tokens_of(8) * 0.1 + 1.0 * MASK, condition, null_of(condition))
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-2)

    def held() -> float:
        with torch.no_grad():
            return float(np.mean([float(generator.loss(pairs, seeded(1000 + i))[0]) for i in range(20)]))

    before = held()
    for step in range(30):
        loss, _ = generator.loss(pairs, seeded(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert held() < 0.7 * before


# ---------------------------------------------------------------- samplers


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_ddpm_at_temperature_one_is_diffusers_ddpm_with_the_same_noise(schedule: str, prediction: str) -> None:
    levels, steps, count = 1000, 8, 3
    denoiser, condition = Fixed(), condition_of(count)
    drawn = draw(diffusion(denoiser, prediction=prediction, schedule=schedule, sampler="ddpm"), count, steps=steps)

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
        predicted = fixed(x, torch.full((count,), int(t) / levels), condition)
        mean = reference.step(predicted, int(t), x, generator=seeded(0)).prev_sample
        if t > levels // steps:  # diffusers draws its own noise: taken out, and ours put in
            spread = reference._get_variance(int(t)).sqrt()
            mean = mean - spread * torch.randn(x.shape, generator=seeded(0)) + spread * noise
        x = mean
    torch.testing.assert_close(drawn, x * MASK, rtol=1e-3, atol=2e-4)
    assert [round(float(level[0]) * levels) for _, level, _ in denoiser.calls] == reference.timesteps.tolist()


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("steps", [1, 3, 7, 20])
def test_ddim_is_the_equations_of_ddim_written_out(steps: int, prediction: str) -> None:
    levels, count = 20, 3
    generator = diffusion(prediction=prediction, levels=levels, sampler="ddim")
    drawn = draw(generator, count, steps=steps)
    alphas, fixed, condition = generator.alphas.double().numpy(), Fixed(), condition_of(count)
    visited = [round(levels - i * levels / steps) - 1 for i in range(steps)]  # from pure noise, evenly down
    assert visited[0] == levels - 1
    x = torch.randn(drawn.shape, generator=seeded(5)).double() * MASK
    for now, after in zip(visited, [*visited[1:], None], strict=True):
        a = alphas[now]
        said = fixed(x.float(), torch.full((count,), now / levels), condition).double()
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
        generator = diffusion(prediction=prediction, levels=levels, schedule=schedule, sampler=sampler)
        generator.denoiser = Knowing(clean, prediction, generator.alphas)
        drawn = draw(generator, steps=steps, temperature=temperature)
        tolerance = 2e-2 if prediction == "epsilon" and schedule == "cosine" else 1e-3  # its alpha-bar ends near 1e-9
        torch.testing.assert_close(drawn, clean, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_number_of_steps_visits_that_many_levels_from_the_noisiest_down(sampler: str) -> None:
    for steps in (*range(1, 51), 70):
        denoiser = Fixed()
        draw(diffusion(denoiser, levels=50, sampler=sampler), count=1, steps=steps)
        levels = [round(float(level[0]) * 50) for _, level, _ in denoiser.calls]
        assert len(levels) == min(steps, 50)
        assert levels[0] == 49 and levels == sorted(set(levels), reverse=True)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_draws_the_same_bytes_and_another_seed_others(sampler: str) -> None:
    generator = diffusion(sampler=sampler)
    state = torch.random.get_rng_state()
    assert torch.equal(draw(generator, seed=5), draw(generator, seed=5))
    assert not torch.equal(draw(generator, seed=5), draw(generator, seed=6))
    assert torch.equal(torch.random.get_rng_state(), state)  # no draw from the global state


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_temperature_zero_is_the_same_network_whatever_the_seed(sampler: str) -> None:
    generator = diffusion(sampler=sampler)
    assert torch.equal(draw(generator, seed=5, temperature=0.0), draw(generator, seed=6, temperature=0.0))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_padding_stays_zero(sampler: str) -> None:
    generator = diffusion(sampler=sampler, path="linear")
    condition, others = condition_of(12), condition_of(4, 9)
    generator.fit(tokens_of(12), condition, (tokens_of(4, 9), others))
    drawn = draw(generator)
    assert not drawn[:, ~MASK].any() and drawn[:, MASK].all()


def test_guidance_goes_from_the_null_prediction_through_the_conditional_one() -> None:
    x, level = tokens_of(3), torch.full((3,), 0.5)
    condition = condition_of(3)
    null = null_of(condition)
    generator = diffusion()
    with_it, without = Fixed()(x, level, condition), Fixed()(x, level, null)
    for guidance in (0.0, 0.5, 1.0, 3.0):
        expected = (1 - guidance) * without + guidance * with_it  # eq. 6, w = guidance - 1
        torch.testing.assert_close(generator._guided(x, level, condition, null, guidance), expected)
    denoiser = Fixed()
    draw(diffusion(denoiser), steps=3, guidance=1.0)
    assert len(denoiser.calls) == 3  # the null is not asked for nothing
    assert not torch.equal(draw(generator, guidance=1.0), draw(generator, guidance=2.0))


def test_clip_bounds_the_drawn_tokens() -> None:
    free, clipped = draw(diffusion()), draw(diffusion(clip=0.5))
    assert free.abs().max() > 0.5
    torch.testing.assert_close(clipped, free.clamp(-0.5, 0.5))


# ---------------------------------------------------------------- the linear path


def naive_ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of min |Y - X W - b|^2 / n + penalty s |W|^2 as one augmented least-squares problem."""
    n, width = x.shape
    strength = penalty * np.trace(np.cov(x.T, bias=True)) / width
    rows = np.block([[x, np.ones((n, 1))], [np.sqrt(n * strength) * np.eye(width), np.zeros((width, 1))]])
    solved = np.linalg.lstsq(rows, np.vstack([y, np.zeros((width, y.shape[1]))]), rcond=None)[0]
    return solved[:-1], solved[-1]


def correlated(count: int, seed: int, noise: float) -> tuple[Tensor, Condition]:
    condition = condition_of(count, seed)
    mixing = torch.randn(WIDTH, MASK.numel(), generator=seeded(77))
    tokens = (condition.pooled @ mixing + 2).unflatten(1, MASK.shape)
    return (tokens + noise * torch.randn(tokens.shape, generator=seeded(seed))) * MASK, condition


@pytest.mark.parametrize("noise", [0.01, 3.0])
def test_the_linear_path_starts_as_least_squares_with_the_penalty_best_on_held_out_tasks(
    noise: float,
) -> None:
    (tokens, condition), (others, asked) = correlated(12, 2, noise), correlated(6, 3, noise)
    generator = diffusion(path="linear")
    generator.fit(tokens, condition, (others, asked))
    x, y = condition.pooled.double().numpy(), tokens.flatten(1).double().numpy()
    errors = {}
    for penalty in PENALTIES:
        weight, bias = naive_ridge(x, y, penalty)
        said = asked.pooled.double().numpy() @ weight + bias
        errors[penalty] = float(np.mean(((said - others.flatten(1).numpy()) ** 2)[:, MASK.flatten().numpy()]))
    best = min(errors, key=errors.__getitem__)
    weight, bias = naive_ridge(x, y, best)
    expected = (asked.pooled.double().numpy() @ weight + bias).reshape(6, *MASK.shape)
    np.testing.assert_allclose(generator.typical(asked).detach().numpy(), expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(generator.line_weight, generator.path_weight)
    torch.testing.assert_close(generator.line_bias, generator.path_bias * generator.intercept)
    assert float(generator.spread) == pytest.approx(errors[best] ** 0.5, rel=1e-3)
    assert min(errors.values()) < 0.9 * max(errors.values())  # the choice matters


def test_diffusion_works_on_what_the_line_leaves_over_its_spread_about_the_path() -> None:
    (tokens, condition), held_out = correlated(12, 2, 0.5), correlated(6, 3, 0.5)
    generator = diffusion(Given(torch.zeros(MASK.shape)), path="linear", prediction="x0", dropout=1.0)
    generator.fit(tokens, condition, held_out)
    line = generator.typical(condition).detach()
    nn.init.normal_(generator.path_weight)  # a task loss moves the path; what is diffused stays about the line
    loss, _ = generator.loss(Pairs(tokens, condition, null_of(condition)), seeded(0))
    left = (tokens - line) / generator.spread
    assert float(loss.detach()) == pytest.approx(float(left[:, MASK].square().mean()), rel=1e-4)
    path = generator.typical(condition).detach()
    assert (path - line).abs().max() > 0.5
    drawn = generator.sample(condition, null_of(condition), steps=3, guidance=1.0, temperature=1.0, rng=seeded(0))
    torch.testing.assert_close(drawn, path)


def test_the_task_loss_trains_the_path_and_the_weight_loss_leaves_it_alone() -> None:
    (tokens, condition), held_out = correlated(12, 2, 0.5), correlated(6, 3, 0.5)
    generator = diffusion(MLP(8, 1, layout=TokenLayout(MASK), pooled_width=WIDTH), path="linear")
    generator.fit(tokens, condition, held_out)
    own = generator.task_parameters()
    generator.loss(Pairs(tokens, condition, null_of(condition)), seeded(0))[0].backward()
    assert all(p.grad is None for p in own)
    generator.typical(condition).square().sum().backward()
    assert len(own) == 2 and all(p.grad is not None and p.grad.any() for p in own)
    assert diffusion(path="none").task_parameters() == []


def test_without_a_path_nothing_is_fitted() -> None:
    (tokens, condition), held_out = correlated(12, 2, 0.5), correlated(6, 3, 0.5)
    generator = diffusion(path="none")
    generator.fit(tokens, condition, held_out)
    assert not generator.typical(condition).any() and generator.typical(condition).shape == tokens.shape
    assert float(generator.spread) == 1


def test_networks_all_alike_leave_a_finite_loss() -> None:
    condition, tokens = condition_of(5), torch.ones(5, *MASK.shape) * MASK
    generator = diffusion(path="linear")
    generator.fit(tokens, condition, (tokens, condition))
    loss, _ = generator.loss(Pairs(tokens, condition, null_of(condition)), seeded(0))
    assert torch.isfinite(loss)
    torch.testing.assert_close(draw(generator, 5, temperature=0.0), tokens)
