"""One correct component of every kind, as short as the contracts allow: what tests of the conformance checks break."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Ge
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn
from torch.nn import functional

from wspace.api import (
    TEST,
    TRAIN,
    Answers,
    Architecture,
    Backbone,
    Classifier,
    Closed,
    Collection,
    Condition,
    Conditioner,
    Contest,
    DataError,
    Dataset,
    Denoiser,
    Description,
    Discriminator,
    Engine,
    Evidence,
    Exporter,
    Fusion,
    Generate,
    Generator,
    Images,
    ImportedNetwork,
    Importer,
    Metric,
    Opponent,
    Outcome,
    Pairs,
    Part,
    Precision,
    Predictor,
    Product,
    Prompts,
    Span,
    Symmetry,
    Target,
    Text,
    Tokenizer,
    TokenLayout,
    Tracker,
    UnitTokens,
    UserError,
    WeightEntry,
    WeightSpec,
    Wording,
)

EXAMPLES = {
    "dataset": ("Painted", {"path": "pictures"}),
    "backbone": ("Averages", {}),
    "text": ("Letters", {}),
    "wording": ("Plain", {}),
    "architecture": ("Stack", {"width": 5}),
    "target": ("Head", {"rank": 4}),
    "symmetry": ("Cyclic", {}),
    "tokenizer": ("Rows", {}),
    "conditioner": ("Learned", {}),
    "predictor": ("Mean", {}),
    "denoiser": ("Gated", {"width": 6}),
    "discriminator": ("Judge", {}),
    "generator": ("Direct", {"denoiser": {"use": "lawful", "width": 6}}),
    "fusion": ("Midway", {}),
    "opponent": ("Hybrid", {"share": 0.5}),
    "metric": ("Errors", {}),
    "importer": ("Lines", {}),
    "exporter": ("Programs", {}),
    "tracker": ("Notes", {}),
    "engine": ("Backwards", {}),
}
"""Kind -> class and arguments, registered under the name `lawful`."""


class Painted(Dataset):
    """Pictures of a folder for each class, the first three quarters of each for training."""

    def __init__(self, path: Path, size: Annotated[int, Ge(1)] = 12):
        self.path, self.size = path, size

    def load(self, cache: Path) -> Images:
        files = sorted(self.path.glob("*/*.png"))
        if not files:
            raise DataError(f"{self.path}: no pictures")
        return Read(files, self)

    def open_picture(self, path: Path) -> np.ndarray:
        try:
            with Image.open(path) as picture:
                return np.asarray(picture.convert("RGB").resize((self.size, self.size)))
        except (OSError, UnidentifiedImageError) as error:
            raise DataError(f"{path}: not a picture") from error


class Read(Images):
    """Read again from their files each time."""

    def __init__(self, files: Sequence[Path], dataset: Dataset):
        self.files, self.dataset = files, dataset
        self.classes = tuple(sorted({file.parent.name for file in files}))
        self.labels = np.array([self.classes.index(file.parent.name) for file in files], dtype=np.int64)
        within = [int(file.stem) for file in files]
        self.split = np.array([TRAIN if number < 6 else TEST for number in within], dtype=np.int8)
        self.fingerprint = f"{len(files)} pictures"

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return np.stack([self.dataset.open_picture(self.files[index]) for index in indices])


class Averages(Backbone):
    """The mean colour of each quarter."""

    version: ClassVar[int] = 2

    def __init__(self, *, device: torch.device):
        self.dim, self.device = 12, device
        self.fingerprint = "averages"

    def encode(self, pixels: np.ndarray) -> Tensor:
        x = torch.tensor(pixels, device=self.device).permute(0, 3, 1, 2).float() / 255
        features = functional.adaptive_avg_pool2d(x, 2).flatten(1)
        return features.cpu()


class Letters(Text):
    """How often each letter is used."""

    def __init__(self, *, device: torch.device):
        self.dim = 26
        self.fingerprint = "letters"

    def encode(self, sentences: Sequence[str]) -> Tensor:
        counts = [[sentence.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for sentence in sentences]
        vectors = torch.tensor(counts, dtype=torch.float32).view(-1, 26)
        return functional.normalize(vectors, dim=1)


class Plain(Wording):
    """The name, and the name in the template."""

    def __init__(self, article: str = "a"):
        self.article = article

    def sentences(self, classes: Sequence[str], templated: Sequence[str]) -> list[tuple[str, ...]]:
        pairs = zip(classes, templated, strict=True)
        return [(f"{self.article} {name}", sentence) for name, sentence in pairs]


class Stack(Architecture):
    """A hidden layer, its axes told by hand."""

    def __init__(self, width: Annotated[int, Ge(1)] = 8):
        self.width = width

    def build(self, inputs: tuple[int, ...], outputs: int) -> nn.Module:
        last = nn.Linear(self.width, outputs)
        return nn.Sequential(nn.Linear(inputs[0], self.width), nn.Tanh(), last)

    def axes(self, module: nn.Module) -> Mapping[str, tuple[str, ...]]:
        first = {"0.weight": ("unit", str(module[0].in_features)), "0.bias": ("unit",)}
        return first | {"2.weight": (str(module[2].out_features), "unit"), "2.bias": (str(module[2].out_features),)}


class Head(Target):
    """tanh(x A) in a hidden layer; then a linear pair of which only the product counts."""

    def __init__(self, rank: Annotated[int, Ge(1)] = 4, *, feature_dim: int, text_dim: int):
        self.spec = WeightSpec(
            (
                WeightEntry("a", (feature_dim, rank), ("feature", "hidden")),
                WeightEntry("left", (rank, 2), ("hidden", "rank")),
                WeightEntry("right", (2, text_dim), ("rank", "text")),
            ),
            free=("hidden",),
            products=(Product("layer", "left", "right"),),
        )

    def init(self, count: int, rng: torch.Generator) -> Tensor:
        drawn = {e.name: torch.randn(count, *e.shape, generator=rng) / e.shape[0] ** 0.5 for e in self.spec.entries}
        return self.spec.flatten(drawn)

    def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:
        w = self.spec.unflatten(weights)
        hidden = torch.tanh(features @ w["a"])
        scores = hidden @ w["left"] @ w["right"] @ texts.mT
        return scores


class Cyclic(Symmetry):
    """Units of the first free axis, turned round by some places."""

    def __init__(self, *, spec: WeightSpec):
        self.spec, self.axis = spec, spec.free[0]
        self.size = spec.axis_size(self.axis)

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        return torch.randint(self.size, (count, 1), generator=rng)

    def identity(self, count: int) -> Tensor:
        return torch.zeros(count, 1, dtype=torch.long)

    def inverse(self, elements: Tensor) -> Tensor:
        return (self.size - elements) % self.size

    def compose(self, left: Tensor, right: Tensor) -> Tensor:
        return (left + right) % self.size

    def act(self, elements: Tensor, weights: Tensor) -> Tensor:
        rows = [self._turned(row, int(places)) for row, places in zip(weights, elements[:, 0], strict=True)]
        return torch.stack(rows)

    def align(self, weights: Tensor, reference: Tensor) -> Tensor:
        every = torch.arange(self.size)[:, None]
        wanted = reference.expand_as(weights)
        best = []
        for row, near in zip(weights, wanted, strict=True):
            left = (self.act(every, row.expand(self.size, -1)) - near).norm(dim=1)
            best.append(left.argmin())
        return torch.stack(best)[:, None]

    def parts(self) -> list[Part]:
        return [Part("turning", self.axis, type(self))]

    def _turned(self, row: Tensor, places: int) -> Tensor:
        tensors = self.spec.unflatten(row)
        for entry in self.spec.entries:
            for dim, axis in enumerate(entry.axes):
                if axis == self.axis:
                    tensors[entry.name] = tensors[entry.name].roll(places, dim)
        return self.spec.flatten(tensors)


class Rows(Tokenizer):
    """The hidden units of the one layer that `wspace.testing` calls so, then what is left; one scale for all."""

    def __init__(self, *, spec: WeightSpec):
        super().__init__()
        if spec.free != ("hidden",):
            raise UserError("tokenizer 'lawful': it needs one free axis called 'hidden'")
        units = spec.axis_size("hidden")
        where = spec.unflatten(torch.arange(spec.size))
        moving = [where[e.name].movedim(e.axes.index("hidden"), 0) for e in spec.entries if "hidden" in e.axes]
        rows = torch.cat([tensor.reshape(units, -1) for tensor in moving], dim=1)  # (units, D)
        rest = torch.cat([where[e.name].flatten() for e in spec.entries if "hidden" not in e.axes])
        self.order: Tensor
        self.scale: Tensor
        self.register_buffer("order", torch.cat([rows.flatten(), rest]), persistent=False)
        self.register_buffer("scale", torch.ones(()))
        self.count = -(-spec.size // rows.shape[1]) * rows.shape[1]
        mask = torch.arange(self.count) < spec.size
        groups = (UnitTokens("hidden", units, (Span(rows.shape[1]),)),)
        self.layout = TokenLayout(mask.view(-1, rows.shape[1]), units, groups=groups)

    def fit(self, weights: Tensor) -> None:
        self.scale.copy_(weights.std().clamp_min(1e-6))

    def tokenize(self, weights: Tensor) -> Tensor:
        return self.arrange(weights / self.scale)

    def detokenize(self, tokens: Tensor) -> Tensor:
        return self.collect(tokens) * self.scale

    def arrange(self, values: Tensor) -> Tensor:
        ordered = functional.pad(values[:, self.order], (0, self.count - len(self.order)))
        return ordered.unflatten(1, self.layout.mask.shape)

    def collect(self, tokens: Tensor) -> Tensor:
        ordered = tokens.flatten(1)[:, : len(self.order)]
        return ordered[:, self.order.argsort()]


class Learned(Conditioner):
    """A token for each class through a learned map; the mean text is the pooled vector."""

    def __init__(self, *, text_dim: int):
        super().__init__()
        self.width, self.pooled_width = 7, text_dim
        self.map = nn.Linear(text_dim, 7)
        self.nothing = nn.Parameter(torch.randn(7))
        self.center: Tensor
        self.register_buffer("center", torch.zeros(text_dim))

    def fit(self, prompts: Prompts) -> None:
        self.center.copy_(self._mean(prompts).mean(0))

    def forward(self, prompts: Prompts) -> Condition:
        pooled = self._mean(prompts) - self.center
        tokens = self.map(prompts.texts)
        return Condition(tokens, prompts.mask, pooled)

    def null(self, like: Condition) -> Condition:
        mask = torch.arange(like.mask.shape[1]).expand_as(like.mask) == 0
        return Condition(self.nothing.expand_as(like.tokens), mask, torch.zeros_like(like.pooled))

    def _mean(self, prompts: Prompts) -> Tensor:
        return prompts.texts.sum(1) / prompts.mask.sum(1, keepdim=True)


class Mean(Predictor):
    """The mean network of the zoo, whatever the task."""

    def __init__(self, *, layout: TokenLayout):
        super().__init__()
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(layout.mask.shape))
        self.register_buffer("spread", torch.ones(()))
        self.offset = nn.Parameter(torch.zeros(layout.mask.shape))
        self.share = int(layout.mask.sum()) / layout.mask.numel()

    @torch.no_grad()
    def fit(self, tokens: Tensor, condition: Condition, held_out: tuple[Tensor, Condition]) -> None:
        self.mean.copy_(tokens.mean(0))
        self.spread.copy_(((tokens - self.mean).square().mean() / self.share).sqrt())

    def of_zoo(self, condition: Condition) -> Tensor:
        return self.mean.expand(len(condition.pooled), -1, -1)

    def forward(self, condition: Condition) -> Tensor:
        return self.of_zoo(condition) + self.offset


class Gated(Denoiser):
    """A hidden layer over all tokens, the level and what the condition's tokens say together."""

    def __init__(self, width: int = 8, *, layout: TokenLayout, condition_width: int):
        super().__init__()
        self.enter = nn.Linear(layout.mask.numel() + 1, width)
        self.listen = nn.Linear(condition_width, width)
        self.leave = nn.Linear(width, layout.mask.numel())

    def forward(self, x: Tensor, level: Tensor, condition: Condition, anchor: Tensor) -> Tensor:
        known = torch.cat([x.flatten(1), level[:, None]], dim=1)
        heard = (self.listen(condition.tokens).tanh() * condition.mask[..., None]).sum(1)
        hidden = (self.enter(known) + heard).tanh()
        return self.leave(hidden).view_as(x)


class Judge(Discriminator):
    """One layer of units, and what they say together."""

    def __init__(self, width: int = 6, *, layout: TokenLayout):
        super().__init__()
        self.enter = nn.Linear(layout.mask.numel(), width)
        self.leave = nn.Linear(width, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.enter(tokens.flatten(1)).tanh()
        return self.leave(hidden)[:, 0]


class Direct(Generator):
    """A denoiser called once or more, each time on what it made before, about a mean that a task loss trains."""

    samplers: ClassVar[tuple[str, ...]] = ("plain", "short")

    def __init__(self, denoiser: Denoiser, start: Literal["noise", "zero"] = "noise", *, layout: TokenLayout):
        super().__init__()
        self.denoiser, self.start = denoiser, start
        self.mask: Tensor
        self.anchor: Tensor
        self.register_buffer("mask", layout.mask, persistent=False)
        self.register_buffer("anchor", torch.zeros(layout.mask.shape))
        self.mean = nn.Parameter(torch.zeros(layout.mask.shape))

    def fit(self, closed: Closed) -> None:
        self.anchor.copy_(closed.anchor)
        self.mean.copy_(closed.tokens.mean(0))

    def task_parameters(self) -> list[nn.Parameter]:
        return [self.mean]

    def typical(self, condition: Condition) -> Tensor:
        return self.mean.expand(len(condition.pooled), -1, -1)

    def predicted(self, condition: Condition) -> Tensor:
        return self.typical(condition)

    def loss(self, pairs: Pairs, rng: torch.Generator) -> dict[str, Tensor]:
        noise = torch.randn(pairs.tokens.shape, generator=rng) * self.mask
        found = self._clean(noise, 1.0, pairs.condition)
        terms = {"own": (found - pairs.tokens).square().mean()}
        if pairs.moves is not None and pairs.moves.penalty:
            moved = self._clean(pairs.moves.act(noise), 1.0, pairs.condition)
            terms["symmetry"] = (moved - pairs.moves.act(found)).square().mean()
        return terms

    def estimate(self, pairs: Pairs, noise: float, rng: torch.Generator) -> Tensor:
        drawn = noise * torch.randn(pairs.tokens.shape, generator=rng) * self.mask
        return self._clean(drawn, noise, pairs.condition)

    @torch.no_grad()
    def sample(
        self,
        condition: Condition,
        null: Condition,
        how: Generate,
        rng: torch.Generator,
        watch: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        if how.sampler not in (None, *self.samplers):
            raise UserError(f"generate.sampler: no {how.sampler!r}")
        shape = (len(condition.pooled), *self.mask.shape)
        x = how.temperature * torch.randn(shape, generator=rng) * self.mask
        for step in range(1 if how.sampler == "short" else how.steps):
            x = self._clean(x, 1.0, condition)
            if watch is not None:
                watch(step + 1, x)
        return x

    def _clean(self, noisy: Tensor, level: float, condition: Condition) -> Tensor:
        levels, anchor = torch.full((len(noisy),), level), self.anchor.expand_as(noisy)
        found = self.denoiser(noisy, levels, condition, anchor)
        return (self.mean.detach() + found) * self.mask


class Midway(Fusion):
    """Halfway from one to the other, and from there a step towards where they began."""

    def __init__(self, *, base: Tensor):
        self.base = base

    def fuse(self, first: Tensor, second: Tensor) -> Tensor:
        middle = first / 2 + second / 2
        return middle.lerp(self.base, 0.1)


class Hybrid(Opponent):
    """Some way from the zoo's mean to the network whose task is described most alike; how far, it chooses."""

    what = "between the mean of the training weights and the nearest of them"
    called = "the hybrid"
    place = 35

    def __init__(self, share: Annotated[float, Ge(0)] = 0.5):
        self.share = share

    def choose(self, evidence: Evidence) -> dict[str, float]:
        tasks = evidence.tasks[len(evidence.tasks) - evidence.held_out :]
        held_out = evidence.weights[-len(tasks) :]
        scores = {
            share: float(evidence.accuracy(evidence.weights.mean(0).lerp(held_out, share), tasks).mean())
            for share in (self.share / 2, self.share)
        }
        self.share = max(scores, key=scores.__getitem__)
        return {"share": self.share}

    def weights(self, evidence: Evidence, contest: Contest) -> Tensor:
        likeness = contest.descriptions @ evidence.descriptions.T  # (B, n)
        nearest = evidence.weights[likeness.argmax(1)]
        return evidence.weights.mean(0).lerp(nearest, self.share)


class Errors(Metric):
    """Share of a task's images that are named wrong."""

    name = "errors"
    higher_is_better = False

    def __init__(self) -> None: ...

    def measure(self, outcome: Outcome) -> Tensor:
        pairs = zip(outcome.predictions, outcome.labels, strict=True)
        return torch.stack([(predicted != true).float().mean() for predicted, true in pairs])


class Lines(Importer):
    """Files of numbers, a network each, called after their task."""

    takes = "files of numbers (.numbers)"

    def recognises(self, folder: Path) -> bool:
        return any(folder.glob("*.numbers"))

    def collect(self, folder: Path) -> Collection:
        networks = [
            ImportedNetwork(file.stem, file, Description(texts=(file.stem,)), partial(self._read, file))
            for file in sorted(folder.glob("*.numbers"))
        ]
        return Collection(networks, WeightSpec((WeightEntry("w", (2,), ("hidden",)),)))

    def example(self, folder: Path) -> None:
        for number, text in enumerate(("cat", "dog")):
            (folder / f"{text}.numbers").write_text(f"{number} 2.5", encoding="utf-8")

    def _read(self, file: Path) -> Mapping[str, Tensor]:
        return {"w": torch.tensor([float(number) for number in file.read_text(encoding="utf-8").split()])}


class Programs(Exporter):
    """A program of torch."""

    suffix = ".pt2"

    def __init__(self) -> None: ...

    def write(self, classifier: Classifier, out: Path, precision: Precision) -> None:
        pixels = torch.zeros(2, classifier.side, classifier.side, 3, dtype=torch.uint8)
        program = torch.export.export(
            classifier.module(), (pixels,), dynamic_shapes=({0: torch.export.Dim("m", min=1)},)
        )
        with out.open("wb") as file:
            torch.export.save(program, file)

    def read(self, out: Path) -> Answers:
        with out.open("rb") as file:
            program = torch.export.load(BytesIO(file.read())).module()
        return lambda pixels: program(torch.tensor(pixels)).detach().numpy()


class Notes(Tracker):
    """Sentences in a file."""

    def start(self, name: str, identity: str, config: Mapping[str, Any], folder: Path, resumed: bool) -> None:
        self.file = (folder / f"{identity}.txt").open("a")

    def scalars(self, phase: str, step: int, values: Mapping[str, float]) -> None:
        print(f"{phase} {step}: {values}", file=self.file)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str | float]]) -> None:
        print(f"{name}: {len(rows)} rows", file=self.file)

    def figure(self, name: str, png: bytes, caption: str) -> None:
        print(f"{name}: {caption}", file=self.file)

    def flush(self) -> bool:
        return self.file.flush() is None

    def finish(self, done: bool) -> None:
        self.file.close()


class Backwards(Engine):
    """This process, from the last piece to the first."""

    def work(self, do: Callable[[str], str], pieces: Sequence[str]) -> Iterator[tuple[int, str]]:
        for number in reversed(range(len(pieces))):
            yield number, do(pieces[number])
