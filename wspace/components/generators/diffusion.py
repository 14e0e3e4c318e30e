"""Denoising diffusion over weight tokens, around a predictor."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from wspace.interfaces import Denoiser, Predictor, TokenLayout
from wspace.learning.denoising import Denoising
from wspace.support.parameters import Default, built
from wspace.support.settings import Generate


class Diffusion(Denoising):
    """DDPM (Ho et al., 2020; Tian et al., 2025, eq. 6-9) on x = (tokens - predictor) / spread.

    The tokens of a drawn network are predictor + spread * x.
    predictor: what is known without any drawing; `null` is the paper's: all of the weights are diffused.
    prediction: what the denoiser returns; epsilon (eq. 9), x0, or v (Salimans and Ho, 2022). With unit-variance x,
    a denoiser that returns zero under v is already the best one that ignores everything (a preconditioned skip).
    schedule: linear is Ho et al.'s betas for 1000 levels, scaled to end in pure noise for any other number of them.
    Samplers (`generate.sampler`): ddpm and ddim are both eq. 12 of Song et al. (2021), with eta 1 and 0; dpm-solver++ is
    Lu et al. (2022), second order. A draw's temperature scales its starting noise and, for ddpm, each step's.
    """

    version: ClassVar[int] = 2
    samplers: ClassVar[tuple[str, ...]] = ("ddim", "ddpm", "dpm-solver++")

    def __init__(
        self,
        denoiser: Denoiser,
        predictor: Predictor | None = Default("linear"),
        prediction: Literal["epsilon", "x0", "v"] = "v",
        schedule: Literal["linear", "cosine"] = "cosine",
        levels: Annotated[int, Ge(2)] = 1000,
        dropout: Annotated[float, Ge(0), Le(1)] = 0.1,
        clip: Annotated[float, Gt(0)] | None = None,
        *,
        layout: TokenLayout,
        pooled_width: int | None = None,  # for the default predictor alone
    ):
        predictor = built("predictor", predictor, layout=layout, pooled_width=pooled_width)
        super().__init__(denoiser, predictor, dropout, clip, layout)
        self.prediction, self.schedule, self.levels = prediction, schedule, levels
        self.alphas: Tensor
        alphas = self._solver(self.samplers[0]).alphas_cumprod.float()
        self.register_buffer("alphas", alphas, persistent=False)  # (levels,)

    def steps_of(self, how: Generate) -> int:
        return min(how.steps, self.levels)

    def draw_levels(self, count: int, rng: torch.Generator) -> Tensor:
        return torch.randint(self.levels, (count,), generator=rng, device=rng.device) / self.levels

    def _coefficients(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha-bar), sqrt(1 - alpha-bar) of each level: (B,) -> (B, 1, 1) twice."""
        step = (level * self.levels).round().long().clamp_max(self.levels - 1)
        alpha = self.alphas[step][:, None, None]
        return alpha.sqrt(), (1 - alpha).sqrt()

    def mix(self, clean: Tensor, noise: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        signal, sigma = self._coefficients(level)
        goal = {"epsilon": noise, "x0": clean, "v": signal * noise - sigma * clean}[self.prediction]
        return signal * clean + sigma * noise, goal

    def clean_of(self, noisy: Tensor, returned: Tensor, level: Tensor) -> Tensor:
        signal, sigma = self._coefficients(level)
        if self.prediction == "epsilon":
            return (noisy - sigma * returned) / signal
        return returned if self.prediction == "x0" else signal * noisy - sigma * returned

    def walk(
        self,
        x: Tensor,
        denoise: Callable[[Tensor, Tensor], Tensor],
        noise: Callable[[], Tensor],
        stepped: Callable[[Tensor, Tensor, Tensor], None],
        how: Generate,
        start: float = 1.0,
    ) -> Tensor:
        sampler = self.sampler_of(how)
        solver = self._solver(sampler)
        with warnings.catch_warnings():  # diffusers hands tensors to numpy in a way that numpy 2 calls old
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            solver.set_timesteps(timesteps=self._visited(how.steps, start))
        for step in solver.timesteps.tolist():
            level = torch.full((len(x),), step / self.levels, device=x.device)
            returned = denoise(x, level)
            stepped(x, returned, level)
            x = solver.step(returned, step, x, variance_noise=noise() if sampler == "ddpm" else None).prev_sample
        return x

    def _visited(self, steps: int, start: float = 1.0) -> list[int]:
        """Levels evenly down from pure noise, or from a level: "trailing" in table 2 of Lin et al. (2024).

        Not diffusers' own, which by rounding has one step too many, on the level -1, for some numbers of steps.
        """
        top = max(1, round(start * self.levels))
        steps = min(steps, top)
        return [round(top * (steps - done) / steps) - 1 for done in range(steps)]

    def _solver(self, sampler: str | None) -> Any:
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
            algorithm_type="sde-dpmsolver++" if sampler == "ddpm" else "dpmsolver++",
            solver_order=2 if sampler == "dpm-solver++" else 1,
            final_sigmas_type="zero",
        )
