"""What generators that find networks in noise share, whatever their path from noise to network: diffusion, flows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from math import log

import torch
from torch import Tensor, nn

from wspace.interfaces import Closed, Condition, Denoiser, Generator, Pairs, Predictor, TokenLayout
from wspace.support.errors import UserError, did_you_mean
from wspace.support.settings import Generate


def sinusoids(level: Tensor, width: int) -> Tensor:
    """Embedding of noise levels in [0, 1], (B,) -> (B, width): Vaswani et al. (2017), section 3.5, on 1000 * level."""
    rates = torch.exp(-log(10_000) * torch.arange(width // 2, device=level.device) / (width // 2))
    angles = 1000 * level[:, None] * rates  # (B, width / 2)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class Denoising(Generator):
    """Networks are predictor(condition) + spread * x, and x is what a denoiser finds in noise.

    In training x is (tokens - predictor.of_zoo(condition)) / spread, so the zoo says how networks spread; where they lie
    is the predictor's to say, which a task loss may have moved since. Without a predictor x is the tokens.

    Subclasses say how clean and noise mix at a level, what the denoiser is to return, and how to walk back.
    """

    def __init__(
        self, denoiser: Denoiser, predictor: Predictor | None, dropout: float, clip: float | None, layout: TokenLayout
    ):
        super().__init__()
        if layout.codes:
            raise UserError(
                "this generator finds numbers in noise, and tokens are codes: take another tokenizer or generator"
            )
        self.denoiser, self.predictor, self.dropout, self.clip = denoiser, predictor, dropout, clip
        self.directions = 0 if predictor is None else predictor.directions
        self.mask: Tensor
        self.anchor: Tensor
        self.register_buffer("mask", layout.mask, persistent=False)  # (N, D)
        self.register_buffer("anchor", torch.zeros(layout.mask.shape))  # (N, D)

    def fit(self, closed: Closed) -> None:
        self.anchor.copy_(closed.anchor)
        if self.predictor is not None:
            self.predictor.fit(closed.tokens, closed.condition, closed.held_out)

    def fit_parts(
        self,
        products: Tensor,
        condition: Condition,
        held_out: Condition,
        look: Callable[[Tensor, int], float] | None = None,
    ) -> Tensor:
        assert self.predictor is not None, "directions is 0"
        return self.predictor.fit_parts(products, condition, held_out, look)

    def at(self, layout: TokenLayout, anchor: Tensor, along: Tensor | None = None) -> None:
        """What the zoo's mean says is taken off before tokens come here; a predictor says the rest, if it takes parts."""
        problems = list[str]()
        try:
            if self.predictor is not None:
                self.predictor.at(layout, anchor.new_zeros(0, *anchor.shape) if along is None else along)
        except UserError as error:
            problems.append(str(error))
        try:
            self.denoiser.at(layout)
        except UserError as error:
            problems.append(str(error))
        if problems:
            raise UserError("\n".join(problems))
        self.mask, self.anchor = layout.mask, anchor

    def task_parameters(self) -> list[nn.Parameter]:
        return [] if self.predictor is None else list(self.predictor.parameters())

    def typical(self, condition: Condition) -> Tensor:
        if self.predictor is None:
            return torch.zeros(len(condition.pooled), *self.mask.shape, device=self.mask.device)
        return self.predictor(condition)

    def predicted(self, condition: Condition) -> Tensor | None:
        return None if self.predictor is None else self.predictor(condition)

    def _of_zoo(self, condition: Condition) -> Tensor:
        return self.typical(condition) if self.predictor is None else self.predictor.of_zoo(condition)

    @property
    def spread(self) -> Tensor:
        return torch.ones((), device=self.mask.device) if self.predictor is None else self.predictor.spread

    # ------------------------------------------------------------ what subclasses say

    @abstractmethod
    def draw_levels(self, count: int, rng: torch.Generator) -> Tensor:
        """Noise levels (B,) to train on, in [0, 1]."""

    @abstractmethod
    def mix(self, clean: Tensor, noise: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """What the denoiser sees at these levels, and what it should return: (B, N, D) each."""

    @abstractmethod
    def clean_of(self, noisy: Tensor, returned: Tensor, level: Tensor) -> Tensor:
        """The clean tokens (B, N, D) that the denoiser's answer amounts to."""

    @abstractmethod
    def walk(
        self,
        x: Tensor,
        denoise: Callable[[Tensor, Tensor], Tensor],
        noise: Callable[[], Tensor],
        stepped: Callable[[Tensor, Tensor, Tensor], None],
        how: Generate,
        start: float = 1.0,
    ) -> Tensor:
        """From level `start`, by default pure noise, (B, N, D) to clean; `denoise(x, level (B,))` is the denoiser,
        `noise()` a fresh draw.

        After every step `stepped(x, returned, level)` is to be called: where it began, and the denoiser's answer it took.
        """

    # ------------------------------------------------------------ training

    def loss(self, pairs: Pairs, rng: torch.Generator) -> dict[str, Tensor]:
        clean, anchor = self._clean(pairs)
        count = len(clean)
        level = self.draw_levels(count, rng).to(clean.device)
        noise = torch.randn(clean.shape, generator=rng, device=rng.device).to(clean.device) * self.mask
        keep = (torch.rand(count, generator=rng, device=rng.device) >= self.dropout).to(clean.device)
        condition = pairs.condition.where(keep, pairs.null)
        noisy, goal = self.mix(clean, noise, level)
        returned = self.denoiser(noisy, level, condition, anchor)
        terms = {"denoising": self._mean_square(returned - goal)}
        if pairs.moves is not None and pairs.moves.penalty:  # T2W, eq. 12: what is noisy is moved, its noise with it
            move = pairs.moves.act
            moved = self.denoiser(move(noisy), level, condition, move(anchor))
            terms["symmetry"] = self._mean_square(moved - move(returned))
        return terms

    def estimate(self, pairs: Pairs, noise: float, rng: torch.Generator) -> Tensor:
        center = self._of_zoo(pairs.condition)  # which does not move
        clean, anchor = (pairs.tokens - center) / self.spread, self.anchor.expand_as(pairs.tokens)
        level = noise * torch.rand(len(clean), generator=rng, device=rng.device).to(clean.device)
        drawn = torch.randn(clean.shape, generator=rng, device=rng.device).to(clean.device) * self.mask
        noisy, _ = self.mix(clean, drawn, level)
        estimate = self.clean_of(noisy, self.denoiser(noisy, level, pairs.condition, anchor), level) * self.mask
        return center + self.spread * estimate

    def _clean(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """x and the anchor, (B, N, D) each, moved where the batch asks for it."""
        clean = (pairs.tokens - self._of_zoo(pairs.condition)) / self.spread
        anchor = self.anchor.expand_as(clean)
        if pairs.moves is not None and pairs.moves.augment.any():
            moved = pairs.moves.augment.to(clean.device)[:, None, None]
            clean = torch.where(moved, pairs.moves.act(clean), clean)
            anchor = torch.where(moved, pairs.moves.act(anchor), anchor)
        return clean, anchor

    def _mean_square(self, error: Tensor) -> Tensor:
        """Over values that are weights, in float32 at least: (B, N, D) -> ()."""
        return ((error * self.mask.float()).square().sum((1, 2)) / self.mask.sum()).mean()

    @torch.no_grad()
    def equivariance_error(self, pairs: Pairs, rng: torch.Generator) -> Tensor:
        """Of the denoiser."""
        assert pairs.moves is not None
        move = pairs.moves.act
        clean, anchor = self._clean(pairs)
        level = self.draw_levels(len(clean), rng).to(clean.device)
        noise = torch.randn(clean.shape, generator=rng, device=rng.device).to(clean.device) * self.mask
        noisy, _ = self.mix(clean, noise, level)
        returned = self.denoiser(noisy, level, pairs.condition, anchor) * self.mask
        moved = self.denoiser(move(noisy), level, pairs.condition, move(anchor)) * self.mask
        return (moved - move(returned)).flatten(1).norm(dim=1) / returned.flatten(1).norm(dim=1).clamp_min(1e-12)

    # ------------------------------------------------------------ sampling

    @torch.no_grad()
    def sample(
        self,
        condition: Condition,
        null: Condition,
        how: Generate,
        rng: torch.Generator,
        watch: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        return self._drawn(condition, null, how, rng, watch)

    @torch.no_grad()
    def refine(
        self,
        tokens: Tensor,
        condition: Condition,
        null: Condition,
        how: Generate,
        level: float,
        rng: torch.Generator,
    ) -> Tensor:
        return self._drawn(condition, null, how, rng, None, tokens, level)

    def _drawn(
        self,
        condition: Condition,
        null: Condition,
        how: Generate,
        rng: torch.Generator,
        watch: Callable[[int, Tensor], None] | None,
        begun: Tensor | None = None,
        level: float = 1.0,
    ) -> Tensor:
        """From pure noise; or from networks (B, N, D) noised to a level."""
        if how.sampler is not None and how.sampler not in self.samplers:
            raise UserError(f"generate.sampler: no {how.sampler!r}.{did_you_mean(how.sampler, list(self.samplers))}")
        typical = self.typical(condition)  # (B, N, D)
        anchor = self.anchor.expand_as(typical)
        done = 0

        def noise() -> Tensor:
            drawn = torch.randn(typical.shape, generator=rng, device=rng.device).to(typical.device)
            return how.temperature * drawn * self.mask

        def denoise(x: Tensor, level: Tensor) -> Tensor:
            """Classifier-free guidance (Ho and Salimans, 2022, eq. 6), 1 meaning none."""
            returned = self.denoiser(x, level, condition, anchor)
            if how.guidance != 1:
                unconditional = self.denoiser(x, level, null, anchor)
                returned = unconditional + how.guidance * (returned - unconditional)
            return returned

        def stepped(x: Tensor, returned: Tensor, level: Tensor) -> None:
            nonlocal done
            done += 1
            if watch is not None:
                watch(done, finish(self.clean_of(x, returned, level)))

        def finish(x: Tensor) -> Tensor:
            x = x * self.mask
            return typical + self.spread * (x if self.clip is None else x.clamp(-self.clip, self.clip))

        x = noise()
        if begun is not None:
            levels = torch.full((len(begun),), level, device=begun.device)
            x, _ = self.mix((begun - typical) / self.spread, x, levels)
        return finish(self.walk(x, denoise, noise, stepped, how, level))
