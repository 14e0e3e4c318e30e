"""Networks too large to be in memory together: trained on some of their tokens at a time, drawn shard by shard.

A drawn network is mean + spread * x. The zoo's mean lies in a file, of the spread there is one number a tensor, and x is what
the generator makes of some tokens, told where they stand and what the task is. A predictor that takes parts is told as well
what some directions of the zoo are there, which lie in a file as the mean does. Nothing here is as large as a zoo, and
nothing that is trained as large as a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wspace.interfaces import Conditioner, Generator, Moves, Pairs, Prompts, Tokenizer, TokenLayout
from wspace.interfaces.weights import WeightSpec
from wspace.learning.loop import LogValues
from wspace.learning.system import System
from wspace.learning.terms import check_terms
from wspace.support.errors import Diverged, UserError
from wspace.support.seeding import on_device, stream
from wspace.support.settings import Generate, Train
from wspace.weights.stretches import TOGETHER, Stretches

SHARD = 1024
"""Tokens that are drawn at once. Random numbers are drawn for each shard by itself, so it is part of what is computed."""


class PartSystem(System):
    """A system whose generator sees some tokens of a network at a time, each told where it stands.

    The order of calls is that of `System`, with `fit_parts` in place of `fit`; from a file, `mean` is to be set as well, and
    `along` where the generator has `directions`.
    """

    layout: TokenLayout
    spread: Tensor
    size: Tensor

    def __init__(self, spec: WeightSpec, tokenizer: Tokenizer, conditioner: Conditioner, generator: Generator):
        """Of a generator that was built for `first_of` the tokenizer's layout. Raises UserError for one that takes no parts."""
        super().__init__(spec, tokenizer, conditioner, generator)
        self.layout = tokenizer.layout
        self.mean: Stretches | None = None
        """The zoo's, one network."""
        self.along: Stretches | None = None
        """The zoo's directions, each as a network; of a generator that has `directions`."""
        self.register_buffer("spread", torch.ones(len(spec.entries)))  # of each tensor, about the mean
        self.register_buffer("size", torch.ones(len(spec.entries)))  # of each tensor's mean, root mean square
        starts = torch.tensor([spec.slices[entry.name].start for entry in spec.entries])
        self.tensor_of = torch.searchsorted(starts, where_of(self.layout)[:, 0].contiguous(), right=True) - 1  # (N,)
        self.rest()

    def rest(self) -> None:
        """Back to the tokens that it was built for: so large are its buffers in a file."""
        first = first_of(self.layout)
        device = self.spread.device
        self._look(_moved(first, device), torch.zeros(first.mask.shape, device=device), None)

    def _look(self, layout: TokenLayout, anchor: Tensor, along: Tensor | None) -> None:
        """As `Generator.at`; of a generator that has no directions it is asked as those that know of none are."""
        if along is None:
            self.generator.at(layout, anchor)
        else:
            self.generator.at(layout, anchor, along)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Of a size that does not depend on the networks', but for two numbers a tensor."""
        self.rest()
        return super().state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self.rest()
        return super().load_state_dict(*args, **kwargs)

    # ------------------------------------------------------------ what is known of all weights

    @torch.no_grad()
    def fit_parts(
        self,
        networks: Stretches,
        prompts: Prompts,
        mean: Path,
        held_out: tuple[Stretches, Prompts] | None = None,
        directions: Path | None = None,
        accuracy: Callable[[Tensor, int], float] | None = None,
    ) -> None:
        """Statistics of the networks of these prompts, in one stream; their mean becomes a file, tensor by tensor.

        Of a generator that has `directions`, so do these, in two streams more. `held_out` are other training networks, for
        choosing strengths; `accuracy` is that of weights (P,) for one of all these tasks, by its number, on validation images.
        Raises RuntimeError before `tell`.
        """
        self._check_told()
        self.conditioner.fit(prompts)
        self._fit_statistics(networks, mean)
        if self.generator.directions:
            assert held_out is not None and directions is not None, "what a predictor is fitted to, and left in"
            self._fit_predictor(networks, prompts, held_out, directions, accuracy)

    def _fit_statistics(self, networks: Stretches, mean: Path) -> None:
        self.mean, of_mean = Stretches.create_file(mean, self.spec), torch.zeros(len(self.spec.entries)).double()
        squares, where, width = of_mean.clone(), where_of(self.layout), self.layout.width
        for rows in torch.arange(self.layout.count).split(max(1, TOGETHER // (width * len(networks)))):
            values = torch.stack([networks.read(n, where[rows], width) for n in range(len(networks))])  # (n, k, D)
            middle = values.mean(0)
            self.mean.write(0, where[rows], middle)
            squares.index_add_(0, self.tensor_of[rows], (values - middle).double().square().mean(0).sum(1))
            of_mean.index_add_(0, self.tensor_of[rows], middle.double().square().sum(1))
        counts = torch.tensor([entry.size for entry in self.spec.entries])
        size, spread = (of_mean / counts).sqrt(), (squares / counts).sqrt()
        rounding = 4 * torch.finfo(torch.float32).eps * size
        self.size.copy_(size.clamp_min(1e-12))
        self.spread.copy_(torch.where(spread > rounding, spread, torch.ones_like(spread)))  # of what does not vary

    def _fit_predictor(
        self,
        networks: Stretches,
        prompts: Prompts,
        held_out: tuple[Stretches, Prompts],
        directions: Path,
        accuracy: Callable[[Tensor, int], float] | None,
    ) -> None:
        others, of_others = held_out
        known, count = len(networks), len(networks) + len(others)
        products = torch.zeros(count, count, dtype=torch.float64)
        for _, values in self._about_mean(networks, others):
            flat = values.flatten(1).double()
            products += flat @ flat.mT
        products /= self.spec.size

        def look(shares: Tensor, number: int) -> float:
            assert accuracy is not None
            made = torch.zeros(self.spec.size)
            for place, share in enumerate(shares.tolist()):
                if share:
                    group, row = (networks, place) if place < known else (others, place - known)
                    made.add_(group.whole(row), alpha=share)
            return accuracy(made, number)

        conditions = self.condition(prompts), self.condition(of_others)
        sums = self.generator.fit_parts(products, *conditions, None if accuracy is None else look)  # (A, n)
        self.along, where = Stretches.create_rows(directions, len(sums), self.spec.size), where_of(self.layout)
        for rows, values in self._about_mean(networks):
            made = (sums @ values[:known].flatten(1)).unflatten(1, values.shape[1:])
            for number, along in enumerate(made):
                self.along.write(number, where[rows], along)

    def _about_mean(self, *groups: Stretches) -> Iterator[tuple[Tensor, Tensor]]:
        """All networks, block by block: tokens' numbers (k,), and these tokens about the mean, in spreads: (n, k, D)."""
        assert self.mean is not None
        networks = [(group, number) for group in groups for number in range(len(group))]
        where, width = where_of(self.layout), self.layout.width
        for rows in torch.arange(self.layout.count).split(max(1, TOGETHER // (width * len(networks)))):
            spread = self.spread.cpu()[self.tensor_of[rows], None]
            values = torch.stack([group.read(number, where[rows], width) for group, number in networks])
            yield rows, (values - self.mean.read(0, where[rows], width)) / spread

    def _at(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Have the generator look at these tokens: their mean (n, D), and what they spread (n, 1)."""
        assert self.mean is not None, "fit_parts comes first, or the mean is set"
        part, device = self.layout.part(rows), self.spread.device
        mean = self.mean.read(0, where_of(part), part.width).to(device)
        tensors, along = self.tensor_of[rows].to(device), None
        if self.generator.directions:
            assert self.along is not None, "fit_parts comes first, or the directions are set"
            its = range(len(self.along))
            along = torch.stack([self.along.read(number, where_of(part), part.width) for number in its]).to(device)
        self._look(_moved(part, device), mean / self.size[tensors, None], along)
        return mean, self.spread[tensors, None]

    def pairs_at(self, rows: Tensor, networks: Stretches, numbers: Sequence[int], prompts: Prompts) -> Pairs:
        """Tokens `rows` (n,) of some networks and these networks' prompts, as the generator sees them from now on."""
        mean, spread = self._at(rows)
        where, width = where_of(self.layout)[rows], self.layout.width
        tokens = torch.stack([networks.read(number, where, width) for number in numbers]).to(mean.device)
        condition = self.condition(prompts)
        return Pairs((tokens - mean) / spread, condition, self.conditioner.null(condition))

    # ------------------------------------------------------------ drawing

    @torch.no_grad()
    def draw(self, prompts: Prompts, how: Generate, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """One network, of one task's prompts, shard by shard: tokens' numbers (n,), and the tokens (n, D).

        Raises Diverged if any is not a finite number.
        """
        condition = self.condition(prompts, start=True)
        null = self.conditioner.null(condition)
        for number, rows in enumerate(torch.arange(self.layout.count).split(SHARD)):
            mean, spread = self._at(rows)
            tokens = mean + spread * self.generator.sample(condition, null, how, stream(seed, "tokens", number))[0]
            if not torch.isfinite(tokens).all():
                raise Diverged(
                    "the generator made weights that are not finite numbers; train it longer or at a lower rate"
                )
            yield rows, tokens.cpu()

    def draw_into(self, networks: Stretches, number: int, prompts: Prompts, how: Generate, seed: int) -> None:
        """`draw` one of some networks that are files. Raises OSError."""
        where = where_of(self.layout)
        for rows, tokens in self.draw(prompts, how, seed):
            networks.write(number, where[rows], tokens)

    @torch.no_grad()
    def sample(
        self,
        prompts: Prompts,
        settings: Generate,
        rng: torch.Generator,
        watch: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """As `System.sample`, for few networks: (B, P), all in memory. Nobody can `watch` what is drawn in parts."""
        if watch is not None:
            raise UserError(
                "train.tokens: networks that are drawn in parts are never there as a whole until they are done"
            )
        networks = torch.empty(len(prompts.mask), self.spec.size)
        for number, seed in enumerate(seeds_of(len(networks), rng)):
            networks[number] = self.drawn(prompts[number : number + 1], settings, seed)
        return networks

    def drawn(self, prompts: Prompts, how: Generate, seed: int) -> Tensor:
        """What `draw` gives, as one network (P,)."""
        network, where = torch.empty(self.spec.size), where_of(self.layout)
        for rows, tokens in self.draw(prompts, how, seed):  # whose weights lie side by side, from shard to shard
            weights, start = tokens[self.layout.mask[rows]], int(where[rows[0], 0])
            network[start : start + len(weights)] = weights
        return network

    # ------------------------------------------------------------ what takes whole networks

    def fit(self, weights: Tensor, prompts: Prompts, held_out: tuple[Tensor, Prompts]) -> Tensor | None:
        raise _takes_whole("closed forms")

    def pairs_of(self, tokens: Tensor, prompts: Prompts, moves: Moves | None = None) -> Pairs:
        raise _takes_whole("a batch of whole networks")

    def typical(self, prompts: Prompts) -> Tensor:
        raise _takes_whole("a task loss")

    def predicted(self, prompts: Prompts) -> Tensor | None:
        """None: there is no predictor but the zoo's mean."""
        return None

    def refine(
        self, weights: Tensor, prompts: Prompts, settings: Generate, level: float, rng: torch.Generator
    ) -> Tensor:
        raise _takes_whole("refining")


def _takes_whole(what: str) -> UserError:
    return UserError(f"train.tokens: {what} would take networks whole, and this recipe takes them in parts")


def where_of(layout: TokenLayout) -> Tensor:
    """Its stretches (N, 2). Raises UserError if it has none."""
    if layout.stretches is None:
        raise UserError(
            "train.tokens: this tokenizer's tokens are not the weights as they are, side by side: take 'chunk' with scale none"
        )
    return layout.stretches


def first_of(layout: TokenLayout) -> TokenLayout:
    """A part of one token, for which a generator is built that no network's size is to go into. Raises as `where_of`."""
    where_of(layout)
    return layout.part(torch.arange(1))


def _moved(layout: TokenLayout, device: torch.device) -> TokenLayout:
    places = None if layout.places is None else layout.places.to(device)
    return TokenLayout(layout.mask.to(device), places=places, stretches=layout.stretches)


def seeds_of(count: int, rng: torch.Generator) -> list[int]:
    """Of so many networks, each of whose draws is its own."""
    return torch.randint(2**62, (count,), generator=rng).tolist()


@dataclass(frozen=True)
class PartStep:
    """The generator's own loss on a random part of the tokens of some of the zoo's networks."""

    system: PartSystem
    networks: Stretches
    prompts: Prompts  # of these networks' tasks
    settings: Train
    device: torch.device
    precision: str = "float32"

    def __call__(self, number: int, rng: torch.Generator) -> list[tuple[Tensor, LogValues]]:
        """As `wspace.learning.loop.Step`. Raises UserError for a term whose name is reserved."""
        settings, system = self.settings, self.system
        numbers = torch.randint(len(self.networks), (settings.batch,), generator=rng)
        rows = torch.randperm(system.layout.count, generator=rng)[: settings.tokens].sort().values
        pairs = system.pairs_at(rows, self.networks, numbers.tolist(), self.prompts[numbers].to(self.device))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            terms = system.generator.loss(pairs, on_device(self.device, rng))
        terms = check_terms(system.generator, terms)
        total = sum(terms.values(), torch.zeros((), device=self.device))
        return [(total, {"terms": {name: value.detach() for name, value in terms.items()}})]
