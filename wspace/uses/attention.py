"""Which places of a picture speak for a class, by Grad-CAM (Selvaraju et al., 2017). Nothing is drawn here."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from wspace.interfaces import Layers, Target
from wspace.runs.run import Run
from wspace.support.errors import MissingPackage, UserError, nearest
from wspace.weights.files.network import Network

PLACES = 6  # on a side, that the map of the default layer has at least, if any stage's has


class Headed(nn.Module):
    """A backbone and one head on it: prepared pictures (M, 3, S, S) -> scores (M, K)."""

    def __init__(self, layers: Layers, target: Target, weights: Tensor, rms: Tensor, texts: Tensor):
        super().__init__()
        self.network, self.layers, self.target = layers.network, layers, target
        self.weights, self.rms, self.texts = weights, rms, texts

    def forward(self, x: Tensor) -> Tensor:
        features = self.layers.features(x).float() / self.rms  # (M, F)
        return self.target.logits(self.weights[None], features[None], self.texts[None])[0]


def find_layer(layers: Layers, pixels: np.ndarray, asked: str | None) -> str:
    """The layer asked for, else the last stage whose map of such a picture (1, S, S, 3) has `PLACES` places on a side.

    Small pictures leave the very last stage two or three places, which shows nothing. Raises UserError for a layer that
    there is not, or that gives no map.
    """
    if asked is not None:
        layer_names = [name for name, _ in layers.network.named_modules() if name]
        if asked not in layer_names:
            raise UserError(f"--layer {asked}: the backbone has no such layer{nearest(asked, layer_names)}")
        given = _given(layers, pixels, [asked])
        if asked not in given:
            raise UserError(f"--layer {asked}: the backbone does not call it by itself: name one that it is a part of")
        try:
            layers.maps(given[asked])
        except UserError as error:
            raise UserError(f"--layer {asked}: {error}: name one before the pooling") from error
        return asked
    sides = dict[str, int]()
    for name, values in _given(layers, pixels, layers.stages).items():
        with suppress(UserError):  # of one place: too late a stage for such pictures
            sides[name] = layers.maps(values).shape[2]
    if not sides:
        raise UserError("Grad-CAM: the backbone does not say which of its layers to look into: name a layer")
    fine = [name for name, side in sides.items() if side >= PLACES]
    return fine[-1] if fine else max(sides, key=lambda name: sides[name])


def _given(layers: Layers, pixels: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """What these layers give for pictures, in the order of the names."""
    outputs: dict[str, Any] = {}
    modules = dict(layers.network.named_modules())

    def kept(name: str) -> RemovableHandle:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
            outputs[name] = output

        return modules[name].register_forward_hook(hook)

    handles = [kept(name) for name in names]
    try:
        with torch.no_grad():
            layers.features(layers.prepare(pixels))
    finally:
        for handle in handles:
            handle.remove()
    return {name: outputs[name] for name in names if name in outputs}


def maps_of(model: Headed, layer: str, x: Tensor, labels: Tensor) -> np.ndarray:
    """What speaks for class labels[m] in picture m, (M, S, S) in [0, 1] (Selvaraju et al., 2017, eq. 1 and 2).

    Raises MissingPackage without the package grad-cam.
    """
    try:
        cam = importlib.import_module("pytorch_grad_cam")
        targets = importlib.import_module("pytorch_grad_cam.utils.model_targets")
    except ImportError as error:
        raise MissingPackage('Grad-CAM needs the package grad-cam: pip install "wspace[plots]"') from error
    chosen = dict(model.network.named_modules())[layer]
    # a copy: layers behind it may write into what it gives
    look = cam.GradCAM(model, [chosen], reshape_transform=lambda values: model.layers.maps(values).clone())
    try:
        with torch.enable_grad():
            # gradients start at the picture: the network itself is frozen, and stays so
            return look(x.clone().requires_grad_(), [targets.ClassifierOutputTarget(int(label)) for label in labels])
    finally:
        look.activations_and_grads.release()


@dataclass(frozen=True)
class Attention:
    """Where a network looks in one picture."""

    pixels: np.ndarray  # (S, S, 3) uint8, what it sees of the picture
    map: np.ndarray  # (S, S) in [0, 1]: what speaks for the class that it names


def attention(run: Run, network: Network, pictures: Sequence[str | Path], layer: str | None = None) -> list[Attention]:
    """Where a run's network looks in each of these pictures, for the class that it names.

    `layer` is a name of the backbone's `named_modules`; without it, the last of its stages that is fine enough. Raises
    DataError for a picture that cannot be read, MissingPackage without the package grad-cam, and UserError for a backbone
    that cannot be looked into.
    """
    layers, device = run.bench.backbone.layers(), run.bench.device
    pixels = np.stack([run.bench.dataset.open_picture(Path(picture)) for picture in pictures])  # (M, S, S, 3)
    layer = find_layer(layers, pixels[:1], layer)
    texts, rms = run.bench.encode_classes(network.classes).to(device), run.zoo.scale.rms.to(device)
    model, x = Headed(layers, run.target, run.flat(network)[0].to(device), rms, texts), layers.prepare(pixels)
    with torch.no_grad():
        named = model(x).argmax(1)  # (M,)
    return [Attention(*seen) for seen in zip(pixels, maps_of(model, layer, x, named), strict=True)]
