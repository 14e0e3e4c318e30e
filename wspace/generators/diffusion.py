"""Denoising diffusion over weight tokens, around a closed-form linear path from the condition."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from wspace.interfaces import Condition, Denoiser, Generator, Pairs, TokenLayout
from wspace.ridge import PENALTIES, Ridge


class Diffusion(Generator):
    """DDPM (Ho et al., 2020; T2W, eq. 6-9) on x = (tokens - path(condition)) / spread.

    path: `ridge` is the short path of the condition to the weights: a ridge regression on the pooled condition, fitted
    in closed form before the first gradient step, its penalty chosen on held-out tasks; diffusion models what it
    leaves over. `none` is the paper's: all of the weights are diffused.
    prediction: what the denoiser returns; epsilon (eq. 9), x0, or v (Salimans and Ho, 2022). With unit-variance x,
    a denoiser that returns zero under v is already the best one that ignores everything (a preconditioned skip).
    schedule: linear is Ho et al.'s betas for 1000 levels, scaled to end in pure noise for any other number of them.
    sampler: ddpm and ddim are both eq. 12 of Song et al. (2021), with eta 1 and 0; dpm-solver++ is Lu et al. (2022),
    second order. A draw's temperature scales its starting noise and, for ddpm, each step's.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        path: Literal["ridge", "none"] = "ridge",
        prediction: Literal["epsilon", "x0", "v"] = "v",
        schedule: Literal["linear", "cosine"] = "cosine",
        levels: Annotated[int, Ge(2)] = 1000,
        sampler: Literal["ddpm", "ddim", "dpm-solver++"] = "ddim",
        dropout: Annotated[float, Ge(0), Le(1)] = 0.1,
        clip: Annotated[float, Gt(0)] | None = None,
        *,
        layout: TokenLayout,
        pooled_width: int,
    ):
        super().__init__()
        self.denoiser, self.path, self.prediction, self.sampler = denoiser, path, prediction, sampler
        self.levels, self.dropout, self.clip = levels, dropout, clip
        self.schedule = schedule
        self.mask: Tensor
        self.alphas: Tensor
        self.path_weight: Tensor
        self.path_bias: Tensor
        self.spread: Tensor
        self.register_buffer("mask", layout.mask, persistent=False)  # (N, D)
        self.register_buffer("alphas", self._scheduler().alphas_cumprod.float(), persistent=False)  # (levels,)
        self.register_buffer("path_weight", torch.zeros(pooled_width if path == "ridge" else 0, layout.mask.numel()))
        self.register_buffer("path_bias", torch.zeros(layout.mask.numel()))
        self.register_buffer("spread", torch.ones(()))

    def fit(self, tokens: Tensor, condition: Condition, held_out: tuple[Tensor, Condition]) -> None:
        if self.path == "none":
            return
        ridge = Ridge.fit(condition.pooled, tokens.flatten(1))
        tokens_out, condition_out = held_out
        errors = {
            penalty: float((ridge.predict(condition_out.pooled, penalty) - tokens_out.flatten(1)).square().mean())
            for penalty in PENALTIES
        }
        best = min(errors, key=errors.__getitem__)
        weight = ridge.weight(best)
        self.path_weight.copy_(weight)
        self.path_bias.copy_(ridge.mean_y - ridge.mean_x @ weight)
        left = (errors[best] * self.mask.numel() / float(self.mask.sum())) ** 0.5
        self.spread.fill_(max(left, 1e-6))  # networks all alike leave nothing

    def along_path(self, condition: Condition) -> Tensor:
        """What the condition alone says of the tokens, (B, N, D)."""
        flat = self.path_bias.expand(len(condition.pooled), -1)
        if self.path == "ridge":
            flat = flat + condition.pooled @ self.path_weight
        return flat.unflatten(1, self.mask.shape)

    # ------------------------------------------------------------ training

    def loss(self, pairs: Pairs, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        clean = (pairs.tokens - self.along_path(pairs.condition)) / self.spread  # (B, N, D)
        count = len(clean)
        step = torch.randint(self.levels, (count,), generator=rng, device=rng.device).to(clean.device)
        noise = torch.randn(clean.shape, generator=rng, device=rng.device).to(clean.device) * self.mask
        keep = (torch.rand(count, generator=rng, device=rng.device) >= self.dropout).to(clean.device)
        signal, sigma = self._coefficients(step)  # (B, 1, 1) each
        noisy = signal * clean + sigma * noise
        goal = {"epsilon": noise, "x0": clean, "v": signal * noise - sigma * clean}[self.prediction]
        predicted = self.denoiser(noisy, step / self.levels, pairs.condition.where(keep, pairs.null))
        error = ((predicted - goal).square() * self.mask).sum((1, 2)) / self.mask.sum()  # (B,)
        return error.mean(), {"diffusion": error.mean().detach()}

    def _coefficients(self, step: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha-bar), sqrt(1 - alpha-bar) of each step: (B,) -> (B, 1, 1) twice."""
        alpha = self.alphas[step][:, None, None]
        return alpha.sqrt(), (1 - alpha).sqrt()

    # ------------------------------------------------------------ sampling

    @torch.no_grad()
    def sample(
        self, condition: Condition, null: Condition, *, steps: int, guidance: float, temperature: float, rng: torch.Generator
    ) -> Tensor:
        path = self.along_path(condition)  # (B, N, D)
        scheduler = self._scheduler()
        scheduler.set_timesteps(min(steps, self.levels))

        def noise() -> Tensor:
            return temperature * torch.randn(path.shape, generator=rng, device=rng.device).to(path.device) * self.mask

        x = noise()
        for step, following in pairwise([*scheduler.timesteps.tolist(), -1]):
            level = torch.full((len(x),), step / self.levels, device=x.device)
            predicted = self._guided(x, level, condition, null, guidance)
            if self.sampler == "dpm-solver++":
                x = scheduler.step(predicted, step, x).prev_sample
            else:
                x = self._less_noisy(x, predicted, step, following, noise() if self.sampler == "ddpm" else None)
        x = x * self.mask
        if self.clip is not None:
            x = x.clamp(-self.clip, self.clip)
        return path + self.spread * x

    def _less_noisy(self, x: Tensor, predicted: Tensor, step: int, following: int, noise: Tensor | None) -> Tensor:
        """Eq. 12 of Song et al. (2021) from one level to any lower one, -1 being clean; without `noise`, eta is 0.

        Written out because diffusers' DDIM and DDPM go down by levels // steps, and so miss the next level where steps
        do not divide levels (with 7 of 1000, the last one leaves noise in).
        """
        alpha = self.alphas[step]
        after = self.alphas[following] if following >= 0 else torch.ones_like(alpha)
        signal, sigma = alpha.sqrt(), (1 - alpha).sqrt()
        if self.prediction == "v":
            clean, epsilon = signal * x - sigma * predicted, sigma * x + signal * predicted
        elif self.prediction == "x0":
            clean, epsilon = predicted, (x - signal * predicted) / sigma
        else:
            clean, epsilon = (x - sigma * predicted) / signal, predicted
        if noise is None:
            return after.sqrt() * clean + (1 - after).sqrt() * epsilon
        variance = (1 - after) / (1 - alpha) * (1 - alpha / after)  # posterior variance of eq. 7 of Ho et al.
        return after.sqrt() * clean + (1 - after - variance).clamp_min(0).sqrt() * epsilon + variance.sqrt() * noise

    def _guided(self, x: Tensor, level: Tensor, condition: Condition, null: Condition, guidance: float) -> Tensor:
        """Classifier-free guidance (Ho and Salimans, 2022, eq. 6), 1 meaning none."""
        predicted = self.denoiser(x, level, condition)
        if guidance == 1:
            return predicted
        unconditional = self.denoiser(x, level, null)
        return unconditional + guidance * (predicted - unconditional)

    def _scheduler(self) -> Any:
        """The betas and the levels to visit; for dpm-solver++, the steps too."""
        from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

        scale = 1000 / self.levels
        return DPMSolverMultistepScheduler(
            self.levels,
            beta_schedule="squaredcos_cap_v2" if self.schedule == "cosine" else "linear",
            beta_start=min(1e-4 * scale, 0.999),
            beta_end=min(0.02 * scale, 0.999),
            prediction_type={"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}[self.prediction],
            timestep_spacing="trailing",  # the first step is pure noise, whatever the number of steps
            algorithm_type="dpmsolver++",
            final_sigmas_type="zero",
        )
