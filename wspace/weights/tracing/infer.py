"""The permutations of hidden units of any module, found by tracing it: which dimensions of its tensors are one axis.

Ainsworth et al. (2022, appendix A.3) write such a specification by hand for each architecture. Here the module runs once on
tensors that hold no values, and each operation says which dimensions are one (`wspace.weights.tracing.rules`).
"""

from __future__ import annotations

import operator
import traceback
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count, groupby
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from wspace.interfaces.axes import solved
from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.support.errors import UserError
from wspace.weights.modules import check_memory, check_weights, copy_of
from wspace.weights.tracing.rules import NotUnderstood, Traced, layouts_in, rule_of
from wspace.weights.tracing.unification import (
    Digit,
    Dim,
    Layout,
    Term,
    fixed,
    is_pinned,
    length,
    members_of,
    normal,
    outers,
    pin,
    renewed,
    repeated,
    restrict,
    settle,
)


@dataclass(frozen=True)
class Inferred:
    """Of every parameter and floating buffer the axes of its dimensions (`wspace.interfaces.axes`), and which are free."""

    axes: dict[str, tuple[str, ...]]  # name of a tensor -> an axis for each dimension
    free: tuple[str, ...]  # axes that may be permuted
    notes: tuple[str, ...] = ()  # what was not understood, one sentence each

    def spec(self, module: nn.Module) -> WeightSpec:
        """Of all these tensors of the module, as one flat vector."""
        shapes = {name: tuple(tensor.shape) for name, tensor in weights_of(module).items()}
        return WeightSpec(
            tuple(WeightEntry(n, shapes[n], axes) for n, axes in self.axes.items()), self.free, notes=self.notes
        )


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and floating buffers that a checkpoint holds; tied ones once, by their first name."""
    named = dict(module.named_parameters()) | dict(module.named_buffers())
    return {n: named[n] for n in module.state_dict() if n in named and named[n].is_floating_point()}


def infer(module: nn.Module, *inputs: Tensor) -> Inferred:
    """The largest group of permutations that the operations are known to allow, from one run on inputs of these shapes.

    What an operation is not known to allow stays in place, and is noted. Raises UserError for a module that cannot be
    traced.
    """
    weights = weights_of(module)
    graph = _traced(module, weights, inputs)
    walk = _Walk(graph, list(weights))
    axes, free = _written(walk)
    notes = (f"operation {name} is not understood: the axes that it reads stay in place" for name in walk.missing)
    return Inferred(axes, free, tuple(notes))


# ---------------------------------------------------------------- a graph


def _wrappers() -> dict[type, str]:
    """What runs another module, with the attribute that holds it."""
    return {
        torch._dynamo.OptimizedModule: "_orig_mod",  # asked for late: it imports torch's compiler, and most never trace
        nn.DataParallel: "module",
        nn.parallel.DistributedDataParallel: "module",
    }


def _traced(module: nn.Module, weights: Mapping[str, Tensor], inputs: tuple[Tensor, ...]) -> fx.Graph:
    who, instead = f"{type(module).__name__} cannot be traced", "write its axes by hand (docs/symmetries.md)"
    for wrapper, inner in _wrappers().items():
        if isinstance(module, wrapper):
            raise UserError(f"{who}: it only wraps a module; give that one, its attribute {inner}")
    for place, given in enumerate(inputs):
        if isinstance(given, Tensor) and not given.numel():
            raise UserError(
                f"{who}: input {place} has shape {[*given.shape]}, and so no values; give one that has some"
            )
    from torch.fx.experimental.proxy_tensor import make_fx  # late, as above

    check_weights(module, who)
    check_memory(module, dict(module.named_parameters()), who)
    traced = with_its_tensors(module)

    def call(tensors: list[Tensor], given: tuple[Tensor, ...]) -> list[Tensor]:
        outputs = functional_call(traced, dict(zip(weights, tensors, strict=True)), given)
        return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]

    try:
        with torch.no_grad(), _without_fused_kernels():
            values = [weight.detach() for weight in weights.values()]
            graph = make_fx(call, tracing_mode="fake", _allow_non_fake_inputs=True)(values, inputs).graph
    except Exception as error:  # of the module's own code, of any kind
        raise UserError(f"{who}: {_why(error)}; {instead}") from error
    results = [leaf for node in graph.nodes for leaf in pytree.tree_leaves(node.meta.get("val"))]
    if not all(isinstance(n, int) for result in results if isinstance(result, Tensor) for n in result.shape):
        raise UserError(f"{who}: the size of a tensor in it depends on the values of another; {instead}")
    graph.eliminate_dead_code()
    return graph


def with_its_tensors(module: nn.Module) -> nn.Module:
    """A copy in evaluation that has the very tensors, so that whatever the module keeps of a run is not kept in it."""
    return copy_of(module, [*module.parameters(), *module.buffers()])


@contextmanager
def _without_fused_kernels() -> Iterator[None]:
    """Of a transformer's layers in evaluation, which are one operation each."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _why(error: Exception) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "torch" not in Path(f.filename).parts]
    frames = [f for f in frames if f.filename not in (__file__, "<string>")]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    if any(word in type(error).__name__ for word in ("DataDependent", "DynamicOutputShape")):
        return f"what it does depends on the values of a tensor{where}"
    message = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{type(error).__name__}: {message}{where}"


class _Walk:
    """Through a graph, operation by operation."""

    def __init__(self, graph: fx.Graph, names: list[str]):
        nodes = list(graph.nodes)
        places = {node: place for place, node in enumerate(nodes)}
        self.weights: dict[str, Layout] = {}
        self.used: dict[str, int] = {}  # the place where a weight is first read
        self.missing: dict[str, None] = {}  # operations without a rule
        self.layouts: dict[fx.Node, Any] = {}
        self.changed = {_source(written) for node in nodes for written in _written_into(node)}
        given = iter(names)
        for node in nodes:
            if node.op == "placeholder" and (name := next(given, None)) is not None:
                layout = Traced([[Digit(n)]] for n in node.meta["val"].shape)
                self.weights[name] = self.layouts[node] = layout
                self.used[name] = min((places[user] for user in node.users), default=len(nodes))
                if not node.users or not prod(map(length, layout)):
                    pin(layout)
            elif node.op == "placeholder":
                self.layouts[node] = _in_place(node.meta["val"])
            elif node.op == "get_attr":
                kept = getattr(graph.owning_module, str(node.target))  # a tensor, or a function that an operation runs
                self.layouts[node] = _constant(kept) if isinstance(kept, Tensor) else None
            elif node.op == "output":
                pin([dim for layout in layouts_in(self._arguments(node.args)) for dim in layout])
            else:
                self.layouts[node] = self._called(node)

    def _arguments(self, written: Any) -> Any:
        return fx.map_arg(written, self._read)

    def _read(self, node: fx.Node) -> Any:
        layouts = self.layouts[node]
        if _source(node) in self.changed:  # what repeats may not do so for long
            return layouts
        return pytree.tree_map_only(Traced, lambda layout: Traced(renewed(layout)), layouts)

    def _called(self, node: fx.Node) -> Any:
        args, kwargs = self._arguments(node.args), self._arguments(node.kwargs)
        if node.target is operator.getitem:
            return args[0][args[1]]
        results = node.meta.get("val")
        tensors = [value for value in pytree.tree_leaves(results) if isinstance(value, Tensor)]
        if not tensors:
            return None
        shapes = [tuple(tensor.shape) for tensor in tensors]
        if not any(map(prod, shapes)):  # no values
            return _in_place(results)
        try:
            if _moves_values(node):
                raise NotUnderstood
            by_rule = rule_of(node.target)(_by_name(node.target, args, kwargs), shapes)
            several = not isinstance(results, Tensor)
            layouts = [Traced(layout) for layout in (by_rule if several else (by_rule,))]
            if [tuple(map(length, layout)) for layout in layouts] != shapes:
                raise NotUnderstood
        except NotUnderstood:
            touched = [dim for layout in layouts_in([args, kwargs]) for dim in layout]
            if not all(map(is_pinned, touched)):
                self.missing[str(node.target)] = None
            pin(touched)
            return _in_place(results)
        for layout in layouts:
            settle(layout)
        return layouts if several else layouts[0]


def _written_into(node: fx.Node) -> Iterator[fx.Node]:
    """The arguments that the operation changes."""
    if isinstance(node.target, torch._ops.OpOverload):
        given = _by_name(node.target, node.args, node.kwargs)
        for argument in node.target._schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                yield from (leaf for leaf in pytree.tree_leaves(given[argument.name]) if isinstance(leaf, fx.Node))


def _source(node: fx.Node) -> fx.Node:
    """The tensor of which it is a view, perhaps of a view of it, or which it changes."""
    while node.args and isinstance(first := node.args[0], fx.Node) and _shares_storage(node.target):
        node = first
    return node


def _shares_storage(operation: Any) -> bool:
    if operation is operator.getitem:
        return True
    return isinstance(operation, torch._ops.OpOverload) and operation._schema.arguments[0].alias_info is not None


def _moves_values(node: fx.Node) -> bool:
    """Whether the strides that it is given are others than those that its input has."""
    if node.target not in (torch.ops.aten.as_strided.default, torch.ops.aten.as_strided_.default):
        return False
    before, after = node.all_input_nodes[0].meta["val"], node.meta["val"]
    steps = [[pair for pair in zip(x.shape, x.stride(), strict=True) if pair[0] != 1] for x in (before, after)]
    return steps[0] != steps[1] or before.storage_offset() != after.storage_offset()


def _by_name(operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    arguments = operation._schema.arguments
    given = {argument.name: value for argument, value in zip(arguments, args, strict=False)}
    return {a.name: a.default_value for a in arguments if a.has_default_value()} | given | dict(kwargs)


def _constant(tensor: Tensor) -> Layout:
    alike = tensor.numel() > 0 and bool((tensor == tensor.flatten()[0]).all())
    return Traced((repeated if alike else fixed)(n) for n in tensor.shape)


def _in_place(values: Any) -> Any:
    """Layouts, in which nothing moves, of a tensor or of several."""
    return pytree.tree_map_only(Tensor, lambda tensor: Traced(fixed(n) for n in tensor.shape), values)


# ---------------------------------------------------------------- in words


def _written(walk: _Walk) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Axes of each weight, and the free ones."""
    while any(_made_writable(term) for layout in walk.weights.values() for dim in layout for term in _stretches(dim)):
        pass
    names = _named(walk)
    sizes = {name: digit.size for digit, name in names.items()}
    plain = {weight: tuple(_text(dim, names, ()) for dim in layout) for weight, layout in walk.weights.items()}
    lengths = {
        text: length(dim) for w, layout in walk.weights.items() for text, dim in zip(plain[w], layout, strict=True)
    }
    unsolved = _unsolved(lengths, sizes)
    axes = {weight: tuple(_text(dim, names, unsolved) for dim in layout) for weight, layout in walk.weights.items()}
    return axes, tuple(sizes)


def _unsolved(lengths: Mapping[str, int], sizes: Mapping[str, int]) -> set[str]:
    """Axes whose sizes the lengths of dimensions leave open, and which are written behind the name."""
    solved_sizes, unsolved = dict[str, int](), set[str]()
    while True:
        solutions = [pair for text, n in lengths.items() if (pair := solved(text, n, solved_sizes))]
        if not solutions:
            unknown = next((axis for axis in sizes if axis not in solved_sizes), None)
            if unknown is None:
                return unsolved
            unsolved.add(unknown)
            solutions = [(unknown, sizes[unknown])]
        solved_sizes.update(solutions)


def _named(walk: _Walk) -> dict[Digit, str]:
    """Free digits, after the module whose weight is the first to have them; outer ones before those within them."""
    names, taken = dict[Digit, str](), set[str]()
    for weight in sorted(walk.weights, key=walk.used.__getitem__):
        module, _, tensor = weight.rpartition(".")
        for dim in walk.weights[weight]:
            terms = [[digit for digit in term if not digit.pinned] for term in _stretches(dim)]
            roles = _roles({digit: None for term in terms for digit in term if digit not in names}, terms)
            parent = module.rpartition(".")[0]
            stem = parent if parent and tensor == "weight" and "qk" in roles.values() else module or tensor
            stem = f"layer{stem}" if stem.isdigit() else stem
            for digit, role in roles.items():
                plain = f"{stem}.{role}" if role else stem
                others = (f"{plain}.{number}" for number in count(1))
                names[digit] = next(name for name in chain([plain], others) if name not in taken)
                taken.add(names[digit])
    return names


def _roles(new: Mapping[Digit, None], terms: list[list[Digit]]) -> dict[Digit, str]:
    """What each of a dimension's new digits is in it, beside its module's output as such ('')."""
    inner = list(dict.fromkeys(term[-1] for term in terms if term and term[-1] in new))
    outer = {d: d.role for term in terms if len(term) == 2 and (d := term[0]) in new}
    if len(terms) == 3 and terms[0] == terms[1] != terms[2] and [len(term) for term in terms] == [2, 2, 2]:
        inner_roles = dict(zip(inner, ("qk", "v"), strict=False))
    else:
        inner_roles = {digit: str(place) if len(inner) > 1 else "" for place, digit in enumerate(inner)}
    return outer | {digit: role for digit, role in inner_roles.items() if digit not in outer}


def _stretches(dim: Dim) -> Dim:
    """Without the digits of which single values are taken: those values are stretches of their own."""
    stretches = []
    for term in normal(dim):
        if term and term[0].selected and any(term[0] in outers(digit) for digit in term[1:] if not digit.pinned):
            stretches += [stretch for member in members_of(term) for stretch in _stretches([member])]
        else:
            stretches.append(term)
    return stretches


def _made_writable(term: Term) -> bool:
    """Whether something had to be given up for which `wspace.interfaces.axes` has no notation.

    It has repeats of an axis, of slices in each unit of one, and of an axis within each unit of another, side by side.
    """
    free = [digit for digit in term if not digit.pinned]
    for digit in free:
        staying = {outer for outer in outers(digit) if outer.pinned}
        if staying:
            restrict(digit, outers(digit) - staying)
            return True
    first, last = free[:1], term.index(free[-1]) if free else 0
    wrong = [digit for digit in first if outers(digit)]
    for digit in free[1:]:
        if outers(digit) != set(first) or term.index(digit) != term.index(first[0]) + 1 or last + 1 < len(term):
            wrong.append(digit)
    pin([[wrong[:1]]])
    return bool(wrong)


def _text(dim: Dim, names: Mapping[Digit, str], with_sizes: Container[str]) -> str:
    """A dimension in the notation of `wspace.interfaces.axes`, with the sizes of these axes."""
    terms = list[tuple[int, str]]()  # how often, and what; of what stays, how much
    for term in _stretches(dim):
        free = [digit for digit in term if not digit.pinned]
        before = term.index(free[0]) if free else 0
        times, slices = length([term[:before]]), length([term[before + len(free) :]])
        if not free:
            terms.append((length([term]), ""))
            continue
        text = "/".join(names[d] + (f"[{d.size}]" if names[d] in with_sizes else "") for d in free)
        terms.append((times, text + (f"/{slices}" if slices > 1 else "")))
    texts = []
    for text, stretches in groupby(terms, key=lambda term: term[1]):
        times = sum(n for n, _ in stretches)
        texts.append(str(times) if not text else text if times == 1 else f"{times}*{text}")
    return " + ".join(texts)
