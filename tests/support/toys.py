"""Small generators to look into: denoisers that note, know or move with what they are given, and batches for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wspace.components.denoisers.mlp import MLP
from wspace.components.generators.diffusion import Diffusion
from wspace.components.predictors.linear import Linear
from wspace.interfaces import Closed, Condition, Denoiser, Pairs, Predictor, TokenLayout
from wspace.support.settings import Generate

MASK = torch.tensor([[True, True, True, True], [True, True, False, False]])  # (N, D)
LAYOUT = TokenLayout(MASK)
WIDTH = 3  # of conditions


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


def pairs_of(tokens: Tensor, condition: Condition | None = None) -> Pairs:
    condition = condition or condition_of(len(tokens))
    return Pairs(tokens, condition, null_of(condition))


def correlated(count: int, seed: int, noise: float) -> tuple[Tensor, Condition]:
    """Tokens that follow from their condition by a line, but for noise."""
    condition = condition_of(count, seed)
    mixing = torch.randn(WIDTH, MASK.numel(), generator=seeded(77))
    tokens = (condition.pooled @ mixing + 2).unflatten(1, MASK.shape)
    return (tokens + noise * torch.randn(tokens.shape, generator=seeded(seed))) * MASK, condition


def closed_of(noise: float = 0.5) -> Closed:
    """Twelve networks for closed forms, six that are held out, and an anchor."""
    tokens, condition = correlated(12, 2, noise)
    return Closed(tokens, condition, correlated(6, 3, noise), tokens_of(1, 8)[0])


class Fixed(Denoiser):
    """A smooth function of everything it is given; notes what that was."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def forward(self, x: Tensor, level: Tensor, condition: Condition, anchor: Tensor) -> Tensor:
        self.calls.append((x.clone(), level.clone(), condition.pooled.clone(), anchor.clone()))
        return 0.8 * x + 0.1 * level[:, None, None] + 0.3 * condition.pooled.sum(1)[:, None, None].sin() + 0.2 * anchor


class Knowing(Denoiser):
    """Knows the clean tokens, and says so in the asked-for terms; `scale` is a parameter of value 1."""

    def __init__(self, clean: Tensor, prediction: str, alphas: Tensor):
        super().__init__()
        self.clean, self.prediction, self.alphas = clean, prediction, alphas.double()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, level: Tensor, condition: Condition, anchor: Tensor) -> Tensor:
        step = (level * len(self.alphas)).round().long().clamp_max(len(self.alphas) - 1)
        alpha = self.alphas[step][:, None, None]
        epsilon = (x - alpha.sqrt() * self.clean) / (1 - alpha).sqrt()
        v = alpha.sqrt() * epsilon - (1 - alpha).sqrt() * self.clean
        return self.scale * {"epsilon": epsilon, "x0": self.clean.double(), "v": v}[self.prediction].float()


class Given(Denoiser):
    """Returns what it was made with."""

    def __init__(self, value: Tensor):
        super().__init__()
        self.value = nn.Parameter(value)

    def forward(self, x: Tensor, level: Tensor, condition: Condition, anchor: Tensor) -> Tensor:
        return self.value.expand_as(x)


class Tokenwise(Denoiser):
    """One map for every token, of its values, its anchor's and the sum over all tokens: moves as the tokens do."""

    def __init__(self, layout: TokenLayout, pooled_width: int):
        super().__init__()
        self.of_token, self.of_anchor = nn.Linear(layout.width, 5), nn.Linear(layout.width, 5)
        self.of_all, self.of_condition = nn.Linear(layout.width, 5), nn.Linear(pooled_width, 5)
        self.leave = nn.Linear(5, layout.width)

    def forward(self, x: Tensor, level: Tensor, condition: Condition, anchor: Tensor) -> Tensor:
        of_task = self.of_condition(condition.pooled) + level[:, None].to(x.dtype)
        hidden = self.of_token(x) + self.of_anchor(anchor) + (self.of_all(x.sum(1)) + of_task)[:, None]
        return self.leave(hidden.tanh())


def live_mlp(layout: TokenLayout = LAYOUT, pooled_width: int = WIDTH, seed: int = 0) -> MLP:
    """As trained for a while: a fresh one returns zero."""
    torch.manual_seed(seed)
    made = MLP(8, 1, layout=layout, pooled_width=pooled_width)
    for layer in (made.leave, made.gate):
        nn.init.normal_(layer.weight, std=0.3)
    return made


def diffusion(denoiser: Denoiser | None = None, predictor: Predictor | None = None, **arguments: Any) -> Diffusion:
    return Diffusion(denoiser or Fixed(), predictor, **arguments, layout=LAYOUT)


def linear() -> Linear:
    return Linear(layout=LAYOUT, pooled_width=WIDTH)


def draw(generator: Diffusion, count: int = 3, seed: int = 5, **how: Any) -> Tensor:
    condition = condition_of(count)
    asked = Generate(**{"steps": 4, "guidance": 1.0, "temperature": 1.0} | how)
    return generator.sample(condition, null_of(condition), asked, seeded(seed))
