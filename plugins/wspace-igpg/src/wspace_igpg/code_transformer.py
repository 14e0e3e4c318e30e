"""A causal transformer over a network's codes, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Le, Lt
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from wspace.api import Closed, Condition, Generate, Generator, Pairs, Since, TokenLayout, UserError, WeightSpec
from wspace_igpg.layer_tokens import DESCRIBED, described

ROWS, BLOCKS = 512, 64  # places in a tensor, and in a row, that have a vector of their own; further ones share them
TYPICAL = Generate(guidance=1.0, temperature=0.0)
WAVES = 16  # sines, and cosines, of a row's number


class CodeTransformer(Generator):
    """The codes of a network one piece after the other, each given all before it and the instruction (IGPG).

    A piece is known by its tensor's kind, shape and depth, its row and its place in that, never by a number of the whole
    network's: so networks of other depths and widths can be written. Of a piece's codes each follows from those before it.

    The instruction reaches a piece by attention, and as its mean beside the piece's place. forget: share of training networks
    of whose codes a random part is hidden from the pieces after them: a network's codes tell which network it is so well that
    nothing else would be listened to, and the first pieces, which have no codes before them, would be another's.

    window: pieces back that a piece can see, so that memory is bounded however long a network is (Beltagy et al., 2020).
    guidance: logits null + g (condition - null); dropout is how often the condition is left out in training, for that.
    Samplers (`generate.sampler`): top-p draws from the most probable codes that together have `top_p` (Holtzman et al.,
    2020), top-k from the `top_k` most probable, all from all of them. At temperature 0 each is the code of least expected
    squared error, nearest to the mean of what the codes stand for (minimum Bayes risk: Kumar and Byrne, 2004): of a residual
    that the instruction leaves open the most probable code would add more error than it takes away.

    plausible: of these only codes that are at least so many times as probable as the most probable one. Where networks began
    apart the mean of what a piece may be is no piece of any of them, and the code nearest to it belongs to no network at all.

    by_place: a piece that serves one output alone is told which class that is, beside the mean of the instruction; else it has
    to find the token of its place by attention, which takes long to learn where classes are many. The conditioner's first
    tokens are to be the classes, in order.
    by_meaning: a code is read, and written, by the direction of what it stands for as well as by a vector of its own, so that
    what is learnt of one code holds for others like it. Of use where codes are many and networks few.

    A task loss (`task_loss`) goes on from there: it trains all of this through the weights that codes stand for.
    """

    version: ClassVar[int] = 1
    samplers: ClassVar[tuple[str, ...]] = ("top-p", "top-k", "all")
    task_loss_last = True

    def __init__(
        self,
        width: Annotated[int, Ge(2)] = 128,
        depth: Annotated[int, Ge(1)] = 3,
        heads: Annotated[int, Ge(1)] = 4,
        window: Annotated[int, Ge(1)] = 1024,
        dropout: Annotated[float, Ge(0), Le(1)] = 0.1,
        forget: Annotated[float, Ge(0), Le(1)] = 0.7,
        smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0,
        top_p: Annotated[float, Gt(0), Le(1)] = 0.9,
        top_k: Annotated[int, Ge(1)] = 16,
        plausible: Annotated[float, Ge(0), Le(1), Since("0.2")] = 0.0,
        by_place: Annotated[bool, Since("0.2")] = False,
        by_meaning: Annotated[bool, Since("0.2")] = False,
        *,
        spec: WeightSpec,
        layout: TokenLayout,
        condition_width: int,
    ):
        super().__init__()
        if not layout.codes:
            raise UserError("generator 'autoregressive': it writes codes, so it needs a tokenizer of such, as `vq` is")
        if width % heads:
            raise UserError(f"generator 'autoregressive': width {width} is not a multiple of heads {heads}")
        self.forget, self.plausible = forget, plausible
        self.window, self.dropout, self.smoothing, self.top_p, self.top_k = window, dropout, smoothing, top_p, top_k
        self.codes, self.levels, self.width = layout.codes, layout.width, width
        self.meanings = layout.meanings
        self.places: Tensor
        self.tensors: Tensor
        places = torch.arange(layout.count)[:, None].expand(-1, 3) * torch.tensor([0, 1, 0])
        self.register_buffer("places", places if layout.places is None else layout.places, persistent=False)
        self.register_buffer("tensors", described(spec), persistent=False)
        self.of_code = nn.Parameter(torch.randn(self.levels, self.codes, width) * 0.02)
        self.start = nn.Parameter(torch.randn(width) * 0.02)
        self.of_tensor = nn.Sequential(nn.Linear(DESCRIBED, width), nn.GELU(), nn.Linear(width, width))
        self.of_row, self.of_block = nn.Embedding(ROWS, width), nn.Embedding(BLOCKS, width)
        self.of_waves = nn.Linear(2 * WAVES, width)
        self.joined = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.of_last_place = nn.Linear(width, width)
        self.of_condition = nn.Linear(condition_width, width)
        self.overall = nn.Linear(width, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, self.codes)) for _ in range(self.levels)
        )
        self.of_earlier = nn.Parameter(torch.randn(self.levels - 1, self.codes, width) * 0.02)
        for table in (self.of_row, self.of_block):
            nn.init.normal_(table.weight, std=0.3)
        self.by_place, self.by_meaning = by_place, by_meaning
        if by_place:
            if layout.serves is None or int(layout.serves.max()) < 0:
                raise UserError(
                    "generator 'autoregressive': no piece is known to serve one output alone, as with tokenizer 'vq' and its "
                    "by_output: leave generator.by_place out"
                )
            self.serves: Tensor
            self.register_buffer("serves", layout.serves[:, 0], persistent=False)  # (N,)
            self.of_class = nn.Linear(condition_width, width)
        if by_meaning:
            if layout.meanings is None:
                raise UserError(
                    "generator 'autoregressive': this tokenizer does not say what its codes stand for: leave "
                    "generator.by_meaning out"
                )
            size = layout.meanings().shape[2]
            self.of_meaning, self.to_meaning = nn.Linear(size, width), nn.Linear(size, width, bias=False)

    def fit(self, closed: Closed) -> None:
        """Nothing: all of it is trained."""

    # ------------------------------------------------------------ what a piece is

    def _placed(self, where: slice) -> Tensor:
        """Vectors of the places of these pieces: (n, width)."""
        tensor, row, block = self.places[where].unbind(1)
        rates = 2 * torch.pi * torch.exp2(-torch.arange(WAVES, device=row.device, dtype=torch.float32) * 0.75)
        angles = row[:, None] * rates
        waves = torch.cat([angles.sin(), angles.cos()], dim=1)
        learned = self.of_tensor(self.tensors)[tensor] + self.of_row(row % ROWS) + self.of_block(block % BLOCKS)
        return learned + self.of_waves(waves)

    def _asked(self, condition: Condition, memory: Tensor) -> Tensor:
        """The mean of what is told (B, L, width), and of each piece the class that it serves: (B, 1 or N, width)."""
        shown = condition.mask[..., None]
        asked = self.overall((memory * shown).sum(1) / shown.sum(1))[:, None]
        if not self.by_place:
            return asked
        classes = (condition.tokens * shown)[:, : condition.classes]
        most = max(int(self.serves.max()) + 1, classes.shape[1])
        each = self.of_class(functional.pad(classes, (0, 0, 0, most - classes.shape[1])))  # (B, most, width)
        return asked + torch.where((self.serves >= 0)[:, None], each[:, self.serves], 0)

    def _joined(self, places: Tensor, asked: Tensor) -> Tensor:
        """What is to be written where: (..., width) each."""
        total = places + asked
        return total + self.joined(total)

    def _book(self) -> Book:
        """Codes as they are read and as they are written."""
        if not self.by_meaning or self.meanings is None:
            return Book(self.of_code, None)
        directions = functional.normalize(self.meanings(), dim=2)  # a last layer's are small, and matter as much
        return Book(self.of_code + self.of_meaning(directions), self.to_meaning(directions))

    def _embedded(self, book: Book, codes: Tensor) -> Tensor:
        """Vectors of pieces' codes: (..., levels) -> (..., width)."""
        return sum((book.read[level][codes[..., level]] for level in range(self.levels)), codes.new_zeros(()).float())

    def _logits(self, book: Book, features: Tensor, level: int) -> Tensor:
        """(..., width) -> (..., codes)."""
        logits = self.heads[level](features)
        return logits if book.written is None else logits + features @ book.written[level].T

    def _given(self, features: Tensor, codes: Tensor, level: int) -> Tensor:
        """What a level's code follows from, given that and the code (...) of the level before: (..., width) -> the same."""
        return features if level == 0 else features + self.of_earlier[level - 1][codes]

    # ------------------------------------------------------------ training

    def loss(self, pairs: Pairs, rng: torch.Generator) -> dict[str, Tensor]:
        codes = self._codes(pairs.tokens)
        keep = (torch.rand(len(codes), generator=rng, device=rng.device) >= self.dropout).to(codes.device)
        share = torch.rand(len(codes), 1, generator=rng, device=rng.device)
        share = share * (torch.rand(len(codes), 1, generator=rng, device=rng.device) < self.forget)
        hidden = torch.rand(codes.shape[:2], generator=rng, device=rng.device) < share
        every = self.logits(codes, pairs.condition.where(keep, pairs.null), hidden.to(codes.device))
        return {
            f"code {level + 1}": functional.cross_entropy(
                logits.flatten(0, 1), codes[..., level].flatten(), label_smoothing=self.smoothing
            )
            for level, logits in enumerate(every)
        }

    def task_parameters(self) -> list[nn.Parameter]:
        return list(self.parameters())

    def typical(self, condition: Condition) -> Tensor:
        """Shares (B, N, levels, codes): all to the codes written at temperature 0, with the gradient of all probabilities.

        So the network is the one that is drawn, and the gradient goes straight through the choice (Bengio et al., 2013).
        """
        codes = torch.stack(
            list(self.stream(condition, condition, TYPICAL, torch.Generator())), dim=1
        )  # (B, N, levels)
        shares = torch.stack([logits.softmax(2) for logits in self.logits(codes, condition)], dim=2)
        return functional.one_hot(codes, self.codes) + shares - shares.detach()

    def logits(self, codes: Tensor, condition: Condition, forgotten: Tensor | None = None) -> list[Tensor]:
        """Of each level's codes, given all before them: (B, N, levels) -> levels of (B, N, codes)."""
        book = self._book()
        features = self._seen(book, codes, condition, forgotten)
        every = []
        for level in range(self.levels):
            features = self._given(features, codes[..., level - 1], level)
            every.append(self._logits(book, features, level))
        return every

    def _codes(self, tokens: Tensor) -> Tensor:
        return tokens.round().long().clamp(0, self.codes - 1)

    def seen(self, codes: Tensor, condition: Condition, forgotten: Tensor | None = None) -> Tensor:
        """What each piece follows from, of all before it: (B, N, levels) -> (B, N, width).

        No piece knows the codes of `forgotten` ones (B, N), if any.
        """
        return self._seen(self._book(), codes, condition, forgotten)

    def _seen(self, book: Book, codes: Tensor, condition: Condition, forgotten: Tensor | None) -> Tensor:
        places, count = self._placed(slice(None)), codes.shape[1]
        embedded = self._embedded(book, codes)
        if forgotten is not None:
            embedded = embedded.masked_fill(forgotten[..., None], 0)
        before = torch.cat([self.start.expand(len(codes), 1, -1), embedded[:, :-1]], dim=1)
        memory, hidden = self.of_condition(condition.tokens), ~condition.mask
        last = functional.pad(self.of_last_place(places[:-1]), (0, 0, 1, 0))
        x = before + self._joined(places, self._asked(condition, memory)) + last
        far = _band(count, self.window, x.device) if count > self.window else None
        for block in self.blocks:
            x = block(x, memory, hidden, far)
        return self.norm(x)

    # ------------------------------------------------------------ drawing

    @torch.no_grad()
    def sample(
        self,
        condition: Condition,
        null: Condition,
        how: Generate,
        rng: torch.Generator,
        watch: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        return torch.stack(list(self.stream(condition, null, how, rng)), dim=1).to(condition.tokens.dtype)

    @torch.no_grad()
    def stream(
        self, condition: Condition, null: Condition, how: Generate, rng: torch.Generator, count: int | None = None
    ) -> Iterator[Tensor]:
        """The codes (B, levels) of one piece after the other, `count` of them or all; memory stays that of `window` pieces."""
        sampler, meanings = self.sampler_of(how), None if self.meanings is None else self.meanings()
        batch, guided = len(condition.mask), how.guidance != 1
        if guided:
            tokens, mask = (torch.cat(both) for both in ((condition.tokens, null.tokens), (condition.mask, null.mask)))
            condition = replace(condition, tokens=tokens, mask=mask)
        memory, hidden, book = self.of_condition(condition.tokens), ~condition.mask, self._book()
        caches = [Cache(block.crossed(memory), hidden, self.window) for block in self.blocks]  # type: ignore[operator]
        asked_for = self._asked(condition, memory).expand(-1, len(self.places), -1)
        embedded, last = self.start.expand(len(memory), -1), torch.zeros(self.width, device=memory.device)
        for number in range(len(self.places) if count is None else count):
            place = self._placed(slice(number, number + 1))[0]
            x = (embedded + self._joined(place, asked_for[:, number]) + last)[:, None]
            for block, cache in zip(self.blocks, caches, strict=True):
                x = block.step(x, cache)  # type: ignore[operator]
            features = self.norm(x[:, 0])
            codes = torch.zeros(batch, self.levels, dtype=torch.long, device=memory.device)
            for level in range(self.levels):
                before = codes[:, level - 1]
                features = self._given(features, before.repeat(2) if guided else before, level)
                logits = self._logits(book, features, level)
                if guided:
                    asked, nothing = logits.chunk(2)
                    logits = nothing + how.guidance * (asked - nothing)
                if how.temperature:
                    codes[:, level] = self._drawn(logits, how.temperature, sampler, rng)
                else:
                    codes[:, level] = self._typical(logits, None if meanings is None else meanings[level])
            yield codes
            embedded = self._embedded(book, codes.repeat(2, 1) if guided else codes)
            last = self.of_last_place(place)

    def _typical(self, logits: Tensor, meanings: Tensor | None) -> Tensor:
        """The code nearest to the mean of their meanings (codes, any width), or else the most probable: (B, codes) -> (B,)."""
        if meanings is None:
            return logits.argmax(1)
        shares = logits.softmax(1)
        error = meanings.square().sum(1) - 2 * (shares @ meanings) @ meanings.T  # up to what is the same for all codes
        ruled_out = shares < self.plausible * shares.max(1, keepdim=True).values
        return error.masked_fill(ruled_out, torch.inf).argmin(1)

    def _drawn(self, logits: Tensor, temperature: float, sampler: str | None, rng: torch.Generator) -> Tensor:
        """(B, codes) -> (B,)."""
        ordered, codes = (logits / temperature).sort(1, descending=True)
        shares = ordered.softmax(1)
        if sampler == "top-p":
            shares = shares * (shares.cumsum(1) - shares < self.top_p)
        elif sampler == "top-k":
            shares = shares * (torch.arange(shares.shape[1], device=shares.device) < self.top_k)
        point = torch.rand(len(shares), 1, generator=rng, device=rng.device).to(shares) * shares.sum(1, keepdim=True)
        chosen = (shares.cumsum(1) <= point).sum(1, keepdim=True).clamp_max(shares.shape[1] - 1)
        return codes.gather(1, chosen)[:, 0]


@dataclass(frozen=True)
class Book:
    """Vectors of all codes."""

    read: Tensor  # (levels, codes, width): of codes that were written before
    written: Tensor | None  # (levels, codes, width): what features are to be along for a code to come, if that is told


def _band(count: int, window: int, device: torch.device) -> Tensor:
    """(N, N) bool: True where a piece may be seen from another."""
    number = torch.arange(count, device=device)
    back = number[:, None] - number
    return (back >= 0) & (back < window)


class Cache:
    """What a block remembers while a network is written: the condition, and the last pieces."""

    def __init__(self, crossed: tuple[Tensor, Tensor], hidden: Tensor, window: int):
        self.crossed, self.seen, self.window = crossed, ~hidden[:, None, None], window
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.filled = 0

    def add(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, 1, C) each; all that is remembered. The oldest piece makes room for a new one."""
        if self.keys is None or self.values is None:
            shape = (*key.shape[:2], self.window, key.shape[3])
            self.keys, self.values = key.new_empty(shape), value.new_empty(shape)
        slot = self.filled % self.window
        self.keys[:, :, slot : slot + 1], self.values[:, :, slot : slot + 1] = key, value
        self.filled += 1
        filled = min(self.filled, self.window)
        return self.keys[:, :, :filled], self.values[:, :, :filled]


class Block(nn.Module):
    """Attention to the pieces before, to the condition, and two layers; norms come first (Xiong et al., 2020)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.count = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.own, self.own_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.asking, self.told = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.told_out = nn.Linear(width, width)
        self.layers = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def _parts(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B, N, parts * width) -> parts of (B, H, N, C)."""
        return tuple(rearrange(x, "b n (parts h c) -> parts b h n c", parts=parts, h=self.count))

    def crossed(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the condition (B, L, width)."""
        key, value = self._parts(self.told(memory), 2)
        return key, value

    def forward(self, x: Tensor, memory: Tensor, hidden: Tensor, near: Tensor | None) -> Tensor:
        """(B, N, width) -> (B, N, width), all pieces at once."""
        query, key, value = self._parts(self.own(self.norms[0](x)), 3)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=near, is_causal=near is None)
        return self._rest(x + self._out(attended, self.own_out), self.crossed(memory), ~hidden[:, None, None])

    def step(self, x: Tensor, cache: Cache) -> Tensor:
        """(B, 1, width) -> (B, 1, width), one piece after those in the cache."""
        query, key, value = self._parts(self.own(self.norms[0](x)), 3)
        attended = functional.scaled_dot_product_attention(query, *cache.add(key, value))
        return self._rest(x + self._out(attended, self.own_out), cache.crossed, cache.seen)

    def _rest(self, x: Tensor, crossed: tuple[Tensor, Tensor], seen: Tensor) -> Tensor:
        (query,) = self._parts(self.asking(self.norms[1](x)), 1)
        x = x + self._out(functional.scaled_dot_product_attention(query, *crossed, attn_mask=seen), self.told_out)
        return x + self.layers(self.norms[2](x))

    def _out(self, attended: Tensor, layer: nn.Linear) -> Tensor:
        return layer(rearrange(attended, "b h n c -> b n (h c)"))
