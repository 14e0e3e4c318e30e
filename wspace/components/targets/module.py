"""Any torch module: all of its weights, or those whose names match."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from wspace.data.features import picture_shape
from wspace.interfaces import Architecture, Target
from wspace.interfaces.axes import names_in
from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.support.checkpoints import check_numbers, left_over, read_state, some_of
from wspace.support.errors import FileError, UserError, nearest, reason
from wspace.support.parameters import Default, Since, built
from wspace.support.seeding import seeded, stream
from wspace.weights.batched import cosine_scores
from wspace.weights.modules import CosineScores, FirstOutputs, check_memory, check_weights, copy_of, is_extra, tie
from wspace.weights.tracing.by_hand import checked
from wspace.weights.tracing.infer import Inferred, infer, weights_of
from wspace.weights.tracing.spec_file import read_spec

TOGETHER = 4096  # images that go through networks at once: more only takes more memory
LARGE = 16  # pixels of a side, from which on a CPU convolves for several networks sooner one by one than at once
LOOKS, LOOKED_AT = 2, 16  # random networks, and images of each, in which weights show what they serve
WHO, OUTPUT = "target 'module'", "output"
RUNNING = ("running_mean", "running_var")  # of a batch norm

Tensors = Mapping[str, Tensor]


class Module(Target):
    """An `architecture` with as many outputs as a text vector has values: temperature · cos(output, text).

    With `outputs`, it has so many instead, and they are the logits themselves: output k stands for the k-th class of the task,
    whose order means something then. A task of fewer classes leaves the last ones unused, and `temperature` is of no account.

    `select` says what is generated, by globs over the names of its state dict: `["*"]` all, `["out.*"]` the last layer of
    ours. A glob after `-` leaves out what it matches, wherever it stands in the list: `["*", "-*.bias"]` is all but biases,
    `["*", "-conv1.*"]` all but the first layer. Running means and variances of batch norm go with their layer; they are taken
    from training images after a network was trained or generated. Any other buffer (a mask, the mean of inputs) is generated
    only by a glob that matches buffers alone: `["*", "encoder.mask"]`. What is not selected stays as `file` or `seed` made it.

    Weights of `file` are also where selected tensors start, as far as it has them in this shape; which it has not is noted.
    Buffers that are not generated, counters among them, are kept aside, and are in the files of generated networks. Files
    keep the module's own number formats, float16 for example; here it computes in float32.

    Which hidden units may be permuted is found by tracing the module, unless the architecture says it or `spec` does, a file
    as `wspace.weights.tracing.spec_file` has it.
    """

    of_module: ClassVar[tuple[str, ...]] = ("architecture", "select", "spec", "file", "outputs")

    def __init__(
        self,
        architecture: Architecture = Default("mlp"),
        select: tuple[str, ...] = ("*",),
        spec: Path | None = None,
        file: Path | None = None,
        temperature: Annotated[float, Gt(0)] = 20.0,
        seed: int = 0,
        outputs: Annotated[Annotated[int, Ge(2)] | None, Since("0.2")] = None,
        *,
        feature_dim: int,
        text_dim: int,
    ):
        architecture = built("architecture", architecture)
        self.architecture, self.temperature, self.places = architecture, temperature, outputs or 0
        self._held: frozenset[str] = frozenset()  # tensors of which no gradient is asked for now
        self.width = outputs or text_dim  # of what a network gives of an image
        self.inputs: tuple[int, ...] = (feature_dim,)
        if architecture.sees == "pictures":
            self.inputs = picture_shape(feature_dim, WHO, "an architecture that sees features")
        with seeded(seed):
            self.network = architecture.build(self.inputs, self.width)
        _check_swappable(self.network)
        tie(self.network.eval().requires_grad_(False))
        self._names = _names(self.network)
        self._places = {first: _places(self.network, aliases) for first, aliases in self._names.items()}
        chosen = _selected(self.network, self._names, select)
        self._drawn, notes = (chosen, ()) if file is None else _fill(self.network, self._names, chosen, file)
        _check_values(self.network, chosen)
        self._norms = {
            name: layer for name, layer in _norms(self.network).items() if set(_statistics(name)) <= set(chosen)
        }
        self.statistics = tuple(statistic for name in self._norms for statistic in _statistics(name))
        # of parameters no copy: what they are called with takes their place, and nothing writes into them
        self._made = {
            name: tensor.detach() if isinstance(tensor, nn.Parameter) else tensor.clone()
            for name, tensor in _state(self.network).items()
        }
        self._compute_as(torch.zeros(0))
        self._check()
        self.spec = self._spec(chosen, spec)
        self.notes = (*notes, *self.spec.notes, *_unsaved(self.network))
        self._check_files(seed)

    # ------------------------------------------------------------ what its weights are

    def _spec(self, chosen: list[str], file: Path | None) -> WeightSpec:
        inferred = self._axes(file)
        held = {axis for name, texts in inferred.axes.items() if name not in chosen for axis in _axes_in(texts)}
        ours = {axis for name in chosen for axis in _axes_in(inferred.axes[name])}
        free = tuple(axis for axis in inferred.free if axis in ours - held)
        # with the axes that free ones are within, whose sizes would be open without the tensors that have them
        kept = {
            axis
            for name in chosen
            for text in inferred.axes[name]
            if {*names_in(text)} & {*free}
            for axis in names_in(text)
        }
        state, entries = self._made, []
        for name in chosen:
            shape = tuple(state[name].shape)
            texts = zip(inferred.axes[name], shape, strict=True)
            axes = tuple(text if kept.intersection(names_in(text)) else str(length) for text, length in texts)
            entries.append(WeightEntry(name, shape, axes))
        aside = {name for first in chosen for name in self._names[first][1:]}
        weights = {*dict(self.network.named_parameters(remove_duplicate=False)), *chosen}
        weights |= {statistic for name in _norms(self.network) for statistic in _statistics(name)}
        aside |= {name for name, tensor in state.items() if name not in weights or not tensor.is_floating_point()}
        notes = list(inferred.notes)
        if not free and (bound := sorted(ours & held & {*inferred.free})):
            others = [
                name for name, texts in inferred.axes.items() if name not in chosen and {*_axes_in(texts)} & {*bound}
            ]
            notes.append(
                f"units of {', '.join(bound)} stay in place: so do those of {', '.join(others)}, not generated"
            )
        return WeightSpec(
            tuple(entries), free, aside=tuple(name for name in state if name in aside), notes=tuple(notes)
        )

    def _axes(self, file: Path | None) -> Inferred:
        """Of all tensors, selected or not. A module that cannot be traced has no free ones, and a note why."""
        shapes = {name: tuple(tensor.shape) for name, tensor in weights_of(self.network).items()}
        if file is not None:
            return read_spec(file, shapes)
        by_hand = self.architecture.axes(self.network)
        if by_hand is not None:
            try:
                return checked(by_hand, shapes)
            except UserError as error:
                raise UserError(f"{WHO}: this architecture says of its axes: {error}") from error
        try:
            return infer(self.network, torch.zeros(2, *self.inputs))
        except UserError as error:
            in_place = {name: tuple(map(str, shape)) for name, shape in shapes.items()}
            return Inferred(in_place, (), (f"{WHO}: none of its units is permuted: {error}",))

    @property
    def _start(self) -> Tensor:
        """(P,), of the network as it was made: put together when it is asked for, or it would be there twice."""
        return self.spec.flatten({entry.name: self._made[entry.name].float() for entry in self.spec.entries})

    def init(self, count: int, rng: torch.Generator) -> Tensor:
        """As torch and the architecture initialise a module; from `file`, as far as it has the selected tensors."""
        if not self._drawn:
            return self._start.expand(count, -1).clone()
        rows, start = [], self.spec.unflatten(self._start)
        for seed in torch.randint(2**62, (count,), generator=rng).tolist():
            with seeded(seed):
                fresh = self.architecture.build(self.inputs, self.width).state_dict()
            tensors = start | {name: fresh[name].float() for name in self._drawn}
            rows.append(self.spec.flatten(tensors))
        return torch.stack(rows)

    def serves(self) -> Tensor | None:
        """By the gradients of each output in random networks: what no other output has one in."""
        return self._serving if self.places else None

    @cached_property
    @torch.enable_grad()
    def _serving(self) -> Tensor:
        """(P,), as `serves`: a recipe builds several systems for one target."""
        rng = stream(0, "serves")
        touched = torch.zeros(self.places, self.spec.size, dtype=torch.bool)
        for _ in range(LOOKS):
            noise = torch.randn(self.spec.size, generator=rng)
            weights = (self.init(1, rng) + 0.1 * noise).requires_grad_()
            outputs = self._outputs(weights, torch.randn(1, LOOKED_AT, prod(self.inputs), generator=rng))[0]
            for place, values in enumerate(outputs.square().sum(0)):
                (gradient,) = torch.autograd.grad(values, weights, retain_graph=True)
                touched[place] |= gradient[0] != 0
        return torch.where(touched.sum(0) == 1, touched.int().argmax(0), -1)

    def exported(self, weights: Tensor) -> dict[str, Tensor]:
        """What the architecture's own module takes by load_state_dict, with `strict=False` where not all is selected."""
        copies = {}
        for name, tensor in self._tensors(weights).items():
            for other in self._names[name]:  # a tensor of its own for each: files cannot share one
                copies[other] = tensor.detach().to(self._made[other].dtype, copy=True)
        return copies | {
            name: self._made[name].to(weights.device, copy=True) for name in self.spec.aside if name not in copies
        }

    def frozen(self, weights: Tensor, texts: Tensor) -> CosineScores | FirstOutputs:
        """The architecture's own module, with these weights."""
        network = copy_of(self.network).to(weights)
        network.load_state_dict({**self._made, **self.exported(weights)}, strict=False)
        if self.places:
            return FirstOutputs(network, self.inputs, len(texts))
        return CosineScores(network, self.inputs, texts, self.temperature)

    # ------------------------------------------------------------ what its networks compute

    def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:
        return self._scores(self._outputs(weights, features), texts)

    def training_logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:
        if not self._norms:
            return self.logits(weights, features, texts)
        with self._of_these_images(features):
            return self._scores(self._outputs(weights, features), texts)

    @contextmanager
    def holding(self, trained: Tensor) -> Iterator[None]:
        held = [name for name, place in self.spec.slices.items() if not trained[place].any()]
        before, self._held = self._held, frozenset(held)
        try:
            yield
        finally:
            self._held = before

    @torch.no_grad()
    def calibrated(self, weights: Tensor, features: Tensor) -> Tensor:
        """As batch norm's running statistics are after one pass in training mode, with `momentum=None`."""
        if not self._norms:
            return weights
        with self._of_these_images(features):
            statistics = self._each(self._seen_by_norms, weights, features)
        return self.spec.flatten({**self.spec.unflatten(weights), **statistics})

    def _scores(self, outputs: Tensor, texts: Tensor) -> Tensor:
        if self.places:
            return outputs[..., : texts.shape[1]]
        return cosine_scores(outputs.to(texts), texts, self.temperature)

    def _outputs(self, weights: Tensor, features: Tensor) -> Tensor:
        through = weights.requires_grad and torch.is_grad_enabled()
        call = self._call_differentiably if through else self._call
        return self._each(lambda tensors, images: {OUTPUT: call(tensors, images)}, weights, features)[OUTPUT]

    def _tensors(self, weights: Tensor) -> dict[str, Tensor]:
        """(..., P) -> name: (..., *shape). Generated variances may be below 0, of which there is no root."""
        tensors = self.spec.unflatten(weights)
        tensors |= {name: tensors[name].detach() for name in self._held}
        return tensors | {f"{name}.running_var": tensors[f"{name}.running_var"].clamp_min(0) for name in self._norms}

    def _each(self, function: Callable[[Tensors, Tensor], Tensors], weights: Tensor, features: Tensor) -> Tensors:
        """Of one network's tensors and images (M, F), for each of (B, P) and (B, M, F): the values, stacked."""
        self._compute_as(weights)
        tensors, count = self._tensors(weights), len(weights)
        images, alone = features.unflatten(2, self.inputs), self._goes_alone(features.device)
        if self.together and not alone:
            chunk = max(1, TOGETHER // features.shape[1])
            return vmap(function, chunk_size=chunk if chunk < count else None)(tensors, images)
        layout = torch.channels_last if alone else torch.contiguous_format
        each = {name: batch.unbind() for name, batch in tensors.items()}  # their gradient is put together once
        rows = [
            function({name: batch[b] for name, batch in each.items()}, images[b].contiguous(memory_format=layout))
            for b in range(count)
        ]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def _goes_alone(self, device: torch.device) -> bool:
        """Whether networks go one by one all the same, their channels last: what a CPU does with large convolutions."""
        return device.type == "cpu" and self._convolves

    @cached_property
    def _convolves(self) -> bool:
        """Whether it sees large pictures, by convolutions of all channels or of one, and nothing else but its last layer."""
        layers = [layer for layer in self.network.modules() if isinstance(layer, nn.Linear | nn.Conv2d)][:-1]
        plain = all(isinstance(layer, nn.Conv2d) and layer.groups in (1, layer.in_channels) for layer in layers)
        return len(self.inputs) == 3 and self.inputs[-1] >= LARGE and bool(layers) and plain

    def _compute_as(self, like: Tensor) -> None:
        """On its device, and in its precision; complex buffers stay complex, as they would not by `network.to(like)`."""
        network = self.network.to(like.device)
        network.double() if like.dtype == torch.float64 else network.float()

    def _call(self, tensors: Tensors, images: Tensor) -> Tensor:
        """(M, *inputs) -> (M, T)."""
        given = {place: tensor for name, tensor in tensors.items() for place in self._places[name]}
        return functional_call(self.network, given, (images,), tie_weights=False)

    def _call_differentiably(self, tensors: Tensors, images: Tensor) -> Tensor:
        """As `_call`: torch's batch norm has no gradient for its running statistics, so they are applied before it."""
        reading = {name: layer for name, layer in self._norms.items() if not layer.training}
        tensors, hooks = dict(tensors), list[RemovableHandle]()
        for name, layer in reading.items():
            mean, variance = (tensors[f"{name}.{kind}"] for kind in RUNNING)
            tensors[f"{name}.running_mean"] = torch.zeros_like(mean)
            tensors[f"{name}.running_var"] = torch.ones_like(mean) - layer.eps

            def hook(
                _: nn.Module, inputs: tuple[Tensor, ...], mean: Tensor = mean, scale: Tensor = variance + layer.eps
            ) -> Tensor:
                shape = (-1, *[1] * (inputs[0].ndim - 2))
                return (inputs[0] - mean.view(shape)) * scale.rsqrt().view(shape)

            hooks.append(layer.register_forward_pre_hook(hook))
        try:
            return self._call(tensors, images)
        finally:
            for handle in hooks:
                handle.remove()

    def _seen_by_norms(self, tensors: Tensors, images: Tensor) -> Tensors:
        """Mean and unbiased variance, channel by channel, of all that comes to each batch norm; of several calls, the mean."""
        seen: dict[str, list[Tensor]] = {}

        def note(name: str) -> RemovableHandle:
            def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
                over = [dim for dim in range(inputs[0].ndim) if dim != 1]
                seen.setdefault(f"{name}.running_mean", []).append(inputs[0].mean(over))
                seen.setdefault(f"{name}.running_var", []).append(inputs[0].var(over))

            return self._norms[name].register_forward_pre_hook(hook)

        hooks = [note(name) for name in self._norms]
        try:
            self._call(tensors, images)
        finally:
            for hook in hooks:
                hook.remove()
        return {name: torch.stack(values).mean(0) for name, values in seen.items()}

    @contextmanager
    def _of_these_images(self, features: Tensor) -> Iterator[None]:
        """The selected batch norms take the statistics of the images that come by, and keep none. Raises UserError."""
        if features.shape[1] < 2:
            raise UserError(f"{WHO}: batch norm needs two images at once, at least: raise zoo.batch")
        for layer in self._norms.values():
            layer.training, layer.track_running_stats = True, False
        try:
            yield
        finally:
            for layer in self._norms.values():
                layer.training, layer.track_running_stats = False, True

    def _check(self) -> None:
        """Raises UserError unless the module gives (M, T), image by image."""
        images = torch.randn(2, prod(self.inputs), generator=stream(0, "module check")).unflatten(1, self.inputs)
        others = [name for name in self._names if self._made[name].dtype != torch.float32]
        why = f"{others[0]} is {_dtype(self._made[others[0]])}, and in float32 " if others else ""
        try:
            alone, both = self._call({}, images[:1]), self._call({}, images)
        except Exception as error:
            shape = " x ".join(map(str, self.inputs))
            whose = ", as backbone.side has it" if self.architecture.sees == "pictures" else ""
            raise UserError(
                f"{WHO}: {why}this architecture fails on images of {shape}{whose}: {reason(error)}"
            ) from error
        wanted = (2, self.width)
        if not isinstance(both, Tensor) or tuple(both.shape) != wanted:
            got = tuple(both.shape) if isinstance(both, Tensor) else f"a {type(both).__name__}"
            raise UserError(f"{WHO}: this architecture gives {got} for two images, where {wanted} was asked for")
        if not both.is_floating_point():
            raise UserError(f"{WHO}: this architecture gives {_dtype(both)} numbers, where real ones were asked for")
        if not torch.isfinite(both).all():
            raise UserError(f"{WHO}: this architecture gives values that are not finite numbers")
        if not torch.allclose(alone[0], both[0], rtol=1e-3, atol=1e-3 * float(both.abs().max())):
            raise UserError(f"{WHO}: this architecture mixes the images of a batch, in evaluation mode too")

    @torch.no_grad()
    def _check_files(self, seed: int) -> None:
        """Raises UserError unless a module computes, with the file of other weights, what it does with these weights here."""
        rng = stream(0, "module files check")
        images = torch.randn(2, prod(self.inputs), generator=rng).unflatten(1, self.inputs)
        start, noise = self._start, torch.randn(self.spec.size, generator=rng)
        exported = self.exported(start + 0.1 * start.square().mean().sqrt().clamp_min(0.1) * noise)
        as_read = self.spec.flatten({entry.name: exported[entry.name].float() for entry in self.spec.entries})
        here = self._call(self._tensors(as_read), images)
        with seeded(seed):  # what is in no file, a recipe draws from it
            module = copy_of(self.architecture.build(self.inputs, self.width)).float()
        try:
            module.load_state_dict({**self._made, **exported}, strict=False)
        except RuntimeError as error:
            raise UserError(
                f"{WHO}: this architecture does not load weights of its own shapes: {reason(error)}"
            ) from error
        there = module(images)
        size = float(here.nan_to_num(0, 0, 0).abs().max())
        if not torch.allclose(here, there, rtol=1e-3, atol=1e-3 * size, equal_nan=True):
            raise UserError(
                f"{WHO}: with generated weights this architecture computes something else than with a file of them: it keeps "
                "a weight, or what follows from one, beside its parameters and buffers: read the parameter itself in forward"
            )

    @cached_property
    def together(self) -> bool:
        """Whether torch can call many networks at once, and does not do it one by one."""
        images = torch.randn(2, prod(self.inputs), generator=stream(0, "module check")).unflatten(1, self.inputs)
        try:
            with warnings.catch_warnings(), torch.enable_grad():  # whoever asks first
                warnings.filterwarnings("error", message=".*performance drop")
                self._try_together(images)
        except Exception:  # of the module's own code, or of a rule that vmap lacks
            return False
        return True

    def _try_together(self, images: Tensor) -> None:
        """Two networks, and back. Raises what vmap raises."""
        tensors = self._tensors(torch.stack([self._start.to(images)] * 2).requires_grad_())
        outputs = vmap(self._call_differentiably)(tensors, torch.stack([images] * 2))
        outputs.sum().backward()


def _state(network: nn.Module) -> dict[str, Tensor]:
    """The tensors of a state dict, which may hold an extra state of any kind besides."""
    return {name: value for name, value in network.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}


def _unsaved(network: nn.Module) -> Iterator[str]:
    """A note, if a state dict has what no file of tensors can hold."""
    extra = [name for name in network.state_dict() if name not in _state(network)]
    if extra:
        yield f"{WHO}: {extra[0]} is no tensor, and is not in the files of networks: load them with strict=False"


def _check_swappable(network: nn.Module) -> None:
    """Raises UserError for a module whose weights are not there, or cannot be others."""
    check_weights(network, WHO)
    for name, tensor in _state(network).items():
        if tensor.is_meta:
            raise UserError(f"{WHO}: {name} is on the device meta and has no values: make it on the CPU")
    if isinstance(network, torch.jit.ScriptModule):
        raise UserError(f"{WHO}: this architecture is a scripted module, whose weights stay: give the module itself")


def _names(network: nn.Module) -> dict[str, tuple[str, ...]]:
    """Of each tensor of floating numbers in a state dict, its names: several, if it is tied. Raises UserError."""
    by_tensor: dict[int, list[str]] = {}
    for name, tensor in _state(network).items():
        if not tensor.is_floating_point() or is_extra(name):
            continue
        if tensor.dtype == torch.float64:
            raise UserError(f"{WHO}: {name} is float64, and weights are generated in float32: make it float32")
        by_tensor.setdefault(id(tensor), []).append(name)
    return {names[0]: tuple(names) for names in by_tensor.values()}


def _norms(network: nn.Module) -> dict[str, _BatchNorm]:
    """Batch norms that keep running statistics, by name."""
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, _BatchNorm)}
    return {name: layer for name, layer in layers.items() if layer.running_mean is not None}


def _statistics(norm: str) -> tuple[str, ...]:
    return tuple(f"{norm}.{kind}" if norm else kind for kind in RUNNING)


def _places(network: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """Of a tensor's names, one for each module that has it: functional_call would not put back what it swaps in twice."""
    owners = {
        (id(network.get_submodule(owner)), last): name for name in names for owner, _, last in [name.rpartition(".")]
    }
    return tuple(owners.values())


def _selected(network: nn.Module, names: Mapping[str, tuple[str, ...]], globs: Sequence[str]) -> list[str]:
    """First names of what is to be generated. Raises UserError for a glob that matches nothing."""
    parameters = dict(network.named_parameters(remove_duplicate=False))
    others = {name: tensor for name, tensor in parameters.items() if not tensor.is_floating_point()}
    every = [*(name for aliases in names.values() for name in aliases), *others]
    for glob in globs:
        if not any(fnmatchcase(name, glob.removeprefix("-")) for name in every):
            pattern = glob.removeprefix("-")
            raise UserError(f"{WHO}: select: no tensor is called {pattern!r}{nearest(pattern, every)}")
    wanted = [glob for glob in globs if not glob.startswith("-")]
    unwanted = [glob.removeprefix("-") for glob in globs if glob.startswith("-")]

    def matches(aliases: Sequence[str], globs: Sequence[str]) -> bool:
        return any(fnmatchcase(name, glob) for name in aliases for glob in globs)

    for name, tensor in others.items():
        if matches([name], wanted) and not matches([name], unwanted):
            raise UserError(
                f"{WHO}: {name} is {_dtype(tensor)}, and weights are generated in float32: leave it out, by '-{name}' in select"
            )
    statistics = {statistic: norm for norm in _norms(network) for statistic in _statistics(norm)}
    of_buffers = [glob for glob in wanted if not any(fnmatchcase(name, glob) for name in parameters)]
    asked, layers = set[str](), set[str]()
    for first, aliases in names.items():
        by_name = wanted if first in parameters or first in statistics else of_buffers
        if matches(aliases, by_name) and not matches(aliases, unwanted):
            asked.add(first)
            layers.update({first.rpartition(".")[0]} if first in parameters else ())
    chosen = [
        first
        for first, aliases in names.items()
        if (first in asked or statistics.get(first) in layers) and not matches(aliases, unwanted)
    ]
    if not chosen:
        raise UserError(f"{WHO}: select leaves nothing to generate")
    return chosen


def _check_values(network: nn.Module, chosen: Sequence[str]) -> None:
    """Raises UserError unless what is to be generated are finite numbers, each with a place of its own."""
    state = _state(network)
    for name in chosen:
        if not torch.isfinite(state[name]).all():
            raise UserError(
                f"{WHO}: {name} holds values that are not finite numbers: leave it out, by '-{name}' in select"
            )
    check_memory(network, chosen, WHO)


@torch.no_grad()
def _fill(
    network: nn.Module, names: Mapping[str, tuple[str, ...]], chosen: Sequence[str], file: Path
) -> tuple[list[str], tuple[str, ...]]:
    """Give the network a checkpoint's weights; the selected ones that it has not in this shape, and a note of them.

    Raises FileError for a checkpoint of another architecture, of which a classifier alone may be left over.
    """
    given, state, missing = read_state(file), _state(network), list[str]()
    check_numbers(file, given, state)
    left = left_over(given, state)
    for first, aliases in names.items():
        tensor = next((given[name] for name in aliases if name in given), None)
        if tensor is not None and tensor.shape == state[first].shape:
            state[first].copy_(tensor)
        elif first in chosen:
            missing.append(first)
        else:
            raise FileError(f"{file}: its tensors do not fit this architecture (the first that does not: {first})")
    if len(missing) == len(names):
        holds = f": it holds {some_of(left)}, where {some_of(missing)} are looked for" if left else ""
        raise FileError(f"{file}: none of its tensors fits this architecture{holds}")
    if left:
        raise FileError(f"{file}: holds tensors that this architecture has not: {some_of(left)}")
    for name, tensor in state.items():
        if not tensor.is_floating_point() and name in given and given[name].shape == tensor.shape:
            tensor.copy_(given[name])
    network.load_state_dict({name: given[name] for name in state if is_extra(name) and name in given}, strict=False)
    note = f"{WHO}: {file} does not have these in this shape, and they start as the architecture makes them: {some_of(missing)}"
    return missing, (note,) if missing else ()


def _axes_in(texts: Sequence[str]) -> set[str]:
    return {axis for text in texts for axis in names_in(text)}


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
