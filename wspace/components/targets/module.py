"""Any torch module: all of its weights, or those whose names match."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from wspace.data.features import picture_shape
from wspace.interfaces import Architecture, Target
from wspace.interfaces.axes import names_in
from wspace.interfaces.weights import WeightEntry, WeightSpec
from wspace.support.checkpoints import read_state
from wspace.support.errors import FileError, UserError, nearest, reason
from wspace.support.parameters import Default, built
from wspace.support.seeding import seeded, stream
from wspace.weights.batched import cosine_scores
from wspace.weights.tracing.by_hand import checked
from wspace.weights.tracing.infer import Inferred, infer, weights_of
from wspace.weights.tracing.spec_file import read_spec

TOGETHER = 4096  # images that go through networks at once: more only takes more memory
WHO, OUTPUT = "target 'module'", "output"
RUNNING = ("running_mean", "running_var")  # of a batch norm

Tensors = Mapping[str, Tensor]


class Module(Target):
    """An `architecture` with as many outputs as a text vector has values: temperature · cos(output, text).

    `select` says what is generated, by globs over the names of its state dict: `["*"]` all, `["out.*"]` the last layer of
    ours, `["*", "-*.bias"]` all but biases. Running means and variances of batch norm go with their layer; they are taken
    from training images after a network was trained or generated. What is not selected stays as `file` or `seed` made it.

    Weights of `file` are also where selected tensors start, as far as it has them in this shape. Whole numbers (counters),
    which are no weights, are kept aside, and are in the files of generated networks.

    Which hidden units may be permuted is found by tracing the module, unless the architecture says it or `spec` does, a file
    as `wspace.weights.tracing.spec_file` has it.
    """

    def __init__(
        self,
        architecture: Architecture = Default("mlp"),
        select: tuple[str, ...] = ("*",),
        spec: Path | None = None,
        file: Path | None = None,
        temperature: Annotated[float, Gt(0)] = 20.0,
        seed: int = 0,
        *,
        feature_dim: int,
        text_dim: int,
    ):
        architecture = built("architecture", architecture)
        self.architecture, self.temperature, self.text_dim = architecture, temperature, text_dim
        self.inputs: tuple[int, ...] = (feature_dim,)
        if architecture.sees == "pictures":
            self.inputs = picture_shape(feature_dim, WHO, "an architecture that sees features")
        with seeded(seed):
            self.network = architecture.build(self.inputs, text_dim).eval().requires_grad_(False)
        self._names = _names(self.network)
        self._places = {first: _places(self.network, aliases) for first, aliases in self._names.items()}
        chosen = _selected(self.network, self._names, select)
        self._drawn = chosen if file is None else _fill(self.network, self._names, chosen, file)
        self._norms = {
            name: layer
            for name, layer in self.network.named_modules()
            if isinstance(layer, _BatchNorm) and {f"{name}.{kind}" for kind in RUNNING} <= set(chosen)
        }
        self.statistics = tuple(f"{name}.{kind}" for name in self._norms for kind in RUNNING)
        self._check()
        self.spec = self._spec(chosen, spec)

    # ------------------------------------------------------------ what its weights are

    def _spec(self, chosen: list[str], file: Path | None) -> WeightSpec:
        inferred = self._axes(file)
        self.notes = inferred.notes
        held = {axis for name, texts in inferred.axes.items() if name not in chosen for axis in _axes_in(texts)}
        ours = {axis for name in chosen for axis in _axes_in(inferred.axes[name])}
        free = tuple(axis for axis in inferred.free if axis in ours - held)
        state, entries = self.network.state_dict(), []
        for name in chosen:
            shape = tuple(state[name].shape)
            texts = zip(inferred.axes[name], shape, strict=True)
            axes = tuple(text if set(names_in(text)) & set(free) else str(length) for text, length in texts)
            entries.append(WeightEntry(name, shape, axes))
        aside = {name for first in chosen for name in self._names[first][1:]}
        aside |= {name for name, tensor in state.items() if not tensor.is_floating_point()}
        return WeightSpec(
            tuple(entries), free, aside=tuple(name for name in state if name in aside), notes=inferred.notes
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

    def init(self, count: int, rng: torch.Generator) -> Tensor:
        """As torch and the architecture initialise a module; from `file`, as far as it has the selected tensors."""
        pretrained = self.spec.flatten(self.network.state_dict()).float()
        if not self._drawn:
            return pretrained.expand(count, -1).clone()
        rows = []
        for seed in torch.randint(2**62, (count,), generator=rng).tolist():
            with seeded(seed):
                fresh = self.architecture.build(self.inputs, self.text_dim).state_dict()
            tensors = self.spec.unflatten(pretrained) | {name: fresh[name] for name in self._drawn}
            rows.append(self.spec.flatten(tensors).float())
        return torch.stack(rows)

    def exported(self, weights: Tensor) -> dict[str, Tensor]:
        """What the architecture's own module takes by load_state_dict, with `strict=False` where not all is selected."""
        state, tensors = self.network.state_dict(), self._tensors(weights)
        copies = {}
        for name, tensor in tensors.items():
            for other in self._names[name]:  # a tensor of its own for each: files cannot share one
                copies[other] = tensor.detach().to(state[other].dtype, copy=True)
        return copies | {name: state[name].clone() for name in self.spec.aside if name not in copies}

    # ------------------------------------------------------------ what its networks compute

    def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:
        return self._scores(self._outputs(weights, features), texts)

    def training_logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:
        if not self._norms:
            return self.logits(weights, features, texts)
        with self._of_these_images(features):
            return self._scores(self._outputs(weights, features), texts)

    @torch.no_grad()
    def calibrated(self, weights: Tensor, features: Tensor) -> Tensor:
        """As batch norm's running statistics are after one pass in training mode, with `momentum=None`."""
        if not self._norms:
            return weights
        with self._of_these_images(features):
            statistics = self._each(self._seen_by_norms, weights, features)
        return self.spec.flatten({**self.spec.unflatten(weights), **statistics})

    def _scores(self, outputs: Tensor, texts: Tensor) -> Tensor:
        return cosine_scores(outputs, texts, self.temperature)

    def _outputs(self, weights: Tensor, features: Tensor) -> Tensor:
        through = weights.requires_grad and torch.is_grad_enabled()
        call = self._call_differentiably if through else self._call
        return self._each(lambda tensors, images: {OUTPUT: call(tensors, images)}, weights, features)[OUTPUT]

    def _tensors(self, weights: Tensor) -> dict[str, Tensor]:
        """(..., P) -> name: (..., *shape). Generated variances may be below 0, of which there is no root."""
        tensors = self.spec.unflatten(weights)
        return tensors | {f"{name}.running_var": tensors[f"{name}.running_var"].clamp_min(0) for name in self._norms}

    def _each(self, function: Callable[[Tensors, Tensor], Tensors], weights: Tensor, features: Tensor) -> Tensors:
        """Of one network's tensors and images (M, F), for each of (B, P) and (B, M, F): the values, stacked."""
        self.network.to(weights)
        tensors, count = self._tensors(weights), len(weights)
        if self.together:
            chunk = max(1, TOGETHER // features.shape[1])
            return vmap(function, chunk_size=chunk if chunk < count else None)(tensors, features)
        rows = [function({name: batch[b] for name, batch in tensors.items()}, features[b]) for b in range(count)]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def _call(self, tensors: Tensors, images: Tensor) -> Tensor:
        """(M, F) -> (M, T)."""
        given = {place: tensor for name, tensor in tensors.items() for place in self._places[name]}
        return functional_call(self.network, given, (images.unflatten(1, self.inputs),), tie_weights=False)

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
        images = torch.randn(2, prod(self.inputs), generator=stream(0, "module check"))
        try:
            alone, both = self._call({}, images[:1]), self._call({}, images)
        except Exception as error:
            shape = " x ".join(map(str, self.inputs))
            raise UserError(f"{WHO}: this architecture fails on images of {shape}: {reason(error)}") from error
        wanted = (2, self.text_dim)
        if not isinstance(both, Tensor) or tuple(both.shape) != wanted:
            got = tuple(both.shape) if isinstance(both, Tensor) else f"a {type(both).__name__}"
            raise UserError(f"{WHO}: this architecture gives {got} for two images, where {wanted} was asked for")
        if not torch.allclose(alone[0], both[0], rtol=1e-3, atol=1e-3 * float(both.abs().max())):
            raise UserError(f"{WHO}: this architecture mixes the images of a batch, in evaluation mode too")

    @cached_property
    def together(self) -> bool:
        """Whether torch can call many networks at once, and does not do it one by one."""
        images = torch.randn(2, prod(self.inputs), generator=stream(0, "module check"))
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message=".*performance drop")
                self._try_together(images)
        except Exception:  # of the module's own code, or of a rule that vmap lacks
            return False
        return True

    def _try_together(self, images: Tensor) -> None:
        """Two networks, and back. Raises what vmap raises."""
        flat = self.spec.flatten(self.network.state_dict()).to(images)
        tensors = self._tensors(torch.stack([flat] * 2).requires_grad_())
        outputs = vmap(self._call_differentiably)(tensors, torch.stack([images] * 2))
        outputs.sum().backward()


def _names(network: nn.Module) -> dict[str, tuple[str, ...]]:
    """Of each tensor of floating numbers in a state dict, its names: several, if it is tied. Raises UserError."""
    by_tensor: dict[int, list[str]] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        if not tensor.is_floating_point():
            continue
        if tensor.dtype == torch.float64:
            raise UserError(f"{WHO}: {name} is float64, and weights are generated in float32: make it float32")
        by_tensor.setdefault(id(tensor), []).append(name)
    return {names[0]: tuple(names) for names in by_tensor.values()}


def _places(network: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """Of a tensor's names, one for each module that has it: functional_call would not put back what it swaps in twice."""
    owners = {
        (id(network.get_submodule(owner)), last): name for name in names for owner, _, last in [name.rpartition(".")]
    }
    return tuple(owners.values())


def _selected(network: nn.Module, names: Mapping[str, tuple[str, ...]], globs: Sequence[str]) -> list[str]:
    """First names of what is to be generated. Raises UserError for a glob that matches nothing."""
    every = [name for aliases in names.values() for name in aliases]
    for glob in globs:
        if not any(fnmatchcase(name, glob.removeprefix("-")) for name in every):
            pattern = glob.removeprefix("-")
            raise UserError(f"{WHO}: select: no tensor is called {pattern!r}{nearest(pattern, every)}")

    def matches(aliases: Sequence[str], out: bool) -> bool:
        asked = [glob.removeprefix("-") for glob in globs if glob.startswith("-") == out]
        return any(fnmatchcase(name, glob) for name in aliases for glob in asked)

    buffers = {name for name, _ in network.named_buffers(remove_duplicate=False)}
    asked = [first for first, aliases in names.items() if matches(aliases, out=False)]
    layers = {
        first.rpartition(".")[0] for first in asked if first not in buffers and not matches(names[first], out=True)
    }
    asked = {*asked, *(first for first in names if first in buffers and first.rpartition(".")[0] in layers)}
    chosen = [first for first, aliases in names.items() if first in asked and not matches(aliases, out=True)]
    if not chosen:
        raise UserError(f"{WHO}: select leaves nothing to generate")
    return chosen


@torch.no_grad()
def _fill(network: nn.Module, names: Mapping[str, tuple[str, ...]], chosen: Sequence[str], file: Path) -> list[str]:
    """Give the network a checkpoint's weights; the selected ones that it has not in this shape. Raises FileError."""
    given, state, missing = read_state(file), network.state_dict(), list[str]()
    for first, aliases in names.items():
        tensor = next((given[name] for name in aliases if name in given), None)
        if tensor is not None and tensor.shape == state[first].shape:
            state[first].copy_(tensor)
        elif first in chosen:
            missing.append(first)
        else:
            raise FileError(f"{file}: its tensors do not fit this architecture (the first that does not: {first})")
    if len(missing) == len(names):
        raise FileError(f"{file}: none of its tensors fits this architecture")
    for name, tensor in state.items():
        if not tensor.is_floating_point() and name in given and given[name].shape == tensor.shape:
            tensor.copy_(given[name])
    return missing


def _axes_in(texts: Sequence[str]) -> set[str]:
    return {axis for text in texts for axis in names_in(text)}
