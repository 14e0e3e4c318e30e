"""What each operation of a traced graph says of the dimensions it reads and writes.

A rule gets the operation's arguments by name, tensors as their `Layout`, and the shapes of what comes out. It says which
dimensions are the same (`unify`) and which must stay in place (`pin`), and gives the layout of what comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from wspace.weights.tracing.unification import (
    Digit,
    Dim,
    Layout,
    as_product,
    at,
    cut,
    digits_of,
    fixed,
    length,
    one_of,
    outers,
    pin,
    repeated,
    reshaped,
    restrict,
    selector,
    settle,
    unify,
)

Shape = tuple[int, ...]
Arguments = dict[str, Any]
Rule = Callable[[Arguments, list[Shape]], Any]  # a Layout, or a tuple of them for an operation with several results

RULES: dict[str, Rule] = {}
"""By the operation's name, whatever its overload; one that ends in _ writes into its first argument, by the same rule."""


class NotUnderstood(Exception):
    """An operation, or this use of one, of which no rule is known."""


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def add(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return add


def rule_of(operation: Any) -> Rule:
    """Raises NotUnderstood."""
    if not isinstance(operation, torch._ops.OpOverload):  # one that runs functions, such as torch.cond
        raise NotUnderstood(str(operation))
    name = operation._schema.name.removeprefix("aten::")
    plain = name.removesuffix("_")
    rule = RULES.get(name) or RULES.get(plain)
    if rule is not None:
        return rule
    if torch.Tag.pointwise in operation.tags or _is_pointwise(getattr(torch.ops.aten, plain, None)):
        return pointwise
    raise NotUnderstood(name)


def _is_pointwise(operation: Any) -> bool:
    """By any of its overloads: of an operation that writes into its argument, torch often tags the other form alone."""
    overloads = [] if operation is None else operation.overloads()
    return any(torch.Tag.pointwise in getattr(operation, overload).tags for overload in overloads)


def along(x: Layout, dims: int | Sequence[int] | None) -> list[int]:
    """The places of these dimensions, however they are counted; None and an empty list mean all of them."""
    dims = [dims] if isinstance(dims, int) else dims
    return [dim % len(x) for dim in dims] if x and dims else list(range(len(x)))


def mixed(x: Layout, places: Sequence[int]) -> None:
    """Values along these dimensions come together: what the others hold is the same for every value of these."""
    met = set(digits_of([x[place] for place in places]))
    for digit in list(digits_of([dim for place, dim in enumerate(x) if place not in places])):
        restrict(digit, outers(digit) - met)


def layouts_in(value: Any) -> list[Layout]:
    """Of the tensors of an argument, or of several arguments."""
    if isinstance(value, dict):
        value = list(value.values())
    if is_layout(value):
        return [value]
    return [layout for item in value for layout in layouts_in(item)] if isinstance(value, list | tuple) else []


def is_layout(value: Any) -> bool:
    return isinstance(value, Traced)


class Traced(list[Dim]):
    """A `Layout`, told from an argument that is a list."""


# ---------------------------------------------------------------- value by value


@_rule("hardswish", "_to_copy", "copy", "fill", "zero", "_prelu_kernel", "lift_fresh_copy", "lift_fresh", "detach")
@_rule("alias", "frexp")
def pointwise(args: Arguments, shapes: list[Shape]) -> Layout | tuple[Layout, ...]:
    together = _together(layouts_in(args), shapes[0])
    return together if len(shapes) == 1 else (together,) * len(shapes)


@_rule("native_dropout", "rrelu_with_noise", "rrelu_with_noise_functional")
def _random_in_training(args: Arguments, shapes: list[Shape]) -> Layout | tuple[Layout, ...]:
    if args["train"] if "train" in args else args["training"]:
        raise NotUnderstood("random numbers")
    return pointwise(args, shapes)


@_rule("log_sigmoid_forward")
def _log_sigmoid(args: Arguments, shapes: list[Shape]) -> tuple[Layout, ...]:
    """Beside the values what only the gradient needs, which some devices leave empty."""
    return args["self"], args["self"] if len(shapes[1]) == len(args["self"]) else [fixed(n) for n in shapes[1]]


def _together(layouts: Sequence[Layout], shape: Shape) -> Layout:
    """Of tensors that are broadcast to this shape: along each dimension, those longer than 1 are the same."""
    together: Layout = [[[]] for _ in shape]
    pairs: list[tuple[Dim, Dim]] = []
    for layout in layouts:
        for place, dim in enumerate(layout, start=len(shape) - len(layout)):
            if length(dim) != 1:
                pairs += [(together[place], dim)] if together[place] != [[]] else []
                together[place] = dim if together[place] == [[]] else together[place]
    for left, right in sorted(
        pairs, key=lambda pair: any(map(outers, digits_of([*pair])))
    ):  # outer digits before inner ones
        unify(left, right)
    return together


@_rule("_softmax", "_log_softmax", "_safe_softmax", "softmax", "log_softmax")
def _softmax(args: Arguments, shapes: list[Shape]) -> Layout:
    x = args["self"]
    mixed(x, along(x, args["dim"]))
    return x


@_rule("cumsum", "cumprod", "flip", "roll", "logcumsumexp")
def _in_order(args: Arguments, shapes: list[Shape]) -> Layout:
    x = args["self"]
    places = along(x, args["dims"] if "dims" in args else args["dim"])
    mixed(x, places)
    pin([x[place] for place in places])
    return x


@_rule("tril", "triu")
def _triangle(args: Arguments, shapes: list[Shape]) -> Layout:
    pin(args["self"][-2:])
    return args["self"]


@_rule("zeros", "ones", "full", "empty", "zeros_like", "ones_like", "full_like", "empty_like", "scalar_tensor")
@_rule("new_zeros", "new_ones", "new_full", "new_empty", "empty_strided", "new_empty_strided")
def _constant(args: Arguments, shapes: list[Shape]) -> Layout:
    return [repeated(n) for n in shapes[0]]


@_rule("arange", "eye", "linspace", "tril_indices", "triu_indices")
def _counting(args: Arguments, shapes: list[Shape]) -> Layout:
    return [fixed(n) for n in shapes[0]]


# ---------------------------------------------------------------- products


@_rule("mm")
def _mm(args: Arguments, shapes: list[Shape]) -> Layout:
    left, right = args["self"], args["mat2"]
    _contracted(left[1], right[0])
    return [left[0], right[1]]


@_rule("addmm")
def _addmm(args: Arguments, shapes: list[Shape]) -> Layout:
    _contracted(args["mat1"][1], args["mat2"][0])
    return _together([[args["mat1"][0], args["mat2"][1]], args["self"]], shapes[0])


@_rule("bmm")
def _bmm(args: Arguments, shapes: list[Shape]) -> Layout:
    return _batched(args["self"], args["mat2"])


@_rule("baddbmm")
def _baddbmm(args: Arguments, shapes: list[Shape]) -> Layout:
    return _together([_batched(args["batch1"], args["batch2"]), args["self"]], shapes[0])


def _batched(left: Layout, right: Layout) -> Layout:
    unify(left[0], right[0])
    _contracted(left[2], right[1], left[0])
    return [left[0], left[1], right[2]]


@_rule("mv")
def _mv(args: Arguments, shapes: list[Shape]) -> Layout:
    _contracted(args["self"][1], args["vec"][0])
    return args["self"][:1]


@_rule("dot", "vdot")
def _dot(args: Arguments, shapes: list[Shape]) -> Layout:
    left, right = layouts_in(args)
    _contracted(left[0], right[0])
    return []


def _contracted(left: Dim, right: Dim, *shared: Dim) -> None:
    """Summed over, in tensors that have the `shared` dimensions in common."""
    unify(left, right)
    settle([left, *shared])


@_rule("convolution")
def _convolution(args: Arguments, shapes: list[Shape]) -> Layout:
    x, weight, bias, groups = args["input"], args["weight"], args["bias"], args["groups"]
    spatial = len(weight) - 2
    pin([*x[len(x) - spatial :], *weight[2:]])
    channels = x[-spatial - 1]
    first, second = weight[:2]
    if groups == 1:
        _contracted(channels, second if not args["transposed"] else first)
        out = first if not args["transposed"] else second
    else:  # each group of channels has weights of its own
        group = Digit(groups, role="groups")
        unify(channels, [[group, *_within(second, length(channels) // groups, group, not args["transposed"])]])
        if args["transposed"]:
            unify(channels, first)
            out = [[group, *_part(second)]]
        else:
            unify(first, [[group, Digit(length(first) // groups, {group})]])
            out = first
    if bias:
        unify(bias[0], out)
    return [*x[: -spatial - 1], out, *(fixed(n) for n in shapes[0][len(shapes[0]) - spatial :])]


def _within(weight: Dim, size: int, group: Digit, alike: bool) -> list[Digit]:
    """A group's input channels: alike in all groups, if one dimension of the weight serves them all."""
    return _part(weight) if alike else [Digit(size, {group})]


def _part(dim: Dim) -> list[Digit]:
    part = Digit(length(dim))
    unify([[part]], dim)
    return [part]


@_rule("mkldnn_rnn_layer")
def _lstm(args: Arguments, shapes: list[Shape]) -> tuple[Layout, ...]:
    """One layer in one direction, (time, batch, units); weights have the units of four gates, one gate after the other."""
    if args["mode"] != 2:
        raise NotUnderstood("a recurrent layer that is none of an LSTM")
    x, units = args["input"], [[Digit(args["hidden_size"])]]
    mixed(x, [0])
    pin([x[0]])
    _contracted(x[2], args["weight0"][1])
    unify(args["weight1"][1], units)
    for name in ("weight0", "weight1", "weight2", "weight3"):
        unify(args[name][0], units * 4)
    for name in ("hx_", "cx_"):
        unify(args[name][-2], x[1])
        unify(args[name][-1], units)
    y, *states, _ = [[*([[]] for _ in shape[:-2]), x[1], units] for shape in shapes]
    return [x[0], *y[1:]], *states, [fixed(n) for n in shapes[-1]]


# ---------------------------------------------------------------- normalisation


@_rule("native_batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit", "cudnn_batch_norm")
@_rule("_batch_norm_no_update")
def _batch_norm(args: Arguments, shapes: list[Shape]) -> tuple[Layout, ...]:
    x = args["input"]
    if args.get("training"):  # by the statistics of what comes in
        mixed(x, [place for place in range(len(x)) if place != 1])
    for name in ("weight", "bias", "running_mean", "running_var"):
        if args.get(name):
            unify(args[name][0], x[1])
    return x, *([x[1]] if shape == (length(x[1]),) else [fixed(n) for n in shape] for shape in shapes[1:])


@_rule("native_layer_norm", "_fused_rms_norm")
def _layer_norm(args: Arguments, shapes: list[Shape]) -> tuple[Layout, ...]:
    x = args["input"]
    first = len(x) - len(args["normalized_shape"])
    mixed(x, range(first, len(x)))
    parameters = [args[name] for name in ("weight", "bias") if args.get(name)]
    statistics: Layout = [*x[:first], *([[]] for _ in x[first:])]
    return _together([x, *parameters], shapes[0]), *(statistics for _ in shapes[1:])


@_rule("native_group_norm")
def _group_norm(args: Arguments, shapes: list[Shape]) -> tuple[Layout, ...]:
    x, groups = args["input"], args["group"]
    mixed(x, range(1, len(x)))
    group = Digit(groups, role="groups")
    unify(x[1], [[group, Digit(length(x[1]) // groups, {group})]])
    for name in ("weight", "bias"):
        if args[name]:
            unify(args[name][0], x[1])
    return x, *([x[0], [[group]]] for _ in shapes[1:])


@_rule("_weight_norm_interface")
def _weight_norm(args: Arguments, shapes: list[Shape]) -> tuple[Layout, ...]:
    """Each slice along a dimension by its own norm, and times its own size."""
    direction, size = args["v"], args["g"]
    kept = along(direction, args["dim"])
    mixed(direction, [place for place in range(len(direction)) if place not in kept])
    weight = _together([direction, size], shapes[0])
    return weight, [dim if place in kept else [[]] for place, dim in enumerate(weight)]


# ---------------------------------------------------------------- fewer values


@_rule(
    "sum",
    "mean",
    "amax",
    "amin",
    "var",
    "std",
    "var_mean",
    "prod",
    "logsumexp",
    "linalg_vector_norm",
    "norm",
    "any",
    "all",
)
def _reduction(args: Arguments, shapes: list[Shape]) -> Layout | tuple[Layout, ...]:
    x = args["self"]
    gone = along(x, args.get("dim"))
    kept = [dim if place not in gone else [[]] for place, dim in enumerate(x)]
    reduced = kept if args.get("keepdim") else [dim for place, dim in enumerate(kept) if place not in gone]
    return reduced if len(shapes) == 1 else (reduced,) * len(shapes)


@_rule("max", "min", "argmax", "argmin", "sort", "topk", "median", "kthvalue", "mode")
def _position(args: Arguments, shapes: list[Shape]) -> Layout | tuple[Layout, ...]:
    """Whose results tell a place along a dimension."""
    if "other" in args:
        return pointwise(args, shapes)
    x = args["self"]
    places = along(x, args.get("dim"))
    mixed(x, places)
    pin([x[place] for place in places])
    results = []
    for shape in shapes:
        if len(shape) == len(x):
            results.append([old if length(old) == n else fixed(n) for old, n in zip(x, shape, strict=True)])
        else:
            results.append([old for place, old in enumerate(x) if place not in places])
    return tuple(results) if len(shapes) > 1 else results[0]


def _spatial(count: int, args: Arguments, shapes: list[Shape]) -> Layout | tuple[Layout, ...]:
    """Channels stay apart, with a batch in front of them or none; pixels, of so many dimensions, are where they are."""
    x = args.get("self") or args["input"]
    kept = x[: len(x) - count]
    pin(x[len(x) - count :])
    done = [*kept, *(fixed(n) for n in shapes[0][len(kept) :])]
    return done if len(shapes) == 1 else (done,) * len(shapes)


_rule("avg_pool1d", "adaptive_avg_pool1d", "max_pool1d_with_indices", "adaptive_max_pool1d")(partial(_spatial, 1))
_rule("upsample_nearest1d", "_upsample_nearest_exact1d", "upsample_linear1d")(partial(_spatial, 1))
_rule("reflection_pad1d", "replication_pad1d")(partial(_spatial, 1))
_rule("avg_pool2d", "_adaptive_avg_pool2d", "max_pool2d_with_indices", "adaptive_max_pool2d")(partial(_spatial, 2))
_rule("upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d")(partial(_spatial, 2))
_rule("upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")(partial(_spatial, 2))
_rule("reflection_pad2d", "replication_pad2d")(partial(_spatial, 2))
_rule("avg_pool3d", "_adaptive_avg_pool3d", "max_pool3d_with_indices", "adaptive_max_pool3d")(partial(_spatial, 3))
_rule("upsample_nearest3d", "_upsample_nearest_exact3d", "upsample_trilinear3d")(partial(_spatial, 3))
_rule("reflection_pad3d", "replication_pad3d")(partial(_spatial, 3))


# ---------------------------------------------------------------- the same values, elsewhere


@_rule("view", "_unsafe_view", "reshape", "_reshape_alias", "squeeze", "unsqueeze", "squeeze_copy", "as_strided")
def _view(args: Arguments, shapes: list[Shape]) -> Layout:
    """Of the same values in the same order, which the walk has made sure of where strides are given."""
    if "dtype" in args:
        raise NotUnderstood("view as another type")
    return reshaped(args["self"], shapes[0])


@_rule("permute")
def _permute(args: Arguments, shapes: list[Shape]) -> Layout:
    return [args["self"][dim] for dim in args["dims"]]


@_rule("t", "transpose", "numpy_T")
def _transpose(args: Arguments, shapes: list[Shape]) -> Layout:
    if "dim0" not in args:
        return args["self"][::-1]
    layout = list(args["self"])
    if layout:
        one, other = args["dim0"], args["dim1"]
        layout[one], layout[other] = layout[other], layout[one]
    return layout


@_rule("channel_shuffle", "native_channel_shuffle")
def _channel_shuffle(args: Arguments, shapes: list[Shape]) -> Layout:
    batch, channels, *pixels = shapes[0]
    groups = args["groups"]
    batch_dim, outer, inner, *rest = reshaped(args["self"], (batch, groups, channels // groups, *pixels))
    return reshaped([batch_dim, inner, outer, *rest], shapes[0])


@_rule("pixel_shuffle", "pixel_unshuffle")
def _pixel_shuffle(args: Arguments, shapes: list[Shape]) -> Layout:
    """Of squares of pixels that lie side by side among the channels, or come to: they are slices of a unit."""
    x, shape = args["self"], shapes[0]
    factor = args["upscale_factor"] if "upscale_factor" in args else args["downscale_factor"]
    squares = fixed(factor**2)
    pin(x[-2:])
    if "upscale_factor" in args:
        channels = [[Digit(shape[-3]), *squares[0]]]
        unify(x[-3], channels)
        channels = [channels[0][:1]]
    else:
        channels = [[*term, *squares[0]] for term in x[-3]]
    return [*x[:-3], channels, fixed(shape[-2]), fixed(shape[-1])]


@_rule("expand")
def _expand(args: Arguments, shapes: list[Shape]) -> Layout:
    x = args["self"]
    padded = [[[]]] * (len(shapes[0]) - len(x)) + x
    return [repeated(n) if length(dim) == 1 else dim for dim, n in zip(padded, shapes[0], strict=True)]


@_rule("repeat")
def _repeat(args: Arguments, shapes: list[Shape]) -> Layout:
    x = args["self"]
    padded = [[[]]] * (len(shapes[0]) - len(x)) + x
    times = [repeated(n)[0] for n in args["repeats"]]
    return [[[*which, *as_product(dim)]] if which else dim for which, dim in zip(times, padded, strict=True)]


@_rule("select")
def _select(args: Arguments, shapes: list[Shape]) -> Layout:
    return _one(args["self"], args["dim"], args["index"])


@_rule("unbind")
def _unbind(args: Arguments, shapes: list[Shape]) -> tuple[Layout, ...]:
    return tuple(_one(args["self"], args["dim"], index) for index in range(len(shapes)))


def _one(x: Layout, dim: int, index: int) -> Layout:
    dim %= len(x)
    others = [other for place, other in enumerate(x) if place != dim]
    return at(others, x[dim], index % length(x[dim]))


@_rule("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "chunk")
def _split(args: Arguments, shapes: list[Shape]) -> tuple[Layout, ...]:
    x, dim = args["self"], args["dim"]
    parts, start = [], 0
    for shape in shapes:
        parts.append(_stretch(x, dim, start, start + shape[dim]))
        start += shape[dim]
    return tuple(parts)


@_rule("slice")
def _slice(args: Arguments, shapes: list[Shape]) -> Layout:
    x, dim, n = args["self"], args["dim"], length(args["self"][args["dim"]])
    start, end, step = slice(args["start"], args["end"], args["step"]).indices(n)
    if step == 1:
        return _stretch(x, dim, start, max(start, end))
    pin([x[dim]])
    return _replaced(x, dim, fixed(shapes[0][dim]))


def _stretch(x: Layout, dim: int, start: int, end: int) -> Layout:
    if end - start == length(x[dim]):
        return x
    if end - start == 1:
        layout = _one(x, dim, start)
        layout.insert(dim % len(x), [[]])
        return layout
    _, rest = cut(x[dim], start)
    return _replaced(x, dim, cut(rest, end - start)[0] or fixed(0))


def _replaced(x: Layout, dim: int, by: Dim) -> Layout:
    layout = list(x)
    layout[dim] = by
    return layout


@_rule("glu")
def _glu(args: Arguments, shapes: list[Shape]) -> Layout:
    x, dim = args["self"], args["dim"]
    half = length(x[dim]) // 2
    parts = [_stretch(x, dim, 0, half), _stretch(x, dim, half, 2 * half)]
    return _together(parts, shapes[0])


@_rule("cat", "concat")
def _cat(args: Arguments, shapes: list[Shape]) -> Layout:
    layouts = [layout for layout in args["tensors"] if len(layout) == len(shapes[0])]
    dim = args["dim"] % len(shapes[0])
    joined = [term for layout in layouts for term in layout[dim]]
    for digit in [digit for layout in layouts for digit in digits_of(layout)]:
        restrict(digit, outers(digit) - set(digits_of([joined])))
    together = _together([_replaced(layout, dim, [[]]) for layout in layouts], _without(shapes[0], dim))
    return _replaced(together, dim, joined)


def _without(shape: Shape, dim: int) -> Shape:
    return (*shape[:dim], 1, *shape[dim + 1 :])


@_rule("stack")
def _stack(args: Arguments, shapes: list[Shape]) -> Layout:
    layouts = args["tensors"]
    which = selector(len(layouts))
    stacked: Layout = [one_of(which, dims) for dims in zip(*layouts, strict=True)]
    stacked.insert(args["dim"] % len(shapes[0]), [[which]])
    return stacked


@_rule("constant_pad_nd")
def _pad(args: Arguments, shapes: list[Shape]) -> Layout:
    layout = list(args["self"])
    for place in range(len(args["pad"]) // 2):
        before, after = args["pad"][2 * place : 2 * place + 2]
        if before < 0 or after < 0:
            raise NotUnderstood("negative padding")
        dim = len(layout) - 1 - place
        ends = [fixed(n) if n else [] for n in (before, after)]
        layout[dim] = [*ends[0], *layout[dim], *ends[1]]
    return layout


@_rule("embedding")
def _embedding(args: Arguments, shapes: list[Shape]) -> Layout:
    pin([args["weight"][0]])
    return [*args["indices"], *args["weight"][1:]]


@_rule("_embedding_bag", "_embedding_bag_forward_only")
def _embedding_bag(args: Arguments, shapes: list[Shape]) -> tuple[Layout, ...]:
    table, *others = layouts_in(args)
    pin([table[0], *(dim for other in others for dim in other)])
    return [fixed(shapes[0][0]), table[1]], *([fixed(n) for n in shape] for shape in shapes[1:])


@_rule("index_select")
def _index_select(args: Arguments, shapes: list[Shape]) -> Layout:
    pin([*args["self"][args["dim"] :][:1], *args["index"]])
    return _replaced(args["self"], args["dim"], fixed(shapes[0][args["dim"]])) if args["self"] else []


@_rule("index", "_unsafe_index")
def _index(args: Arguments, shapes: list[Shape]) -> Layout:
    """Dimensions that are not indexed keep their places, if those that are lie side by side."""
    x, indices = args["self"], args["indices"]
    places = [place for place, index in enumerate(indices) if index is not None]
    pin([*(x[place] for place in places), *(dim for index in layouts_in(indices) for dim in index)])
    new = len(shapes[0]) - (len(x) - len(places))
    first = places[0] if places == list(range(places[0], places[-1] + 1)) else 0
    kept = [dim for place, dim in enumerate(x) if place not in places]
    return [*kept[:first], *(fixed(n) for n in shapes[0][first : first + new]), *kept[first:]]
