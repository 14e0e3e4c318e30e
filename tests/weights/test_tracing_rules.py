"""Whether an axis that tracing calls free is: every exchange of two neighbouring units of it is tried, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from wspace.weights.matching.by_weights import Move, move
from wspace.weights.tracing.infer import Inferred, infer, weights_of

ROUNDING = 1e-9  # relative, float64
JOINED = [{1}, {2}, {1, 2, 3, 4}]  # places of dimensions that are stored as one with the one before; then at random
STORED = len(JOINED) + 1  # ways in which an operation's tensors are stored
HARDEST = len(JOINED)  # of these: as chance has it; the others with `--slow`

Step = Callable[[Tensor], Any]  # what one operation gives of a tensor: another, or several


def wrongly_free(module: nn.Module, said: Inferred) -> list[str]:
    """Axes of which an exchange of two neighbours, within one unit of an outer axis, changes what the module computes."""
    spec, x = said.spec(module), torch.zeros(1)
    weights = spec.flatten({name: weight.detach() for name, weight in weights_of(module).items()})[None]
    before = module(x)
    wrong = []
    for axis in spec.free:
        outer, size = spec.outer(axis), spec.axis_size(axis)
        each = size if outer is None else size // spec.axis_size(outer)
        for first in range(size - 1):
            if (first + 1) % each == 0:
                continue
            places = torch.arange(size)
            places[[first, first + 1]] = places[[first + 1, first]]
            moved = spec.unflatten(move(weights, spec, {axis: Move(places[None])})[0])
            if not torch.allclose(functional_call(module, moved, (x,)), before, rtol=ROUNDING, atol=ROUNDING):
                wrong.append(axis)
                break
    return wrong


@dataclass
class Stored:
    """A tensor as a parameter holds it: its dimensions in another order, and some of them as one."""

    tensor: Tensor
    back: Callable[[Tensor], Tensor]


def stored(tensor: Tensor, chance: Random, joined: set[int] | None = None) -> Stored:
    """With the dimensions at these places joined to those before them; by default some of them, perhaps in another order."""
    order = list(range(tensor.ndim))
    if joined is None:
        chance.shuffle(order)
        joined = {place for place in order if chance.random() < 0.5}
    shape, groups = [tensor.shape[place] for place in order], list[int]()
    for place, size in enumerate(shape):
        if groups and place in joined:
            groups[-1] *= size
        else:
            groups.append(size)
    where = [order.index(place) for place in range(tensor.ndim)]
    return Stored(tensor.permute(order).reshape(groups).clone(), lambda held: held.view(shape).permute(where))


class Operated(nn.Module):
    """The sum of all that an operation gives of its parameters, each value times a parameter of its own."""

    def __init__(self, inputs: list[Tensor], operation: Callable[..., Any], seed: int):
        super().__init__()
        chance, joined = Random(seed), JOINED[seed] if seed < len(JOINED) else None
        self.operation, self.held = operation, [stored(tensor, chance, joined) for tensor in inputs]
        self.given = parameters(self.held)
        results = tensors_in(operation(*inputs))
        self.shown = [stored(drawn(*result.shape), chance, joined) for result in results]
        self.taken = parameters(self.shown)

    def forward(self, x: Tensor) -> Tensor:
        inputs = [held.back(weight) for held, weight in zip(self.held, self.given, strict=True)]
        results = zip(tensors_in(self.operation(*inputs)), self.shown, self.taken, strict=True)
        return x + sum((result.double() * held.back(weight)).sum() for result, held, weight in results)


def parameters(held: list[Stored]) -> nn.ParameterList:
    return nn.ParameterList(nn.Parameter(one.tensor, requires_grad=False) for one in held)


def tensors_in(results: Any) -> list[Tensor]:
    return [results] if isinstance(results, Tensor) else list(results)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


# ---------------------------------------------------------------- one operation

X, IMAGE, PICTURES, VOLUME = (2, 3, 4), (3, 4, 4), (2, 4, 4, 4), (2, 3, 4, 4)
F = functional
INDEX, MASK = torch.tensor([0, 2, 1]), torch.tensor([[True, False, False], [True, True, False], [True, True, True]])

OPERATIONS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    **{f"{name} {dim}": (lambda x, f=f, dim=dim: f(x, dim=dim), (X,)) for dim in (0, 1, -1) for name, f in {
        "softmax": F.softmax, "log_softmax": F.log_softmax, "softmin": F.softmin, "normalize": F.normalize,
        "cumsum": torch.cumsum, "cumprod": torch.cumprod, "logcumsumexp": torch.logcumsumexp, "cummax": torch.cummax,
        "sort": torch.sort, "argsort": torch.argsort, "topk": lambda x, dim: x.topk(2, dim),
        "topk of all": lambda x, dim: x.topk(x.shape[dim], dim), "max": lambda x, dim: x.max(dim),
        "argmax": torch.argmax, "median": torch.median, "kthvalue": lambda x, dim: x.kthvalue(2, dim),
        "amax": torch.amax, "mean": torch.mean, "std": torch.std, "prod": torch.prod, "logsumexp": torch.logsumexp,
        "norm": lambda x, dim: x.norm(dim=dim), "var_mean": torch.var_mean, "aminmax": lambda x, dim: x.aminmax(dim=dim),
        "roll": lambda x, dim: x.roll(1, dim), "flip": lambda x, dim: x.flip(dim), "diff": torch.diff,
        "unbind": torch.unbind, "chunk": lambda x, dim: x.chunk(2, dim), "split": lambda x, dim: x.split(1, dim),
        "unequal split": lambda x, dim: x.split([1, x.shape[dim] - 1], dim), "select": lambda x, dim: x.select(dim, 1),
        "narrow": lambda x, dim: x.narrow(dim, 1, x.shape[dim] - 1), "unfold": lambda x, dim: x.unfold(dim, 2, 1),
        "cat": lambda x, dim: torch.cat([x, x.flip(0)], dim), "stack": lambda x, dim: torch.stack([x, -x], dim),
        "repeat_interleave": lambda x, dim: x.repeat_interleave(2, dim), "squared sum": lambda x, dim: (x * x.sum(dim, True)),
        "index_select": lambda x, dim: x.index_select(dim, INDEX[:1]), "gather": lambda x, dim: x.gather(dim, x.argsort(dim)),
    }.items()},
    "roll of all": (lambda x: x.roll(1), (X,)),
    "roll of two": (lambda x: x.roll((1, 2), (0, 2)), (X,)),
    "flip of two": (lambda x: x.flip(0, 2), (X,)),
    "argmax of all": (lambda x: x.argmax(), (X,)),
    "sort of flattened": (lambda x: x.flatten().sort()[0], (X,)),
    "median of all": (lambda x: x.median(), (X,)),
    "sum of all": (lambda x: x.sum() * x, (X,)),
    "softmax2d": (nn.Softmax2d(), (PICTURES,)),
    "softmax2d unbatched": (nn.Softmax2d(), (IMAGE,)),
    "layer_norm": (lambda x: F.layer_norm(x, (4,)), (X,)),
    "layer_norm of two": (lambda x: F.layer_norm(x, (3, 4)), (X,)),
    "layer_norm with weight": (lambda x, w, b: F.layer_norm(x, (4,), w, b), (X, (4,), (4,))),
    "layer_norm of two with weight": (lambda x, w: F.layer_norm(x, (3, 4), w), (X, (3, 4))),
    "native_layer_norm": (lambda x: torch.native_layer_norm(x, (3, 4), None, None, 1e-5), (X,)),
    "rms_norm": (lambda x: F.rms_norm(x, (4,)), (X,)),
    "rms_norm with weight": (lambda x, w: F.rms_norm(x, (3, 4), w), (X, (3, 4))),
    "group_norm": (lambda x: F.group_norm(x, 2), (PICTURES,)),
    "group_norm with weight": (lambda x, w, b: F.group_norm(x, 2, w, b), (PICTURES, (4,), (4,))),
    "group_norm of one": (lambda x, w: F.group_norm(x, 1, w), (PICTURES, (4,))),
    "native_group_norm": (lambda x, w, b: torch.native_group_norm(x, w, b, 2, 4, 16, 2, 1e-5), (PICTURES, (4,), (4,))),
    "instance_norm": (F.instance_norm, (PICTURES,)),
    "instance_norm with weight": (lambda x, w, b: F.instance_norm(x, weight=w, bias=b), (PICTURES, (4,), (4,))),
    "batch_norm": (lambda x, m, v: F.batch_norm(x, m, v.exp()), (PICTURES, (4,), (4,))),
    "batch_norm by its batch": (lambda x: F.batch_norm(x, None, None, training=True), (PICTURES,)),
    "batch_norm by its batch, with weight": (lambda x, w: F.batch_norm(x, None, None, w, training=True), (X, (3,))),
    "local_response_norm": (lambda x: F.local_response_norm(x, 2), (PICTURES,)),
    "weight_norm": (lambda v, g: torch._weight_norm(v, g, 0), (X, (2, 1, 1))),
    "weight_norm of the last": (lambda v, g: torch._weight_norm(v, g, 2), (X, (1, 1, 4))),
    "weight_norm of the middle": (lambda v, g: torch._weight_norm(v, g, 1), (X, (1, 3, 1))),
    **{f"{name}, {kind}": (f, (shape,)) for kind, shape1, shape2, shape3 in
       (("batched", (2, 3, 4), PICTURES, (2, 2, 2, 4, 4)), ("unbatched", (3, 4), IMAGE, VOLUME)) for name, f, shape in [
        ("avg_pool1d", lambda x: F.avg_pool1d(x, 2), shape1), ("max_pool1d", lambda x: F.max_pool1d(x, 3, 1, 1), shape1),
        ("adaptive_avg_pool1d", lambda x: F.adaptive_avg_pool1d(x, 2), shape1),
        ("adaptive_max_pool1d", lambda x: F.adaptive_max_pool1d(x, 2), shape1),
        ("avg_pool2d", lambda x: F.avg_pool2d(x, 2), shape2), ("avg_pool2d of rows", lambda x: F.avg_pool2d(x, (1, 2)), shape2),
        ("avg_pool2d of one size", lambda x: F.avg_pool2d(x, 3, 1, 1), shape2),
        ("max_pool2d", lambda x: F.max_pool2d(x, (2, 1)), shape2),
        ("max_pool2d and where", lambda x: F.max_pool2d(x, 3, 1, 1, return_indices=True), shape2),
        ("lp_pool2d", lambda x: F.lp_pool2d(x, 2, (1, 2)), shape2),
        ("adaptive_avg_pool2d", lambda x: F.adaptive_avg_pool2d(x, (4, 2)), shape2),
        ("adaptive_avg_pool2d to one", lambda x: F.adaptive_avg_pool2d(x, 1), shape2),
        ("adaptive_max_pool2d", lambda x: F.adaptive_max_pool2d(x, (2, 4)), shape2),
        ("avg_pool3d", lambda x: F.avg_pool3d(x, (1, 2, 2)), shape3),
        ("avg_pool3d of one size", lambda x: F.avg_pool3d(x, (1, 3, 3), 1, (0, 1, 1)), shape3),
        ("max_pool3d", lambda x: F.max_pool3d(x, (1, 1, 2)), shape3),
        ("adaptive_avg_pool3d", lambda x: F.adaptive_avg_pool3d(x, (None, 2, 4)), shape3),
        ("reflection_pad2d", lambda x: F.pad(x, (1, 1, 0, 0), "reflect"), shape2),
        ("replication_pad3d", lambda x: F.pad(x, (1, 1, 0, 0, 0, 0), "replicate"), shape3),
        ("circular pad", lambda x: F.pad(x, (1, 1), "circular"), shape1),
        ("constant pad", lambda x: F.pad(x, (1, 0, 0, 2)), shape2),
        ("pixel_shuffle", lambda x: F.pixel_shuffle(x[..., :1, :, :].expand(*x.shape[:-3], 4, 4, 4) * x.sum(), 2), shape2),
        ("pixel_unshuffle", lambda x: F.pixel_unshuffle(x, 2), shape2),
        ("unfold2d", lambda x: F.unfold(x, 2), shape2),
       ]},
    **{f"interpolate {mode}": (lambda x, m=mode: F.interpolate(x, scale_factor=2, mode=m), (s,)) for mode, s in
       (("nearest", X), ("linear", X), ("bilinear", (2, 3, 3, 2)), ("bicubic", (2, 3, 2, 2)),
        ("nearest-exact", (2, 3, 2, 2)), ("trilinear", (1, 2, 2, 2, 2)))},
    "fold": (lambda x: F.fold(x, (4, 4), 2, stride=2), ((2, 8, 4),)),
    "pixel_shuffle of channels": (lambda x: F.pixel_shuffle(x, 2), ((2, 8, 2, 3),)),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 3), ((2, 6, 2, 2),)),
    "linear": (F.linear, (X, (5, 4), (5,))),
    "matmul of batches": (torch.matmul, ((2, 3, 4), (2, 4, 2))),
    "matmul, broadcast": (torch.matmul, ((2, 1, 3, 4), (3, 4, 2))),
    "bilinear": (F.bilinear, ((2, 3), (2, 4), (2, 3, 4))),
    "einsum of a diagonal": (lambda x: torch.einsum("iij->j", x), ((3, 3, 4),)),
    "einsum of three": (lambda x, y, z: torch.einsum("abc,cd,ae->bde", x, y, z), (X, (4, 2), (2, 3))),
    "einsum of heads": (lambda q, k: torch.einsum("bhd,bgd->bhg", q, k), (X, X)),
    "outer": (torch.outer, ((3,), (4,))),
    "cdist": (torch.cdist, ((3, 4), (2, 4))),
    "cosine_similarity": (lambda x, y: F.cosine_similarity(x, y, dim=1), (X, X)),
    "cross": (lambda x, y: torch.cross(x, y, dim=1), (X, X)),
    "trace": (torch.trace, ((3, 3),)),
    "diagonal": (lambda x: x.diagonal(dim1=0, dim2=2), ((3, 2, 3),)),
    "diag_embed": (torch.diag_embed, ((2, 3),)),
    "tril": (torch.tril, ((2, 3, 3),)),
    **{f"conv, {n} groups": (lambda x, w, b, n=n: F.conv1d(x, w, b, padding=1, groups=n), ((2, 4, 3), (4, 4 // n, 3), (4,)))
       for n in (1, 2, 4)},
    **{f"transposed conv, {n} groups": (lambda x, w, b, n=n: F.conv_transpose1d(x, w, b, groups=n),
       ((2, 4, 3), (4, 2, 2), (2 * n,))) for n in (1, 2, 4)},
    "conv unbatched": (lambda x, w: F.conv2d(x, w), (IMAGE, (2, 3, 2, 2))),
    "embedding": (lambda w: F.embedding(INDEX, w), ((3, 4),)),
    "embedding_bag": (lambda w: F.embedding_bag(INDEX[None], w), ((3, 4),)),
    "index of one": (lambda x: x[:, INDEX], (X,)),
    "index of two": (lambda x: x[:, INDEX, INDEX], (X,)),
    "index of two apart": (lambda x: x[INDEX % 2, :, INDEX], (X,)),
    "index of a mask": (lambda x: x.masked_fill(MASK, 0.0), ((2, 3, 3),)),
    "filled where a mask is": (lambda x, y: (x * y).masked_fill_(MASK, 0.0), ((2, 3, 3), (2, 3, 3))),
    "index_add": (lambda x, y: x.index_add(1, INDEX, y), (X, X)),
    "scatter": (lambda x, y: x.scatter(1, INDEX.expand(2, 4, 3).mT, y), (X, X)),
    "written into": (lambda x, y: written_into(x, y), (X, (2, 4))),
    "written all over": (lambda x, y: written_all_over(x, y), ((2, 4), (2, 4))),
    "sliced": (lambda x: x[:, 1:, ::2], (X,)),
    "selected twice": (lambda x: (x[0].sum(0), x[:, 1].sum(0)), (X,)),
    "selected in both ways": (lambda x: (x[0] + x[1], x[:, 0] * x[:, 1]), ((2, 2, 4),)),
    **{f"stacked as a square, {name}": (lambda a, b, c, d, w, f=f: f(torch.stack([a, b, c, d]).view(2, 2, 2, 3)) * w,
       ((2, 3),) * 4 + ((2, 3),)) for name, f in (
        ("a row", lambda x: x[1].sum(0)), ("a column", lambda x: x[:, 1].sum(0)), ("one", lambda x: x[1, 0]),
        ("rows added", lambda x: x.sum(0)[1]), ("turned", lambda x: x.transpose(0, 1).flatten(0, 1)[1]))},
    "gradient": (lambda x: torch.gradient(x, dim=(0, 1)), ((3, 3, 3),)),
    "glu": (lambda x: F.glu(x, 1), ((2, 4, 3),)),
    "prelu": (F.prelu, (X, (3,))),
    "rrelu": (F.rrelu, (X,)),
    "logsigmoid": (F.logsigmoid, (X,)),
    "frexp": (torch.frexp, (X,)),
    "of one value": (lambda x: x.softmax(0) + x.cumsum(0) + x.sort(0)[0] + x.flip(0) + x.max(0)[0], ((),)),
    "of no values": (lambda x, y: torch.cat([x[:0].reshape(3, 0).T, y]), ((2, 3), (2, 3))),
    "strided as it is": (lambda x: x.as_strided((2, 1, 3, 4), (*x.stride()[:1], 7, *x.stride()[1:])), (X,)),
    "strided": (lambda x: x.contiguous().as_strided((3, 3), (1, 3)), ((3, 3),)),
    "expanded": (lambda x: x[:, :1].expand(2, 3, 4) * x.cumsum(1), (X,)),
    "repeated": (lambda x: x.repeat(2, 1, 2), (X,)),
    "tiled heads": (lambda x: x[:, None].expand(2, 2, 3, 4).reshape(2, 6, 4).softmax(1), (X,)),
    **{f"attention{name}": (lambda q, k, v, o=options: F.scaled_dot_product_attention(q, k, v, **o), ((2, 3, 4),) * 3)
       for name, options in (("", {}), (", causal", {"is_causal": True}), (", masked", {"attn_mask": MASK}))},
    "attention with a learned mask": (F.scaled_dot_product_attention, ((2, 3, 4), (2, 3, 4), (2, 3, 4), (3, 3))),
    "attention of grouped queries": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
                                     ((1, 4, 2, 3), (1, 2, 2, 3), (1, 2, 2, 3))),
    "lstm": (lambda x, w, h, b: torch.lstm(x, (x.new_zeros(1, 2, 2),) * 2, [w, h, b, -b], True, 1, 0.0, False, False, False),
             ((3, 2, 4), (8, 4), (8, 2), (8,))),
    "gru": (lambda x, w, h, b: torch.gru(x, x.new_zeros(1, 2, 2), [w, h, b, -b], True, 1, 0.0, False, False, False),
            ((3, 2, 4), (6, 4), (6, 2), (6,))),
}  # fmt: skip


def written_into(x: Tensor, y: Tensor) -> Tensor:
    x = x.clone()
    x[:, 1] = y
    x[:, 2].mul_(2)
    return x


def written_all_over(x: Tensor, y: Tensor) -> Tensor:
    both = torch.zeros(2, 2, 4, dtype=torch.float64)
    both[:, 0], both[:, 1] = x, y
    return both


@pytest.mark.parametrize("name", OPERATIONS)
def test_of_one_operation_no_axis_is_called_free_that_is_not(name: str, thorough: bool) -> None:
    operation, shapes = OPERATIONS[name]
    torch.manual_seed(0)
    for seed in range(STORED) if thorough else [HARDEST]:
        module = Operated([drawn(*shape) for shape in shapes], operation, seed).eval()
        said = infer(module, torch.zeros(1))
        assert not wrongly_free(module, said), said.axes


# ---------------------------------------------------------------- one after the other


def chosen(x: Tensor, chance: Random) -> tuple[str, Callable[..., Tensor], tuple[int, ...] | None]:
    """An operation on a tensor of this shape, with its name, and the shape of a parameter that it takes besides.

    What normalises adds its input, since units of two values each would come out alike.
    """
    dim, last = chance.randrange(x.ndim), x.shape[-1]
    size, half = x.shape[dim], x.shape[dim] // 2
    order = chance.sample(range(x.ndim), x.ndim)
    parts = [n for n in (2, 3, 4) if size % n == 0 and n < size]
    broadcast = tuple(chance.choice((1, n)) for n in x.shape)
    choices: list[tuple[str, Callable[..., Tensor], tuple[int, ...] | None]] = [
        (f"softmax {dim}", lambda x: x.softmax(dim), None),
        (f"normalize {dim}", lambda x: functional.normalize(x, dim=dim), None),
        (f"cumsum {dim}", lambda x: x.cumsum(dim), None),
        (f"sort {dim}", lambda x: x.sort(dim)[0], None),
        (f"flip {dim}", lambda x: x + x.flip(dim), None),
        (f"sum {dim}", lambda x: x * x.sum(dim, keepdim=True), None),
        (f"repeat_interleave {dim}", lambda x: x * x.narrow(dim, 0, 1).repeat_interleave(size, dim), None),
        ("layer_norm", lambda x: x + functional.layer_norm(x, (last,)), None),
        ("layer_norm with weight", lambda x, w: x + functional.layer_norm(x, (last,), w), (last,)),
        (f"permute {order}", lambda x: x.permute(order).clone(memory_format=torch.contiguous_format), None),
        ("add", lambda x, w: (x + w).tanh(), broadcast),
        ("linear", lambda x, w: x @ w, (last, chance.choice((2, 3, 4, 6)))),
        (f"select {dim}", lambda x: x * x.select(dim, size - 1).unsqueeze(dim), None),
        (f"write {dim}", lambda x, w: written_at(x, dim, size - 1, w), (*x.shape[:dim], *x.shape[dim + 1 :])),
        (f"stack {dim}", lambda x: torch.stack([x, x.sin()], dim).flatten(dim, dim + 1) if size < 4 else x, None),
    ]
    if half:
        choices += [
            (
                f"swapped {dim}",
                lambda x: torch.cat([x.narrow(dim, half, size - half), x.narrow(dim, 0, half)], dim),
                None,
            ),
            (f"halves {dim}", lambda x: x.narrow(dim, 0, half) * x.narrow(dim, size - half, half), None),
        ]
    if x.ndim > 2:
        between = chance.randrange(x.ndim - 1)
        choices += [
            (f"flatten {between}", lambda x: x.flatten(between, between + 1), None),
            ("attention", lambda x, w: functional.scaled_dot_product_attention(x, x.sin(), x * w), (last,)),
            ("batch_norm", lambda x: x + functional.batch_norm(x, None, None, training=True), None),
            ("avg_pool", lambda x: functional.avg_pool1d(x, 3, 1, 1) if x.ndim == 3 else x, None),
        ]
        if x.ndim == 3:
            choices.append(("conv", lambda x, w: functional.conv1d(x, w, padding=1), (4, x.shape[1], 3)))
    if parts:
        outer = chance.choice(parts)
        choices += [(f"unflatten {dim} {outer}", lambda x: x.unflatten(dim, (outer, -1)), None)] * 3
    if x.ndim > 1 and size % 2 == 0 and dim == 1:
        choices.append(("group_norm", lambda x: x + functional.group_norm(x, 2), None))
    return chance.choice(choices)


def written_at(x: Tensor, dim: int, index: int, value: Tensor) -> Tensor:
    x = x.clone()
    x.select(dim, index).copy_(value)
    return x


class Chain(nn.Module):
    """Operations drawn at random, on a parameter, with parameters."""

    def __init__(self, length: int, chance: Random):
        super().__init__()
        self.names: list[str] = []
        self.steps: list[tuple[Callable[..., Tensor], list[int]]] = []
        self.held = [stored(drawn(*chance.choice(((4, 6), (2, 3, 4), (4, 3, 2), (2, 6, 4)))), chance)]
        x = self.held[0].back(self.held[0].tensor)
        for _ in range(length):
            name, step, shape = chosen(x, chance)
            extra = [] if shape is None else [stored(drawn(*shape), chance)]
            result = step(x, *(held.back(held.tensor) for held in extra))
            if result.numel() > 200:
                continue
            self.names.append(name)
            self.steps.append((step, [*range(len(self.held), len(self.held) + len(extra))]))
            self.held, x = self.held + extra, result
        self.held.append(stored(drawn(*x.shape), chance))
        self.given = parameters(self.held)

    def forward(self, x: Tensor) -> Tensor:
        weights = [held.back(weight) for held, weight in zip(self.held, self.given, strict=True)]
        y = weights[0]
        for step, extra in self.steps:
            y = step(y, *(weights[place] for place in extra))
        return x + (y * weights[-1]).sum()


@pytest.mark.slow
@settings(deadline=None, max_examples=80, derandomize=True)
@given(seed=st.integers(0, 10**6), length=st.integers(2, 6))
def test_of_operations_one_after_the_other_no_axis_is_called_free_that_is_not(seed: int, length: int) -> None:
    torch.manual_seed(seed)
    module = Chain(length, Random(seed)).eval()
    said = infer(module, torch.zeros(1))
    assert not wrongly_free(module, said), (module.names, said.axes)
