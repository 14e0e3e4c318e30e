"""Flow matching over weight tokens, around a predictor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from wspace.interfaces import Denoiser, Predictor, TokenLayout
from wspace.learning.denoising import Denoising
from wspace.support.parameters import Default, built
from wspace.support.settings import Generate


class Flow(Denoising):
    """Straight paths (rectified flow: Liu et al., 2022; Lipman et al., 2023) from noise to (tokens - predictor) / spread.

    At level t in [0, 1] the denoiser sees x_t = (1 - t) clean + t noise and returns dx/dt = noise - clean; a draw follows
    it from t = 1 down to 0, in `generate.steps` equal steps.
    predictor: what is known without any drawing; `null`: all of the weights flow.
    levels: how t is drawn in training; logit-normal (Esser et al., 2024, eq. 19 with m = 0, s = 1) prefers the middle.
    Samplers (`generate.sampler`): heun, second order, calls the denoiser twice a step but once in the last (Karras et al.,
    2022, algorithm 1), so 2 n - 1 times in n steps; euler once a step. A draw's temperature scales its starting noise.
    """

    version: ClassVar[int] = 1
    samplers: ClassVar[tuple[str, ...]] = ("heun", "euler")

    def __init__(
        self,
        denoiser: Denoiser,
        predictor: Predictor | None = Default("linear"),
        levels: Literal["uniform", "logit-normal"] = "uniform",
        dropout: Annotated[float, Ge(0), Le(1)] = 0.1,
        clip: Annotated[float, Gt(0)] | None = None,
        *,
        layout: TokenLayout,
        pooled_width: int | None = None,  # for the default predictor alone
    ):
        predictor = built("predictor", predictor, layout=layout, pooled_width=pooled_width)
        super().__init__(denoiser, predictor, dropout, clip, layout)
        self.levels = levels

    def draw_levels(self, count: int, rng: torch.Generator) -> Tensor:
        if self.levels == "logit-normal":
            return torch.randn(count, generator=rng, device=rng.device).sigmoid()
        return torch.rand(count, generator=rng, device=rng.device)

    def mix(self, clean: Tensor, noise: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        return torch.lerp(clean, noise, level[:, None, None]), noise - clean

    def clean_of(self, noisy: Tensor, returned: Tensor, level: Tensor) -> Tensor:
        return noisy - level[:, None, None] * returned

    def walk(
        self,
        x: Tensor,
        denoise: Callable[[Tensor, Tensor], Tensor],
        noise: Callable[[], Tensor],
        stepped: Callable[[Tensor, Tensor, Tensor], None],
        how: Generate,
        start: float = 1.0,
    ) -> Tensor:
        sampler, steps = self.sampler_of(how), how.steps
        for step in range(steps):
            here, there = (
                torch.full((len(x),), start * (1 - done / steps), device=x.device) for done in (step, step + 1)
            )
            velocity = denoise(x, here)
            if sampler == "heun" and step + 1 < steps:
                velocity = (velocity + denoise(x - start * velocity / steps, there)) / 2
            stepped(x, velocity, here)
            x = x - start * velocity / steps
        return x
