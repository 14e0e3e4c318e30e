"""A component under test, and the toy surroundings it is built in: small shapes, random numbers, nothing downloaded."""

from __future__ import annotations

import atexit
import contextlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from wspace import interfaces
from wspace.components.tokenizers.chunk import Chunk
from wspace.components.tokenizers.neuron import Neuron
from wspace.components.tokenizers.units import Units
from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.recipes.bind import bind_example
from wspace.recipes.registry import KINDS, Component, Registry
from wspace.recipes.schema import Bound
from wspace.recipes.signature import UnreadableSignature, signature_of
from wspace.support.errors import MissingPackage, MissingWeights, RecipeError, UserError, reason
from wspace.support.seeding import seeded, stream
from wspace.testing.verdicts import Unbuilt, Unlawful, Unreadable
from wspace.weights.lowrank import lora_spec

FEATURES, TEXTS = 3 * 16**2, 6  # F as of pictures of 16 x 16, which a target may want to see; T
INPUTS = 7  # features that the toy networks see
CONDITION, POOLED = 5, 4  # C, C'
PICTURES = "pictures"  # what an example of a data set may name as its folder: classes of drawn pictures
T = TypeVar("T")


def _told(looks_at: str) -> interfaces.Told:
    """Of three classes, texts and two pictures each, or the means of their features."""
    texts, words = functional.normalize(normal(3, TEXTS, seed=91), dim=1), normal(TEXTS, seed=93)
    if looks_at == "pictures":
        return interfaces.Told(texts, normal(3, 2, interfaces.PICTURE, seed=92), words)
    spread = normal(9, INPUTS, seed=95)
    return interfaces.Told(
        texts, torch.zeros(3, 0, interfaces.PICTURE), words, normal(3, INPUTS, seed=94), spread.mT @ spread / 9
    )


class Toy(interfaces.Target):
    """A hidden layer over seven features, and inner products with texts."""

    def __init__(self, spec: WeightSpec):
        self.spec = spec

    def init(self, count: int, rng: torch.Generator) -> Tensor:
        return torch.randn(count, self.spec.size, generator=rng) / 2

    def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:
        t = self.spec.unflatten(weights)
        hidden = (features @ t["w1"] + t["b1"][:, None]).relu()  # (B, M, 4)
        return (hidden @ t["w2"] + t["b2"][:, None]) @ texts.mT  # (B, M, K)

    def from_linear(self, scorers: Tensor, bias: Tensor, texts: Tensor, mask: Tensor) -> Tensor:
        """The first four classes' scores, one by each hidden unit, far above where the unit ends."""
        inverse, high = torch.linalg.pinv(texts), 100.0  # (B, 6, K)
        first = scorers[:, :4].mT  # (B, F, k)
        w1 = torch.cat([first, first.new_zeros(*first.shape[:2], 4 - first.shape[2])], dim=2)
        w2 = torch.cat([inverse[..., :4].mT, inverse.new_zeros(len(w1), 4 - first.shape[2], inverse.shape[1])], dim=1)
        b2 = (inverse @ bias[..., None])[..., 0] - high * w2.sum(1)
        return self.spec.flatten({"w1": w1, "b1": torch.full((len(w1), 4), high), "w2": w2, "b2": b2})


@dataclass(frozen=True)
class Surroundings:
    """What a component is given: a value for every name in `wspace.recipes.registry.GIVEN`."""

    name: str
    spec: WeightSpec
    layout: interfaces.TokenLayout

    @property
    def given(self) -> dict[str, object]:
        return {
            "device": torch.device("cpu"),
            "feature_dim": FEATURES,
            "text_dim": TEXTS,
            "spec": self.spec,
            "target": Toy(self.spec),
            "layout": self.layout,
            "condition_width": CONDITION,
            "pooled_width": POOLED,
            "base": normal(self.spec.size, seed=90),
        }


def _layers(**widths: int) -> WeightSpec:
    """Linear layers with biases, from 7 features through hidden axes of these names and widths to texts."""
    names, sizes = ["feature", *widths, "text"], [INPUTS, *widths.values(), TEXTS]
    entries = []
    for number in range(1, len(names)):
        of, to = names[number - 1], names[number]
        entries.append(WeightEntry(f"w{number}", (sizes[number - 1], sizes[number]), (of, to)))
        entries.append(WeightEntry(f"b{number}", (sizes[number],), (to,)))
    return WeightSpec(tuple(entries), free=tuple(widths))


HIDDEN = _layers(hidden=4)
SPECS = {
    "one hidden layer": HIDDEN,
    "two hidden layers": _layers(hidden=3, second=4),
    "a low-rank update": lora_spec({"layer": (6, 7)}, 3, {"layer": 2.0}),
}


def _serving_in_places() -> interfaces.TokenLayout:
    """A token for each hidden unit of a target whose outputs stand for a task's classes."""
    tokenizer, outputs = Neuron(spec=HIDDEN), torch.arange(TEXTS)
    serves = {entry.name: torch.full(entry.shape, -1) for entry in HIDDEN.entries}
    serves |= {"w2": outputs.expand(HIDDEN.axis_size("hidden"), -1), "b2": outputs}
    arranged = tokenizer.arrange(HIDDEN.flatten(serves)[None] + 1.0)[0].long() - 1
    return replace(tokenizer.layout, serves=arranged)


LAYOUTS = {
    "a token for each hidden unit": _serving_in_places(),
    "tokens of 8 values": Chunk(8, spec=HIDDEN).layout,
}
UNITS = {"a token for each unit of two hidden layers": Units(spec=SPECS["two hidden layers"]).layout}
AS_THEY_ARE = {"tokens that are weights as they are": Chunk(8, "none", spec=HIDDEN).layout}
CODES = interfaces.TokenLayout(
    torch.ones(6, 2, dtype=torch.bool), codes=5, places=torch.cartesian_prod(*map(torch.arange, (2, 3, 1)))
)
"""Tokens of two codes each, of three rows of the first two tensors: for generators, the others meet numbers alone."""


@dataclass(frozen=True)
class Instance:
    """A component, built."""

    made: Any
    around: Surroundings


@dataclass
class Subject:
    """One registered component, to be held to the laws of its kind."""

    component: Component  # as it is registered
    registry: Registry  # of all components that its example may name
    _made: dict[str, Any] = field(default_factory=dict)

    @property
    def who(self) -> str:
        """Kind and name, as messages have them."""
        return f"{self.component.kind} {self.component.name!r}"

    @cached_property
    def bound(self) -> Bound:
        """With the arguments of its example. Raises Unbuilt."""
        with contextlib.chdir(scratch()):  # where files that an example names lie
            try:
                signature_of(self.component)
                return bind_example(self.component, self.registry)
            except UnreadableSignature as error:
                raise Unreadable(f"its constructor cannot be read: {error}") from error
            except RecipeError as error:
                raise Unbuilt(f"{error.problems[0].where}: {error.problems[0].message}") from error

    def build(self, around: Surroundings, seed: int = 0) -> Any:
        """Parameters come from the seed; modules are in evaluation mode."""
        with seeded(seed):
            made = self.bound.build(around.given)
            if isinstance(made, interfaces.Conditioner) and made.asks:
                made.told(_told(made.looks_at))
        return made.eval() if isinstance(made, nn.Module) else made

    @cached_property
    def instances(self) -> list[Instance]:
        """Built in each of the surroundings that it takes.

        Raises Unbuilt if it takes none, MissingWeights or MissingPackage if something it needs is not here.
        """
        made, refused = [], []
        for around in self._surroundings():
            try:
                made.append(Instance(self.build(around), around))
            except (Unbuilt, MissingWeights, MissingPackage):
                raise
            except UserError as error:
                refused.append(f"with {around.name}: {error}")
            except Exception as error:
                raise Unbuilt(reason(error)) from error
        if not made:
            raise Unbuilt("; ".join(dict.fromkeys(refused)))
        wanted = getattr(interfaces, KINDS[self.component.kind])
        if not isinstance(made[0].made, wanted):
            raise Unbuilt(f"{self.component.class_name} is no {wanted.__name__} of wspace.interfaces")
        return made

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What is expensive to make, shared by checks."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def _surroundings(self) -> list[Surroundings]:
        layout = LAYOUTS["a token for each hidden unit"]
        if self.component.kind in ("symmetry", "tokenizer", "fusion"):
            return [Surroundings(name, spec, layout) for name, spec in (SPECS | self._specs_of_targets()).items()]
        if self.component.kind in ("predictor", "denoiser", "discriminator", "generator"):
            further = {"generator": {"tokens that are codes": CODES}, "denoiser": UNITS | AS_THEY_ARE}
            layouts = LAYOUTS | further.get(self.component.kind, {})
            return [Surroundings(name, HIDDEN, layout) for name, layout in layouts.items()]
        return [Surroundings("one hidden layer", HIDDEN, layout)]

    def _specs_of_targets(self) -> dict[str, WeightSpec]:
        """Of those that come with the same plugin, as their examples have them."""
        specs = {}
        for other in self.registry.all("target"):
            if other.plugin == self.component.plugin:
                with contextlib.suppress(UserError, Unbuilt):  # its own checks say why it cannot be built
                    specs[f"target {other.name!r}"] = Subject(other, self.registry).instances[0].made.spec
        return specs

    # ------------------------------------------------------------ how a check speaks

    def fail(self, law: str) -> NoReturn:
        """Raise Unlawful: the component breaks this law, which is a sentence with the figure."""
        raise Unlawful(f"{self.who}: {law}")

    def hold(self, condition: object, law: str) -> None:
        """Fail unless the condition is true."""
        if not condition:
            self.fail(law)

    def shaped(self, what: str, actual: object, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
        """Fail unless it is a tensor of finite numbers, of this shape and type."""
        if not isinstance(actual, Tensor):
            self.fail(f"{what} should be a tensor, and is a {type(actual).__name__}")
        self.hold(tuple(actual.shape) == shape, f"{what} should have shape {shape}, and has {tuple(actual.shape)}")
        self.hold(actual.dtype == dtype, f"{what} should be of {dtype}, and is of {actual.dtype}")
        self.hold(torch.isfinite(actual).all(), f"{what} should be finite numbers, and some are not")

    def equal(self, what: str, actual: Tensor, expected: Tensor) -> None:
        """Fail unless both have the same bytes."""
        if actual.shape != expected.shape or actual.dtype != expected.dtype:
            self.fail(f"{what}: {_shape_and_type(actual)} in place of {_shape_and_type(expected)}")
        if not torch.equal(actual, expected):
            self.fail(f"{what}: off by {apart(actual, expected):.2g} of the largest value, and should be the very same")

    def near(self, what: str, actual: Tensor, expected: Tensor, within: float) -> None:
        """Fail unless they differ by less than `within` of the largest value."""
        if actual.shape != expected.shape:
            self.fail(f"{what}: shape {tuple(actual.shape)} in place of {tuple(expected.shape)}")
        off = apart(actual, expected)
        self.hold(off <= within, f"{what}: off by {off:.2g} of the largest value, where {within:.0e} would be rounding")


def _shape_and_type(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} of {tensor.dtype}"


def apart(actual: Tensor, expected: Tensor) -> float:
    """Greatest difference over greatest value; not a number if either is not."""
    if not expected.numel():
        return 0.0
    most = expected.detach().abs().max().double().clamp_min(1e-12)
    return float((actual.detach().double() - expected.detach().double()).abs().max() / most)


def rng_of(*names: str | int) -> torch.Generator:
    return stream(0, "conformance", *names)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=rng_of("normal", seed))


def twice(make: Callable[[torch.Generator], T]) -> tuple[T, T]:
    """From the same seed, while torch's global random numbers differ: what comes out may not."""
    made = []
    with torch.random.fork_rng(devices=[]):
        for seed in (1, 2):
            torch.default_generator.manual_seed(seed)
            made.append(make(rng_of("twice")))
    return made[0], made[1]


@cache
def scratch() -> Path:
    """A folder of this process, removed at its end; holds `pictures/`, and the same ones as IDX files in `idx/`."""
    folder = Path(tempfile.mkdtemp(prefix="wspace-testing-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _draw_pictures(folder / PICTURES)
    _write_idx(folder / "idx", folder / PICTURES)
    return folder


def _draw_pictures(root: Path) -> None:
    """Three classes of eight pictures: discs, bars and checks, no two of them alike."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:24, :24]
    for name, drawn in {
        "disc": (rows - 12) ** 2 + (columns - 12) ** 2 < 64,
        "bar": (rows > 8) & (rows < 16),
        "check": (rows // 6 + columns // 6) % 2 == 0,
    }.items():
        (root / name).mkdir(parents=True)
        for number in range(8):
            colours = rng.integers(0, 256, (2, 3), dtype=np.uint8)
            Image.fromarray(np.where(drawn[..., None], *colours)).save(root / name / f"{number}.png")


def _write_idx(root: Path, pictures: Path) -> None:
    """Half of each class's pictures to train on, half to test on."""
    root.mkdir()
    for part, numbers in (("train", range(4)), ("t10k", range(4, 8))):
        files = [pictures / name / f"{number}.png" for name in ("disc", "bar", "check") for number in numbers]
        pixels = np.stack([np.asarray(Image.open(file).convert("L")) for file in files])
        labels = np.repeat(np.arange(3, dtype=np.uint8), len(numbers))
        for name, array in ((f"{part}-images-idx3-ubyte", pixels), (f"{part}-labels-idx1-ubyte", labels)):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (root / name).write_bytes(head + array.tobytes())
