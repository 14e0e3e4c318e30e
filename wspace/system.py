"""What is trained: tokenizer, conditioner and generator as one module, from prompts to weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from wspace.bind import BoundRecipe
from wspace.errors import Diverged, FileError
from wspace.interfaces import Condition, Conditioner, Generator, Pairs, Prompts, Tokenizer
from wspace.seeding import seeded, stream
from wspace.weights import WeightSpec


class System(nn.Module):
    def __init__(self, tokenizer: Tokenizer, conditioner: Conditioner, generator: Generator):
        super().__init__()
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
            return cls(tokenizer, conditioner, recipe.generator.build(given))

    def load(self, file: Path) -> System:
        """Take trained parameters. Raises FileError if the file is not this system's."""
        try:
            self.load_state_dict(load_file(file))
        except (SafetensorError, OSError, RuntimeError) as error:
            raise FileError(f"{file}: not the trained generator of this recipe: {error}") from error
        return self.eval()

    def fit(self, weights: Tensor, prompts: Prompts, held_out: tuple[Tensor, Prompts]) -> None:
        """All that has a closed form, from the training pairs: scales, statistics, linear paths."""
        self.tokenizer.fit(weights)
        self.conditioner.fit(prompts)
        with torch.no_grad():
            others = (self.tokenizer.tokenize(held_out[0]), self.conditioner(held_out[1]))
            self.generator.fit(self.tokenizer.tokenize(weights), self.conditioner(prompts), others)

    def loss(self, weights: Tensor, prompts: Prompts, rng: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        condition: Condition = self.conditioner(prompts)
        return self.generator.loss(
            Pairs(self.tokenizer.tokenize(weights), condition, self.conditioner.null(condition)), rng
        )

    def typical(self, prompts: Prompts) -> Tensor:
        """Weights (B, P) on which a task loss is taken: differentiable in the generator's task parameters."""
        return self.tokenizer.detokenize(self.generator.typical(self.conditioner(prompts)))

    @torch.no_grad()
    def sample(
        self, prompts: Prompts, rng: torch.Generator, *, steps: int, guidance: float, temperature: float
    ) -> Tensor:
        """Weights (B, P), one network for each task. Raises Diverged if any is not a finite number."""
        condition = self.conditioner(prompts)
        tokens = self.generator.sample(
            condition,
            self.conditioner.null(condition),
            steps=steps,
            guidance=guidance,
            temperature=temperature,
            rng=rng,
        )
        weights = self.tokenizer.detokenize(tokens)
        if not torch.isfinite(weights).all():
            raise Diverged("the generator made weights that are not finite numbers; train it longer or at a lower rate")
        return weights
