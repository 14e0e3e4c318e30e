"""What is trained: tokenizer, conditioner and generator as one module, from prompts to weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from wspace.interfaces import (
    Closed,
    Condition,
    Conditioner,
    Generator,
    Moves,
    Pairs,
    Prompts,
    Symmetry,
    Tokenizer,
    Told,
)
from wspace.interfaces.weights import WeightSpec
from wspace.learning.shares import Share
from wspace.support.errors import Diverged
from wspace.support.memory import memory
from wspace.support.settings import Generate
from wspace.support.slices import even

BYTES_OF_A_VALUE = 128
"""Of a network being drawn: its tokens some times over, and what a denoiser makes of them. An estimate, on the safe side."""


class System(nn.Module):
    """Tokenizer, conditioner and generator, fitted and trained together.

    The order of calls: built; `tell`, if `needs_telling`; `fit`; trained; used. From a file: built; `load_state_dict`;
    `tell` or `recall`, if `needs_telling`, for what a conditioner is told is no part of the state; used. A use before its
    turn raises RuntimeError.
    """

    def __init__(self, spec: WeightSpec, tokenizer: Tokenizer, conditioner: Conditioner, generator: Generator):
        super().__init__()
        self.spec = spec
        self.tokenizer, self.conditioner, self.generator = tokenizer, conditioner, generator
        self.needs_telling = conditioner.asks
        self.register_load_state_dict_post_hook(_ask_again)

    def tell(self, what: Told | None) -> None:
        """Give the conditioner what holds for all tasks, if it asks for that. Raises RuntimeError if it does and has None."""
        if not self.conditioner.asks:
            return
        if what is None:
            raise RuntimeError(
                f"{self._conditioner_name} asks for the data set and the architecture, and is told nothing"
            )
        self.conditioner.told(what)
        self.needs_telling = False

    def recall(self, drawn: Mapping[str, Tensor]) -> None:
        """Give the conditioner back what it once drew from what it was told, in place of `tell`: the result is the same."""
        self.conditioner.recall(drawn)
        self.needs_telling = False

    def condition(self, prompts: Prompts, start: bool = False) -> Condition:
        """What the conditioner makes of B tasks' prompts; with the networks to `start` from, if it has such and they are used.

        Raises RuntimeError before `tell`.
        """
        self._check_told()
        condition: Condition = self.conditioner(prompts)
        networks = self.conditioner.starting_networks(prompts) if start else None
        return condition if networks is None else replace(condition, start=self.tokenizer.tokenize(networks))

    def _check_told(self) -> None:
        if self.needs_telling:
            raise RuntimeError(
                f"{self._conditioner_name} asks for the data set and the architecture: call System.tell before this, and "
                "again after load_state_dict"
            )

    @property
    def _conditioner_name(self) -> str:
        return type(self.conditioner).__name__

    def fit(self, weights: Tensor, prompts: Prompts, held_out: tuple[Tensor, Prompts]) -> Tensor | None:
        """All that has a closed form, from the training pairs: scales, statistics, linear paths.

        `weights` (n, P) are of n tasks, whose `prompts` these are; `held_out` are other training tasks'. Raises RuntimeError
        before `tell`. Returns the networks' codes (n, N, D), if the tokenizer is lossy: they are small, and take an encoder.
        """
        self._check_told()
        self.tokenizer.fit(weights)
        self.conditioner.fit(prompts)
        with torch.no_grad():
            others = (self.tokenizer.tokenize(held_out[0]), self.condition(held_out[1]))
            mean = weights.mean(0)
            if self.tokenizer.lossy:
                anchor = self.tokenizer.tokenize(mean[None])[0]
            else:
                anchor = self.tokenizer.arrange(self._unit_size(mean)[None])[0]  # (N, D)
            closed = Closed(self.tokenizer.tokenize(weights), self.condition(prompts), others, anchor)
            self.generator.fit(closed)
        return closed.tokens if self.tokenizer.lossy else None

    def _unit_size(self, weights: Tensor) -> Tensor:
        """Each tensor over its root mean square: (P,) -> (P,)."""
        tensors = self.spec.unflatten(weights)
        return self.spec.flatten({n: t / t.square().mean().sqrt().clamp_min(1e-12) for n, t in tensors.items()})

    def pairs(self, weights: Tensor, prompts: Prompts, moves: Moves | None = None) -> Pairs:
        """Networks (B, P) and their tasks' prompts, as the generator sees them."""
        return self.pairs_of(self.tokenizer.tokenize(weights), prompts, moves)

    def pairs_of(self, tokens: Tensor, prompts: Prompts, moves: Moves | None = None) -> Pairs:
        """As `pairs`, of networks that are tokens already: (B, N, D)."""
        condition = self.condition(prompts)
        return Pairs(tokens, condition, self.conditioner.null(condition), moves)

    def moves(
        self,
        symmetry: Symmetry,
        count: int,
        rng: torch.Generator,
        *,
        augment: float,
        penalty: bool,
        rows: slice = slice(None),
    ) -> Moves:
        """A random element for each of `count` pairs; a share `augment` of the pairs is to be trained on moved.

        With `rows`, those of these pairs alone.
        """
        elements = symmetry.sample(count, rng)[rows].to(next(self.buffers()).device)

        def act(tokens: Tensor) -> Tensor:
            moved = symmetry.act(elements, self.tokenizer.collect(tokens))
            return self.tokenizer.arrange(moved)

        return Moves(act, (torch.rand(count, generator=rng) < augment)[rows], penalty)

    def typical(self, prompts: Prompts) -> Tensor:
        """Weights (B, P) on which a task loss is taken: differentiable in the generator's task parameters."""
        tokens = self.generator.typical(self.condition(prompts, start=True))
        shares = tokens.ndim > 3  # of codes, a network's tokens are themselves (N, D)
        return self.tokenizer.blend(tokens) if shares else self.tokenizer.detokenize(tokens)

    @torch.no_grad()
    def predicted(self, prompts: Prompts) -> Tensor | None:
        """Weights (B, P) of the generator's predictor alone, with nothing drawn around it; None where it has none."""
        tokens = self.generator.predicted(self.condition(prompts, start=True))
        return None if tokens is None else self.tokenizer.detokenize(tokens)

    @torch.no_grad()
    def sample(
        self,
        prompts: Prompts,
        settings: Generate,
        rng: torch.Generator,
        watch: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Weights (B, P), one network for each task. Raises Diverged if any is not a finite number.

        `watch` is called after every sampling step with the weights (B, P) as they would now end. Unless somebody watches,
        networks that memory has no room for at once are drawn part by part, of the same random numbers.
        """
        count, begin, parts = len(prompts.mask), rng.get_state(), list[Tensor]()
        shares = 1 if watch is not None else self._shares(count, prompts.mask.device)
        for rows in even(count, shares):
            rng.set_state(begin)
            with Share(rows, count).drawing(prompts.mask.device):
                condition = self.condition(prompts[rows] if shares > 1 else prompts, start=True)
                parts.append(self.sample_under(condition, settings, rng, watch))
        return parts[0] if shares == 1 else torch.cat(parts)

    def _shares(self, count: int, device: torch.device) -> int:
        """In how many parts to draw so many networks: in one, if half of the free memory is enough for all of them."""
        if self.tokenizer.layout.codes:  # what they take is the generator's to know
            return 1
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else memory()[1]
        values = max(self.tokenizer.layout.mask.numel(), self.spec.size)
        return max(1, min(count, -(-2 * count * values * BYTES_OF_A_VALUE // max(1, free))))

    @torch.no_grad()
    def sample_under(
        self,
        condition: Condition,
        settings: Generate,
        rng: torch.Generator,
        watch: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """As `sample`, under a condition that need not be any task's: (B, P)."""
        seen = None if watch is None else lambda done, tokens: watch(done, self.tokenizer.detokenize(tokens))
        tokens = self.generator.sample(condition, self.conditioner.null(condition), settings, rng, seen)
        weights = self.tokenizer.detokenize(tokens)
        if not torch.isfinite(weights).all():
            raise Diverged("the generator made weights that are not finite numbers; train it longer or at a lower rate")
        return weights

    @torch.no_grad()
    def refine(
        self, weights: Tensor, prompts: Prompts, settings: Generate, level: float, rng: torch.Generator
    ) -> Tensor:
        """Networks (B, P), noised to a level in (0, 1] and denoised under their tasks' prompts."""
        condition = self.condition(prompts, start=True)
        tokens = self.tokenizer.tokenize(weights)
        return self.tokenizer.detokenize(
            self.generator.refine(tokens, condition, self.conditioner.null(condition), settings, level, rng)
        )


def _ask_again(system: nn.Module, _: object) -> None:
    """What a conditioner was told may have gone into what the loaded state replaces."""
    assert isinstance(system, System)
    system.needs_telling = system.conditioner.asks
