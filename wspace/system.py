"""What is trained: tokenizer, conditioner and generator as one module, from prompts to weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from wspace.bind import BoundRecipe
from wspace.errors import Diverged, FileError
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
from wspace.seeding import seeded, stream
from wspace.settings import Generate
from wspace.store import save_tensors
from wspace.weights import WeightSpec

SAID = "said.safetensors"
"""Beside a trained generator: what it was told of classes and, where its conditioner asks, of data set and architecture."""


def write_said(file: Path, texts: Tensor, told: Told | None) -> None:
    """`texts` (n, T) are of every class of the data set."""
    tensors = {} if told is None else {f"told.{field.name}": getattr(told, field.name) for field in fields(told)}
    save_tensors(file, {"texts": texts, **tensors})


def read_told(file: Path) -> Told:
    tensors = load_file(file)
    return Told(**{field.name: tensors[f"told.{field.name}"] for field in fields(Told)})


class System(nn.Module):
    def __init__(self, spec: WeightSpec, tokenizer: Tokenizer, conditioner: Conditioner, generator: Generator):
        super().__init__()
        self.spec = spec
        self.tokenizer, self.conditioner, self.generator = tokenizer, conditioner, generator

    @classmethod
    def build(cls, recipe: BoundRecipe, spec: WeightSpec, text_dim: int) -> System:
        """Fresh, from the recipe's seed; the global random state is left as it was."""
        with seeded(stream(recipe.seed, "system").initial_seed()):
            given: dict[str, object] = {"spec": spec, "text_dim": text_dim}
            tokenizer: Tokenizer = recipe.tokenizer.build(given)
            conditioner: Conditioner = recipe.conditioner.build(given)
            given |= {"layout": tokenizer.layout}
            given |= {"condition_width": conditioner.width, "pooled_width": conditioner.pooled_width}
            return cls(spec, tokenizer, conditioner, recipe.generator.build(given))

    def load(self, file: Path) -> System:
        """Take trained parameters. Raises FileError if the file is not this system's."""
        try:
            self.load_state_dict(load_file(file))
            if self.conditioner.asks:
                self.conditioner.told(read_told(file.with_name(SAID)))
        except (SafetensorError, OSError, RuntimeError) as error:
            raise FileError(f"{file}: not the trained generator of this recipe: {error}") from error
        return self.eval()

    def fit(self, weights: Tensor, prompts: Prompts, held_out: tuple[Tensor, Prompts]) -> Tensor | None:
        """All that has a closed form, from the training pairs: scales, statistics, linear paths.

        Returns the networks' codes (n, N, D), if the tokenizer is lossy: they are small, and take an encoder.
        """
        self.tokenizer.fit(weights)
        self.conditioner.fit(prompts)
        with torch.no_grad():
            others = (self.tokenizer.tokenize(held_out[0]), self.conditioner(held_out[1]))
            mean = weights.mean(0)
            if self.tokenizer.lossy:
                anchor = self.tokenizer.tokenize(mean[None])[0]
            else:
                anchor = self.tokenizer.arrange(self._unit_size(mean)[None])[0]  # (N, D)
            closed = Closed(self.tokenizer.tokenize(weights), self.conditioner(prompts), others, anchor)
            self.generator.fit(closed)
        return closed.tokens if self.tokenizer.lossy else None

    def _unit_size(self, weights: Tensor) -> Tensor:
        """Each tensor over its root mean square: (P,) -> (P,)."""
        tensors = self.spec.unflatten(weights)
        return self.spec.flatten({n: t / t.square().mean().sqrt().clamp_min(1e-12) for n, t in tensors.items()})

    def pairs(self, weights: Tensor, prompts: Prompts, moves: Moves | None = None) -> Pairs:
        """Networks (B, P) and what is said of their tasks, as the generator sees them."""
        return self.pairs_of(self.tokenizer.tokenize(weights), prompts, moves)

    def pairs_of(self, tokens: Tensor, prompts: Prompts, moves: Moves | None = None) -> Pairs:
        """As `pairs`, of networks that are tokens already: (B, N, D)."""
        condition: Condition = self.conditioner(prompts)
        return Pairs(tokens, condition, self.conditioner.null(condition), moves)

    def moves(self, symmetry: Symmetry, count: int, rng: torch.Generator, *, augment: float, penalty: bool) -> Moves:
        """A random element for each of `count` pairs; a share `augment` of the pairs is to be trained on moved."""
        elements = symmetry.sample(count, rng)

        def act(tokens: Tensor) -> Tensor:
            moved = symmetry.act(elements.to(tokens.device), self.tokenizer.collect(tokens))
            return self.tokenizer.arrange(moved)

        device = next(self.buffers()).device
        return Moves(act, (torch.rand(count, generator=rng) < augment).to(device), penalty)

    def typical(self, prompts: Prompts) -> Tensor:
        """Weights (B, P) on which a task loss is taken: differentiable in the generator's task parameters."""
        return self.tokenizer.detokenize(self.generator.typical(self.conditioner(prompts)))

    @torch.no_grad()
    def sample(
        self,
        prompts: Prompts,
        how: Generate,
        rng: torch.Generator,
        watch: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Weights (B, P), one network for each task. Raises Diverged if any is not a finite number.

        `watch` is called after every sampling step with the weights (B, P) as they would now end.
        """
        return self.sample_under(self.conditioner(prompts), how, rng, watch)

    @torch.no_grad()
    def sample_under(
        self,
        condition: Condition,
        how: Generate,
        rng: torch.Generator,
        watch: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """As `sample`, under a condition that need not be any task's: (B, P)."""
        seen = None if watch is None else lambda done, tokens: watch(done, self.tokenizer.detokenize(tokens))
        tokens = self.generator.sample(condition, self.conditioner.null(condition), how, rng, seen)
        weights = self.tokenizer.detokenize(tokens)
        if not torch.isfinite(weights).all():
            raise Diverged("the generator made weights that are not finite numbers; train it longer or at a lower rate")
        return weights

    @torch.no_grad()
    def refine(self, weights: Tensor, prompts: Prompts, how: Generate, level: float, rng: torch.Generator) -> Tensor:
        """Networks (B, P), noised to a level in (0, 1] and denoised under their tasks' prompts."""
        condition = self.conditioner(prompts)
        tokens = self.tokenizer.tokenize(weights)
        return self.tokenizer.detokenize(
            self.generator.refine(tokens, condition, self.conditioner.null(condition), how, level, rng)
        )
