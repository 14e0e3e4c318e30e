"""LoRA: low-rank updates of some linear layers of a frozen network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from wspace.data.encoders.timm import fresh
from wspace.data.features import picture_shape
from wspace.interfaces import Target
from wspace.interfaces.weights import WeightSpec
from wspace.support.checkpoints import check_numbers, first_misfit, left_over, read_state, some_of
from wspace.support.errors import FileError, MissingPackage, UserError, nearest
from wspace.support.seeding import seeded, stream
from wspace.weights.batched import affine, uniform_by_fan_in
from wspace.weights.lowrank import lora_spec
from wspace.weights.modules import CosineScores, copy_of, pooled


class Lora(Target):
    """Adapters of the linear layers whose names match `modules`: W + alpha / rank · B A (Hu et al., 2021, section 4.1).

    The frozen network is one of three. `base: features`: a transformer of `depth` blocks that reads the backbone's features as
    tokens of `width`. `base: timm`: timm's `model`, fitted to the size of the pictures that `backbone: pixels` gives, its
    patches to `patch`. `base: transformers`: the model that save_pretrained wrote into the folder `file`, on such pictures
    too. The first two take their weights from `file`, if there is one, and else random ones from `seed`.

    Scores are temperature · cos(pooled output, text), texts brought to the output's width by a fixed random projection.
    Only products count: B M and M⁻¹ A are the same network for every invertible M (symmetry `gl`).
    """

    of_module: ClassVar[tuple[str, ...]] = ("base", "modules", "width", "heads", "model", "patch", "file")

    def __init__(
        self,
        base: Literal["features", "timm", "transformers"] = "features",
        modules: tuple[str, ...] = ("blocks.*",),
        rank: Annotated[int, Ge(1)] = 4,
        alpha: Annotated[float, Gt(0)] = 8.0,
        width: Annotated[int, Ge(1)] = 64,
        depth: Annotated[int, Ge(1)] = 2,
        heads: Annotated[int, Ge(1)] = 4,
        model: str = "test_vit",
        patch: Annotated[int, Ge(1)] | None = None,
        file: Path | None = None,
        temperature: Annotated[float, Gt(0)] = 20.0,
        seed: int = 0,
        *,
        feature_dim: int,
        text_dim: int,
    ):
        self.input_shape: tuple[int, ...] = (feature_dim,)
        if base != "features":
            self.input_shape = picture_shape(feature_dim, "target 'lora'", "`base: features`")
        if base == "features":
            if width % heads:
                raise UserError(f"target 'lora': width {width} is no multiple of heads {heads}")
            with seeded(seed):
                network = _with_weights(FeatureTransformer(feature_dim, width, depth, heads), file, "this transformer")
        elif base == "timm":
            self.base_model = model
            network = _with_weights(_timm(model, patch, self.input_shape[-1], seed), file, model)
        else:
            network = _transformers(file)
        self.network = network.eval().requires_grad_(False)
        self.layers = _matching(self.network, modules)
        shapes = {name: (layer.out_features, layer.in_features) for name, layer in self.layers.items()}
        self.spec: WeightSpec = lora_spec(shapes, rank, dict.fromkeys(shapes, alpha / rank))
        self.temperature = temperature
        pooled_dim = self._check()
        self.projection = _orthogonal(text_dim, pooled_dim, stream(seed, "lora projection"))  # (T, D)

    def init(self, count: int, rng: torch.Generator) -> Tensor:
        """As PEFT's own: A uniform in +-1/sqrt(in), B zero, so that a fresh adapter changes nothing."""
        drawn = {}
        for entry in self.spec.entries:
            fresh = torch.zeros(count, *entry.shape)
            if entry.name.endswith(".lora_A"):
                fresh = uniform_by_fan_in(count, entry.shape, entry.shape[1], rng)
            drawn[entry.name] = fresh
        return self.spec.flatten(drawn)

    def logits(self, weights: Tensor, features: Tensor, texts: Tensor) -> Tensor:
        count, images = features.shape[:2]
        with self._adapted(self.spec.unflatten(weights)):
            outputs = self._pooled(features.flatten(0, 1))  # (B M, D)
        outputs = functional.normalize(outputs.view(count, images, -1), dim=2)
        self.projection = self.projection.to(texts.device)  # and stays there
        directions = functional.normalize(texts @ self.projection.to(texts), dim=2)  # (B, K, D)
        return self.temperature * outputs @ directions.mT  # (B, M, K)

    @torch.no_grad()
    def frozen(self, weights: Tensor, texts: Tensor) -> CosineScores:
        """With the adapter merged into the network: W + scale · B A in place of each W."""
        tensors, network = self.spec.unflatten(weights), copy_of(self.network).to(weights)
        for product in self.spec.products:
            layer: Any = network.get_submodule(product.layer)
            layer.weight += product.scale * tensors[product.left] @ tensors[product.right]
        return CosineScores(network, self.input_shape, texts @ self.projection.to(texts), self.temperature)

    def _pooled(self, features: Tensor) -> Tensor:
        """(M, F) -> (M, D)."""
        return pooled(self.network.to(features)(features.view(-1, *self.input_shape)))

    @contextmanager
    def _adapted(self, tensors: Mapping[str, Tensor]) -> Iterator[set[str]]:
        """The network with these adapters: what goes through it is split evenly among them, in their order.

        Gives the names of the layers that have been called.
        """
        called: set[str] = set()

        def adapt(name: str, left: Tensor, right: Tensor, scale: float) -> RemovableHandle:
            def add(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
                called.add(name)
                x = inputs[0].reshape(len(left), -1, right.shape[2])  # (B, M tokens, in)
                return output + scale * affine(affine(x, right.mT), left.mT).view_as(output)

            return self.layers[name].register_forward_hook(add)

        hooks = [adapt(p.layer, tensors[p.left], tensors[p.right], p.scale) for p in self.spec.products]
        try:
            yield called
        finally:
            for hook in hooks:
                hook.remove()

    @torch.no_grad()
    def _check(self) -> int:
        """The output's width D. Raises UserError unless each layer is called as one, with images outermost."""
        rng = stream(0, "lora check")
        weights = self.init(2, rng) + 0.1 * torch.randn(2, self.spec.size, generator=rng)
        features = torch.randn(2, *self.input_shape, generator=rng).flatten(1)
        with self._adapted(self.spec.unflatten(weights)) as called:
            together = self._pooled(features)
        missed = [name for name in self.layers if name not in called]
        if missed:
            raise UserError(
                f"target 'lora': the network does not call its layer {missed[0]!r}: leave it out of modules"
            )
        for row in range(2):
            with self._adapted(self.spec.unflatten(weights[row : row + 1])):
                alone = self._pooled(features[row : row + 1])
            if not torch.allclose(together[row], alone[0], rtol=1e-3, atol=1e-3 * float(together.abs().max())):
                raise UserError(
                    "target 'lora': this network mixes the images of a batch: it cannot serve several adapters"
                )
        return together.shape[1]


class FeatureTransformer(nn.Module):
    """Features (M, F) as tokens of `width`, through a transformer (Dosovitskiy et al., 2021), to their mean (M, width)."""

    def __init__(self, feature_dim: int, width: int, depth: int, heads: int):
        super().__init__()
        self.width, self.count = width, -(-feature_dim // width)
        self.position = nn.Parameter(0.02 * torch.randn(1, self.count, width))
        self.blocks = nn.Sequential(*(Block(width, heads, mlp_ratio=2, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Tensor) -> Tensor:
        padded = functional.pad(features, (0, self.count * self.width - features.shape[1]))
        tokens = padded.unflatten(1, (self.count, self.width)) + self.position  # (M, N, width)
        return self.norm(self.blocks(tokens)).mean(1)


def _timm(model: str, patch: int | None, side: int, seed: int) -> nn.Module:
    options = {"img_size": side} if patch is None else {"img_size": side, "patch_size": patch}
    with seeded(seed):
        return fresh("target 'lora'", model, 0, **options)


def _with_weights(network: nn.Module, file: Path | None, who: str) -> nn.Module:
    """The network with a checkpoint's weights, if there is one; a classifier in it is left out. Raises FileError."""
    if file is None:
        return network
    expected, state = network.state_dict(), read_state(file)
    _check_unused(left_over(state, expected), file, who)
    check_numbers(file, state, expected)
    try:
        network.load_state_dict({name: tensor for name, tensor in state.items() if name in expected})
    except RuntimeError as error:
        raise FileError(f"{file}: its tensors do not fit {who}{first_misfit(error)}") from error
    return network


def _check_unused(unused: Sequence[str], where: Path, who: str) -> None:
    """Raises FileError if there are tensors of a checkpoint, other than a classifier's, that the network lacks."""
    if unused:
        raise FileError(f"{where}: its weights are of another network than {who}, which has no {some_of(unused)}")


def _transformers(folder: Path | None) -> nn.Module:
    if folder is None:
        raise UserError("target 'lora': `base: transformers` needs `file`, the folder that save_pretrained wrote")
    if not (folder / "config.json").is_file():
        raise FileError(f"{folder}: not a folder that save_pretrained wrote: it has no config.json")
    try:
        from transformers import AutoModel
    except ImportError as error:
        raise MissingPackage("target 'lora' needs transformers for this base: pip install \"wspace[lora]\"") from error

    def load(**options: Any) -> tuple[nn.Module, list[str]]:
        """The network, and which of its tensors the folder lacks."""
        try:
            network, report = AutoModel.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **options,
            )
        except (OSError, ValueError) as error:
            raise FileError(f"{folder}: transformers cannot read it: {str(error).splitlines()[0]}") from error
        misfits = sorted(name for name, *_ in report["mismatched_keys"])
        if misfits:
            raise FileError(f"{folder}: its weights do not fit its config.json (the first that does not: {misfits[0]})")
        _check_unused(left_over(sorted(report["unexpected_keys"]), ()), folder, "its config.json says")
        return network, sorted(report["missing_keys"])

    network, lacking = load()
    if lacking and all(name.startswith("pooler.") for name in lacking):
        # a network that was trained with a classifier was trained without a pooler
        network, lacking = load(add_pooling_layer=False)
    if lacking:
        raise FileError(f"{folder}: its weights lack {lacking[0]}, which its config.json asks for")
    return network


def _matching(network: nn.Module, globs: tuple[str, ...]) -> dict[str, nn.Linear]:
    """Layers by name. Raises UserError for a glob that no linear layer matches."""
    linear = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Linear)}
    if not globs:
        raise UserError("target 'lora': modules names no layer")
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in linear):
            raise UserError(f"target 'lora': no linear layer is called {glob!r}{nearest(glob, list(linear))}")
    return {name: layer for name, layer in linear.items() if any(fnmatchcase(name, glob) for glob in globs)}


def _orthogonal(rows: int, columns: int, rng: torch.Generator) -> Tensor:
    """(rows, columns) with orthonormal columns, or rows if these are fewer."""
    drawn = torch.randn(max(rows, columns), min(rows, columns), generator=rng)
    q = torch.linalg.qr(drawn).Q
    return q if rows >= columns else q.T
