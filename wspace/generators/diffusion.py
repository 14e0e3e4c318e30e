"""Denoising diffusion over weight tokens, around a closed-form linear path from the condition."""

from __future__ import annotations

import warnings
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from wspace.interfaces import Condition, Denoiser, Generator, Pairs, TokenLayout
from wspace.ridge import PENALTIES, Ridge


class Diffusion(Generator):
    """DDPM (Ho et al., 2020; T2W, eq. 6-9) on x = (tokens - line(condition)) / spread; draws are path(condition) + spread * x.

    path: with `linear`, `line` is a ridge regression on the pooled condition, fitted in closed form before the first
    gradient step, its penalty chosen on held-out tasks; diffusion models what it leaves over. `path` is a linear map
    too, and starts as `line`; a task loss trains it on (what is best for a task is not the mean of what was found for
    it), so the zoo says how weights spread and the task where. `none` is the paper's: all of the weights are diffused.
    prediction: what the denoiser returns; epsilon (eq. 9), x0, or v (Salimans and Ho, 2022). With unit-variance x,
    a denoiser that returns zero under v is already the best one that ignores everything (a preconditioned skip).
    schedule: linear is Ho et al.'s betas for 1000 levels, scaled to end in pure noise for any other number of them.
    sampler: ddpm and ddim are both eq. 12 of Song et al. (2021), with eta 1 and 0; dpm-solver++ is Lu et al. (2022),
    second order. A draw's temperature scales its starting noise and, for ddpm, each step's.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        path: Literal["linear", "none"] = "linear",
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
        self.line_weight: Tensor
        self.line_bias: Tensor
        self.spread: Tensor
        self.register_buffer("mask", layout.mask, persistent=False)  # (N, D)
        self.register_buffer("alphas", self._solver().alphas_cumprod.float(), persistent=False)  # (levels,)
        inputs, values = (pooled_width if path == "linear" else 0), layout.mask.numel()
        self.register_buffer("line_weight", torch.zeros(inputs, values))
        self.register_buffer("line_bias", torch.zeros(values))
        # One input beside so many others: so scaled that Adam moves it as far as all of them together.
        self.intercept = max(1, inputs) ** 0.5
        self.path_weight = nn.Parameter(torch.zeros(inputs, values))
        self.path_bias = nn.Parameter(torch.zeros(values if inputs else 0))
        self.register_buffer("spread", torch.ones(()))

    @torch.no_grad()
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
        for copy, value in ((self.line_weight, weight), (self.line_bias, ridge.mean_y - ridge.mean_x @ weight)):
            copy.copy_(value)
        self.path_weight.copy_(self.line_weight)
        self.path_bias.copy_(self.line_bias / self.intercept)
        left = (errors[best] * self.mask.numel() / float(self.mask.sum())) ** 0.5
        self.spread.fill_(max(left, 1e-6))  # networks all alike leave nothing

    def task_parameters(self) -> list[nn.Parameter]:
        return [self.path_weight, self.path_bias] if self.path == "linear" else []

    def typical(self, condition: Condition) -> Tensor:
        """path(condition), (B, N, D)."""
        return self._linear(condition, self.path_weight, self.path_bias * self.intercept)

    def _linear(self, condition: Condition, weight: Tensor, bias: Tensor) -> Tensor:
        if self.path == "none":
            return self.mask.new_zeros(len(condition.pooled), *self.mask.shape, dtype=torch.float32)
        return (bias + condition.pooled @ weight).unflatten(1, self.mask.shape)

    # ------------------------------------------------------------ training

    def loss(self, pairs: Pairs, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        line = self._linear(pairs.condition, self.line_weight, self.line_bias)
        clean = (pairs.tokens - line) / self.spread  # (B, N, D)
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
        self,
        condition: Condition,
        null: Condition,
        *,
        steps: int,
        guidance: float,
        temperature: float,
        rng: torch.Generator,
    ) -> Tensor:
        path = self.typical(condition)  # (B, N, D)
        solver = self._solver()
        with warnings.catch_warnings():  # diffusers hands tensors to numpy in a way that numpy 2 calls old
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            solver.set_timesteps(timesteps=self._visited(min(steps, self.levels)))

        def noise() -> Tensor:
            return temperature * torch.randn(path.shape, generator=rng, device=rng.device).to(path.device) * self.mask

        x = noise()
        for step in solver.timesteps.tolist():
            level = torch.full((len(x),), step / self.levels, device=x.device)
            predicted = self._guided(x, level, condition, null, guidance)
            x = solver.step(predicted, step, x, variance_noise=noise() if self.sampler == "ddpm" else None).prev_sample
        x = x * self.mask
        if self.clip is not None:
            x = x.clamp(-self.clip, self.clip)
        return path + self.spread * x

    def _visited(self, steps: int) -> list[int]:
        """Levels evenly down from pure noise: "trailing" in table 2 of Lin et al. (2024).

        Not diffusers' own, which by rounding has one step too many, on the level -1, for some numbers of steps.
        """
        return [round(self.levels * (steps - done) / steps) - 1 for done in range(steps)]

    def _guided(self, x: Tensor, level: Tensor, condition: Condition, null: Condition, guidance: float) -> Tensor:
        """Classifier-free guidance (Ho and Salimans, 2022, eq. 6), 1 meaning none."""
        predicted = self.denoiser(x, level, condition)
        if guidance == 1:
            return predicted
        unconditional = self.denoiser(x, level, null)
        return unconditional + guidance * (predicted - unconditional)

    def _solver(self) -> Any:
        """The betas, and how to go from one level to the next.

        One class of diffusers for all three: the first-order solver is DDIM with eta 0 (Lu et al., 2022, section 4.1), and
        its stochastic variant DDPM's posterior, eta 1. diffusers' own DDIM and DDPM go down by levels // steps, and so
        leave noise in where steps do not divide levels.
        """
        from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

        returned: Any = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}
        return DPMSolverMultistepScheduler(
            self.levels,
            beta_schedule="squaredcos_cap_v2" if self.schedule == "cosine" else "linear",
            beta_start=min(0.1 / self.levels, 0.999),
            beta_end=min(20 / self.levels, 0.999),
            prediction_type=returned[self.prediction],
            algorithm_type="sde-dpmsolver++" if self.sampler == "ddpm" else "dpmsolver++",
            solver_order=2 if self.sampler == "dpm-solver++" else 1,
            final_sigmas_type="zero",
        )
